//! The TLS handshake with a client.

use std::fmt::Display;
use std::time::Duration;

use rustls::pki_types::CertificateDer;

use crate::error::{Flag, Refusal};
use crate::identity::SpiffeId;
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::{Io, Read, Stream};
use crate::serve::record::ExchangeRecord;
use crate::serve::{Downstream, Secured};
use crate::snapshot::{ForwardClientCert, Listener, Serves};
use crate::tls::reason::Failure;
use crate::tls::{
    self, DISCARD_BYTES_MAX, EXPIRED_MEANWHILE, Mode, ServerTls, Session, TlsStream, forwarded,
    spiffe_id,
};
use crate::wire::Wire;

/// How long a client may take to read the proxy's last TLS record.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection after its TLS handshake, and bytes that were read after it.
pub type Opened<I> = (Downstream<I>, Option<Buf>);

/// Accepts the TLS handshake of a client. Returns `None` when the connection must be closed. In
/// permissive mode the first byte distinguishes TLS from plain text.
pub async fn accept<I: Io>(
    downstream: Downstream<I>,
    listener: &Listener,
    tls: &ServerTls,
    first: Option<Buf>,
) -> Option<Opened<I>> {
    let io = downstream.worker.io.clone();
    let first = match first {
        Some(first) => {
            downstream.alarm.set(io.now() + listener.timeouts.handshake);
            first
        }
        None => first_bytes(&downstream, listener).await?,
    };
    if first.data()[0] != tls::FIRST_BYTE {
        if tls.mode == Mode::Permissive {
            return Some((downstream, Some(first)));
        }
        // Count first, so that the metric is right when the client gets the response.
        let why = &"the client does not speak TLS";
        let over = refused(&downstream, listener, Failure::NotTls, why);
        refuse_plain(&downstream, listener).await;
        return over;
    }
    let session = Session::server(tls.config.clone()).ok()?;
    let downstream = downstream.with_stream(|stream| match stream {
        Wire::Plain(stream) => {
            Wire::Tls(Box::new(TlsStream::new(stream, session, Some(first), io.buffers())))
        }
        encrypted => encrypted,
    });
    let mut downstream = downstream;
    let stream = downstream.stream.tls()?;
    match downstream.alarm.guard(stream.handshake()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            downstream.alarm.set(io.now() + CLOSE_TIMEOUT);
            downstream.alarm.guard(stream.discard(DISCARD_BYTES_MAX)).await.ok();
            return refused(&downstream, listener, Failure::of_handshake(&error), &error);
        }
        Err(_) => {
            let why = &"the handshake took too long";
            return refused(&downstream, listener, Failure::Timeout, why);
        }
    }
    let cells = listener.stats.worker(downstream.worker.index);
    let verifier = tls.verifier.as_deref();
    if verifier.is_some_and(|verifier| stream.resumes_expired(verifier)) {
        close(&downstream).await;
        return refused(&downstream, listener, Failure::Certificate, &EXPIRED_MEANWHILE);
    }
    let (secured, resumed) = stream.session(|session| {
        let chain = session.peer_certificates().unwrap_or_default();
        (secured(chain, listener, tls.identity.as_ref()), session.resumed())
    });
    let handshakes = if resumed { &cells.tls_resumed } else { &cells.tls_handshakes };
    handshakes.increment();
    downstream.peer_mut().secured = Some(Box::new(secured));
    let issued = downstream.stream.tls()?.issued();
    *downstream.state().client.borrow_mut() = (!issued.is_empty()).then_some(issued);
    Some((downstream, None))
}

/// The identity and the forwarded field of a client with the certificates `chain`. `by` is our own
/// identity.
pub(super) fn secured(
    chain: &[CertificateDer<'_>],
    listener: &Listener,
    by: Option<&SpiffeId>,
) -> Secured {
    let certificate = chain.first();
    let tells = listener.forward_client_cert != ForwardClientCert::Sanitize;
    let forwarded = certificate.filter(|_| tells).map(|der| forwarded::element(der, by));
    Secured { identity: certificate.and_then(spiffe_id), forwarded: forwarded.map(Into::into) }
}

/// Reads the first bytes of a client that should use TLS. The alarm is set to the time limit of the
/// handshake. Returns `None` when there are no bytes; the connection must then be closed.
pub async fn first_bytes<I: Io>(downstream: &Downstream<I>, listener: &Listener) -> Option<Buf> {
    let io = &downstream.worker.io;
    downstream.alarm.set(io.now() + listener.timeouts.handshake);
    let read = downstream.stream.read(io.buffers().take());
    match downstream.alarm.guard(read).await {
        Ok((Ok(Read::Data(_)), first)) => Some(first),
        Ok(_) => None, // a port scan or a health check, not a TLS client
        Err(_) => refused(downstream, listener, Failure::Timeout, &"the client sent nothing"),
    }
}

/// Counts and logs a failed handshake. It gets a line in the access log, too.
pub(super) fn refused<I: Io, T>(
    downstream: &Downstream<I>,
    listener: &Listener,
    failure: Failure,
    reason: &dyn Display,
) -> Option<T> {
    let cells = listener.stats.worker(downstream.worker.index);
    cells.tls_failures[failure.index()].increment();
    let peer = downstream.peer.ip_text();
    downstream.worker.log_limited(|suppressed| {
        let listener = &*listener.name;
        tracing::warn!(listener, peer, %reason, suppressed, "TLS handshake failed");
    });
    let local = downstream.local();
    let (_, terms) = downstream.listener(&local)?;
    let record = ExchangeRecord::open(downstream, terms);
    record.set_refusal(&refusal_of(failure));
    if let (Failure::NotTls, Serves::Http(_)) = (failure, &listener.serves) {
        record.set_status(PLAIN_STATUS);
    }
    None
}

fn refusal_of(failure: Failure) -> Refusal {
    let (flag, detail) = match failure {
        Failure::Timeout => (Flag::DownstreamTimeout, "the TLS handshake took too long"),
        Failure::Closed => {
            (Flag::DownstreamConnectionTermination, "the client left during the TLS handshake")
        }
        Failure::NotTls => (Flag::DownstreamProtocolError, "the client does not speak TLS"),
        Failure::NoCertificate => (Flag::Unauthorized, "the client presented no certificate"),
        Failure::Certificate => (Flag::Unauthorized, "the client's certificate was refused"),
        Failure::Alert => (Flag::DownstreamProtocolError, "the client refused the TLS handshake"),
        Failure::Protocol => (Flag::DownstreamProtocolError, "the TLS handshake failed"),
    };
    Refusal { status: 0, flag, detail }
}

/// The status of the response to plain HTTP on a TLS port.
const PLAIN_STATUS: u16 = 400;

/// Sends an error response to a client that uses plain HTTP on a TLS port, as nginx does.
async fn refuse_plain<I: Io>(downstream: &Downstream<I>, listener: &Listener) {
    let Serves::Http(_) = listener.serves else { return };
    let answer: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
        content-type: text/plain\r\ncontent-length: 52\r\n\r\n\
        This port speaks TLS. Use https:// instead of http:\n";
    let buf = filled(downstream.worker.io.buffers().take(), answer);
    downstream.alarm.guard(downstream.stream.write_all(buf)).await.ok();
    downstream.alarm.guard(downstream.stream.shutdown_write()).await.ok();
}

/// Sends close_notify, which tells the client that no bytes are missing (RFC 8446 6.1).
pub async fn close<I: Io>(downstream: &Downstream<I>) {
    downstream.alarm.set(downstream.worker.io.now() + CLOSE_TIMEOUT);
    downstream.alarm.guard(downstream.stream.shutdown_write()).await.ok();
}
