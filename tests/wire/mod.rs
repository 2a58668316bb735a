//! The proxy as a process, with real sockets and real peers on loopback.

mod ca;
mod commands;
mod handshakes;
mod heads;
mod health;
mod http2;
mod http2_attacks;
mod http2_drain;
mod http2_endpoints;
mod http2_pairs;
mod http2_real;
mod identity;
mod interop;
mod jwt;
mod keep_alive;
mod mesh;
mod misbehaving;
mod operating;
mod proxying;
mod real_peers;
mod reload;
mod secrets;
mod tcp;
mod terms;
mod tls;
mod tunnels;
