//! Runs the TLS handshake with an endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::choose::Target;
use super::pool::Upstream;
use crate::error::{Flag, Refusal};
use crate::runtime::io::Io;
use crate::tls::reason::Failure;
use crate::tls::{
    ClientTls, DISCARD_BYTES_MAX, EXPIRED_MEANWHILE, HandshakeError, Session, TlsStream,
};
use crate::wire::Wire;

/// How long the proxy waits after a failed handshake, so that the endpoint can read the alert. The
/// request of the client waits for this time, too, so it is short.
const ALERT_TIMEOUT: Duration = Duration::from_millis(100);

/// Runs the TLS handshake on a new connection to an endpoint.
///
/// # Errors
/// 503 with the flag UF. The log has the reason.
pub async fn connect<I: Io>(
    target: &Target<'_, I>,
    tls: &ClientTls,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Upstream<Wire<I::Stream>>, Refusal> {
    let (core, service) = (target.core, &*target.service.config.name);
    let io = &core.io;
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
        Ok(Ok(())) if !stream.resumes_expired(&tls.verifier) => return Ok(upstream),
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
    core.log_limited(|suppressed| {
        tracing::warn!(
            service, endpoint, reason = %why, suppressed,
            "TLS handshake with endpoint failed"
        );
    });
    Err(refusal)
}

fn refusal_of(error: &HandshakeError) -> Refusal {
    match Failure::of_handshake(error) {
        Failure::Certificate => CERTIFICATE_REFUSED,
        Failure::Alert => {
            Refusal { detail: "the endpoint refused the TLS handshake", ..TLS_FAILED }
        }
        _ => TLS_FAILED,
    }
}

pub(super) const TLS_FAILED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the TLS handshake with the endpoint failed",
};

pub(super) const CERTIFICATE_REFUSED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the endpoint's certificate was refused",
};

pub(super) const TLS_TIMEOUT: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectFailure,
    detail: "the TLS handshake with the endpoint took too long",
};
