//! One line for each exchange or L4 connection.

use std::net::SocketAddr;

use crate::cluster::Address;
use crate::error::Flag;
use crate::snapshot::LogFormat;

/// What is known of an exchange when it is over. No header that may carry a secret is in it.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When it began, microseconds since the Unix epoch.
    pub began_unix_us: u64,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The listener's name.
    pub listener: &'a str,
    /// The rule's name; empty when none matched.
    pub route: &'a str,
    /// The service's name; empty when none was chosen.
    pub service: &'a str,
    /// The endpoint that answered or was tried last.
    pub endpoint: Option<&'a Address>,
    /// Who connected (or whom the PROXY header named).
    pub peer: Option<SocketAddr>,
    /// The method; empty for an L4 connection.
    pub method: &'a [u8],
    /// Host and port the client asked for.
    pub authority: &'a [u8],
    /// The request target as received.
    pub target: &'a [u8],
    /// `HTTP/1.1`, `HTTP/1.0` or `TCP`.
    pub protocol: &'static str,
    /// The status sent; 0 when none was.
    pub status: u16,
    /// Why it did not go the ordinary way.
    pub flag: Option<Flag>,
    /// Which check refused; empty when none did.
    pub detail: &'a str,
    /// Body bytes (L4: all bytes) from the client.
    pub received_bytes: u64,
    /// Body bytes (L4: all bytes) to the client.
    pub sent_bytes: u64,
    /// The value of `x-request-id`.
    pub request_id: &'a [u8],
    /// The value of `user-agent`.
    pub user_agent: &'a [u8],
    /// The value of `x-forwarded-for` as received.
    pub forwarded_for: &'a [u8],
}

/// Appends one line.
pub fn write_line(_out: &mut Vec<u8>, _format: LogFormat, _record: &Record<'_>) {}
