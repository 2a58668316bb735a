//! Decides which field lines an encoder keeps in its table.

/// The form of a field line (RFC 7541 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexing {
    /// The line is inserted into the table, so it takes a byte or two the next time.
    Table,
    /// The line is not inserted.
    Without,
    /// The line is not inserted, and later proxies must not insert it either. Its value is always
    /// sent as a literal.
    Never,
}

/// Returns the usual form of a line with this name.
///
/// The table helps with values that repeat in later messages of the connection. A value that does
/// not repeat costs both sides an entry, and removes another one. So a name whose values differ
/// between messages or clients is sent without the table. `date` changes only once a second, so it
/// is inserted. The `:path` of gRPC repeats too, but this function does not know which requests are
/// gRPC.
///
/// Credentials are never indexed: in a shared table, a client could guess those of another client
/// from the size of a request (RFC 7541 7.1.3).
#[must_use]
pub fn indexing(name: &[u8]) -> Indexing {
    use Indexing::{Never, Table, Without};
    let differs = match name.len() {
        2 => name == b"b3",
        3 => name == b"age",
        4 => name == b"etag",
        5 => matches!(name, b":path" | b"range"),
        6 if name == b"cookie" => return Never,
        7 => matches!(name, b"expires" | b"referer" | b"baggage"),
        8 => matches!(name, b"location" | b"if-match" | b"if-range"),
        9 => matches!(name, b"forwarded" | b"x-real-ip"),
        10 if name == b"set-cookie" => return Never,
        10 => matches!(name, b"tracestate" | b"x-trace-id" | b"x-amz-date"),
        11 => matches!(name, b"traceparent" | b"retry-after" | b"x-b3-spanid" | b"content-md5"),
        12 => {
            matches!(name, b"x-request-id" | b"grpc-timeout" | b"grpc-message" | b"x-b3-traceid")
        }
        13 if name == b"authorization" => return Never,
        13 => {
            matches!(name, b"content-range" | b"last-modified" | b"if-none-match")
                || matches!(name, b"uber-trace-id" | b"server-timing" | b"grpc-tags-bin")
        }
        14 => matches!(name, b"content-length" | b"content-digest" | b"grpc-trace-bin"),
        15 => matches!(name, b"x-forwarded-for" | b"x-amzn-trace-id" | b"idempotency-key"),
        16 => matches!(name, b"x-correlation-id" | b"content-location"),
        17 => matches!(name, b"if-modified-since" | b"x-b3-parentspanid"),
        18 => name == b"x-datadog-trace-id",
        19 if name == b"proxy-authorization" => return Never,
        19 => matches!(name, b"if-unmodified-since" | b"x-datadog-parent-id"),
        21 => name == b"x-cloud-trace-context",
        23 => name == b"grpc-status-details-bin",
        29 => name == b"x-envoy-upstream-service-time",
        _ => false,
    };
    if differs { Without } else { Table }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_usual_way() {
        use Indexing::{Never, Table, Without};
        let cases = [
            (":method", Table),
            (":authority", Table),
            (":status", Table),
            ("user-agent", Table),
            ("content-type", Table),
            ("date", Table),
            ("grpc-status", Table),
            ("x-custom", Table),
            ("", Table),
            (":path", Without),
            ("age", Without),
            ("etag", Without),
            ("b3", Without),
            ("range", Without),
            ("expires", Without),
            ("location", Without),
            ("x-real-ip", Without),
            ("tracestate", Without),
            ("traceparent", Without),
            ("x-request-id", Without),
            ("grpc-timeout", Without),
            ("grpc-message", Without),
            ("content-range", Without),
            ("last-modified", Without),
            ("if-none-match", Without),
            ("content-length", Without),
            ("x-forwarded-for", Without),
            ("x-correlation-id", Without),
            ("if-modified-since", Without),
            ("x-datadog-trace-id", Without),
            ("if-unmodified-since", Without),
            ("x-cloud-trace-context", Without),
            ("grpc-status-details-bin", Without),
            ("x-envoy-upstream-service-time", Without),
            ("cookie", Never),
            ("set-cookie", Never),
            ("authorization", Never),
            ("proxy-authorization", Never),
        ];
        for (name, wanted) in cases {
            assert_eq!(indexing(name.as_bytes()), wanted, "{name}");
            // Another name of the same length.
            let other = format!("_{}", name.get(1..).unwrap_or_default());
            assert_eq!(indexing(other.as_bytes()), Table, "{other}");
        }
    }
}
