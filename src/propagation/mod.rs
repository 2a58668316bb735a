//! Information that travels with a request: its id, and the reports of proxies about its client.
//! Pure: no I/O, no clock.

pub mod forwarded;
mod request_id;

pub use request_id::RequestId;
