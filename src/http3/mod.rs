//! HTTP/3 (RFC 9114): the state machines of a connection and of the messages on its streams.
//!
//! Nothing here does I/O or reads a clock. A [`Session`] is the state of a connection: its
//! SETTINGS, GOAWAY, QPACK tables and limits. The driver gives it the bytes of the peer's
//! unidirectional streams, and takes the bytes of ours. An [`Inbound`] reads one message from a
//! bidirectional stream. The session writes a [`Draft`](crate::http2::Draft) as a frame.
//!
//! `frame` has the integers and frame headers, `code` the error codes, `settings` the SETTINGS, and
//! `flood` the limits. `unidirectional` reads the peer's streams of the connection. Heads are the
//! same as in HTTP/2 ([`Message`](crate::http2::Message)).

mod alt_svc;
mod code;
mod connection;
mod ending;
mod endpoint_stream;
mod flood;
mod frame;
mod inbound;
mod opening;
mod priority;
mod session;
mod settings;
mod stream;
mod stream_ref;
mod streams;
mod unidirectional;

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod tests;

pub use alt_svc::{AltSvc, alt_svc, seconds};
pub use code::{Code, ConnectionError, Error};
pub use connection::{Accepted, Connection, End};
pub use endpoint_stream::EndpointStream;
pub use flood::{Excess, Flood, FloodLimits};
pub use frame::{VARINT_MAX, read_varint, write_varint};
pub use inbound::{Event, Inbound};
pub use session::{Config, Outputs, Session};
pub use stream::ClientStream;
pub use unidirectional::Uni;
