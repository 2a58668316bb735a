//! The proxy as a process, with real sockets and real peers on loopback.

mod keep_alive;
mod misbehaving;
mod proxying;
mod real_peers;
mod reload;
mod tcp;
