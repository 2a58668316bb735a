//! Handles received frames of streams (RFC 9113 5.1, 6, 8.1).

use super::core::{Core, Failure, OpenBlock, frame_size, protocol};
use super::flood::Flood;
use super::frame::{Code, END_HEADERS, END_STREAM, FrameHead, PRIORITY, number};
use super::meter::Peer;
use super::receive::{Fault, Message, Place};
use super::streams::{Cut, Half, Stream, WINDOW_BYTES, WINDOW_BYTES_MAX, wake};
use crate::message::Version;

/// The maximum number of heads of one response that wait for the exchange. All but the last are
/// interim responses.
const HEADS_MAX: usize = 64;

/// The error for a frame that arrived after the end of its stream.
fn closed() -> Failure {
    Failure::Protocol(Code::STREAM_CLOSED, "a frame arrived on a closed stream")
}

impl Core {
    /// Whether the stream was never opened (RFC 9113 5.1).
    fn is_idle(&self, id: u32) -> bool {
        let is_of_clients = !id.is_multiple_of(2);
        match self.peer {
            Peer::Client => !is_of_clients || id > self.last_stream,
            Peer::Endpoint => !is_of_clients || id >= self.next_stream,
        }
    }

    /// Whether frames of the stream are ignored: we have reset the stream, or our final GOAWAY
    /// excludes it.
    fn is_ignored(&self, id: u32) -> bool {
        self.reset.contains(&id) || self.is_after_last(id)
    }

    /// Whether the stream is newer than the last one that our final GOAWAY accepts.
    fn is_after_last(&self, id: u32) -> bool {
        matches!(self.leaving, super::core::Leaving::After(last) if id > last)
    }

    pub(super) fn on_data(
        &mut self,
        head: FrameHead,
        content: &[u8],
        payload_bytes: usize,
    ) -> Result<(), Failure> {
        let id = head.stream;
        if self.is_idle(id) && !self.is_after_last(id) {
            return Err(protocol("DATA on an idle stream"));
        }
        if !self.receive_window.take(payload_bytes) {
            let why = "DATA exceeds the window of the connection";
            return Err(Failure::Protocol(Code::FLOW_CONTROL_ERROR, why));
        }
        let ignored = self.is_ignored(id);
        let taken = match self.streams.get_mut(id) {
            Some(stream) if stream.cut.is_some_and(|cut| cut.is_by_us() || ignored) => Ok(()),
            Some(stream) if stream.cut.is_some() => Err(closed()),
            Some(stream) => match stream.receiving {
                Half::Head => Err(protocol("DATA before the head of a response")),
                Half::Ended => Err(closed()),
                Half::Body => {
                    let end = head.has(END_STREAM);
                    match take_data(stream, content, payload_bytes, end) {
                        Ok(()) => {
                            self.unread += content.len();
                            let overhead = stream.inbox.overhead_bytes();
                            self.meter.overhead(overhead).map_err(Failure::from)
                        }
                        Err(code) => self.breach(id, code),
                    }
                }
            },
            None if ignored => Ok(()),
            // The stream has ended. A stream error does not affect the other streams.
            None => self.send_reset(id, Code::STREAM_CLOSED),
        };
        self.streams.forget_if_over(id);
        self.refill_connection();
        taken
    }

    /// Sends WINDOW_UPDATE for the connection as soon as bytes arrive, so that an unread stream
    /// does not block the others. Grants less if the unread bytes exceed the initial windows of all
    /// streams.
    pub(super) fn refill_connection(&mut self) {
        let allowance = WINDOW_BYTES as usize * self.settings.streams_max as usize;
        let refill = self.receive_window.refill(self.unread.saturating_sub(allowance));
        if refill > 0 {
            self.out.window_update(0, refill);
        }
    }

    pub(super) fn on_headers(&mut self, head: FrameHead, content: &[u8]) -> Result<(), Failure> {
        let (stream, ends) = (head.stream, head.has(END_STREAM));
        let mut fragment = content;
        if head.has(PRIORITY) {
            let (priority, rest) = content
                .split_first_chunk::<5>()
                .ok_or(frame_size("HEADERS ends inside its priority"))?;
            if number(priority) & 0x7fff_ffff == stream {
                return Err(protocol("a stream depends on itself"));
            }
            fragment = rest;
        }
        if head.has(END_HEADERS) {
            return self.on_block(stream, ends, fragment);
        }
        self.block = Some(Box::new(OpenBlock { stream, ends, bytes: fragment.to_vec() }));
        Ok(())
    }

    pub(super) fn on_continuation(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let mut block = self.block.take().ok_or(protocol("CONTINUATION without HEADERS"))?;
        block.bytes.extend_from_slice(payload);
        if head.has(END_HEADERS) {
            return self.on_block(block.stream, block.ends, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// Decodes a header block. Even an ignored block must be decoded, because later blocks need its
    /// table entries.
    fn decode(&mut self, place: Place, ends: bool, block: &[u8]) -> Result<Message, Failure> {
        let mut message = Message::new(place, Version::Http2, &self.limits);
        self.decoder
            .decode(block, &mut message)
            .map_err(|error| Failure::Protocol(Code::COMPRESSION_ERROR, error.what()))?;
        if message.is_way_too_large() {
            return Err(Failure::Flood(self.meter.excess(Flood::HeaderBytes)));
        }
        message.finish(ends, &self.limits);
        Ok(message)
    }

    fn on_block(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Failure> {
        let Some(stream) = self.streams.get(id) else {
            return match self.peer {
                Peer::Client => self.on_request(id, ends, block),
                Peer::Endpoint if self.is_idle(id) => Err(protocol("HEADERS on an idle stream")),
                Peer::Endpoint if self.is_ignored(id) => {
                    self.decode(Place::Trailers, ends, block).map(drop)
                }
                Peer::Endpoint => {
                    self.decode(Place::Trailers, ends, block)?;
                    self.send_reset(id, Code::STREAM_CLOSED)
                }
            };
        };
        let (cut, receiving, is_head) = (stream.cut, stream.receiving, stream.is_head);
        let place = if receiving == Half::Head { Place::Response } else { Place::Trailers };
        let message = self.decode(place, ends, block)?;
        match (cut, receiving) {
            (Some(cut), _) if cut.is_by_us() || self.is_ignored(id) => Ok(()),
            (Some(_), _) | (None, Half::Ended) => Err(closed()),
            (None, Half::Head) => self.on_response(id, ends, is_head, message),
            (None, Half::Body) => self.on_trailers(id, ends, message),
        }
    }

    fn on_request(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), Failure> {
        if id.is_multiple_of(2) {
            return Err(protocol("a client opened a stream with an even id"));
        }
        let message = self.decode(Place::Request, ends, block)?;
        if id <= self.last_stream {
            return match self.is_ignored(id) {
                true => Ok(()),
                false => Err(closed()),
            };
        }
        self.last_stream = id;
        if self.is_after_last(id) {
            return Ok(());
        }
        if self.streams.are_full(self.settings.streams_max as usize) {
            return self.send_reset(id, Code::REFUSED_STREAM);
        }
        let body_missing = ends && message.content_length.is_some_and(|length| length > 0);
        if matches!(message.fault, Some(Fault::Malformed(_))) || body_missing {
            return self.send_reset(id, Code::PROTOCOL_ERROR);
        }
        let window = self.new_receive_window();
        let mut stream = Stream::new(id, self.peers.initial_window_bytes, window);
        stream.receiving = if ends { Half::Ended } else { Half::Body };
        stream.content_left = message.content_length;
        self.streams.add(stream);
        self.accepted.push_back((id, Box::new(message)));
        wake(&mut self.driver);
        Ok(())
    }

    fn on_response(
        &mut self,
        id: u32,
        ends: bool,
        is_head: bool,
        message: Message,
    ) -> Result<(), Failure> {
        let status = message.head.status;
        let interim = (100..200).contains(&status) && message.fault.is_none();
        let bodiless = interim || is_head || matches!(status, 204 | 304);
        let promised = message.content_length.filter(|_| !bodiless);
        let body_missing = ends && promised.is_some_and(|length| length > 0);
        let malformed = matches!(message.fault, Some(Fault::Malformed(_)));
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        if malformed || body_missing || (interim && ends) {
            return self.breach(id, Code::PROTOCOL_ERROR);
        }
        if stream.heads.len() >= HEADS_MAX {
            return self.cut(id, Code::ENHANCE_YOUR_CALM, Cut::Flood);
        }
        if !interim {
            stream.receiving = if ends { Half::Ended } else { Half::Body };
            stream.content_left = promised;
        }
        stream.heads.push_back(message);
        wake(&mut stream.reader);
        self.streams.forget_if_over(id);
        Ok(())
    }

    fn on_trailers(&mut self, id: u32, ends: bool, message: Message) -> Result<(), Failure> {
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        let missing = stream.content_left.is_some_and(|left| left > 0);
        match message.fault {
            Some(Fault::TooLarge) => return self.cut(id, Code::INTERNAL_ERROR, Cut::Flood),
            Some(_) => return self.breach(id, Code::PROTOCOL_ERROR),
            None if !ends || missing => return self.breach(id, Code::PROTOCOL_ERROR),
            None => {}
        }
        stream.trailers = message.text;
        stream.receiving = Half::Ended;
        wake(&mut stream.reader);
        self.streams.forget_if_over(id);
        Ok(())
    }

    /// Resets a stream because of an error of the peer.
    fn breach(&mut self, id: u32, code: Code) -> Result<(), Failure> {
        self.cut(id, code, Cut::Breach)
    }

    fn cut(&mut self, id: u32, code: Code, cut: Cut) -> Result<(), Failure> {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.cut(cut);
        }
        self.send_reset(id, code)
    }

    pub(super) fn on_reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        let id = head.stream;
        if payload.len() != 4 {
            return Err(frame_size("RST_STREAM does not have 4 bytes"));
        }
        if self.is_idle(id) && !self.is_after_last(id) {
            return Err(protocol("RST_STREAM on an idle stream"));
        }
        let code = Code(number(payload));
        let Some(stream) = self.streams.get_mut(id) else { return Ok(()) };
        let unprocessed = code == Code::REFUSED_STREAM && self.peer == Peer::Endpoint;
        stream.cut(if unprocessed { Cut::Unprocessed } else { Cut::Reset(code) });
        self.streams.forget_if_over(id);
        Ok(())
    }

    pub(super) fn on_window_update(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let id = head.stream;
        if payload.len() != 4 {
            return Err(frame_size("WINDOW_UPDATE does not have 4 bytes"));
        }
        let bytes = i64::from(number(payload) & 0x7fff_ffff);
        if bytes == 0 {
            return Err(protocol("WINDOW_UPDATE of 0 bytes"));
        }
        if id == 0 {
            self.send_window += bytes;
            if self.send_window > WINDOW_BYTES_MAX {
                let why = "the window of the connection is too large";
                return Err(Failure::Protocol(Code::FLOW_CONTROL_ERROR, why));
            }
            self.give_turns();
            return Ok(());
        }
        if self.is_idle(id) && !self.is_after_last(id) {
            return Err(protocol("WINDOW_UPDATE on an idle stream"));
        }
        let Some(stream) = self.streams.get_mut(id).filter(|stream| stream.cut.is_none()) else {
            return Ok(());
        };
        stream.send_window += bytes;
        if stream.send_window > WINDOW_BYTES_MAX {
            return self.breach(id, Code::FLOW_CONTROL_ERROR);
        }
        wake(&mut stream.writer);
        Ok(())
    }

    /// Checks a PRIORITY frame. Priorities are not used: only a wrong size and a stream that
    /// depends on itself are errors (RFC 7540 5.3.1, 6.3).
    pub(super) fn on_priority(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        let itself = number(payload) & 0x7fff_ffff == head.stream;
        let code = match payload.len() {
            5 if !itself => return Ok(()),
            5 => Code::PROTOCOL_ERROR,
            _ => Code::FRAME_SIZE_ERROR,
        };
        if self.is_idle(head.stream) {
            return Err(Failure::Protocol(code, "PRIORITY is invalid"));
        }
        self.breach(head.stream, code)
    }
}

/// Adds the content of a DATA frame to the stream's body.
///
/// # Errors
/// The code of a stream error.
fn take_data(
    stream: &mut Stream,
    content: &[u8],
    payload_bytes: usize,
    ends: bool,
) -> Result<(), Code> {
    if !stream.receive_window.take(payload_bytes) {
        return Err(Code::FLOW_CONTROL_ERROR);
    }
    if let Some(left) = &mut stream.content_left {
        *left = left.checked_sub(content.len() as u64).ok_or(Code::PROTOCOL_ERROR)?;
        if ends && *left > 0 {
            return Err(Code::PROTOCOL_ERROR);
        }
    }
    stream.inbox.push(content);
    if ends {
        stream.receiving = Half::Ended;
    }
    if ends || !content.is_empty() {
        wake(&mut stream.reader);
    }
    Ok(())
}
