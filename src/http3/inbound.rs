//! Reads a message from a bidirectional stream (RFC 9114 4.1).

use super::code::{Code, Error, broken};
use super::flood::Flood;
use super::frame::{FrameHead, HeadReader, Kind};
use super::session::Session;
use crate::hpack::qpack::Outcome;
use crate::http2::{Fault, Message, Place};
use crate::message::{Method, Version};

/// A part of a message.
#[derive(Debug)]
pub enum Event<'a> {
    /// All bytes are read, and the message goes on.
    NeedMore,
    /// The head, interim or final. Its `fault` says whether it is refused.
    Head(Box<Message>),
    /// A part of the body.
    Data(&'a [u8]),
    /// The lines of the trailers, each with CR LF.
    Trailers(Vec<u8>),
    /// The message is complete.
    End,
    /// A section needs entries of the QPACK table that have not arrived. The driver feeds the rest
    /// of the bytes when [`Session::next_ready`] returns the stream.
    Blocked,
}

/// The part of a message that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    /// After the trailers.
    Trailed,
    /// The head was too large. The rest is skipped.
    Skipped,
}

/// The reader of one message.
#[derive(Debug)]
pub struct Inbound {
    stage: Stage,
    /// The method of the request. Known from the beginning for a response.
    method: Method,
    is_request: bool,
    /// Only DATA is allowed after the head of a CONNECT request (RFC 9114 4.4).
    is_tunnel: bool,
    head: HeadReader,
    frame: Option<Kind>,
    /// The bytes of the frame that have not arrived.
    left: u64,
    /// The beginning of a field section, or a section that is blocked.
    section: Vec<u8>,
    /// The bytes of DATA that content-length promises and that have not arrived.
    content_left: Option<u64>,
}

const END_IN_FRAME: Error = broken(Code::FRAME_ERROR, "a stream ends inside a frame");

const fn malformed(why: &'static str) -> Error {
    Error::Stream(Code::MESSAGE_ERROR, why)
}

impl Inbound {
    /// Creates the reader of a request.
    pub fn request() -> Self {
        Self::new(true, Method::default())
    }

    /// Creates the reader of the response to a `method` request.
    pub fn response(method: Method) -> Self {
        Self::new(false, method)
    }

    fn new(is_request: bool, method: Method) -> Self {
        Self {
            stage: Stage::Head,
            method,
            is_request,
            is_tunnel: false,
            head: HeadReader::default(),
            frame: None,
            left: 0,
            section: Vec::new(),
            content_left: None,
        }
    }

    /// The bytes of the body that content-length promises and that have not arrived. `None` if
    /// there is no content-length.
    pub const fn content_left(&self) -> Option<u64> {
        self.content_left
    }

    /// Reads the next part of the message from the front of `bytes`. `fin`: the stream ends after
    /// them. The driver calls it until it returns [`Event::NeedMore`], [`Event::Blocked`] or
    /// [`Event::End`]. It passes the bytes that were not taken again.
    ///
    /// # Errors
    /// When the stream must be reset, or the connection must be closed.
    pub fn feed<'a>(
        &mut self,
        session: &mut Session,
        stream: u64,
        bytes: &mut &'a [u8],
        fin: bool,
    ) -> Result<Event<'a>, Error> {
        loop {
            if self.stage == Stage::Skipped {
                *bytes = &[];
                return Ok(if fin { Event::End } else { Event::NeedMore });
            }
            let Some(kind) = self.frame else {
                if fin && bytes.is_empty() && !self.head.has_begun() {
                    return self.end();
                }
                let Some(head) = self.head.read(bytes) else {
                    return if fin { Err(END_IN_FRAME) } else { Ok(Event::NeedMore) };
                };
                if let Some(event) = self.begin(session, stream, head)? {
                    return Ok(event);
                }
                continue;
            };
            if kind == Kind::Headers {
                return self.feed_section(session, stream, bytes, fin);
            }
            let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (part, rest) = bytes.split_at(len);
            *bytes = rest;
            self.left -= len as u64;
            if self.left == 0 {
                self.frame = None;
            } else if fin && rest.is_empty() {
                return Err(END_IN_FRAME);
            }
            if kind == Kind::Data && len > 0 {
                return Ok(Event::Data(part));
            }
            if self.left > 0 {
                return Ok(Event::NeedMore);
            }
        }
    }

    /// Checks the header of a frame.
    fn begin<'a>(
        &mut self,
        session: &mut Session,
        stream: u64,
        head: FrameHead,
    ) -> Result<Option<Event<'a>>, Error> {
        let unexpected = |why| Err(broken(Code::FRAME_UNEXPECTED, why));
        let FrameHead { kind, payload_bytes } = head;
        match (kind, self.stage) {
            (Kind::Data, Stage::Body) => {
                if payload_bytes == 0 {
                    session.meter.charge(Flood::EmptyFrames, 1)?;
                }
                if let Some(left) = &mut self.content_left {
                    *left = left
                        .checked_sub(payload_bytes)
                        .ok_or(malformed("the body is longer than content-length"))?;
                }
            }
            (Kind::Data, Stage::Head) => return unexpected("DATA before the head of a message"),
            (Kind::Data, _) => return unexpected("DATA after the trailers"),
            (Kind::Headers, Stage::Trailed) => return unexpected("HEADERS after the trailers"),
            (Kind::Headers, _) if self.is_tunnel => return unexpected("HEADERS in a tunnel"),
            (Kind::Headers, stage) => {
                if stage == Stage::Head && self.is_request {
                    session.opened(stream);
                }
                if payload_bytes > session.limits.header_bytes as u64 {
                    return self.skip(session, stream).map(Some);
                }
            }
            (Kind::PushPromise, _) if !self.is_request => {
                // We never send MAX_PUSH_ID.
                return Err(broken(Code::ID_ERROR, "a push that was not allowed"));
            }
            (Kind::Other, _) => session.meter.charge(Flood::OtherFrames, 1)?,
            _ => return unexpected("a frame that is not allowed on the stream of a message"),
        }
        self.frame = Some(kind);
        self.left = payload_bytes;
        if kind != Kind::Headers && payload_bytes == 0 {
            self.frame = None;
        }
        Ok(None)
    }

    /// Gives up a section that is larger than `limits.header_bytes` even before it is decoded.
    fn skip<'a>(&mut self, session: &mut Session, stream: u64) -> Result<Event<'a>, Error> {
        session.decoder.cancel(stream);
        if self.stage == Stage::Body {
            return Err(Error::Stream(Code::EXCESSIVE_LOAD, "the trailers are too large"));
        }
        self.stage = Stage::Skipped;
        let mut message = Message::new(self.place(), Version::Http3, &session.limits);
        message.fault = Some(Fault::TooLarge);
        message.finish(false, &session.limits);
        Ok(Event::Head(Box::new(message)))
    }

    const fn place(&self) -> Place {
        match (self.stage, self.is_request) {
            (Stage::Head | Stage::Skipped, true) => Place::Request,
            (Stage::Head | Stage::Skipped, false) => Place::Response,
            (Stage::Body | Stage::Trailed, _) => Place::Trailers,
        }
    }

    /// Reads the payload of HEADERS. A section that comes whole is not copied.
    fn feed_section<'a>(
        &mut self,
        session: &mut Session,
        stream: u64,
        bytes: &mut &'a [u8],
        fin: bool,
    ) -> Result<Event<'a>, Error> {
        let left = self.left as usize; // at most `limits.header_bytes`
        let (part, rest) = bytes.split_at(left.min(bytes.len()));
        *bytes = rest;
        self.left -= part.len() as u64;
        let ends = fin && rest.is_empty();
        if self.left > 0 {
            self.section.extend_from_slice(part);
            return if ends { Err(END_IN_FRAME) } else { Ok(Event::NeedMore) };
        }
        let event = if self.section.is_empty() {
            let event = self.decode(session, stream, part, ends)?;
            if event.is_none() {
                self.section.extend_from_slice(part);
            }
            event
        } else {
            let mut section = std::mem::take(&mut self.section);
            section.extend_from_slice(part);
            let event = self.decode(session, stream, &section, ends)?;
            if event.is_none() {
                self.section = section;
            }
            event
        };
        match event {
            None => Ok(Event::Blocked),
            Some(event) => {
                self.frame = None;
                Ok(event)
            }
        }
    }

    /// Decodes a section. `None` if it is blocked.
    fn decode<'a>(
        &mut self,
        session: &mut Session,
        stream: u64,
        section: &[u8],
        ends: bool,
    ) -> Result<Option<Event<'a>>, Error> {
        let place = self.place();
        let mut message = Message::new(place, Version::Http3, &session.limits);
        match session.decoder.decode(stream, section, &mut message)? {
            Outcome::Done => {
                session.meter.section();
                session.check_answers()?;
            }
            Outcome::Blocked => return Ok(None),
        }
        if message.is_way_too_large() {
            return Err(session.meter.excess(Flood::HeaderBytes).into());
        }
        message.finish(ends, &session.limits);
        if let Some(Fault::Malformed(why)) = message.fault {
            return Err(malformed(why));
        }
        match place {
            Place::Request => self.on_request(message, ends).map(Some),
            Place::Response => self.on_response(message, ends).map(Some),
            Place::Trailers => self.on_trailers(message).map(Some),
        }
    }

    fn on_request<'a>(&mut self, message: Message, ends: bool) -> Result<Event<'a>, Error> {
        self.stage = Stage::Body;
        self.method = message.head.method;
        self.is_tunnel = self.method == Method::Connect || message.is_websocket();
        self.content_left = message.content_length.filter(|_| !self.is_tunnel);
        if ends && self.content_left.is_some_and(|left| left > 0) {
            return Err(malformed("the body is shorter than content-length"));
        }
        Ok(Event::Head(Box::new(message)))
    }

    fn on_response<'a>(&mut self, message: Message, ends: bool) -> Result<Event<'a>, Error> {
        let status = message.head.status;
        let interim = (100..200).contains(&status) && message.fault.is_none();
        if interim {
            return match ends {
                true => Err(malformed("the response ends after an interim head")),
                false => Ok(Event::Head(Box::new(message))),
            };
        }
        self.stage = Stage::Body;
        self.is_tunnel = self.method == Method::Connect && (200..300).contains(&status);
        let is_bodiless = self.method == Method::Head || matches!(status, 204 | 304);
        self.content_left = message.content_length.filter(|_| !is_bodiless && !self.is_tunnel);
        if ends && self.content_left.is_some_and(|left| left > 0) {
            return Err(malformed("the body is shorter than content-length"));
        }
        Ok(Event::Head(Box::new(message)))
    }

    fn on_trailers<'a>(&mut self, message: Message) -> Result<Event<'a>, Error> {
        match message.fault {
            Some(Fault::TooLarge) => {
                return Err(Error::Stream(Code::EXCESSIVE_LOAD, "the trailers are too large"));
            }
            Some(Fault::Refused(refusal)) => return Err(malformed(refusal.detail)),
            Some(Fault::Malformed(why)) => return Err(malformed(why)),
            None => {}
        }
        if self.content_left.is_some_and(|left| left > 0) {
            return Err(malformed("the body is shorter than content-length"));
        }
        self.stage = Stage::Trailed;
        Ok(Event::Trailers(message.text))
    }

    /// The stream has ended between two frames.
    fn end<'a>(&self) -> Result<Event<'a>, Error> {
        match self.stage {
            Stage::Head if self.is_request => {
                let why = "the stream ends before the request is complete";
                Err(Error::Stream(Code::REQUEST_INCOMPLETE, why))
            }
            Stage::Head => Err(malformed("the stream ends without a response")),
            _ if self.content_left.is_some_and(|left| left > 0) => {
                Err(malformed("the body is shorter than content-length"))
            }
            _ => Ok(Event::End),
        }
    }
}
