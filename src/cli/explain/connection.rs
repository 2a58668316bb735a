//! Explains a request on a connection to an HTTP listener.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::asked::Asked;
use super::request;
use crate::decision::Client;
use crate::identity::SpiffeId;
use crate::net::Bind;
use crate::snapshot::{Listener, Snapshot};
use crate::tls::{Mode, ServerTls};

/// Writes the line with the name of a listener, and its rate limit.
pub(super) fn title(out: &mut String, listener: &Listener) {
    let binds: Vec<String> = listener.binds.iter().map(ToString::to_string).collect();
    // Writing to a String cannot fail.
    writeln!(out, "listener {} ({})", listener.name, binds.join(", ")).ok();
    for limit in &listener.rate_limits {
        writeln!(out, "  rate limit {limit}").ok();
    }
    if let Some(limit) = &listener.global_limit {
        writeln!(out, "  global rate limit: {limit}").ok();
    }
}

/// The security of a client's connection.
pub(super) enum Secured {
    /// TLS. The client has proven this identity; `None` means a client without a certificate.
    Tls(Option<SpiffeId>),
    /// Plain text.
    Plain,
    /// The connection is refused, for this reason.
    Refused(String),
}

/// Explains a request to an HTTP listener at each of its ports. In most cases all ports have the
/// same result, which is written once.
pub(super) fn explain(
    out: &mut String,
    snapshot: &Snapshot,
    listener: &Listener,
    asked: &Asked,
) -> Result<(), String> {
    let ports = ports(listener, asked);
    if ports.is_empty() {
        return Ok(());
    }
    title(out, listener);
    let mut said = String::new();
    for port in ports {
        let mut text = String::new();
        at_port(&mut text, snapshot, listener, asked, port)?;
        if text != said {
            if !said.is_empty() {
                writeln!(out, "  at port {port}:").ok();
            }
            out.push_str(&text);
            said = text;
        }
    }
    Ok(())
}

/// The ports at which the listener may get the request. A bind without a port counts as port 0.
fn ports(listener: &Listener, asked: &Asked) -> BTreeSet<u16> {
    let port = |bind: &Bind| match (bind, asked.to) {
        (Bind::Tcp(address), None) => Some(address.port()),
        (Bind::Tcp(address), Some(to)) => {
            let is_it = address.ip() == to.ip() || address.ip().is_unspecified();
            (is_it && address.port() == to.port()).then_some(to.port())
        }
        (Bind::Unix(_) | Bind::Systemd(_), None) => Some(0),
        (Bind::Unix(_) | Bind::Systemd(_), Some(_))
        | (Bind::Udp(_) | Bind::Quic(_) | Bind::Passed(_), _) => None,
    };
    listener.binds.iter().filter_map(port).collect()
}

fn at_port(
    out: &mut String,
    snapshot: &Snapshot,
    listener: &Listener,
    asked: &Asked,
    port: u16,
) -> Result<(), String> {
    let secured = match &listener.tls {
        Some(tls) => tls_of(tls, asked.id()),
        None => Secured::Plain,
    };
    let (identity, scheme) = match secured {
        Secured::Refused(why) => {
            writeln!(out, "  refused: the TLS handshake fails: {why}").ok();
            return Ok(());
        }
        Secured::Tls(id) => (id, "https"),
        Secured::Plain => (None, "http"),
    };
    unproven(out, asked, identity.as_ref());
    let identity = identity.as_ref().map(SpiffeId::as_str);
    let (original, probes_only) = (None, false);
    let client = Client { listener, identity, ip: asked.ip, scheme, port, original, probes_only };
    request::explain_asked(out, snapshot, client, asked)
}

/// Writes that `--from` has no effect, because the listener requests no certificate.
pub(super) fn unproven(out: &mut String, asked: &Asked, proven: Option<&SpiffeId>) {
    if let (Some(identity), None) = (&asked.identity, proven) {
        writeln!(out, "  nobody asks for a certificate here: {identity} counts for no rule").ok();
    }
}

/// The security of a connection from a client with the identity `id` to a listener with TLS. A
/// client without an identity uses plain text if the listener allows it.
pub(super) fn tls_of(tls: &ServerTls, id: Option<SpiffeId>) -> Secured {
    match (&tls.verifier, id) {
        (Some(verifier), Some(id)) => match verifier.check_id(&id) {
            Ok(()) => Secured::Tls(Some(id)),
            Err(error) => Secured::Refused(error.to_string()),
        },
        (_, None) if tls.mode == Mode::Permissive => Secured::Plain,
        (Some(verifier), None) if verifier.is_mandatory() => {
            Secured::Refused("the client presents no certificate; --from gives it one".to_owned())
        }
        (Some(_), None) | (None, _) => Secured::Tls(None),
    }
}
