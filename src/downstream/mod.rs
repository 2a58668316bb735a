//! Client connections, from accept to close. They call `serve` for each request.

pub mod captured;
pub mod connection;
pub mod http2;
pub mod http3;
mod outsider;
mod secure;
mod streams;
