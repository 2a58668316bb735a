//! What travels with a request: its id, and what proxies say about its client. Pure: no I/O, no
//! clock.

pub mod forwarded;
mod request_id;

pub use request_id::RequestId;
