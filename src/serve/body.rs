//! The body of a message while it is forwarded. Finds its end, and converts it to the framing of
//! the receiver.

use std::ops::Range;

use crate::error::Refusal;
use crate::grpc::{Encoder, Kind, MessageCounter, TextDecoder};
use crate::http1::chunked::Decoder;
use crate::http1::framing::Body;
use crate::message::Limits;
use crate::message::Version;
use crate::observe::BodyCopy;
use crate::runtime::buffer::Buf;

/// The progress of reading one body.
pub enum BodyProgress {
    /// The body has this many bytes left.
    Length(u64),
    /// The body is chunked (RFC 9112 7.1).
    Chunked(Box<Decoder>),
    /// The body ends when the connection closes.
    UntilClose,
    /// The body ends with its HTTP/2 stream.
    Stream,
    /// The body is complete.
    Done,
}

impl BodyProgress {
    /// The progress at the start of a body with the framing `body`.
    pub fn new(body: Body) -> Self {
        match body {
            Body::None | Body::Length(0) => Self::Done,
            Body::Length(length) => Self::Length(length),
            Body::Chunked => Self::Chunked(Box::default()),
            Body::UntilClose => Self::UntilClose,
            Body::Stream { .. } => Self::Stream,
        }
    }

    /// Processes the next portion. Returns the number of `bytes` that belong to the body.
    ///
    /// # Errors
    /// If the chunks are malformed or exceed `limits`.
    pub fn take(&mut self, bytes: &[u8], limits: &Limits) -> Result<usize, Refusal> {
        self.take_parts(bytes, limits, |_| (), |_| ())
    }

    /// Like [`BodyProgress::take`]. For a chunked body, also reports the ranges of its data and the
    /// bytes of its trailers.
    fn take_parts(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
        data: impl FnMut(Range<usize>),
        trailer: impl FnMut(u8),
    ) -> Result<usize, Refusal> {
        match self {
            Self::Done => Ok(0),
            Self::UntilClose | Self::Stream => Ok(bytes.len()),
            Self::Length(left) => {
                let taken = usize::try_from(*left).map_or(bytes.len(), |n| n.min(bytes.len()));
                self.passed(taken as u64);
                Ok(taken)
            }
            Self::Chunked(decoder) => {
                let step = decoder.decode_parts(bytes, limits, data, trailer)?;
                if step.done {
                    *self = Self::Done;
                }
                Ok(step.consumed)
            }
        }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Counts `n` bytes of a body of known length that were received.
    fn passed(&mut self, n: u64) {
        if let Self::Length(left) = self {
            *left = left.saturating_sub(n);
            if *left == 0 {
                *self = Self::Done;
            }
        }
    }
}

/// A body that is forwarded between peers that may use different HTTP versions.
pub struct BodyTransform {
    progress: BodyProgress,
    form: Form,
    /// The trailer lines to send separately from the body, each with its line end.
    trailers: Vec<u8>,
    /// The state of a gRPC call. `None` if the message belongs to no gRPC call.
    call: Option<CallBody>,
    /// The copy for taps that show bodies. `None` for almost all bodies.
    copy: Option<BodyCopy>,
}

/// The framing in which a body is forwarded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The framing is not changed.
    Same,
    /// A chunked body is forwarded without chunks.
    Data,
    /// A body without chunks is forwarded in chunks.
    Chunks,
}

/// The result of processing one portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The number of bytes that belonged to the body.
    pub consumed: usize,
    /// Whether the body is complete.
    pub last: bool,
}

impl BodyTransform {
    /// Creates the transform of a body with the framing `body`, for a peer with the HTTP version
    /// `to`.
    pub fn new(body: Body, to: Version) -> Self {
        let form = match (body, to) {
            (Body::Chunked, Version::Http10 | Version::Http2 | Version::Http3) => Form::Data,
            (Body::Stream { length: None }, Version::Http11) => Form::Chunks,
            _ => Form::Same,
        };
        let progress = BodyProgress::new(body);
        Self { progress, form, trailers: Vec::new(), call: None, copy: None }
    }

    /// Adds the state of a gRPC call. Its messages are counted, and its framing is converted
    /// between gRPC-Web and gRPC if needed.
    pub fn of_call(mut self, call: Option<CallBody>) -> Self {
        self.call = call;
        self
    }

    /// Copies the beginning of the body, as it is received and without chunk lines.
    pub fn copied_to(mut self, copy: Option<BodyCopy>) -> Self {
        self.copy = copy;
        self
    }

    /// The number of gRPC messages that have begun.
    pub fn messages(&self) -> u64 {
        self.call.as_ref().map_or(0, |call| call.messages)
    }

    /// Whether the body belongs to a gRPC call and ends after a complete message.
    pub fn ends_a_message(&self) -> bool {
        self.call.as_ref().is_some_and(|call| call.counter.is_between())
    }

    /// Processes a portion. Returns the part of `buf` that belongs to the body, in the framing of
    /// the receiver. `ended` has the trailer lines if the HTTP/2 stream of the body ends with this
    /// portion.
    ///
    /// # Errors
    /// If the chunks are malformed or exceed `limits`.
    pub fn take(
        &mut self,
        mut buf: Buf,
        ended: Option<Vec<u8>>,
        limits: &Limits,
    ) -> Result<(Buf, Taken), Refusal> {
        let mut ranges = Vec::new();
        let (progress, trailers) = (&mut self.progress, &mut self.trailers);
        let copy = self.copy.as_ref().filter(|copy| copy.has_room());
        let is_chunked = matches!(progress, BodyProgress::Chunked(_));
        let consumed = match self.form {
            Form::Same | Form::Chunks if copy.is_some() && is_chunked => {
                progress.take_parts(buf.data(), limits, |range| ranges.push(range), |_| ())?
            }
            Form::Same | Form::Chunks => progress.take(buf.data(), limits)?,
            Form::Data => {
                let data = |range| ranges.push(range);
                progress.take_parts(buf.data(), limits, data, |byte| trailers.push(byte))?
            }
        };
        match copy {
            Some(copy) if is_chunked => {
                ranges.iter().for_each(|range| copy.add(&buf.data()[range.clone()]));
            }
            Some(copy) => copy.add(&buf.data()[..consumed]),
            None => {}
        }
        match self.form {
            Form::Same | Form::Chunks => buf.truncate(consumed),
            Form::Data => keep_data(&mut buf, ranges),
        }
        if let (Some(lines), BodyProgress::Stream) = (ended, &self.progress) {
            self.progress = BodyProgress::Done;
            self.trailers = lines;
        }
        let last = self.is_done();
        if let Some(call) = &mut self.call {
            buf = call.take(buf, last.then_some(&mut self.trailers))?;
        }
        if self.form == Form::Chunks {
            buf = chunk(buf);
            if last {
                buf = buf.with(b"0\r\n").with(&self.trailers).with(b"\r\n");
            }
        }
        Ok((buf, Taken { consumed, last }))
    }

    /// The trailer lines to send after the last portion. Empty if they are a part of the body.
    pub fn trailers(&self) -> &[u8] {
        &self.trailers
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.progress.is_done()
    }

    /// Whether the body is complete if the peer closes the connection now.
    pub fn may_end(&self) -> bool {
        matches!(self.progress, BodyProgress::Done | BodyProgress::UntilClose)
    }

    /// The number of bytes that are left, which nobody needs to see. `None` for a body whose length
    /// is not known, or that is copied.
    pub fn opaque_bytes(&self) -> Option<u64> {
        match self.progress {
            BodyProgress::Length(left) if !self.copy.as_ref().is_some_and(BodyCopy::has_room) => {
                Some(left)
            }
            _ => None,
        }
    }

    /// Counts `n` bytes of the body that splice(2) has moved without this transform.
    pub fn passed(&mut self, n: u64) {
        self.progress.passed(n);
    }
}

/// The body of a gRPC call, in one direction.
pub struct CallBody {
    counter: MessageCounter,
    messages: u64,
    bridge: Option<Bridge>,
}

/// The conversion between the framings of gRPC-Web and gRPC.
enum Bridge {
    Decode(TextDecoder),
    Encode(Encoder),
}

impl CallBody {
    /// The state for the body of a request of this `kind`.
    pub fn request(kind: Kind) -> Self {
        let bridge = (kind == Kind::WebText).then(|| Bridge::Decode(TextDecoder::default()));
        Self { counter: MessageCounter::default(), messages: 0, bridge }
    }

    /// The state for the body of a response to a request of this `kind`.
    pub fn response(kind: Kind) -> Self {
        let bridge = kind.is_web().then(|| Bridge::Encode(Encoder::new(kind)));
        Self { counter: MessageCounter::default(), messages: 0, bridge }
    }

    /// Processes a portion. `end` has the trailer lines if this is the last portion.
    fn take(&mut self, buf: Buf, end: Option<&mut Vec<u8>>) -> Result<Buf, Refusal> {
        let bad = |detail| Refusal::downstream(400, detail);
        let bytes = match &mut self.bridge {
            None => {
                self.messages += self.counter.take(buf.data());
                return Ok(buf);
            }
            Some(Bridge::Decode(decoder)) => {
                let bytes = decoder.take(buf.data()).map_err(bad)?;
                if end.is_some() {
                    decoder.end().map_err(bad)?;
                }
                self.messages += self.counter.take(&bytes);
                bytes
            }
            Some(Bridge::Encode(encoder)) => {
                self.messages += self.counter.take(buf.data());
                let mut bytes = encoder.take(buf.data());
                if let Some(trailers) = end {
                    bytes.extend(encoder.end(&std::mem::take(trailers)));
                }
                bytes
            }
        };
        let mut changed = buf;
        changed.clear();
        Ok(changed.with(&bytes))
    }
}

/// Moves the data in `ranges` to the beginning of the buffer, so that the chunk lines are dropped.
fn keep_data(buf: &mut Buf, ranges: Vec<Range<usize>>) {
    let mut kept = 0;
    for range in ranges {
        let len = range.len();
        buf.data_mut().copy_within(range, kept);
        kept += len;
    }
    buf.truncate(kept);
}

/// Writes the data as one chunk. Empty data stays empty, because an empty chunk would end the body.
fn chunk(mut buf: Buf) -> Buf {
    use std::io::Write as _;
    if buf.is_empty() {
        return buf;
    }
    let mut line = [0; 20];
    let mut rest = &mut line[..];
    // The buffer is large enough: a length in hexadecimal has at most 16 digits.
    write!(rest, "{:x}\r\n", buf.len()).ok();
    let left = rest.len();
    let line = &line[..line.len() - left];
    let start = buf.window().start;
    if !buf.prepend_at(start, line) {
        buf = buf.behind(line);
    }
    buf.with(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::buffer::BufferPool;

    /// Converts all portions. Returns the resulting bytes and the separate trailers.
    fn passed(body: Body, to: Version, portions: &[(&str, Option<&str>)]) -> (String, String) {
        let pool = BufferPool::default();
        let mut passage = BodyTransform::new(body, to);
        let mut out = String::new();
        for (text, ended) in portions {
            let mut buf = pool.take();
            buf.append(text.as_bytes());
            let ended = ended.map(|lines| lines.as_bytes().to_vec());
            let (buf, _) = passage.take(buf, ended, &Limits::default()).unwrap();
            out += std::str::from_utf8(buf.data()).unwrap();
        }
        assert!(passage.is_done() || body == Body::UntilClose);
        (out, String::from_utf8(passage.trailers().to_vec()).unwrap())
    }

    #[test]
    fn bodies_change_their_form_with_the_version() {
        let stream = Body::Stream { length: None };
        let ended = [("hi", None), ("", None), (" yo", Some("x: 1\r\n"))];
        let chunks =
            [("2\r\nhi\r\n3\r", None), ("\n yo\r\n0\r\nx: 1\r", None), ("\n\r\nGET", None)];
        let (h10, h11, h2) = (Version::Http10, Version::Http11, Version::Http2);
        for (body, to, portions, out, trailers) in [
            (stream, h11, &ended[..], "2\r\nhi\r\n3\r\n yo\r\n0\r\nx: 1\r\n\r\n", "x: 1\r\n"),
            (stream, h2, &ended, "hi yo", "x: 1\r\n"),
            (stream, h10, &ended, "hi yo", "x: 1\r\n"),
            (Body::Stream { length: Some(5) }, h11, &ended, "hi yo", "x: 1\r\n"),
            (stream, h11, &[("", Some(""))], "0\r\n\r\n", ""),
            (Body::Chunked, h2, &chunks, "hi yo", "x: 1\r\n"),
            (Body::Chunked, h10, &chunks, "hi yo", "x: 1\r\n"),
            (Body::Chunked, h11, &chunks, "2\r\nhi\r\n3\r\n yo\r\n0\r\nx: 1\r\n\r\n", ""),
            (Body::Length(3), h2, &[("abcdef", None)], "abc", ""),
            (Body::UntilClose, h2, &[("abc", None), ("d", None)], "abcd", ""),
        ] {
            let expected = (out.to_owned(), trailers.to_owned());
            assert_eq!(passed(body, to, portions), expected, "{body:?} to {to:?}");
        }
    }
}
