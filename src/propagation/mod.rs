//! Identifiers that travel with a request. Dry.

mod request_id;

pub use request_id::RequestId;
