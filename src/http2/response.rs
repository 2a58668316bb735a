//! A response of HTTP/1.1, as we write it, as the parts of one of HTTP/2.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::error::Refusal;
use crate::http1::chunked::Decoder;
use crate::http1::framing::{self, Body};
use crate::http1::parse::{self, Progress};
use crate::message::{Head, HeadView, Method};
use crate::snapshot::Limits;

/// Reads the text of one response, interim ones before it included, in whatever portions it comes.
pub struct ResponseReader {
    method: Method,
    head: Head,
    /// The beginning of a head that is not complete.
    begun: Vec<u8>,
    body: Option<BodyText>,
    trailers: Vec<u8>,
}

enum BodyText {
    Length(u64),
    Chunked(Box<Decoder>),
    UntilClose,
    Done,
}

/// A part of a response.
#[derive(Debug)]
pub enum Event {
    /// 1xx.
    Interim(Response<()>),
    /// The head of the final response; with `true` it is all of it.
    Head(Response<()>, bool),
    /// A portion of the body; with `true` the last.
    Data(Bytes, bool),
    /// The end, with trailers.
    Trailers(HeaderMap),
}

impl ResponseReader {
    /// For the response to a request with this method.
    pub fn new(method: Method) -> Self {
        Self { method, head: Head::default(), begun: Vec::new(), body: None, trailers: Vec::new() }
    }

    /// Whether the response may end here: it is complete, or goes on until we end it.
    pub fn may_end(&self) -> bool {
        matches!(self.body, Some(BodyText::Done | BodyText::UntilClose))
    }

    /// Whether all of it has been read.
    pub fn is_done(&self) -> bool {
        matches!(self.body, Some(BodyText::Done))
    }

    /// The parts that are in the next portion of the text.
    ///
    /// # Errors
    /// When it is no response.
    pub fn read(&mut self, mut text: &[u8], limits: &Limits) -> Result<Vec<Event>, Refusal> {
        let mut events = Vec::with_capacity(2);
        while self.body.is_none() && !text.is_empty() {
            match self.read_head(text, limits)? {
                Some((used, event)) => {
                    events.push(event);
                    text = &text[used..];
                }
                None => return Ok(events),
            }
        }
        if !text.is_empty() {
            self.read_body(text, limits, &mut events)?;
        }
        Ok(events)
    }

    fn read_head(
        &mut self,
        text: &[u8],
        limits: &Limits,
    ) -> Result<Option<(usize, Event)>, Refusal> {
        let before = self.begun.len();
        // Mostly a head is written in one piece; the rest is put together first.
        let joined = (before > 0).then(|| [&self.begun[..], text].concat());
        let block = joined.as_deref().unwrap_or(text);
        if parse::response(block, 0..block.len(), limits, &mut self.head)? == Progress::Partial {
            self.begun.extend_from_slice(text);
            return Ok(None);
        }
        let view = self.head.view(block);
        let framing = framing::response(view, self.method, false)?;
        let response = head_of(view)?;
        let used = self.head.len - before;
        self.begun = Vec::new();
        if response.status().is_informational() {
            self.head.clear();
            return Ok(Some((used, Event::Interim(response))));
        }
        let body = match framing.body {
            Body::None | Body::Length(0) => BodyText::Done,
            Body::Length(length) => BodyText::Length(length),
            Body::Chunked => BodyText::Chunked(Box::default()),
            Body::UntilClose => BodyText::UntilClose,
        };
        let ends = matches!(body, BodyText::Done);
        self.body = Some(body);
        Ok(Some((used, Event::Head(response, ends))))
    }

    fn read_body(
        &mut self,
        text: &[u8],
        limits: &Limits,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        match &mut self.body {
            Some(BodyText::UntilClose) => {
                events.push(Event::Data(Bytes::copy_from_slice(text), false));
            }
            Some(BodyText::Length(left)) => {
                let n = usize::try_from(*left).map_or(text.len(), |left| left.min(text.len()));
                *left -= n as u64;
                let ends = *left == 0;
                if ends {
                    self.body = Some(BodyText::Done);
                }
                events.push(Event::Data(Bytes::copy_from_slice(&text[..n]), ends));
            }
            Some(BodyText::Chunked(decoder)) => {
                let mut data = BytesMut::new();
                let trailers = &mut self.trailers;
                let step = decoder.decode_parts(
                    text,
                    limits,
                    |range| data.extend_from_slice(&text[range]),
                    |byte| trailers.push(byte),
                )?;
                let plain_end = step.done && trailers.is_empty();
                if plain_end || !data.is_empty() {
                    events.push(Event::Data(data.freeze(), plain_end));
                }
                if step.done {
                    self.body = Some(BodyText::Done);
                    if !plain_end {
                        events.push(Event::Trailers(trailers_of(&self.trailers)?));
                    }
                }
            }
            Some(BodyText::Done) | None => {}
        }
        Ok(())
    }
}

/// The head of a response without what belongs to a connection of HTTP/1.1.
fn head_of(view: HeadView<'_>) -> Result<Response<()>, Refusal> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(view.head.status).map_err(|_| UNSPEAKABLE)?;
    let fields = response.headers_mut();
    for (name, value) in view.fields() {
        let name = HeaderName::from_bytes(name).map_err(|_| UNSPEAKABLE)?;
        if !framing::is_of_connections(name.as_str()) {
            fields.append(name, HeaderValue::from_bytes(value).map_err(|_| UNSPEAKABLE)?);
        }
    }
    Ok(response)
}

/// The trailers in lines that the decoder has checked.
fn trailers_of(lines: &[u8]) -> Result<HeaderMap, Refusal> {
    let mut trailers = HeaderMap::new();
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let colon = memchr::memchr(b':', line).ok_or(UNSPEAKABLE)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| UNSPEAKABLE)?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        trailers.append(name, value.map_err(|_| UNSPEAKABLE)?);
    }
    Ok(trailers)
}

const UNSPEAKABLE: Refusal = Refusal::upstream("a response that cannot be said in HTTP/2");

#[cfg(test)]
mod tests {
    use super::*;

    /// What a response comes to when it is written in portions of `size`.
    fn read(method: Method, text: &str, size: usize) -> Result<String, &'static str> {
        let mut reader = ResponseReader::new(method);
        let (mut said, mut data) = (String::new(), String::new());
        for portion in text.as_bytes().chunks(size) {
            let events = reader.read(portion, &Limits::default()).map_err(|r| r.detail)?;
            for event in events {
                match event {
                    Event::Interim(response) => said += &format!("{} ", response.status()),
                    Event::Head(response, ends) => {
                        said +=
                            &format!("{} {:?} ", response.status().as_u16(), response.headers());
                        said += if ends { "end" } else { "" };
                    }
                    Event::Data(bytes, ends) => {
                        data += std::str::from_utf8(&bytes).unwrap();
                        data += if ends { " end" } else { "" };
                    }
                    Event::Trailers(fields) => data += &format!(" {fields:?}"),
                }
            }
        }
        assert_eq!(
            reader.is_done(),
            data.ends_with(" end") || data.ends_with('}') || data.is_empty()
        );
        Ok(said + &data)
    }

    #[test]
    fn responses_are_taken_apart_however_they_come() {
        let get = Method::Get;
        for (method, text, expected) in [
            (
                get,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                "200 {\"content-length\": \"2\"} hi end",
            ),
            (
                Method::Head,
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                "200 {\"content-length\": \"2\"} end",
            ),
            (
                get,
                "HTTP/1.1 204 No Content\r\nX-A: 1\r\nConnection: close\r\n\r\n",
                "204 {\"x-a\": \"1\"} end",
            ),
            (
                get,
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                "103 Early Hints 200 {\"content-length\": \"0\"} end",
            ),
            (
                get,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nhi\r\n3\r\n yo\r\n0\r\n\r\n",
                "200 {} hi yo end",
            ),
            (
                get,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
                "200 {} hi {\"x-sum\": \"7\"}",
            ),
            (
                get,
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n",
                "200 {}  {\"grpc-status\": \"0\"}",
            ),
        ] {
            for size in [1, 2, 7, 1000] {
                let found = read(method, text, size);
                assert_eq!(found.as_deref(), Ok(expected), "{size}: {text:?}");
            }
        }
    }
}
