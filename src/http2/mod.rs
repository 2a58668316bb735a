//! HTTP/2 (RFC 9113): the state machine of a connection, and the streams that exchanges use.
//!
//! Nothing here does I/O or reads a clock. `core` is the state of a connection. It takes bytes and
//! the time, and makes frames. `inbound` reads the frames of streams, `outbound` writes frames,
//! `streams` has the states and windows, `meter` detects floods with the limits in `flood`, and
//! `frame` has the formats. The driver and the streams share a `connection`.
//!
//! Heads: `receive` converts a decoded header block to a [`Head`](crate::message::Head), `draft` is
//! a head that `http1::encode` writes, and `websocket` translates upgrades (RFC 8441). `stream` is
//! one stream of a connection. `shared` is a connection to an endpoint. `pulse` decides when to
//! send a PING and when to close a connection. `held` counts the bytes that wait to be written.
//! `downstream::http2` and `upstream::http2` drive connections through `wire::http2`.

mod connection;
mod core;
mod draft;
mod flood;
mod frame;
mod held;
mod inbound;
mod meter;
mod outbound;
mod pulse;
mod receive;
mod settings;
mod shared;
mod stream;
mod streams;
mod websocket;

pub use connection::{Accepted, Connection};
pub use core::{Config, End};
pub(crate) use draft::UNSPEAKABLE_UPGRADE;
pub use draft::{Draft, trailers};
pub use flood::{Excess, Flood, FloodLimits};
pub use frame::Code;
pub use held::held_bytes;
pub use meter::Peer;
pub use outbound::Sent;
pub use pulse::{Pulse, Seen, Step};
pub use receive::{Fault, Message, Place};
pub use settings::Settings;
pub use shared::{Shareable, SharedConnection, Slot};
pub(crate) use stream::accepted;
pub use stream::{ClientStream, EndpointStream, Gone};

/// The connection preface (RFC 9113 3.4). No HTTP/1.1 request can start like this.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The size of the HPACK table that a peer may use: the default of RFC 9113 6.5.2.
const TABLE_BYTES: usize = 4096;
