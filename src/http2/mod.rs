//! HTTP/2 (RFC 9113), translated to and from the proxy's own messages.
//!
//! Pure files (no I/O, no clock): `receive` converts a head that the `h2` crate has decoded to a
//! [`Head`](crate::message::Head). `draft` is a head that `http1::encode` writes for the crate,
//! with the prepared `names`. `websocket` translates upgrades (RFC 8441). `pulse` decides when to
//! send a PING and when to close a connection. `meter` detects floods; `frames` parses the bytes
//! for `meter`, and `flood` has the limits.
//!
//! Other files: `stream` is one stream of a connection, which an exchange reads (`incoming`) and
//! writes (`outgoing`). `held` counts the bytes that wait there. `downstream::http2` and
//! `upstream::http2` drive the frames and the flow control of a connection.

mod draft;
mod flood;
mod frames;
mod held;
mod incoming;
mod meter;
mod names;
mod outgoing;
mod pulse;
mod receive;
mod settings;
mod shared;
mod stream;
mod websocket;

pub use draft::{Draft, Outbound, Received, trailers};
pub use flood::{Excess, Flood, FloodLimits, calm_down};
pub use held::{Held, HeldBytes, held_bytes};
pub use meter::{Meter, Peer};
pub use outgoing::Sent;
pub use pulse::{Pulse, Seen, Step};
pub use receive::{request_head, response_head, trailer_lines};
pub use settings::Settings;
pub use shared::{SharedConnection, Slot};
pub use stream::{ClientStream, EndpointStream, Gone};

/// The connection preface (RFC 9113 3.4). No HTTP/1.1 request can start like this.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
