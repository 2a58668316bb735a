//! Identifiers that travel with a request. Pure: no I/O, no clock.

mod request_id;

pub use request_id::RequestId;
