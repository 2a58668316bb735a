//! Opaque streams and datagrams: TCP listeners, TLS and QUIC passed through, detection, captured
//! UDP.

mod arrival;
#[cfg(feature = "uring")]
pub mod datagram;
#[cfg(feature = "uring")]
mod opening;
#[cfg(feature = "uring")]
pub mod passed;
pub mod sni;
pub mod sniff;
pub mod tcp;

pub use arrival::Arrival;
