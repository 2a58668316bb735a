//! gRPC-Web (PROTOCOL-WEB): the trailers are the last message of the body. In the text form, the
//! whole body is base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Kind;

/// The flag of the message with the trailers.
const TRAILERS_FLAG: u8 = 0x80;

/// Converts the content type `value` of a gRPC-Web request to that of gRPC.
pub fn content_type_to_grpc(value: &[u8], kind: Kind) -> Vec<u8> {
    [b"application/grpc", &value[kind.content_type().len()..]].concat()
}

/// Converts the content type `value` of a gRPC response to that of gRPC-Web, for a client of
/// `kind`.
pub fn content_type_to_web(value: &[u8], kind: Kind) -> Vec<u8> {
    let rest = value.get(b"application/grpc".len()..).unwrap_or_default();
    [kind.content_type().as_bytes(), rest].concat()
}

/// Decodes the base64 body of a request in text form, in parts of any size. The body may contain
/// padding in its middle, because clients encode each piece separately.
#[derive(Debug, Default)]
pub struct TextDecoder {
    /// The characters of an incomplete group of four (three bytes).
    group: Vec<u8>,
}

impl TextDecoder {
    /// Decodes the next part of the body.
    ///
    /// # Errors
    /// When `text` is not base64. The error is the detail of the refusal.
    pub fn take(&mut self, text: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
        for &letter in text {
            self.group.push(letter);
            if self.group.len() == 4 {
                STANDARD.decode_vec(&self.group, &mut out).map_err(|_| NOT_BASE64)?;
                self.group.clear();
            }
        }
        Ok(out)
    }

    /// Checks that the body is complete at its end.
    ///
    /// # Errors
    /// When the last group is incomplete. The error is the detail of the refusal.
    pub fn end(&self) -> Result<(), &'static str> {
        if self.group.is_empty() { Ok(()) } else { Err(NOT_BASE64) }
    }
}

const NOT_BASE64: &str = "the body of a gRPC-Web request is not base64";

/// Encodes the body of a response for a gRPC-Web client.
#[derive(Debug)]
pub struct Encoder {
    text: bool,
    /// The bytes of an incomplete group of three (four characters).
    group: Vec<u8>,
}

impl Encoder {
    /// Creates an encoder for a client of `kind`.
    pub fn new(kind: Kind) -> Self {
        Self { text: kind == Kind::WebText, group: Vec::new() }
    }

    /// Encodes the next part of the body.
    pub fn take(&mut self, data: &[u8]) -> Vec<u8> {
        if !self.text {
            return data.to_vec();
        }
        self.group.extend_from_slice(data);
        let whole = self.group.len() / 3 * 3;
        let out = STANDARD.encode(&self.group[..whole]).into_bytes();
        self.group.drain(..whole);
        out
    }

    /// Encodes the trailers as the last message.
    pub fn end(&mut self, trailers: &[u8]) -> Vec<u8> {
        let length = u32::try_from(trailers.len()).unwrap_or(u32::MAX);
        let message = [&[TRAILERS_FLAG], &length.to_be_bytes()[..], trailers].concat();
        let mut out = self.take(&message);
        out.extend_from_slice(STANDARD.encode(std::mem::take(&mut self.group)).as_bytes());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_and_encoded_however_it_is_split() {
        let text = "AAAAAAE=AAAAAAIBAg=="; // two pieces, the first with padding
        for size in [1, 3, 4, 100] {
            let mut decoder = TextDecoder::default();
            let portions = text.as_bytes().chunks(size).map(|portion| decoder.take(portion));
            let bytes = portions.collect::<Result<Vec<_>, _>>().unwrap().concat();
            assert_eq!(bytes, [0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 1, 2], "{size}");
            assert!(decoder.end().is_ok());
        }
        for broken in ["????", "AAA"] {
            let mut decoder = TextDecoder::default();
            let taken = decoder.take(broken.as_bytes());
            assert!(taken.is_err() || decoder.end().is_err(), "{broken}");
        }
        for size in [1, 2, 7] {
            let mut encoder = Encoder::new(Kind::WebText);
            let body = b"\0\0\0\0\x02hi";
            let mut out: Vec<u8> =
                body.chunks(size).flat_map(|portion| encoder.take(portion)).collect();
            out.extend(encoder.end(b"grpc-status: 0\r\n"));
            let decoded = STANDARD.decode(out).unwrap();
            assert_eq!(decoded, b"\0\0\0\0\x02hi\x80\0\0\0\x10grpc-status: 0\r\n", "{size}");
        }
        let mut encoder = Encoder::new(Kind::Web);
        assert_eq!(encoder.take(b"ab"), b"ab");
        assert_eq!(encoder.end(b"x: y\r\n"), b"\x80\0\0\0\x06x: y\r\n");
    }

    #[test]
    fn content_types_change_and_change_back() {
        for (web, grpc, kind) in [
            ("application/grpc-web", "application/grpc", Kind::Web),
            ("application/grpc-web+proto", "application/grpc+proto", Kind::Web),
            ("application/grpc-web-text+proto", "application/grpc+proto", Kind::WebText),
        ] {
            assert_eq!(content_type_to_grpc(web.as_bytes(), kind), grpc.as_bytes());
            assert_eq!(content_type_to_web(grpc.as_bytes(), kind), web.as_bytes());
        }
    }
}
