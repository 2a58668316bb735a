//! Opaque streams and datagrams: TCP listeners, TLS passthrough, detection, captured UDP.

mod arrival;
#[cfg(feature = "uring")]
pub mod datagram;
pub mod sni;
pub mod sniff;
pub mod tcp;

pub use arrival::Arrival;
