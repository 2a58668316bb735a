//! The state of an HTTP/3 connection, and the frames that we write.

use std::cell::RefCell;

use super::code::{Code, ConnectionError};
use super::flood::{ANSWER_BYTES_MAX, Flood, FloodLimits, Meter};
use super::frame::{DATA, GOAWAY, HEADERS, write_frame, write_varint};
use super::priority::{Updates, Urgency};
use super::settings::{OurSettings, PeerSettings};
use super::unidirectional::{CONTROL_STREAM, Control, Critical, DECODER_STREAM, ENCODER_STREAM};
use crate::error::Refusal;
use crate::hpack::qpack::{Decoder, Encoder};
use crate::http2::{Draft, Peer, trailers};
use crate::message::Limits;
use crate::time::Time;

/// The size of the QPACK table that a peer may use.
const TABLE_BYTES: usize = 4096;

/// The number of streams that may wait for entries of the table.
const BLOCKED_STREAMS: usize = 16;

/// The first GOAWAY of a server refuses no request: the largest id of a client's stream.
const NO_STREAM_REFUSED: u64 = (1 << 62) - 4;

/// The settings of a new connection.
pub struct Config<'a> {
    /// The kind of peer: a client or an endpoint.
    pub peer: Peer,
    /// Limits on heads and trailers.
    pub message: &'a Limits,
    /// Limits on floods of frames.
    pub floods: FloodLimits,
}

/// The bytes that wait for our three unidirectional streams. The first byte of each is the type of
/// the stream. The driver writes them and removes the written bytes. The bytes of `encoder` should
/// be written before the streams of messages.
pub struct Outputs<'a> {
    /// The control stream.
    pub control: &'a mut Vec<u8>,
    /// The QPACK encoder stream.
    pub encoder: &'a mut Vec<u8>,
    /// The QPACK decoder stream.
    pub decoder: &'a mut Vec<u8>,
}

/// The protocol state of an HTTP/3 connection.
#[derive(Debug)]
pub struct Session {
    pub(super) peer: Peer,
    pub(super) limits: Limits,
    pub(super) meter: Meter,
    pub(super) ages: Ages,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    /// The bytes for our control stream.
    out: Vec<u8>,
    pub(super) control: Control,
    pub(super) critical: Critical,
    /// The peer's SETTINGS. `None` until they arrive.
    pub(super) settings: Option<PeerSettings>,
    /// The id in the peer's last GOAWAY.
    pub(super) goaway: Option<u64>,
    pub(super) push_id_max: Option<u64>,
    pub(super) updates: Updates,
    /// The id in our last GOAWAY.
    left: Option<u64>,
}

thread_local! {
    /// Working memory for the encoding of field sections.
    static SECTION: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Session {
    /// Creates the state of a connection that was opened at `now`. Our SETTINGS wait in
    /// [`Session::outputs`].
    pub fn new(config: &Config<'_>, now: Time) -> Self {
        let limits = *config.message;
        let mut session = Self {
            peer: config.peer,
            limits,
            meter: Meter::new(config.floods, limits.header_bytes, now),
            ages: Ages::new(now),
            decoder: Decoder::new(TABLE_BYTES, BLOCKED_STREAMS),
            encoder: Encoder::new(),
            out: Vec::with_capacity(48),
            control: Control::default(),
            critical: Critical::default(),
            settings: None,
            goaway: None,
            push_id_max: None,
            updates: Updates::default(),
            left: None,
        };
        write_varint(&mut session.out, CONTROL_STREAM);
        let settings = OurSettings {
            table_capacity: TABLE_BYTES as u64,
            blocked_streams: BLOCKED_STREAMS as u64,
            field_section_max: limits.header_bytes as u64,
            extended_connect: config.peer == Peer::Client,
        };
        settings.write(&mut session.out);
        write_varint(session.encoder.out(), ENCODER_STREAM);
        write_varint(session.decoder.out(), DECODER_STREAM);
        session
    }

    /// The bytes that wait for our unidirectional streams.
    pub const fn outputs(&mut self) -> Outputs<'_> {
        Outputs { control: &mut self.out, encoder: self.encoder.out(), decoder: self.decoder.out() }
    }

    /// The memory that the QPACK tables and the waiting bytes hold.
    pub fn held_bytes(&self) -> usize {
        self.encoder.held_bytes() + self.decoder.held_bytes() + self.out.capacity()
    }

    /// Whether the peer's SETTINGS have arrived.
    pub const fn is_greeted(&self) -> bool {
        self.settings.is_some()
    }

    /// Whether the peer supports extended CONNECT (RFC 9220).
    pub fn has_extended_connect(&self) -> bool {
        self.settings.is_some_and(|settings| settings.extended_connect)
    }

    /// The largest field section that the peer accepts, as defined in RFC 9114 4.2.2. `None` if it
    /// has not told a limit.
    pub fn field_section_max(&self) -> Option<u64> {
        self.settings.and_then(|settings| settings.field_section_max)
    }

    /// The id in the last GOAWAY of the peer. For an endpoint: requests on this stream and on later
    /// ones are not processed.
    pub const fn goaway(&self) -> Option<u64> {
        self.goaway
    }

    /// Takes the client's last PRIORITY_UPDATE for the response on a stream.
    pub fn take_update(&mut self, stream: u64) -> Option<Urgency> {
        self.updates.take(stream)
    }

    /// The streams with a PRIORITY_UPDATE that was not taken. Their requests may not have arrived.
    pub fn updated(&self) -> impl Iterator<Item = u64> {
        self.updates.streams()
    }

    /// Begins a graceful shutdown: writes GOAWAY. To a client, the first one refuses no request;
    /// then call [`Session::leave_after`]. To an endpoint, one is enough (RFC 9114 5.2).
    pub fn leave(&mut self) {
        let id = if self.peer == Peer::Client { NO_STREAM_REFUSED } else { 0 };
        self.go_away(id);
    }

    /// Writes the final GOAWAY to a client: requests on stream `first_refused` and on later ones
    /// are not processed.
    pub fn leave_after(&mut self, first_refused: u64) {
        self.go_away(first_refused);
    }

    fn go_away(&mut self, id: u64) {
        if self.left.is_none_or(|left| id < left) {
            self.left = Some(id);
            let mut payload = Vec::with_capacity(8);
            write_varint(&mut payload, id);
            write_frame(&mut self.out, GOAWAY, &payload);
        }
    }

    /// Whether our GOAWAY says that the stream of a client is not processed.
    pub fn is_refused(&self, stream: u64) -> bool {
        self.left.is_some_and(|left| stream >= left)
    }

    /// Lets the counts of the limits decrease. The driver calls it before it passes on received
    /// bytes.
    pub fn pass_time(&mut self, now: Time) {
        self.meter.pass_time(now);
        self.ages.pass_time(now);
    }

    /// Checks that the peer reads our answers about its QPACK table.
    pub(super) fn check_answers(&mut self) -> Result<(), ConnectionError> {
        if self.decoder.out().len() > ANSWER_BYTES_MAX {
            return Err(self.meter.excess(Flood::UnreadAnswers).into());
        }
        Ok(())
    }

    /// Records that we have ended the stream of a client: it earns credit for one reset.
    pub fn answered(&mut self) {
        self.meter.answered();
    }

    /// Records that the peer has reset its side of a message's stream. Sections that were not
    /// decoded are cancelled.
    ///
    /// # Errors
    /// When the peer exceeds a limit.
    pub fn reset_by_peer(&mut self, stream: u64) -> Result<(), ConnectionError> {
        self.decoder.cancel(stream);
        self.check_answers()?;
        if self.peer == Peer::Client && self.ages.is_young(stream) {
            self.meter.charge(Flood::StreamResets, 1)?;
        }
        Ok(())
    }

    /// Records that we stop reading a message's stream, or reset it, with `code`. Sections that
    /// were not decoded are cancelled.
    ///
    /// # Errors
    /// When the peer exceeds a limit.
    pub fn reset_by_us(&mut self, stream: u64, code: Code) -> Result<(), ConnectionError> {
        self.decoder.cancel(stream);
        self.meter.sent_reset(code)?;
        self.check_answers()
    }

    /// Returns a stream whose [`Event::Blocked`](super::Event::Blocked) may be over. The driver
    /// feeds its message again.
    pub fn next_ready(&mut self) -> Option<u64> {
        self.decoder.next_ready()
    }

    /// Appends the head of a request as a HEADERS frame. `secure`: the connection uses TLS.
    pub fn request(&mut self, stream: u64, head: &Draft, secure: bool, out: &mut Vec<u8>) {
        self.opened(stream);
        self.section(stream, out, |encoder, lines| head.encode_request(encoder, lines, secure));
    }

    /// Appends the head of a response, interim or final, as a HEADERS frame.
    pub fn response(&mut self, stream: u64, head: &Draft, out: &mut Vec<u8>) {
        self.section(stream, out, |encoder, lines| head.encode_response(encoder, lines));
    }

    /// Appends trailer lines, each of which ends with CR LF, as a HEADERS frame. Appends nothing if
    /// no line is left.
    ///
    /// # Errors
    /// When the lines are not valid.
    pub fn trailers(
        &mut self,
        stream: u64,
        lines: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let draft = trailers(lines);
        draft.check_response()?;
        if !draft.is_empty() {
            self.section(stream, out, |encoder, lines| draft.encode_fields(encoder, lines));
        }
        Ok(())
    }

    /// Appends the header of a DATA frame with a payload of `bytes`.
    pub fn data_head(bytes: u64, out: &mut Vec<u8>) {
        write_varint(out, DATA);
        write_varint(out, bytes);
    }

    fn section(
        &mut self,
        stream: u64,
        out: &mut Vec<u8>,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        SECTION.with_borrow_mut(|section| {
            section.clear();
            self.encoder.begin(stream);
            encode(&mut self.encoder, section);
            // The prefix is known after the lines.
            let lines = section.len();
            self.encoder.end(section);
            write_varint(out, HEADERS);
            write_varint(out, section.len() as u64);
            let (lines, prefix) = section.split_at(lines);
            out.extend_from_slice(prefix);
            out.extend_from_slice(lines);
        });
    }

    /// Records a stream with a message, which we or the peer have opened.
    pub(super) fn opened(&mut self, stream: u64) {
        self.ages.opened(stream);
        self.meter.opened();
    }
}

/// A client's reset counts if it arrives within this time after its stream was opened. The times
/// are approximate.
const YOUNG: std::time::Duration = std::time::Duration::from_millis(100);

/// The ages of streams. A later stream has a larger id.
#[derive(Debug)]
pub(super) struct Ages {
    /// The number of the first stream that is not opened.
    next: u64,
    /// Streams below `old` are older than [`YOUNG`]. Streams below `next_old` will be so at the
    /// next update of the ages.
    old: u64,
    next_old: u64,
    marked: Time,
}

impl Ages {
    const fn new(now: Time) -> Self {
        Self { next: 0, old: 0, next_old: 0, marked: now }
    }

    fn opened(&mut self, stream: u64) {
        self.next = self.next.max(stream + 1);
    }

    const fn is_young(&self, stream: u64) -> bool {
        stream >= self.old
    }

    /// Updates the ages. A stream counts as young for one to two times [`YOUNG`].
    fn pass_time(&mut self, now: Time) {
        let passed = now - self.marked;
        if passed < YOUNG {
            return;
        }
        self.old = if passed >= YOUNG * 2 { self.next } else { self.next_old };
        self.next_old = self.next;
        self.marked = now;
    }
}
