//! The bytes of a connection, in the clear or through TLS.

use std::io;

use super::stream::TlsStream;
use crate::http2::ClientStream;
use crate::runtime::alarm::Alarm;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Quiet, Read, SpliceError, Spliced, Stream};

/// A stream that may be encrypted. In the clear it is the stream itself: nothing is copied, boxed
/// or asked. Through TLS the operations are boxed, so that they do not make every other connection
/// larger.
pub enum Wire<S> {
    /// In the clear.
    Plain(S),
    /// Through TLS.
    Tls(Box<TlsStream<S>>),
    /// One stream of an HTTP/2 connection, in the dialect of HTTP/1.1.
    Http2(Box<ClientStream>),
    /// Somebody else reads and writes it now.
    Moved,
}

impl<S: Stream> Wire<S> {
    /// The TLS side of it, if it has one.
    pub fn tls(&self) -> Option<&TlsStream<S>> {
        match self {
            Self::Tls(stream) => Some(stream),
            Self::Plain(_) | Self::Http2(_) | Self::Moved => None,
        }
    }

    /// Whether the kernel can move bytes from it to `other` without us.
    pub fn can_splice(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Plain(_), Self::Plain(_)))
    }
}

impl<S: Stream> Stream for Wire<S> {
    async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        match self {
            Self::Plain(stream) => stream.read(buf).await,
            Self::Tls(stream) => Box::pin(stream.read(buf)).await,
            Self::Http2(stream) => Box::pin(stream.read(buf)).await,
            Self::Moved => (Err(moved()), buf),
        }
    }

    async fn read_or_rang(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        match self {
            Self::Plain(stream) => stream.read_or_rang(buf, alarm).await,
            Self::Tls(stream) => Box::pin(stream.read_or_rang(buf, alarm)).await,
            Self::Http2(stream) => Box::pin(stream.read_or_rang(buf, alarm)).await,
            Self::Moved => (Err(moved()), buf),
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls(stream) => stream.readable().await,
            Self::Http2(stream) => stream.readable().await,
            Self::Moved => Err(moved()),
        }
    }

    async fn write_all(&self, buf: Buf) -> (io::Result<()>, Buf) {
        match self {
            Self::Plain(stream) => stream.write_all(buf).await,
            Self::Tls(stream) => Box::pin(stream.write_all(buf)).await,
            Self::Http2(stream) => Box::pin(stream.write_all(buf)).await,
            Self::Moved => (Err(moved()), buf),
        }
    }

    fn quiet(&self) -> Quiet {
        match self {
            Self::Plain(stream) => stream.quiet(),
            Self::Tls(stream) => stream.quiet(),
            Self::Http2(stream) => stream.quiet(),
            Self::Moved => Quiet::Closed,
        }
    }

    async fn shutdown_write(&self) {
        match self {
            Self::Plain(stream) => stream.shutdown_write().await,
            Self::Tls(stream) => Box::pin(stream.shutdown_write()).await,
            // Its end is said when its exchange is over.
            Self::Http2(_) | Self::Moved => {}
        }
    }

    fn reset_on_close(&self) {
        match self {
            Self::Plain(stream) => stream.reset_on_close(),
            Self::Tls(stream) => stream.reset_on_close(),
            Self::Http2(stream) => stream.reset_on_close(),
            Self::Moved => {}
        }
    }

    /// Both must be plain ([`Wire::can_splice`]); anything else is an error of the source.
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
