//! HTTP/2 (RFC 9113) as the rest of the proxy knows messages.
//!
//! `receive` makes a [`Head`](crate::message::Head) of what the `h2` crate has decoded; `draft`
//! is a head that `http1::encode` writes for the crate (`names` are those known beforehand);
//! `websocket` is what an upgrade is called on the other side (RFC 8441);
//! `pulse` says when a connection is asked whether it lives, and when it is left; `meter` when its
//! peer has gone too far (`frames` reads what passes, `flood` has the limits). They are dry.
//! `stream` is one stream of a connection, as an exchange reads (`incoming`) and writes it
//! (`outgoing`), and `held` counts what waits there; the frames of the connection and its flow
//! control are driven by `serve::http2`.

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

/// What every connection with prior knowledge begins with (RFC 9113 3.4), as far as no HTTP/1.1
/// request can.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
