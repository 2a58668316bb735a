//! Reads the unidirectional streams of the peer: control, QPACK encoder and QPACK decoder (RFC 9114
//! 6.2, 7.2, RFC 9204 4.2, RFC 9218 7.2).

use super::code::{Code, ConnectionError};
use super::flood::Flood;
use super::frame::{FrameHead, HeadReader, Kind, only_varint, read_varint};
use super::priority::Urgency;
use super::session::Session;
use super::settings::{self, PeerSettings};
use crate::http2::Peer;

/// The types of streams (RFC 9114 6.2, RFC 9204 4.2).
pub(super) const CONTROL_STREAM: u64 = 0x0;
const PUSH_STREAM: u64 = 0x1;
pub(super) const ENCODER_STREAM: u64 = 0x2;
pub(super) const DECODER_STREAM: u64 = 0x3;

/// The number of streams whose type has not arrived completely.
const UNTYPED_MAX: usize = 16;

/// The beginning of PRIORITY_UPDATE that is read: the id of the stream, and the priority.
const PRIORITY_BYTES: usize = 64;

/// The result of reading from a unidirectional stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uni {
    /// The stream goes on.
    Continue,
    /// The type of the stream is unknown. The driver sends STOP_SENDING with
    /// H3_STREAM_CREATION_ERROR, and passes none of its bytes any more.
    Ignore,
}

/// The streams of the peer that must stay open, and streams without a type.
#[derive(Debug, Default)]
pub(super) struct Critical {
    control: Option<u64>,
    encoder: Option<u64>,
    decoder: Option<u64>,
    /// The beginnings of types that are not complete.
    untyped: Vec<(u64, Vec<u8>)>,
}

/// The frame on the control stream that is read.
#[derive(Debug, Default)]
pub(super) struct Control {
    head: HeadReader,
    frame: Option<Kind>,
    /// The bytes of the payload that have not arrived.
    left: u64,
    /// The number of bytes of the payload that are kept. The others are skipped.
    kept_max: usize,
    payload: Vec<u8>,
}

const fn error(code: Code, why: &'static str) -> ConnectionError {
    ConnectionError::new(code, why)
}

const CLOSED: ConnectionError =
    error(Code::CLOSED_CRITICAL_STREAM, "a stream that the connection needs was closed");

const WRONG_SIZE: ConnectionError =
    error(Code::FRAME_ERROR, "a frame on the control stream has a wrong size");

impl Session {
    /// Reads bytes of a unidirectional stream of the peer. `fin`: the stream ends after them.
    ///
    /// # Errors
    /// When the connection must be closed.
    pub fn receive_uni(
        &mut self,
        stream: u64,
        bytes: &[u8],
        fin: bool,
    ) -> Result<Uni, ConnectionError> {
        let mut rest = bytes;
        if !self.critical.has(stream) {
            match self.critical.read_type(stream, &mut rest, fin)? {
                None => return Ok(Uni::Continue),
                Some(number) if !self.open_uni(stream, number)? => {
                    self.meter.charge(Flood::OtherFrames, 1)?;
                    return Ok(Uni::Ignore);
                }
                Some(_) => {}
            }
        }
        if self.critical.control == Some(stream) {
            self.receive_control(rest)?;
        } else if self.critical.encoder == Some(stream) {
            self.decoder.instructions(rest)?;
            let changes = self.decoder.take_count();
            self.meter.charge(Flood::TableChanges, changes)?;
            self.check_answers()?;
        } else {
            self.encoder.acknowledgements(rest)?;
        }
        if fin { Err(CLOSED) } else { Ok(Uni::Continue) }
    }

    /// Records that the peer has reset one of its unidirectional streams.
    ///
    /// # Errors
    /// When the connection needs the stream.
    pub fn uni_reset(&mut self, stream: u64) -> Result<(), ConnectionError> {
        self.critical.untyped.retain(|(untyped, _)| *untyped != stream);
        if self.critical.has(stream) { Err(CLOSED) } else { Ok(()) }
    }

    /// The error when the peer stops one of our unidirectional streams: the connection needs all
    /// of them.
    pub const fn uni_stopped() -> ConnectionError {
        CLOSED
    }

    /// Opens a stream of this type. Returns whether the type is known.
    fn open_uni(&mut self, stream: u64, number: u64) -> Result<bool, ConnectionError> {
        let known = match number {
            CONTROL_STREAM => &mut self.critical.control,
            ENCODER_STREAM => &mut self.critical.encoder,
            DECODER_STREAM => &mut self.critical.decoder,
            PUSH_STREAM => {
                return Err(match self.peer {
                    Peer::Client => error(Code::STREAM_CREATION_ERROR, "a client has pushed"),
                    // We never send MAX_PUSH_ID.
                    Peer::Endpoint => error(Code::ID_ERROR, "a push that was not allowed"),
                });
            }
            _ => return Ok(false),
        };
        if known.replace(stream).is_some() {
            let why = "a second control, encoder or decoder stream";
            return Err(error(Code::STREAM_CREATION_ERROR, why));
        }
        Ok(true)
    }

    fn receive_control(&mut self, mut rest: &[u8]) -> Result<(), ConnectionError> {
        loop {
            let Some(kind) = self.control.frame else {
                let Some(head) = self.control.head.read(&mut rest) else { return Ok(()) };
                let kept_max = self.begin_control(head)?;
                self.control.begin(head, kept_max);
                continue;
            };
            if !self.control.take(&mut rest) {
                return Ok(());
            }
            self.control.frame = None;
            let payload = std::mem::take(&mut self.control.payload);
            self.on_control(kind, &payload)?;
        }
    }

    /// Checks the header of a frame on the control stream. Returns how many bytes of its payload
    /// are read.
    fn begin_control(&mut self, head: FrameHead) -> Result<usize, ConnectionError> {
        let unexpected = |why| Err(error(Code::FRAME_UNEXPECTED, why));
        let FrameHead { kind, payload_bytes } = head;
        match (kind, &self.settings) {
            (Kind::Settings, None) => {
                if payload_bytes > settings::PAYLOAD_BYTES_MAX as u64 {
                    return Err(error(Code::EXCESSIVE_LOAD, "too many settings"));
                }
                return Ok(settings::PAYLOAD_BYTES_MAX);
            }
            (Kind::Settings, Some(_)) => return unexpected("SETTINGS were sent twice"),
            (_, None) => {
                let why = "the first frame of the control stream is not SETTINGS";
                return Err(error(Code::MISSING_SETTINGS, why));
            }
            _ => {}
        }
        match (kind, self.peer) {
            (Kind::Data | Kind::Headers | Kind::PushPromise, _) => {
                unexpected("a frame of messages on the control stream")
            }
            (Kind::OfHttp2, _) => unexpected("a frame of HTTP/2"),
            (Kind::MaxPushId, Peer::Endpoint) => unexpected("a server has sent MAX_PUSH_ID"),
            (Kind::PriorityUpdate | Kind::PushPriorityUpdate, Peer::Endpoint) => {
                unexpected("a server has sent PRIORITY_UPDATE")
            }
            (Kind::GoAway | Kind::MaxPushId | Kind::CancelPush, _) => {
                self.meter.charge(Flood::OtherFrames, 1)?;
                if payload_bytes > 8 { Err(WRONG_SIZE) } else { Ok(8) }
            }
            (Kind::PriorityUpdate | Kind::PushPriorityUpdate, Peer::Client) => {
                self.meter.charge(Flood::PriorityFrames, 1)?;
                Ok(PRIORITY_BYTES)
            }
            (Kind::Settings | Kind::Other, _) => {
                self.meter.charge(Flood::OtherFrames, 1)?;
                Ok(0)
            }
        }
    }

    /// Handles a frame on the control stream. `payload` is the part that is read.
    fn on_control(&mut self, kind: Kind, payload: &[u8]) -> Result<(), ConnectionError> {
        match kind {
            Kind::Settings => {
                let settings = PeerSettings::read(payload)?;
                self.encoder.set_peer(settings.table_capacity, settings.blocked_streams);
                self.settings = Some(settings);
                Ok(())
            }
            Kind::GoAway => {
                let id = only_varint(payload).ok_or(WRONG_SIZE)?;
                if self.peer == Peer::Endpoint && !id.is_multiple_of(4) {
                    return Err(error(Code::ID_ERROR, "GOAWAY with a wrong stream id"));
                }
                if self.goaway.is_some_and(|before| id > before) {
                    return Err(error(Code::ID_ERROR, "GOAWAY with a larger id than before"));
                }
                self.goaway = Some(id);
                Ok(())
            }
            Kind::MaxPushId => {
                let id = only_varint(payload).ok_or(WRONG_SIZE)?;
                if self.push_id_max.is_some_and(|before| id < before) {
                    return Err(error(Code::ID_ERROR, "MAX_PUSH_ID with a smaller id than before"));
                }
                self.push_id_max = Some(id);
                Ok(())
            }
            Kind::CancelPush => {
                only_varint(payload).ok_or(WRONG_SIZE)?;
                // Neither side has promised a push (RFC 9114 7.2.3).
                Err(error(Code::ID_ERROR, "CANCEL_PUSH of a push that nobody has promised"))
            }
            Kind::PriorityUpdate => {
                let mut value = payload;
                let id = read_varint(&mut value).ok_or(WRONG_SIZE)?;
                if !id.is_multiple_of(4) {
                    return Err(error(Code::ID_ERROR, "PRIORITY_UPDATE of a wrong stream"));
                }
                self.updates.put(id, Urgency::parse(value));
                Ok(())
            }
            Kind::PushPriorityUpdate => match read_varint(&mut &payload[..]) {
                None => Err(WRONG_SIZE),
                Some(_) => Err(error(Code::ID_ERROR, "PRIORITY_UPDATE of an unknown push")),
            },
            Kind::Data | Kind::Headers | Kind::PushPromise | Kind::OfHttp2 | Kind::Other => Ok(()),
        }
    }
}

impl Critical {
    fn has(&self, stream: u64) -> bool {
        [self.control, self.encoder, self.decoder].contains(&Some(stream))
    }

    /// Reads the type of a stream. `None` if it is not complete.
    fn read_type(
        &mut self,
        stream: u64,
        bytes: &mut &[u8],
        fin: bool,
    ) -> Result<Option<u64>, ConnectionError> {
        let known = self.untyped.iter().position(|(untyped, _)| *untyped == stream);
        if known.is_none()
            && let Some(number) = read_varint(bytes)
        {
            return Ok(Some(number));
        }
        // A type has at most eight bytes, so this is rare.
        let mut begun = known.map(|at| self.untyped.swap_remove(at).1).unwrap_or_default();
        while let Some((&byte, rest)) = bytes.split_first() {
            begun.push(byte);
            *bytes = rest;
            if let Some(number) = read_varint(&mut &begun[..]) {
                return Ok(Some(number));
            }
        }
        if !fin {
            if self.untyped.len() >= UNTYPED_MAX {
                return Err(error(Code::EXCESSIVE_LOAD, "too many streams without a type"));
            }
            self.untyped.push((stream, begun));
        }
        Ok(None)
    }
}

impl Control {
    fn begin(&mut self, head: FrameHead, kept_max: usize) {
        self.frame = Some(head.kind);
        self.left = head.payload_bytes;
        self.kept_max = kept_max;
    }

    /// Takes a part of the payload from the front of `bytes`. Returns whether it is complete.
    fn take(&mut self, bytes: &mut &[u8]) -> bool {
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let (part, rest) = bytes.split_at(len);
        *bytes = rest;
        self.left -= len as u64;
        let kept = part.len().min(self.kept_max - self.payload.len());
        self.payload.extend_from_slice(&part[..kept]);
        self.left == 0
    }
}
