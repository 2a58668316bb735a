//! Information that is forwarded with a request: the request id, and what proxies report about the
//! client. Pure: no I/O, no clock.

#[cfg(test)]
mod examples;
pub mod forwarded;
mod request_id;
pub mod trace;

pub use request_id::RequestId;
