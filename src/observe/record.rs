//! The values of an exchange that has ended.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::headers::HeaderCopy;
use crate::error::Flag;
use crate::net::Address;

/// The values of an exchange or L4 connection that has ended. Header fields that may contain a
/// secret are only among the copies for filters.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The start time, in microseconds since the Unix epoch.
    pub began_unix_us: u64,
    /// The duration in microseconds.
    pub duration_us: u64,
    /// The time from the beginning of the last attempt to the head of its response, in
    /// microseconds. `None` if no endpoint was tried.
    pub endpoint_duration_us: Option<u64>,
    /// The number of attempts at endpoints.
    pub attempts: u32,
    /// The name of the listener.
    pub listener: &'a str,
    /// The name of the rule. Empty if no rule matched.
    pub route: &'a str,
    /// The file and line of the rule. Empty if no rule matched.
    pub place: &'a str,
    /// The name of the service. Empty if there is none.
    pub service: &'a str,
    /// The endpoint that responded, or that was tried last. `None` if no endpoint was tried.
    pub endpoint: Option<&'a Address>,
    /// The client's address from the socket, or from a PROXY header.
    pub peer: Option<SocketAddr>,
    /// The client's address for policies: the one that trusted proxies report, or else `peer`.
    pub client: Option<IpAddr>,
    /// The original destination of a captured connection. `None` if the connection was not
    /// captured.
    pub original: Option<SocketAddr>,
    /// The client's SPIFFE ID. Empty if there is none.
    pub identity: &'a str,
    /// The authorization rule or rate limit that denied the exchange. Empty if none denied it.
    pub policy: &'a str,
    /// How many lines of requests that the same rate limit refused were left out before this one.
    pub suppressed: u64,
    /// The method. Empty means an L4 connection.
    pub method: &'a [u8],
    /// The host and port of the request.
    pub authority: &'a [u8],
    /// The target of the request, as it was received.
    pub target: &'a [u8],
    /// The path of the request, without its query.
    pub path: &'a [u8],
    /// `HTTP/2`, `HTTP/1.1`, `HTTP/1.0` or `TCP`.
    pub protocol: &'static str,
    /// The scheme of the client's connection: `http` or `https`.
    pub scheme: &'static str,
    /// The status that was sent to the client. 0 if none was sent.
    pub status: u16,
    /// Whether the request opened a tunnel: CONNECT, or an upgrade such as a WebSocket.
    pub tunnel: bool,
    /// Whether the exchange has failed.
    pub failed: bool,
    /// The status of a gRPC call. `None` if the request is not a gRPC call.
    pub grpc_status: Option<u8>,
    /// Whether the exchange began with an injected delay. It gets the flag DI in addition to
    /// `flag`.
    pub delayed: bool,
    /// The response flag. `None` if there is none.
    pub flag: Option<Flag>,
    /// The reason of the flag. Empty if there is no flag.
    pub detail: &'a str,
    /// The beginning of the body of the request, for taps. Empty if none asks for it.
    pub request_body: &'a [u8],
    /// The beginning of the body of the response of an endpoint, for taps.
    pub response_body: &'a [u8],
    /// Whether the copies of these bodies have ended early, for want of room.
    pub bodies_ended: [bool; 2],
    /// Body bytes (L4: all bytes) from the client.
    pub received_bytes: u64,
    /// Body bytes (L4: all bytes) to the client.
    pub sent_bytes: u64,
    /// The value of `x-request-id`.
    pub request_id: &'a [u8],
    /// The value of `user-agent`.
    pub user_agent: &'a [u8],
    /// The value of `x-forwarded-for`, as it was received.
    pub forwarded_for: &'a [u8],
    /// The id of the trace. Empty if there is none.
    pub trace_id: &'a str,
    /// Copies of fields of the request, for filters and formats.
    pub request_headers: Option<&'a HeaderCopy>,
    /// Copies of fields of the response, for filters and formats.
    pub response_headers: Option<&'a HeaderCopy>,
}

impl Record<'_> {
    /// The response flags in Envoy's form: `-` if there is none, and commas between several.
    pub fn flags(&self) -> Cow<'static, str> {
        let flag = self.flag.map(Flag::letters);
        match (self.delayed, flag) {
            (false, flag) => flag.unwrap_or("-").into(),
            (true, None) => Flag::DelayInjected.letters().into(),
            (true, Some(flag)) => format!("{},{flag}", Flag::DelayInjected.letters()).into(),
        }
    }

    /// Whether the exchange has the response flag `letters`.
    pub fn has_flag(&self, letters: &[u8]) -> bool {
        let delayed = self.delayed.then_some(Flag::DelayInjected);
        self.flag.into_iter().chain(delayed).any(|flag| flag.letters().as_bytes() == letters)
    }

    /// The value of a field of the request.
    pub fn request_header(&self, name: &str) -> Option<&[u8]> {
        self.request_headers.and_then(|copy| copy.value(name))
    }

    /// The value of a field of the response.
    pub fn response_header(&self, name: &str) -> Option<&[u8]> {
        self.response_headers.and_then(|copy| copy.value(name))
    }
}
