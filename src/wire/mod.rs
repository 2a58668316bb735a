//! The streams that an exchange reads and writes: a plain or TLS connection, or an HTTP/2 stream.

pub mod http2;
mod linger;
pub mod quic;

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::http1::sink::Sink;
use crate::http2::{ClientStream, Draft, EndpointStream, Gone, Sent};
use crate::http3;
use crate::message::{Head, Version};
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read, SpliceError, Spliced, Stream};
use crate::tls::{Issued, TlsStream};

pub use linger::{ANSWERED, EXCEEDED, LEFT, delivered, linger};

/// If no more than this many bytes of a write wait for an HTTP/2 window, they are copied, and their
/// larger buffer is returned to the pool.
const SHORT_BYTES_MAX: usize = 16 * 1024;

/// The byte stream of an exchange. A plain connection is used directly, without copies and boxes.
/// The futures of the other streams are boxed, so that they do not enlarge the futures of plain
/// connections.
pub enum Wire<S> {
    /// A plain connection.
    Plain(S),
    /// A TLS connection.
    Tls(Box<TlsStream<S>>),
    /// A stream that a client opened on its HTTP/2 connection.
    Client(Box<ClientStream>),
    /// A stream that a client opened on its HTTP/3 connection.
    Client3(Box<http3::ClientStream>),
    /// A stream that we opened on an endpoint's HTTP/2 connection.
    Endpoint(Box<EndpointStream>),
    /// A stream that we opened on an endpoint's HTTP/3 connection.
    Endpoint3(Box<http3::EndpointStream>),
    /// The stream was moved to another owner.
    Moved,
}

impl<S: Stream> Wire<S> {
    /// The TLS stream. `None` if the stream is not a TLS connection.
    pub fn tls(&self) -> Option<&TlsStream<S>> {
        match self {
            Self::Tls(stream) => Some(stream),
            _ => None,
        }
    }

    /// The endpoint's certificates. `None` without TLS.
    pub fn issued(&self) -> Option<Rc<[Issued]>> {
        match self {
            Self::Tls(stream) => Some(stream.issued()),
            Self::Endpoint(stream) => stream.issued(),
            Self::Endpoint3(stream) => stream.issued(),
            _ => None,
        }
    }

    /// The HTTP version of the stream.
    pub fn version(&self) -> Version {
        match self {
            Self::Client(_) | Self::Endpoint(_) => Version::Http2,
            Self::Client3(_) | Self::Endpoint3(_) => Version::Http3,
            Self::Plain(_) | Self::Tls(_) | Self::Moved => Version::Http11,
        }
    }

    /// Whether the handshake of the client's connection is not complete, so that somebody else may
    /// send the request again.
    pub fn is_early(&self) -> bool {
        matches!(self, Self::Client3(stream) if stream.is_early())
    }

    /// Whether the body of an HTTP/2 stream has ended and was read completely.
    pub fn ended(&self) -> bool {
        match self {
            Self::Client(stream) => stream.ended(),
            Self::Client3(stream) => stream.ended(),
            Self::Endpoint(stream) => stream.ended(),
            Self::Endpoint3(stream) => stream.ended(),
            Self::Plain(_) | Self::Tls(_) | Self::Moved => false,
        }
    }

    /// Takes the trailer lines of an HTTP/2 body that has ended.
    pub fn take_trailers(&self) -> Vec<u8> {
        match self {
            Self::Client(stream) => stream.take_trailers(),
            Self::Client3(stream) => stream.take_trailers(),
            Self::Endpoint(stream) => stream.take_trailers(),
            Self::Endpoint3(stream) => stream.take_trailers(),
            Self::Plain(_) | Self::Tls(_) | Self::Moved => Vec::new(),
        }
    }

    /// Writes the head of a message with `write`. For HTTP/1.1 the head is written to `text`; an
    /// HTTP/2 stream stores it until the message is sent.
    pub fn put_head(&self, text: &mut Vec<u8>, write: impl FnOnce(&mut dyn Sink)) {
        let mut draft = Draft::default();
        match self {
            Self::Client(stream) => {
                write(&mut draft);
                stream.put_head(draft);
            }
            Self::Client3(stream) => {
                write(&mut draft);
                stream.put_head(draft);
            }
            Self::Endpoint(stream) => {
                write(&mut draft);
                stream.put_head(draft);
            }
            Self::Endpoint3(stream) => {
                write(&mut draft);
                stream.put_head(draft);
            }
            Self::Plain(_) | Self::Tls(_) | Self::Moved => {
                text.clear();
                write(text);
            }
        }
    }

    /// Writes a message: the head and the first part of the body. If `end` is given, then ends the
    /// stream with these trailer lines. For HTTP/1.1 `head` is the text of the head, and the body
    /// already contains the trailers.
    ///
    /// # Errors
    /// As for [`Stream::write_all`].
    pub async fn write_message(
        &self,
        head: &[u8],
        mut buf: Buf,
        end: Option<&[u8]>,
    ) -> (io::Result<()>, Buf) {
        match self {
            Self::Client(stream) => {
                let sent = stream.respond(buf.data(), end);
                return self.send_rest(sent, buf, end).await;
            }
            Self::Client3(stream) => {
                let sent = stream.respond(buf.data(), end);
                return self.send_rest(sent, buf, end).await;
            }
            Self::Endpoint(stream) => {
                let sent = stream.request(buf.data(), end);
                return self.send_rest(sent, buf, end).await;
            }
            Self::Endpoint3(stream) => {
                let sent = stream.request(buf.data(), end);
                return self.send_rest(sent, buf, end).await;
            }
            Self::Plain(_) | Self::Tls(_) | Self::Moved => {}
        }
        let body_start = buf.window().start;
        if !buf.prepend_at(body_start, head) {
            buf = buf.behind(head);
        }
        self.write_all(buf).await
    }

    /// Writes a part of a body. If `end` is given, then ends the stream as [`Wire::write_message`]
    /// does. The contents of the returned buffer are not defined.
    ///
    /// # Errors
    /// As for [`Stream::write_all`].
    pub async fn write_body(&self, buf: Buf, end: Option<&[u8]>) -> (io::Result<()>, Buf) {
        match self {
            Self::Client(stream) => {
                let sent = stream.send_ready(buf.data(), end);
                self.send_rest(sent, buf, end).await
            }
            Self::Client3(stream) => {
                let sent = stream.send_ready(buf.data(), end);
                self.send_rest(sent, buf, end).await
            }
            Self::Endpoint(stream) => {
                let sent = stream.send_ready(buf.data(), end);
                self.send_rest(sent, buf, end).await
            }
            Self::Endpoint3(stream) => {
                let sent = stream.send_ready(buf.data(), end);
                self.send_rest(sent, buf, end).await
            }
            Self::Plain(_) | Self::Tls(_) | Self::Moved if buf.is_empty() => (Ok(()), buf),
            Self::Plain(_) | Self::Tls(_) | Self::Moved => self.write_all(buf).await,
        }
    }

    /// Sends the part of `buf` that an HTTP/2 stream could not send at once. A short part waits
    /// without the buffer.
    async fn send_rest(
        &self,
        sent: io::Result<Sent>,
        buf: Buf,
        end: Option<&[u8]>,
    ) -> (io::Result<()>, Buf) {
        let sent = match sent {
            Ok(Sent::All) => return (Ok(()), buf),
            Ok(Sent::Bytes(sent)) => sent,
            Err(error) => return (Err(error), buf),
        };
        if buf.len() - sent > SHORT_BYTES_MAX {
            return (self.send_all(&buf.data()[sent..], end).await, buf);
        }
        let rest = buf.data()[sent..].to_vec();
        let buffers = buf.give_back();
        let done = self.send_all(&rest, end).await;
        (done, buffers.take())
    }

    /// Sends `left` on an HTTP/2 stream, and waits while the peer's windows are full.
    async fn send_all(&self, left: &[u8], end: Option<&[u8]>) -> io::Result<()> {
        match self {
            Self::Client(stream) => Box::pin(stream.send(left, end)).await,
            Self::Client3(stream) => Box::pin(stream.send(left, end)).await,
            Self::Endpoint(stream) => Box::pin(stream.send(left, end)).await,
            Self::Endpoint3(stream) => Box::pin(stream.send(left, end)).await,
            Self::Plain(_) | Self::Tls(_) | Self::Moved => Err(moved()),
        }
    }

    /// Completes when a client cancels its HTTP/2 stream. HTTP/1.1 uses [`Stream::quiet`] instead.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Client(stream) => stream.poll_gone(context),
            Self::Client3(stream) => stream.poll_gone(context),
            _ => Poll::Pending,
        }
    }

    /// Appends the received part of the body of a client's stream to `buf`, without waiting.
    pub fn read_ready(&self, buf: &mut Buf) {
        match self {
            Self::Client(stream) => stream.read_ready(buf),
            Self::Client3(stream) => stream.read_ready(buf),
            _ => {}
        }
    }

    /// Refuses a client's stream, so that the client may try again elsewhere.
    pub fn refuse(&self) {
        match self {
            Self::Client(stream) => stream.refuse(),
            Self::Client3(stream) => stream.refuse(),
            _ => {}
        }
    }

    /// Changes the reset of a client's incomplete stream to CANCEL, which is no server error.
    pub fn cancel_on_close(&self) {
        match self {
            Self::Client(stream) => stream.cancel_on_close(),
            Self::Client3(stream) => stream.cancel_on_close(),
            _ => {}
        }
    }

    /// How many bytes a client's stream accepts now without waiting; probably, for HTTP/3. `None`
    /// if only a system call knows it.
    pub fn share(&self) -> Option<usize> {
        match self {
            Self::Client(stream) => Some(stream.share()),
            Self::Client3(stream) => Some(stream.share()),
            _ => None,
        }
    }

    /// Whether this is a stream that we opened on a shared connection to an endpoint.
    pub fn is_endpoint_stream(&self) -> bool {
        matches!(self, Self::Endpoint(_) | Self::Endpoint3(_))
    }

    /// Waits for the next head of the response on an endpoint's stream, interim or final. Then
    /// takes a buffer and puts the head into it. If the head is final, also the received part of
    /// the body.
    ///
    /// # Errors
    /// The reason why there is no response.
    pub async fn response(&self, head: &mut Head, take: impl FnOnce() -> Buf) -> Result<Buf, Gone> {
        match self {
            Self::Endpoint(stream) => stream.response(head, take).await,
            Self::Endpoint3(stream) => stream.response(head, take).await,
            _ => Err(Gone::Silent),
        }
    }

    /// A copy of the trailer lines of an endpoint's stream. Empty before the body has ended.
    pub fn trailers(&self) -> Vec<u8> {
        match self {
            Self::Endpoint(stream) => stream.trailers(),
            Self::Endpoint3(stream) => stream.trailers(),
            _ => Vec::new(),
        }
    }

    /// Whether the kernel can move bytes from this stream to `other` (splice).
    pub fn can_splice(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Plain(_), Self::Plain(_)))
    }
}

impl<S: Stream> Stream for Wire<S> {
    async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        match self {
            Self::Plain(stream) => stream.read(buf).await,
            Self::Tls(stream) => Box::pin(stream.read(buf)).await,
            Self::Client(stream) => Box::pin(stream.read(buf)).await,
            Self::Client3(stream) => Box::pin(stream.read(buf)).await,
            Self::Endpoint(stream) => Box::pin(stream.read(buf)).await,
            Self::Endpoint3(stream) => Box::pin(stream.read(buf)).await,
            Self::Moved => (Err(moved()), buf),
        }
    }

    async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        match self {
            Self::Plain(stream) => stream.read_or_woken(buf, alarm).await,
            Self::Tls(stream) => Box::pin(stream.read_or_woken(buf, alarm)).await,
            Self::Client(stream) => Box::pin(stream.read_or_woken(buf, alarm)).await,
            Self::Client3(stream) => Box::pin(stream.read_or_woken(buf, alarm)).await,
            Self::Endpoint(stream) => Box::pin(stream.read_or_woken(buf, alarm)).await,
            Self::Endpoint3(stream) => Box::pin(stream.read_or_woken(buf, alarm)).await,
            Self::Moved => (Err(moved()), buf),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(stream) => stream.readable().await,
            Self::Client(stream) => stream.readable().await,
            Self::Client3(stream) => stream.readable().await,
            Self::Endpoint(stream) => stream.readable().await,
            Self::Endpoint3(stream) => stream.readable().await,
            Self::Moved => Err(moved()),
        }
    }

    async fn write_all(&self, buf: Buf) -> (io::Result<()>, Buf) {
        match self {
            Self::Plain(stream) => stream.write_all(buf).await,
            Self::Tls(stream) => Box::pin(stream.write_all(buf)).await,
            Self::Client(stream) => {
                let sent = Box::pin(stream.send(buf.data(), None)).await;
                (sent, buf)
            }
            Self::Client3(stream) => {
                let sent = Box::pin(stream.send(buf.data(), None)).await;
                (sent, buf)
            }
            Self::Endpoint(stream) => {
                let sent = Box::pin(stream.send(buf.data(), None)).await;
                (sent, buf)
            }
            Self::Endpoint3(stream) => {
                let sent = Box::pin(stream.send(buf.data(), None)).await;
                (sent, buf)
            }
            Self::Moved => (Err(moved()), buf),
        }
    }

    async fn room(&self, enough_bytes: usize) -> usize {
        match self {
            Self::Plain(stream) => stream.room(enough_bytes).await,
            Self::Tls(stream) => stream.room(enough_bytes).await,
            Self::Client(stream) => stream.room().await,
            Self::Client3(stream) => stream.room().await,
            Self::Endpoint(stream) => stream.room().await,
            Self::Endpoint3(stream) => stream.room().await,
            Self::Moved => usize::MAX,
        }
    }

    fn quiet(&self) -> Quiet {
        match self {
            Self::Plain(stream) => stream.quiet(),
            Self::Tls(stream) => stream.quiet(),
            Self::Client(stream) => stream.quiet(),
            Self::Client3(stream) => stream.quiet(),
            Self::Endpoint(_) | Self::Endpoint3(_) => Quiet::Quiet,
            Self::Moved => Quiet::Closed,
        }
    }

    async fn shutdown_write(&self) {
        match self {
            Self::Plain(stream) => stream.shutdown_write().await,
            Self::Tls(stream) => Box::pin(stream.shutdown_write()).await,
            Self::Client(stream) => Box::pin(stream.shutdown_write()).await,
            Self::Client3(stream) => Box::pin(stream.shutdown_write()).await,
            Self::Endpoint(stream) => Box::pin(stream.shutdown_write()).await,
            Self::Endpoint3(stream) => Box::pin(stream.shutdown_write()).await,
            Self::Moved => {}
        }
    }

    fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => stream.reset_on_close(),
            Self::Tls(stream) => stream.reset_on_close(),
            // An incomplete HTTP/2 stream is reset when it is dropped.
            Self::Client(_) | Self::Client3(_) => {}
            Self::Endpoint(stream) => stream.reset_on_close(),
            Self::Endpoint3(stream) => stream.reset_on_close(),
            Self::Moved => {}
        }
    }

    /// Returns 0 for an HTTP/2 stream: RST_STREAM is queued after the frames of the stream.
    fn unsent_bytes(&self) -> usize {
        match self {
            Self::Plain(stream) => stream.unsent_bytes(),
            Self::Tls(stream) => stream.unsent_bytes(),
            Self::Client(_) | Self::Client3(_) | Self::Endpoint(_) | Self::Endpoint3(_) => 0,
            Self::Moved => 0,
        }
    }

    /// Both streams must be plain ([`Wire::can_splice`]). Otherwise the result is an error of the
    /// source.
    async fn splice_to(
        &self,
        to: &Self,
        bytes_max: u64,
        moved: impl FnMut(u64),
    ) -> Result<Spliced, SpliceError> {
        match (self, to) {
            (Self::Plain(from), Self::Plain(to)) => from.splice_to(to, bytes_max, moved).await,
            _ => Err(SpliceError::Source(io::ErrorKind::Unsupported.into())),
        }
    }
}

fn moved() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
