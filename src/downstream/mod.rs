//! Client connections, from accept to close: their drivers call `serve`.

pub mod captured;
pub mod connection;
pub mod http2;
mod secure;
