//! A TLS stream. It has no task of its own: the reads and writes of its owner do all work.
//!
//! Only writes send data. Output that a read causes (session tickets, a key update) is sent with
//! the next write, in the same packet. The exceptions are the handshake and fatal alerts.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;

use rustls::Error;
use rustls::pki_types::UnixTime;

use super::session::{Session, Stage};
use super::verify::{Issued, PeerVerifier};
use crate::error::plain;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::{Buf, BufferPool};
use crate::runtime::io::{Quiet, Read, Stream};

/// A byte stream over `inner` that is encrypted with TLS.
pub struct TlsStream<S> {
    inner: S,
    session: RefCell<Session>,
    buffers: BufferPool,
    /// The peer's certificates for revocation checks, computed at first use.
    issued: OnceCell<Rc<[Issued]>>,
    /// Whether a write is in progress. An alert must not be sent between the records of the write.
    writing: Cell<bool>,
    /// Whether the stream was aborted, so that it must not send close_notify.
    aborted: Cell<bool>,
}

/// The reason why a handshake failed.
#[derive(Debug)]
pub enum HandshakeError {
    /// One side refused the other, or the peer violated the protocol.
    Tls(Error),
    /// The connection was closed or reset.
    Io(io::Error),
    /// The peer sent a handshake message over the size limit.
    Oversized,
}

impl std::fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tls(error) => super::reason::write(f, error),
            Self::Io(error) => write!(f, "the connection broke: {}", plain(error)),
            Self::Oversized => f.write_str(super::reason::OVERSIZED),
        }
    }
}

impl<S: Stream> TlsStream<S> {
    /// Creates a TLS stream over `inner`. `first` is ciphertext that was already read.
    pub fn new(inner: S, mut session: Session, first: Option<Buf>, buffers: &BufferPool) -> Self {
        if let Some(first) = first {
            session.receive(first);
        }
        Self {
            inner,
            session: RefCell::new(session),
            buffers: buffers.clone(),
            issued: OnceCell::new(),
            writing: Cell::new(false),
            aborted: Cell::new(false),
        }
    }

    /// Calls `look` with the session, to read certificates, ALPN or the cipher suite.
    pub fn session<T>(&self, look: impl FnOnce(&Session) -> T) -> T {
        look(&self.session.borrow())
    }

    /// The peer's certificates for revocation checks. Empty if it presented none.
    pub fn issued(&self) -> Rc<[Issued]> {
        let list = || {
            let session = self.session.borrow();
            Issued::list(session.peer_certificates().unwrap_or_default())
        };
        Rc::clone(self.issued.get_or_init(list))
    }

    /// Runs the handshake to its end.
    ///
    /// # Errors
    /// [`HandshakeError`]. The alert for it has been sent.
    pub async fn handshake(&self) -> Result<(), HandshakeError> {
        loop {
            // The session keeps plain text that arrives with the last flight, because there is no
            // reader yet.
            let result = self.session.borrow_mut().advance();
            if let Err(error) = result {
                self.send_waiting().await.ok();
                return Err(HandshakeError::Tls(error));
            }
            let handshaking = self.session.borrow().is_handshaking();
            // In TLS 1.3 the server has only session tickets left to send. The first write sends
            // them.
            if handshaking || !self.session.borrow().ends_with_tickets() {
                self.send_waiting().await.map_err(HandshakeError::Io)?;
            }
            if !handshaking {
                return Ok(());
            }
            let (read, cipher) = self.inner.read(self.buffers.take()).await;
            match read {
                Ok(Read::Data(_)) => self.session.borrow_mut().receive(cipher),
                Ok(_) => return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into())),
                Err(error) => return Err(HandshakeError::Io(error)),
            }
            if self.session.borrow_mut().is_oversized() {
                self.send_waiting().await.ok();
                return Err(HandshakeError::Oversized);
            }
        }
    }

    /// Closes the sending side after a failed handshake and reads up to `bytes_max` from the peer.
    /// Closing with unread bytes would send a reset, and the peer could lose the alert.
    pub async fn discard(&self, bytes_max: usize) {
        self.inner.shutdown_write().await;
        let mut cipher = self.buffers.take();
        let mut seen_bytes = 0;
        while seen_bytes < bytes_max {
            match self.inner.read(cipher).await {
                (Ok(Read::Data(n)), back) => {
                    seen_bytes += n;
                    cipher = back;
                    cipher.clear();
                }
                _ => return,
            }
        }
    }

    /// Sends the output that waits in the session.
    async fn send_waiting(&self) -> io::Result<()> {
        if self.writing.replace(true) {
            return Ok(()); // the current write sends it
        }
        let waiting = self.session.borrow_mut().take_outgoing();
        let mut result = Ok(());
        if !waiting.is_empty() {
            let mut cipher = self.buffers.take_sized(waiting.len());
            cipher.append(&waiting);
            result = self.inner.write_all(cipher).await.0;
        }
        self.writing.set(false);
        result
    }

    /// Decrypts received data. Returns `None` if more is needed.
    async fn decrypted(&self, plain: &mut Buf) -> Option<io::Result<Read>> {
        let before = plain.len();
        let stage = self.session.borrow_mut().process(plain);
        let n = plain.len() - before;
        match stage {
            _ if n > 0 => Some(Ok(Read::Data(n))),
            Ok(Stage::Ended) => Some(Ok(Read::End)),
            Ok(Stage::Open | Stage::Blocked) => None,
            Err(error) => {
                self.send_waiting().await.ok();
                Some(Err(io::Error::new(io::ErrorKind::InvalidData, error)))
            }
        }
    }

    /// Handles the result of a ciphertext read. `Some` is the result of the plain-text read.
    fn received(&self, read: io::Result<Read>, cipher: Buf) -> Option<io::Result<Read>> {
        match read {
            Ok(Read::Data(_)) => {
                self.session.borrow_mut().receive(cipher);
                None
            }
            // Without close_notify the data may be incomplete (RFC 8446 6.1).
            Ok(Read::End) => Some(Err(io::ErrorKind::UnexpectedEof.into())),
            other => Some(other),
        }
    }

    /// Encrypts and writes `plain`.
    async fn send(&self, mut plain: &[u8]) -> io::Result<()> {
        while !plain.is_empty() || self.session.borrow().wants_write() {
            let mut cipher = self.buffers.take();
            let encrypted = self.session.borrow_mut().encrypt(plain, &mut cipher);
            plain = &plain[encrypted.map_err(io::Error::other)?..];
            self.inner.write_all(cipher).await.0?;
        }
        Ok(())
    }

    /// Takes a buffer for ciphertext. With `is_limited`, the buffer has room only for the rest of
    /// one record (or of its header), so that bytes after the record stay in the kernel.
    fn take_cipher(&self, is_limited: bool) -> Buf {
        let mut cipher = self.buffers.take();
        if is_limited {
            cipher.limit_room(self.session.borrow().missing_bytes());
        }
        cipher
    }

    /// Like [`Stream::read`]. If the room of `plain` is limited, the read may exceed the limit by
    /// one record.
    pub async fn read(&self, mut plain: Buf) -> (io::Result<Read>, Buf) {
        let is_limited = plain.lift_limit();
        loop {
            if let Some(done) = self.decrypted(&mut plain).await {
                return (done, plain);
            }
            let (read, cipher) = self.inner.read(self.take_cipher(is_limited)).await;
            if let Some(done) = self.received(read, cipher) {
                return (done, plain);
            }
        }
    }

    /// Like [`Stream::read_or_woken`].
    pub async fn read_or_woken(&self, mut plain: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        let is_limited = plain.lift_limit();
        loop {
            if let Some(done) = self.decrypted(&mut plain).await {
                return (done, plain);
            }
            let cipher = self.take_cipher(is_limited);
            let (read, cipher) = self.inner.read_or_woken(cipher, alarm).await;
            if let Some(done) = self.received(read, cipher) {
                return (done, plain);
            }
        }
    }

    /// Like [`Stream::readable`].
    pub async fn readable(&self) -> io::Result<()> {
        if self.session.borrow().has_pending() {
            return Ok(());
        }
        self.inner.readable().await
    }

    /// Like [`Stream::write_all`].
    pub async fn write_all(&self, plain: Buf) -> (io::Result<()>, Buf) {
        self.writing.set(true);
        let result = self.send(plain.data()).await;
        self.writing.set(false);
        (result, plain)
    }

    /// Like [`Stream::room`]. The reserve of `room` covers the bytes that encryption adds.
    pub async fn room(&self, enough_bytes: usize) -> usize {
        self.inner.room(enough_bytes).await
    }

    /// Like [`Stream::quiet`].
    pub fn quiet(&self) -> Quiet {
        if self.session.borrow().is_idle() { self.inner.quiet() } else { Quiet::Data }
    }

    /// Like [`Stream::shutdown_write`], but sends close_notify first.
    pub async fn shutdown_write(&self) {
        if !self.aborted.get() && !self.writing.replace(true) {
            let mut cipher = self.buffers.take();
            self.session.borrow_mut().close(&mut cipher);
            if !cipher.is_empty() {
                self.inner.write_all(cipher).await.0.ok();
            }
        }
        self.inner.shutdown_write().await;
    }

    /// Like [`Stream::reset_on_close`].
    pub fn reset_on_close(&self) {
        self.aborted.set(true);
        self.inner.reset_on_close();
    }

    /// Like [`Stream::unsent_bytes`]. The number counts ciphertext.
    pub fn unsent_bytes(&self) -> usize {
        self.inner.unsent_bytes()
    }
}

/// How many bytes of a refused peer are read and discarded, so that the peer can read the alert.
pub const DISCARD_BYTES_MAX: usize = 1024 * 1024;

/// The reason for refusing a handshake although its session ticket is valid.
pub const EXPIRED_MEANWHILE: &str =
    "the peer's certificate was refused: it has expired since the session began";

impl<S: Stream> TlsStream<S> {
    /// Whether the session was resumed and `verifier` would no longer accept the certificate that
    /// the peer presented in the original session.
    pub fn resumes_expired(&self, verifier: &PeerVerifier) -> bool {
        self.session(|session| {
            let chain = session.peer_certificates().unwrap_or_default();
            let is_server = session.is_client();
            session.resumed() && !verifier.still_accepts(chain, UnixTime::now(), is_server)
        })
    }
}
