//! Common field names that the `http` crate does not know. Without this table, the crate would
//! allocate each name again for each message.

use http::HeaderName;

use crate::message::is_named;

/// A prepared field name. See the module.
pub struct KnownName {
    /// The name.
    pub name: HeaderName,
    /// Whether its value differs in each message. HPACK must then never index it: the entry would
    /// never match again, would push useful entries out of the table, and would cost comparisons
    /// (RFC 7541 6.2.3).
    pub changes: bool,
}

/// Finds `name` in the table, in upper or lower case.
pub fn known(name: &[u8]) -> Option<&'static KnownName> {
    Some(match name.len() {
        10 if is_named(name, b"tracestate") => &TRACESTATE,
        11 if is_named(name, b"traceparent") => &TRACEPARENT,
        11 if is_named(name, b"grpc-status") => &GRPC_STATUS,
        12 if is_named(name, b"x-request-id") => &X_REQUEST_ID,
        12 if is_named(name, b"grpc-timeout") => &GRPC_TIMEOUT,
        12 if is_named(name, b"grpc-message") => &GRPC_MESSAGE,
        13 if is_named(name, b"grpc-encoding") => &GRPC_ENCODING,
        15 if is_named(name, b"x-forwarded-for") => &X_FORWARDED_FOR,
        17 if is_named(name, b"x-forwarded-proto") => &X_FORWARDED_PROTO,
        20 if is_named(name, b"grpc-accept-encoding") => &GRPC_ACCEPT_ENCODING,
        23 if is_named(name, b"x-forwarded-client-cert") => &X_FORWARDED_CLIENT_CERT,
        _ => return None,
    })
}

const fn stays(name: &'static str) -> KnownName {
    KnownName { name: HeaderName::from_static(name), changes: false }
}

const fn changes(name: &'static str) -> KnownName {
    KnownName { name: HeaderName::from_static(name), changes: true }
}

static X_REQUEST_ID: KnownName = changes("x-request-id");
static X_FORWARDED_FOR: KnownName = stays("x-forwarded-for");
static X_FORWARDED_PROTO: KnownName = stays("x-forwarded-proto");
static X_FORWARDED_CLIENT_CERT: KnownName = stays("x-forwarded-client-cert");
static TRACEPARENT: KnownName = changes("traceparent");
static TRACESTATE: KnownName = changes("tracestate");
static GRPC_TIMEOUT: KnownName = changes("grpc-timeout");
static GRPC_STATUS: KnownName = stays("grpc-status");
static GRPC_MESSAGE: KnownName = changes("grpc-message");
static GRPC_ENCODING: KnownName = stays("grpc-encoding");
static GRPC_ACCEPT_ENCODING: KnownName = stays("grpc-accept-encoding");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_under_its_length() {
        for known in [
            &X_REQUEST_ID,
            &X_FORWARDED_FOR,
            &X_FORWARDED_PROTO,
            &X_FORWARDED_CLIENT_CERT,
            &TRACEPARENT,
            &TRACESTATE,
            &GRPC_TIMEOUT,
            &GRPC_STATUS,
            &GRPC_MESSAGE,
            &GRPC_ENCODING,
            &GRPC_ACCEPT_ENCODING,
        ] {
            let shouted = known.name.as_str().to_ascii_uppercase();
            let found = super::known(shouted.as_bytes()).map(|found| found.name.as_str());
            assert_eq!(found, Some(known.name.as_str()));
        }
        assert!(known(b"x-request-ie").is_none());
    }
}
