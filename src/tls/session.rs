//! One TLS connection as a state machine: ciphertext in, plain text out, and the other way round.
//!
//! rustls does the protocol through its unbuffered interface, which works on our buffers and keeps
//! none of its own. What has come and is not yet processed stays here, because rustls remembers
//! positions in it (a handshake message may span records).

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{AlertDescription, ClientConfig, Error, ServerConfig};

use super::reason;
use crate::runtime::buffer::Buf;

/// Plain bytes that go into one record (RFC 8446 5.1).
pub const RECORD_PLAIN_MAX: usize = 16 * 1024;

/// What a record costs beyond its plain bytes, at most: header, explicit nonce, type, tag.
pub const RECORD_OVERHEAD_MAX: usize = 64;

/// Bytes of a record's header.
const RECORD_HEADER_BYTES: usize = 5;

/// Ciphertext held while a handshake goes on. A chain longer than this is refused.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// A TLS connection without its socket.
pub struct Session {
    side: Side,
    /// Ciphertext that is not processed yet.
    incoming: Option<Buf>,
    /// Plain text for which the reader's buffer had no room.
    rest: Vec<u8>,
    /// Ciphertext to be sent before any that is made later: handshake messages, alerts.
    outgoing: Vec<u8>,
    /// The peer has ended its side in order.
    ended: bool,
    /// Something was sent: what follows may have to be encrypted.
    spoke: bool,
    /// It has failed, and the alert that says why was made.
    failed: bool,
}

// The size of rustls' connections; a session is boxed with its stream.
#[allow(clippy::large_enum_variant)]
enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// How far processing what has come could get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// More ciphertext is needed.
    Blocked,
    /// The handshake is done; more ciphertext is needed for plain text.
    Open,
    /// The peer has ended its side.
    Ended,
}

/// What one step of rustls came to.
enum Step {
    /// There may be more.
    Again,
    Blocked,
    Open,
    Ended,
    /// Both sides have ended.
    Closed,
}

impl Session {
    /// The server's side of a new connection.
    ///
    /// # Errors
    /// Only for a configuration that rustls finds inconsistent.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(|side| Self::new(Side::Server(side)))
    }

    /// The client's side of a new connection to `name`.
    ///
    /// # Errors
    /// Only for a configuration that rustls finds inconsistent.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        UnbufferedClientConnection::new(config, name).map(|side| Self::new(Side::Client(side)))
    }

    fn new(side: Side) -> Self {
        Self {
            side,
            incoming: None,
            rest: Vec::new(),
            outgoing: Vec::new(),
            ended: false,
            spoke: false,
            failed: false,
        }
    }

    /// Whether the handshake is still going on.
    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(side) => side.is_handshaking(),
            Side::Client(side) => side.is_handshaking(),
        }
    }

    /// The peer's certificate and its intermediates, as it sent them.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.side {
            Side::Server(side) => side.peer_certificates(),
            Side::Client(side) => side.peer_certificates(),
        }
    }

    /// The protocol that ALPN settled on.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(side) => side.alpn_protocol(),
            Side::Client(side) => side.alpn_protocol(),
        }
    }

    /// What the connection uses: `TLSv1_3 TLS13_AES_128_GCM_SHA256`.
    pub fn suite(&self) -> Option<(rustls::ProtocolVersion, rustls::CipherSuite)> {
        let (version, suite) = match &self.side {
            Side::Server(side) => (side.protocol_version(), side.negotiated_cipher_suite()),
            Side::Client(side) => (side.protocol_version(), side.negotiated_cipher_suite()),
        };
        Some((version?, suite?.suite()))
    }

    /// Whether the handshake went on from an earlier connection.
    pub fn resumed(&self) -> bool {
        let kind = match &self.side {
            Side::Server(side) => side.handshake_kind(),
            Side::Client(side) => side.handshake_kind(),
        };
        kind == Some(rustls::HandshakeKind::Resumed)
    }

    /// Whether something can be read without more ciphertext: plain text that is left over, or
    /// the beginning of the next record.
    pub fn has_pending(&self) -> bool {
        !self.rest.is_empty() || self.whole_record().is_some()
    }

    /// Whether anything at all has come that was not asked for.
    pub fn is_idle(&self) -> bool {
        self.rest.is_empty() && self.incoming.is_none() && !self.ended
    }

    /// Takes ciphertext from the peer.
    pub fn receive(&mut self, cipher: Buf) {
        self.incoming = Some(match self.incoming.take() {
            None => cipher,
            Some(mut known) => {
                known.make_room(cipher.len());
                if known.room() < cipher.len() {
                    let wanted = known.len() + cipher.len();
                    known = known.grown(wanted);
                }
                known.append(cipher.data());
                known
            }
        });
    }

    /// Whether a handshake message is larger than anybody needs. The alert for it is in
    /// [`Session::take_outgoing`] then.
    pub fn is_oversized(&mut self) -> bool {
        let long = self.incoming.as_ref().is_some_and(|buf| buf.len() > HANDSHAKE_BYTES_MAX);
        if !long || !self.is_handshaking() {
            return false;
        }
        self.refuse(AlertDescription::DecodeError);
        true
    }

    /// Whether nothing but session tickets follows the end of the handshake: the server's side of
    /// TLS 1.3. In TLS 1.2 its last flight is what the client waits for.
    pub fn ends_with_tickets(&self) -> bool {
        matches!(&self.side, Side::Server(side)
            if side.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
    }

    /// Processes what has come of the handshake. Plain text behind it is kept for the reader.
    ///
    /// # Errors
    /// As for [`Session::process`].
    pub fn advance(&mut self) -> Result<(), Error> {
        while self.is_handshaking() && matches!(self.step(None, None)?, Step::Again) {}
        // What the last message gives rise to is only there when rustls is asked again.
        while self.wants_more() && matches!(self.step(None, None)?, Step::Again) {}
        Ok(())
    }

    fn wants_more(&self) -> bool {
        match &self.side {
            Side::Server(side) => side.wants_write(),
            Side::Client(side) => side.wants_write(),
        }
    }

    /// Processes what has come, as far as its plain text fits into `plain`.
    ///
    /// # Errors
    /// What the peer did wrong. The alert for it is in [`Session::take_outgoing`] then.
    pub fn process(&mut self, plain: &mut Buf) -> Result<Stage, Error> {
        let left_over = plain.append(&self.rest);
        self.rest.drain(..left_over);
        if self.rest.is_empty() {
            self.rest = Vec::new(); // an idle connection holds nothing of it
        }
        loop {
            let fits = self.whole_record().is_none_or(|bytes| bytes <= plain.room());
            if !plain.is_empty() && !fits {
                return Ok(Stage::Open);
            }
            match self.step(Some(plain), None)? {
                Step::Again => {}
                Step::Blocked => return Ok(Stage::Blocked),
                Step::Open => return Ok(Stage::Open),
                Step::Ended | Step::Closed => return Ok(Stage::Ended),
            }
        }
    }

    /// Encrypts the beginning of `plain` behind what waits to be sent, into `cipher`, as much as
    /// fits. Gives how much that was.
    ///
    /// # Errors
    /// When the connection cannot carry data: before the handshake or after a failure.
    pub fn encrypt(&mut self, plain: &[u8], cipher: &mut Buf) -> Result<usize, Error> {
        loop {
            let sent = cipher.append(&self.outgoing);
            self.outgoing.drain(..sent);
            if !self.outgoing.is_empty() {
                return Ok(0);
            }
            self.outgoing = Vec::new();
            let records = (cipher.room() / (RECORD_PLAIN_MAX + RECORD_OVERHEAD_MAX)) + 1;
            let room = cipher.room().saturating_sub(records * RECORD_OVERHEAD_MAX);
            let take = plain.len().min(room);
            let mut job = Job { plain: Some(&plain[..take]), cipher: &mut *cipher, done: false };
            match self.step(None, Some(&mut job))? {
                _ if job.done => return Ok(take),
                Step::Again | Step::Ended => {}
                Step::Blocked => return Err(Error::HandshakeNotComplete),
                Step::Open | Step::Closed => return Err(Error::EncryptError),
            }
        }
    }

    /// Says that nothing more will come (RFC 8446 6.1): encrypts that into `cipher`, behind
    /// what waits to be sent.
    pub fn close(&mut self, cipher: &mut Buf) {
        cipher.append(&self.take_outgoing());
        let mut job = Job { plain: None, cipher, done: false };
        while !job.done && matches!(self.step(None, Some(&mut job)), Ok(Step::Again | Step::Ended))
        {
        }
    }

    /// Ciphertext to be sent at once.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Whether ciphertext waits to be sent.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// The length of the record at the front, when all of it is there.
    fn whole_record(&self) -> Option<usize> {
        let data = self.incoming.as_ref()?.data();
        let len = data.get(3..RECORD_HEADER_BYTES)?;
        let whole = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([len[0], len[1]]));
        (data.len() >= whole).then_some(whole)
    }

    fn step(&mut self, plain: Option<&mut Buf>, job: Option<&mut Job<'_>>) -> Result<Step, Error> {
        let (discard, step) = self.drive(plain, job);
        if let Some(buf) = &mut self.incoming {
            buf.consume(discard);
            // After a failure the buffer is still of use: see `refuse`.
            if buf.is_empty() && step.is_ok() {
                self.incoming = None;
            }
        }
        match &step {
            Ok(Step::Ended) => self.ended = true,
            Ok(Step::Open) if self.ended => return Ok(Step::Ended),
            Ok(_) => {}
            Err(error) if !self.failed => {
                self.failed = true;
                let said = self.outgoing.len();
                self.collect_alert();
                if self.outgoing.len() == said && !matches!(error, Error::AlertReceived(_)) {
                    self.refuse(reason::alert_for(error));
                }
            }
            Err(_) => {}
        }
        step
    }

    /// Lets rustls do one thing. Gives how much ciphertext was used up.
    fn drive(
        &mut self,
        plain: Option<&mut Buf>,
        job: Option<&mut Job<'_>>,
    ) -> (usize, Result<Step, Error>) {
        let incoming = self.incoming.as_mut().map_or_else(Default::default, Buf::data_mut);
        let mut sink = Sink { plain, rest: &mut self.rest };
        let outgoing = &mut self.outgoing;
        let driven = match &mut self.side {
            Side::Server(side) => {
                handle(side.process_tls_records(incoming), &mut sink, outgoing, job)
            }
            Side::Client(side) => {
                handle(side.process_tls_records(incoming), &mut sink, outgoing, job)
            }
        };
        self.spoke |= !self.outgoing.is_empty();
        driven
    }

    /// After a failure rustls has an alert to send, and gives it before it looks at anything else.
    fn collect_alert(&mut self) {
        while self.wants_more() && self.drive(None, None).1.is_ok() {}
    }

    /// Sends an alert where rustls has refused without one. Before anything else was said it is
    /// plain; later rustls has to make it, which it does for records of no type.
    fn refuse(&mut self, alert: AlertDescription) {
        const FATAL: u8 = 2;
        if !self.spoke && matches!(self.side, Side::Server(_)) {
            return self.outgoing.extend([0x15, 3, 3, 0, 2, FATAL, alert.into()]);
        }
        let Some(buf) = self.incoming.take() else { return };
        let wanted = buf.len() + RECORD_HEADER_BYTES;
        let mut buf = buf.grown(wanted);
        buf.append(&[0; RECORD_HEADER_BYTES]);
        buf.data_mut().fill(0xff);
        self.incoming = Some(buf);
        self.drive(None, None).1.ok();
        self.collect_alert();
    }
}

/// What is to be encrypted: plain text, or (`None`) that there will be no more.
struct Job<'a> {
    plain: Option<&'a [u8]>,
    cipher: &'a mut Buf,
    done: bool,
}

/// Where decrypted bytes go: to the reader, or aside when there is none or it has no room.
struct Sink<'a> {
    plain: Option<&'a mut Buf>,
    rest: &'a mut Vec<u8>,
}

impl Sink<'_> {
    fn take(&mut self, bytes: &[u8]) {
        let taken = match &mut self.plain {
            Some(plain) if self.rest.is_empty() => plain.append(bytes),
            _ => 0,
        };
        self.rest.extend_from_slice(&bytes[taken..]);
    }
}

/// Does what rustls asks for, for either side. Gives how much ciphertext was used up.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    sink: &mut Sink<'_>,
    outgoing: &mut Vec<u8>,
    job: Option<&mut Job<'_>>,
) -> (usize, Result<Step, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let step = match state {
        Err(error) => return (discard, Err(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => {
            while let Some(record) = traffic.next_record() {
                match record {
                    Ok(record) => {
                        discard += record.discard;
                        sink.take(record.payload);
                    }
                    Err(error) => return (discard, Err(error)),
                }
            }
            Step::Again
        }
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let at = outgoing.len();
            let mut wanted = 0;
            loop {
                outgoing.resize(at + wanted, 0);
                match data.encode(&mut outgoing[at..]) {
                    Err(EncodeError::InsufficientSize(size)) => wanted = size.required_size,
                    Ok(_) | Err(EncodeError::AlreadyEncoded) => break,
                }
            }
            Step::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done(); // it is in `outgoing`, and sent before anything else
            Step::Again
        }
        Ok(ConnectionState::WriteTraffic(mut traffic)) => {
            if let Some(job) = job {
                let spare = job.cipher.spare_mut();
                let written = match job.plain {
                    Some(plain) => traffic.encrypt(plain, spare),
                    None => traffic.queue_close_notify(spare),
                };
                job.done = written.is_ok();
                job.cipher.advance(written.unwrap_or_default());
            }
            Step::Open
        }
        Ok(ConnectionState::PeerClosed) => Step::Ended,
        Ok(ConnectionState::Closed) => Step::Closed,
        // Early data is never offered; a state of a later rustls asks for nothing we know.
        Ok(_) => Step::Blocked,
    };
    (discard, Ok(step))
}
