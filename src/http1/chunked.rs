//! The chunked coding (RFC 9112 7.1): checks each byte and passes the body on unchanged.
//!
//! ```text
//! Size -> (SizeSpace -> Extension) -> SizeLf -> Data -> DataCr -> DataLf -> Size ...
//!   `-- size 0 --> SizeLf -> TrailerStart -> TrailerName -> TrailerValue -> TrailerLf -> ...
//!                                  `--> LastLf -> Done
//! ```

use std::ops::Range;

use crate::error::Refusal;
use crate::message::{Limits, is_token_byte};

/// Decoder state of a chunked body that arrives in parts.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// Remaining data bytes of the current chunk.
    left: u64,
    /// Whether the current chunk is the last one (size 0).
    last: bool,
    extension_bytes: usize,
    trailer_bytes: usize,
    /// The first bytes of the trailer field's name, in lower case.
    name: [u8; NAME_BYTES],
    name_len: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    FirstDigit,
    Size,
    SizeSpace,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

/// The result of decoding one part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How many bytes of the part belong to this body.
    pub consumed: usize,
    /// Whether the body is complete, trailers included.
    pub done: bool,
}

impl Decoder {
    /// Checks the next part of a body. The first `Step::consumed` bytes may be forwarded unchanged.
    ///
    /// # Errors
    /// 400 if the part is not valid chunked coding or exceeds `limits`. For an endpoint's body, the
    /// caller changes the status.
    pub fn decode(&mut self, bytes: &[u8], limits: &Limits) -> Result<Step, Refusal> {
        self.run(bytes, limits, |_| (), |_| ())
    }

    /// Like [`Decoder::decode`]; also reports the ranges of the data and the bytes of the trailer
    /// lines, without the empty line at the end.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn decode_parts(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        data: impl FnMut(Range<usize>),
        trailer: impl FnMut(u8),
    ) -> Result<Step, Refusal> {
        self.run(bytes, limits, data, trailer)
    }

    /// Like [`Decoder::decode`], but moves the data to the front of `bytes` and returns its length.
    ///
    /// # Errors
    /// As for [`Decoder::decode`].
    pub fn decode_data(
        &mut self,
        bytes: &mut [u8],
        limits: &Limits,
    ) -> Result<(Step, usize), Refusal> {
        let mut ranges = Vec::new();
        let step = self.run(bytes, limits, |range| ranges.push(range), |_| ())?;
        let mut kept = 0;
        for range in ranges {
            let len = range.len();
            bytes.copy_within(range, kept);
            kept += len;
        }
        Ok((step, kept))
    }

    fn run(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        mut data: impl FnMut(Range<usize>),
        mut trailer: impl FnMut(u8),
    ) -> Result<Step, Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            if self.state == State::Data {
                let n = usize::try_from(self.left)
                    .map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                data(at..at + n);
                self.left -= n as u64;
                at += n;
                if self.left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.state = self.next(bytes[at], limits)?;
            if matches!(self.state, State::TrailerName | State::TrailerValue | State::TrailerLf)
                || (self.state == State::TrailerStart && self.trailer_bytes > 0)
            {
                trailer(bytes[at]);
            }
            at += 1;
        }
        Ok(Step { consumed: at, done: self.state == State::Done })
    }

    /// Returns the state after a byte that is not data.
    fn next(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match self.state {
            State::FirstDigit
            | State::Size
            | State::SizeSpace
            | State::Extension
            | State::SizeLf => self.next_of_size(byte, limits),
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataLf if byte == b'\n' => Ok(State::FirstDigit),
            State::Data | State::DataCr | State::DataLf | State::Done => {
                Err(bad("a chunk is not followed by CR LF"))
            }
            _ => {
                self.trailer_bytes += 1;
                if self.trailer_bytes > limits.trailer_bytes {
                    return Err(bad("trailers larger than limits.trailer_bytes"));
                }
                self.next_of_trailer(byte)
            }
        }
    }

    fn next_of_size(&mut self, byte: u8, limits: &Limits) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::FirstDigit | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                if self.left >> 60 != 0 {
                    return Err(bad("a chunk size is too large"));
                }
                self.left = self.left << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (State::Size | State::Extension, b'\r') => Ok(State::SizeLf),
            (State::Size | State::SizeSpace, b';') => Ok(State::Extension),
            // White space may stand before an extension, but not alone (RFC 9112 7.1.1).
            (State::Size | State::SizeSpace, b'\t' | b' ') => {
                self.count_extension(limits)?;
                Ok(State::SizeSpace)
            }
            (State::Extension, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.count_extension(limits)?;
                Ok(State::Extension)
            }
            (State::SizeLf, b'\n') => {
                self.last = self.left == 0;
                Ok(if self.last { State::TrailerStart } else { State::Data })
            }
            (State::Extension, _) => Err(bad("a chunk extension has a forbidden character")),
            (State::SizeLf, _) => Err(bad("a chunk size line does not end in CR LF")),
            _ => Err(bad("a chunk size is not a hexadecimal number")),
        }
    }

    fn count_extension(&mut self, limits: &Limits) -> Result<(), Refusal> {
        self.extension_bytes += 1;
        match self.extension_bytes > limits.chunk_extension_bytes {
            true => Err(bad("chunk extensions larger than limits.chunk_extension_bytes")),
            false => Ok(()),
        }
    }

    fn next_of_trailer(&mut self, byte: u8) -> Result<State, Refusal> {
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            (State::TrailerStart | State::TrailerName, _) if is_token_byte(byte) => {
                if self.state == State::TrailerStart {
                    self.name_len = 0;
                }
                if let Some(place) = self.name.get_mut(self.name_len) {
                    *place = byte.to_ascii_lowercase();
                }
                self.name_len += 1;
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => {
                let name = self.name.get(..self.name_len).unwrap_or_default();
                if is_forbidden_trailer(name) {
                    return Err(bad("a trailer with a field that belongs in the head"));
                }
                Ok(State::TrailerValue)
            }
            (State::TrailerValue, b'\t' | 0x20..=0x7e | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            _ => Err(bad("the trailers are not well formed")),
        }
    }
}

/// Whether a field must not be in a trailer. `name` is in lower case.
pub fn is_forbidden_trailer(name: &[u8]) -> bool {
    FORBIDDEN_TRAILERS.contains(&name)
}

const fn bad(detail: &'static str) -> Refusal {
    Refusal::downstream(400, detail)
}

/// How many bytes of a trailer field's name are compared. No name in [`FORBIDDEN_TRAILERS`] is
/// longer.
const NAME_BYTES: usize = 32;

/// Fields that control framing, routing or authentication. In a trailer they are too late for this
/// proxy, but another server could still use them (RFC 9110 6.5.1).
const FORBIDDEN_TRAILERS: [&[u8]; 15] = [
    b"authorization",
    b"connection",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"cookie",
    b"expect",
    b"host",
    b"keep-alive",
    b"proxy-authorization",
    b"set-cookie",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes a body in parts of `size` bytes. Returns the consumed length and the data, or the
    /// refusal.
    fn feed(bytes: &[u8], size: usize) -> Result<(usize, Vec<u8>, bool), &'static str> {
        let limits = Limits { chunk_extension_bytes: 20, trailer_bytes: 60, ..Limits::default() };
        let (mut plain, mut checking) = (Decoder::default(), Decoder::default());
        let (mut consumed, mut data, mut done) = (0, Vec::new(), false);
        for portion in bytes.chunks(size) {
            let mut portion = portion.to_vec();
            let checked = checking.decode(&portion, &limits).map_err(|r| r.detail)?;
            let (step, kept) = plain.decode_data(&mut portion, &limits).map_err(|r| r.detail)?;
            assert_eq!(step, checked, "both ways agree");
            consumed += step.consumed;
            data.extend_from_slice(&portion[..kept]);
            done = step.done;
            if done {
                break;
            }
        }
        Ok((consumed, data, done))
    }

    #[test]
    fn bodies_are_followed_to_their_end_however_they_are_split() {
        for (text, data, rest) in [
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", 3),
            ("0\r\n\r\n", "", 0),
            ("00000000000000000\r\n\r\n", "", 0),
            ("1\r\na\r\nB\r\n0123456789a\r\n0\r\n\r\nxx", "a0123456789a", 2),
            ("5 ;a=b\r\nhello\r\n1 \t;c\r\na\r\n0\r\n\r\n", "helloa", 0),
            ("3;a=b;c\r\nabc\r\n0;z\r\nX-T: y\r\nEmpty:\r\n\r\n", "abc", 0),
        ] {
            for size in 1..=text.len() {
                let (consumed, got, done) = feed(text.as_bytes(), size).unwrap();
                assert!(done, "{text:?}");
                assert_eq!((got, consumed), (data.into(), text.len() - rest), "{text:?} by {size}");
            }
        }
    }

    #[test]
    fn an_incomplete_body_is_not_done() {
        let text = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for end in 0..text.len() {
            let (consumed, _, done) = feed(&text[..end], end.max(1)).unwrap();
            assert!(!done && consumed == end, "{end}");
        }
    }

    #[test]
    fn what_is_not_exactly_the_coding_is_refused() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1 a;x\r\na\r\n",
            "1 \r\r\na\r\n",
            " ;x\r\na\r\n",
            "1                      ;\r\na\r\n",
            "0x1\r\na\r\n",
            "1_0\r\n",
            "10000000000000000\r\n",
            "1\na\r\n",
            "1\r\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            ";a\r\n",
            "1;a\nb\r\na\r\n",
            "1;\0\r\na\r\n",
            "1;aaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: \0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nTRANSFER-ENCODING: chunked\r\n\r\n",
            "0\r\nHost: evil\r\n\r\n",
            "0\r\nLong: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n",
            "0\r\n\n",
        ] {
            for size in [1, 2, text.len()] {
                assert!(feed(text.as_bytes(), size).is_err(), "{text:?} by {size}");
            }
        }
    }
}
