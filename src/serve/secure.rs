//! TLS on a fresh connection: the handshake with a client, and with an endpoint.

use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::UnixTime;

use super::choose::Target;
use super::connection::Connection;
use super::relay::filled;
use crate::error::{Flag, Refusal};
use crate::identity::SpiffeId;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::snapshot::{ForwardClientCert, Listener, Serves};
use crate::tls::reason::Failure;
use crate::tls::{
    self, ClientTls, HandshakeError, Mode, ServerTls, Session, TlsStream, Wire, forwarded, is_over,
    spiffe_id,
};
use crate::upstream::Upstream;

/// How long a client may refuse to read our last record.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long an endpoint that is refused may take to read its alert and go: a request waits.
const ALERT_TIMEOUT: Duration = Duration::from_millis(100);

/// How much of what a refused peer still sends is read, so that it gets to see its alert.
const DISCARD_BYTES_MAX: usize = 1024 * 1024;

/// Why a session cannot be resumed although its ticket is good.
const EXPIRED_MEANWHILE: &str =
    "the peer's certificate is refused: it has expired since the session began";

/// What is known of a client that came through TLS.
#[derive(Debug, Default)]
pub struct Secured {
    /// Who it has proven to be.
    pub identity: Option<SpiffeId>,
    /// What services are told of its certificate, if they are.
    pub forwarded: Option<Box<str>>,
}

/// A connection as it goes on after its beginning, with what was read beyond it.
pub type Opened<I> = (Connection<I>, Option<Buf>);

/// Answers the TLS handshake of a client; `None` when the connection is over. Where plain text is
/// permitted too, the first byte tells which it is.
pub async fn accept<I: Io>(
    connection: Connection<I>,
    listener: &Listener,
    tls: &ServerTls,
    first: Option<Buf>,
) -> Option<Opened<I>> {
    let io = connection.worker.io.clone();
    connection.alarm.set(io.now() + listener.timeouts.handshake);
    let first = match first {
        Some(first) => first,
        None => {
            let read = connection.stream.read(io.buffers().take());
            match connection.alarm.guard(read).await {
                Ok((Ok(Read::Data(_)), buf)) => buf,
                Ok(_) => return None, // a port scan or a health check: nobody tried TLS
                Err(_) => return refused(&connection, listener, Failure::Timeout, &"silent"),
            }
        }
    };
    if first.data()[0] != tls::FIRST_BYTE {
        if tls.mode == Mode::Permissive {
            return Some((connection, Some(first)));
        }
        // Counted before the client can know.
        let why = &"the client speaks no TLS";
        let over = refused(&connection, listener, Failure::NotTls, why);
        refuse_plain(&connection, listener).await;
        return over;
    }
    let session = Session::server(tls.config.clone()).ok()?;
    let connection = connection.with_stream(|stream| match stream {
        Wire::Plain(stream) => {
            Wire::Tls(Box::new(TlsStream::new(stream, session, Some(first), io.buffers())))
        }
        encrypted => encrypted,
    });
    let mut connection = connection;
    let stream = connection.stream.tls()?;
    match connection.alarm.guard(stream.handshake()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            connection.alarm.set(io.now() + CLOSE_TIMEOUT);
            connection.alarm.guard(stream.discard(DISCARD_BYTES_MAX)).await.ok();
            return refused(&connection, listener, kind(&error), &error);
        }
        Err(_) => {
            let why = &"the handshake took too long";
            return refused(&connection, listener, Failure::Timeout, why);
        }
    }
    let cells = listener.stats.worker(connection.worker.index);
    let tells = listener.forward_client_cert != ForwardClientCert::Sanitize;
    if resumes_expired(stream) {
        close(&connection).await;
        return refused(&connection, listener, Failure::Certificate, &EXPIRED_MEANWHILE);
    }
    let (secured, resumed) = stream.session(|session| {
        let certificate = session.peer_certificates().and_then(|chain| chain.first());
        let by = tls.identity.as_ref();
        let forwarded = certificate.filter(|_| tells).map(|der| forwarded::element(der, by));
        let identity = certificate.and_then(spiffe_id);
        (Secured { identity, forwarded: forwarded.map(Into::into) }, session.resumed())
    });
    let handshakes = if resumed { &cells.tls_resumed } else { &cells.tls_handshakes };
    handshakes.increment();
    connection.secured = Some(Rc::new(secured));
    let issued = connection.stream.tls()?.issued();
    *connection.state().client.borrow_mut() = (!issued.is_empty()).then_some(issued);
    Some((connection, None))
}

/// Whether the session goes on from one whose peer's certificate has ended since.
fn resumes_expired<S: Stream>(stream: &TlsStream<S>) -> bool {
    stream.session(|session| {
        let chain = session.peer_certificates().unwrap_or_default();
        session.resumed() && is_over(chain, UnixTime::now())
    })
}

fn kind(error: &HandshakeError) -> Failure {
    match error {
        HandshakeError::Tls(error) => Failure::of(error),
        HandshakeError::Io(_) => Failure::Closed,
        HandshakeError::Oversized => Failure::Protocol,
    }
}

/// Counts and logs a client that was turned away.
fn refused<I: Io, T>(
    connection: &Connection<I>,
    listener: &Listener,
    failure: Failure,
    why: &dyn Display,
) -> Option<T> {
    let cells = listener.stats.worker(connection.worker.index);
    cells.tls_failures[failure.index()].increment();
    let peer = connection.peer_text.as_str();
    connection.worker.complain(|suppressed| {
        tracing::warn!(listener = &*listener.name, peer, %why, suppressed, "TLS handshake refused");
    });
    None
}

/// Tells a client that speaks plain HTTP to a TLS port what is wrong, as nginx does.
async fn refuse_plain<I: Io>(connection: &Connection<I>, listener: &Listener) {
    let Serves::Http(_) = listener.serves else { return };
    let answer: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
        content-type: text/plain\r\ncontent-length: 52\r\n\r\n\
        This port speaks TLS. Use https:// instead of http:\n";
    let buf = filled(connection.worker.io.buffers().take(), answer);
    connection.alarm.guard(connection.stream.write_all(buf)).await.ok();
    connection.alarm.guard(connection.stream.shutdown_write()).await.ok();
}

/// Ends a connection in order, so that the client knows that nothing was cut off (RFC 8446 6.1).
pub async fn close<I: Io>(connection: &Connection<I>) {
    connection.alarm.set(connection.worker.io.now() + CLOSE_TIMEOUT);
    connection.alarm.guard(connection.stream.shutdown_write()).await.ok();
}

/// Runs the TLS handshake with an endpoint on a connection that was just opened.
///
/// # Errors
/// 503 with UF; why is in the log.
pub async fn connect<I: Io>(
    target: &Target<'_, '_, I>,
    tls: &ClientTls,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let (connection, service) = (target.connection, &*target.service.config.name);
    let io = &connection.worker.io;
    let config = if target.bytes { &tls.bytes } else { &tls.config };
    let name = tls.name_for(&upstream.endpoint.config.borrow().address);
    let session = Session::client(Arc::clone(config), name).map_err(|_| TLS_FAILED)?;
    let upstream = upstream.with_stream(|stream| match stream {
        Wire::Plain(stream) => {
            Wire::Tls(Box::new(TlsStream::new(stream, session, None, io.buffers())))
        }
        encrypted => encrypted,
    });
    let Some(stream) = upstream.stream.tls() else { return Ok(upstream) };
    let (why, refusal) = match upstream.alarm.guard(stream.handshake()).await {
        Ok(Ok(())) if !resumes_expired(stream) => return Ok(upstream),
        Ok(Ok(())) => (EXPIRED_MEANWHILE.to_owned(), CERTIFICATE_REFUSED),
        Ok(Err(error)) => {
            upstream.alarm.set(io.now() + ALERT_TIMEOUT);
            upstream.alarm.guard(stream.discard(DISCARD_BYTES_MAX)).await.ok();
            (error.to_string(), refusal_of(&error))
        }
        Err(_) => ("the handshake took too long".to_owned(), TLS_TIMEOUT),
    };
    let endpoint = upstream.endpoint.config.borrow().address.to_string();
    upstream.endpoint.cells().connect_failures.increment();
    connection.worker.complain(|suppressed| {
        tracing::warn!(service, endpoint, %why, suppressed, "TLS with an endpoint failed");
    });
    Err(refusal)
}

fn refusal_of(error: &HandshakeError) -> Refusal {
    match kind(error) {
        Failure::Certificate => CERTIFICATE_REFUSED,
        Failure::Alert => {
            Refusal { detail: "the endpoint refused the TLS handshake", ..TLS_FAILED }
        }
        _ => TLS_FAILED,
    }
}

const TLS_FAILED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the TLS handshake with the endpoint failed",
};

const CERTIFICATE_REFUSED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the endpoint's certificate is refused",
};

const TLS_TIMEOUT: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the TLS handshake with the endpoint took too long",
};
