//! Compression of the pages with gzip, for clients that accept it, as Prometheus does.

use std::io::{self, Write as _};

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body::Body as _;

use super::rendering::elsewhere;

/// A page of fewer bytes is not compressed.
const BYTES_MIN: u64 = 1024;

/// Compresses the answer if the client accepts that. A tap has no length, and is not held back.
pub(super) async fn compress(request: Request, next: Next) -> Response {
    let accepted = accepts_gzip(request.headers());
    let answer = next.run(request).await;
    let length = answer.body().size_hint().exact();
    if !accepted || length.is_none_or(|length| length < BYTES_MIN) {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let Ok(page) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let Some(Ok(packed)) = elsewhere(move || gzip(&page)).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    head.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(head, Body::from(packed))
}

/// The fastest level: a page of 100 000 series takes a few hundredths of a second, and a twentieth
/// of its size remains.
fn gzip(page: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(page)?;
    encoder.finish()
}

/// Whether the client accepts gzip: it names it, or `*`, and with no weight of 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let sent = headers.get_all(header::ACCEPT_ENCODING).iter();
    let parts = sent.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let (mut named, mut any) = (None, false);
    for part in parts {
        let (coding, parameters) = part.split_once(';').unwrap_or((part, ""));
        let weight = parameters.trim().strip_prefix("q=").map(|text| text.trim().parse::<f32>());
        let wanted = weight.is_none_or(|weight| weight.is_ok_and(|weight| weight > 0.0));
        match coding.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => named = Some(wanted),
            "*" => any = wanted,
            _ => {}
        }
    }
    named.unwrap_or(any)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn only_those_who_accept_gzip_get_it() {
        for (value, accepted) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("x-gzip", true),
            ("*", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("*;q=0", false),
            ("gzip; q=0.0", false),
            ("gzip;q=x", false),
            ("identity", false),
            ("br, zstd", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(accepts_gzip(&headers), accepted, "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_packed_page_is_the_page() {
        let page = "ringway_requests_total{service=\"shop\"} 7\n".repeat(1000);
        let packed = gzip(page.as_bytes()).unwrap();
        let mut read = String::new();
        GzDecoder::new(&packed[..]).read_to_string(&mut read).unwrap();
        assert!(read == page && packed.len() * 20 < page.len());
    }
}
