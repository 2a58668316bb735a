//! One TLS connection as a state machine that converts between ciphertext and plain text.
//!
//! The session uses the unbuffered interface of rustls, which works on our buffers. Unprocessed
//! ciphertext is kept in the session, because rustls stores positions in it (a handshake message
//! may span records).

use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{AlertDescription, ClientConfig, Error, ServerConfig};

use super::reason;
use crate::runtime::buffer::Buf;

/// The maximum number of plain bytes in one record (RFC 8446 5.1).
pub const RECORD_PLAIN_MAX: usize = 16 * 1024;

/// The maximum number of bytes that a record adds to its plain bytes: header, explicit nonce, type,
/// tag.
pub const RECORD_OVERHEAD_MAX: usize = 64;

/// Bytes of a record's header.
const RECORD_HEADER_BYTES: usize = 5;

/// The maximum number of ciphertext bytes that are buffered during a handshake. A peer whose
/// certificate chain is longer is refused.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// A TLS connection without its socket.
pub struct Session {
    side: Side,
    /// Unprocessed ciphertext.
    incoming: Option<Buf>,
    /// Plain text that did not fit into the reader's buffer.
    rest: Vec<u8>,
    /// Ciphertext to send first: handshake messages and alerts.
    outgoing: Vec<u8>,
    /// Whether the peer has sent close_notify.
    ended: bool,
    /// Whether this side has sent data. An alert after that may need encryption.
    spoke: bool,
    /// Whether the connection has failed. Its alert was created then.
    failed: bool,
}

// The rustls connections are large, but each session is boxed together with its stream.
#[allow(clippy::large_enum_variant)]
enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The state of the connection after the received ciphertext was processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// More ciphertext is needed.
    Blocked,
    /// The handshake is complete, and more ciphertext is needed for plain text.
    Open,
    /// The peer has sent close_notify.
    Ended,
}

/// The result of one call to rustls.
enum Step {
    /// Call rustls again: more can be done.
    Again,
    Blocked,
    Open,
    Ended,
    /// Both sides have sent close_notify.
    Closed,
}

impl Session {
    /// Creates the server's side of a new connection.
    ///
    /// # Errors
    /// When rustls rejects the configuration.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        UnbufferedServerConnection::new(config).map(|side| Self::new(Side::Server(side)))
    }

    /// Creates the client's side of a new connection to the server `name`.
    ///
    /// # Errors
    /// When rustls rejects the configuration.
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

    /// Whether the handshake is not complete.
    pub fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(side) => side.is_handshaking(),
            Side::Client(side) => side.is_handshaking(),
        }
    }

    /// Whether this is the client's side, so that the peer is a server.
    pub fn is_client(&self) -> bool {
        matches!(self.side, Side::Client(_))
    }

    /// The peer's certificate chain, the leaf first. In a resumed session, the chain of the
    /// original session.
    pub fn peer_certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match &self.side {
            Side::Server(side) => side.peer_certificates(),
            Side::Client(side) => side.peer_certificates(),
        }
    }

    /// The protocol selected by ALPN.
    pub fn alpn(&self) -> Option<&[u8]> {
        match &self.side {
            Side::Server(side) => side.alpn_protocol(),
            Side::Client(side) => side.alpn_protocol(),
        }
    }

    /// The protocol version and the cipher suite, for example TLSv1_3 and TLS13_AES_128_GCM_SHA256.
    pub fn suite(&self) -> Option<(rustls::ProtocolVersion, rustls::CipherSuite)> {
        let (version, suite) = match &self.side {
            Side::Server(side) => (side.protocol_version(), side.negotiated_cipher_suite()),
            Side::Client(side) => (side.protocol_version(), side.negotiated_cipher_suite()),
        };
        Some((version?, suite?.suite()))
    }

    /// Whether the handshake resumed an earlier session.
    pub fn resumed(&self) -> bool {
        let kind = match &self.side {
            Side::Server(side) => side.handshake_kind(),
            Side::Client(side) => side.handshake_kind(),
        };
        kind == Some(rustls::HandshakeKind::Resumed)
    }

    /// Whether a read may succeed without more ciphertext: some plain text is left, or a complete
    /// record is buffered.
    pub fn has_pending(&self) -> bool {
        !self.rest.is_empty() || self.whole_record().is_some()
    }

    /// Whether all received bytes were read, and no close_notify has arrived.
    pub fn is_idle(&self) -> bool {
        self.rest.is_empty() && self.incoming.is_none() && !self.ended
    }

    /// Adds ciphertext from the peer.
    pub fn receive(&mut self, cipher: Buf) {
        self.incoming = Some(match self.incoming.take() {
            None => cipher,
            Some(mut known) => {
                known.lift_limit();
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

    /// Whether a handshake message exceeds `HANDSHAKE_BYTES_MAX`. If it does,
    /// [`Session::take_outgoing`] returns the alert.
    pub fn is_oversized(&mut self) -> bool {
        let long = self.incoming.as_ref().is_some_and(|buf| buf.len() > HANDSHAKE_BYTES_MAX);
        if !long || !self.is_handshaking() {
            return false;
        }
        self.refuse(AlertDescription::DecodeError);
        true
    }

    /// Whether only session tickets remain to be sent after the handshake. This is the case for a
    /// server in TLS 1.3. In TLS 1.2 the client waits for the server's last flight.
    pub fn ends_with_tickets(&self) -> bool {
        matches!(&self.side, Side::Server(side)
            if side.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_3))
    }

    /// Processes received handshake data. Plain text that follows is kept for the reader.
    ///
    /// # Errors
    /// As for [`Session::process`].
    pub fn advance(&mut self) -> Result<(), Error> {
        while self.is_handshaking() && matches!(self.step(None, None)?, Step::Again) {}
        // Call rustls again after each flight to get its output.
        while self.wants_more() && matches!(self.step(None, None)?, Step::Again) {}
        Ok(())
    }

    fn wants_more(&self) -> bool {
        match &self.side {
            Side::Server(side) => side.wants_write(),
            Side::Client(side) => side.wants_write(),
        }
    }

    /// Processes received data as long as the plain text fits into `plain`.
    ///
    /// # Errors
    /// When the connection fails. [`Session::take_outgoing`] returns the alert.
    pub fn process(&mut self, plain: &mut Buf) -> Result<Stage, Error> {
        let left_over = plain.append(&self.rest);
        self.rest.drain(..left_over);
        if self.rest.is_empty() {
            self.rest = Vec::new(); // free its memory while the connection is idle
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

    /// Writes waiting ciphertext to `cipher`, and then encrypts as much of `plain` as fits. Returns
    /// the number of encrypted bytes.
    ///
    /// # Errors
    /// When the connection cannot carry data: before the end of the handshake, or after a failure.
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

    /// Writes the waiting ciphertext and then close_notify (RFC 8446 6.1) to `cipher`.
    pub fn close(&mut self, cipher: &mut Buf) {
        cipher.append(&self.take_outgoing());
        let mut job = Job { plain: None, cipher, done: false };
        while !job.done && matches!(self.step(None, Some(&mut job)), Ok(Step::Again | Step::Ended))
        {
        }
    }

    /// Takes the ciphertext that must be sent first.
    pub fn take_outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Whether ciphertext waits to be sent.
    pub fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns the length of the first received record. `None` if the record is not complete.
    fn whole_record(&self) -> Option<usize> {
        let data = self.incoming.as_ref()?.data();
        let len = data.get(3..RECORD_HEADER_BYTES)?;
        let whole = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([len[0], len[1]]));
        (data.len() >= whole).then_some(whole)
    }

    /// How many more bytes complete the first incomplete record. If its header is not complete: how
    /// many more bytes complete the header.
    pub fn missing_bytes(&self) -> usize {
        let mut data = self.incoming.as_ref().map_or(&[][..], Buf::data);
        loop {
            let Some(len) = data.get(3..RECORD_HEADER_BYTES) else {
                return RECORD_HEADER_BYTES - data.len();
            };
            let whole = RECORD_HEADER_BYTES + usize::from(u16::from_be_bytes([len[0], len[1]]));
            match data.get(whole..) {
                Some(rest) => data = rest,
                None => return whole - data.len(),
            }
        }
    }

    fn step(&mut self, plain: Option<&mut Buf>, job: Option<&mut Job<'_>>) -> Result<Step, Error> {
        let (discard, step) = self.drive(plain, job);
        if let Some(buf) = &mut self.incoming {
            buf.consume(discard);
            // After a failure, `refuse` still needs the buffer.
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

    /// Calls rustls once. Returns the number of ciphertext bytes that rustls has used.
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

    /// Collects the alert that rustls produces first after a failure.
    fn collect_alert(&mut self) {
        while self.wants_more() && self.drive(None, None).1.is_ok() {}
    }

    /// Creates an alert for a failure for which rustls has none. A server that has not sent
    /// anything sends the alert unencrypted. Otherwise rustls must create and encrypt the alert: an
    /// invalid record makes rustls do so.
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

/// The data to encrypt: plain text, or close_notify (`None`).
struct Job<'a> {
    plain: Option<&'a [u8]>,
    cipher: &'a mut Buf,
    done: bool,
}

/// The destination of decrypted bytes: the reader's buffer, or `rest` if there is no reader or no
/// space.
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

/// Handles one state of rustls, for both sides. Returns the number of ciphertext bytes that were
/// used.
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
            data.done(); // the data is in `outgoing`, which is sent first
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
        // Ringway never offers early data. Ignore states of later rustls versions.
        Ok(_) => Step::Blocked,
    };
    (discard, Ok(step))
}
