//! The arguments of `ringway explain`: the request to explain.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use crate::decision;
use crate::error::Refusal;
use crate::http1::parse;
use crate::identity::SpiffeId;
use crate::message::Head;
use crate::route::{CONNECT, HTTP_PORT, HTTPS_PORT};
use crate::snapshot::{Listener, Snapshot};

/// A request, its client and its destination.
#[derive(Args, Clone, Debug, Default)]
pub struct Asked {
    /// A header field, `name: value`. You may repeat it.
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// The client's identity, for example spiffe://cluster.local/ns/shop/sa/web. It counts only
    /// where the client can prove it by TLS. Without it, the client has no certificate.
    #[arg(long = "from", value_name = "SPIFFE")]
    pub identity: Option<String>,
    /// The client's address.
    #[arg(long = "from-ip", value_name = "IP")]
    pub ip: Option<IpAddr>,
    /// The address that the client connects to: the original destination of a captured connection.
    /// The default is the address in the URL, if it has one.
    #[arg(long = "to", value_name = "IP:PORT")]
    pub to: Option<SocketAddr>,
    /// The method, for example GET.
    pub method: String,
    /// The URL, for example `http://shop.example.com/cart`.
    pub url: String,
}

/// A request and its parsed head.
pub(super) struct Parsed {
    pub(super) text: Vec<u8>,
    pub(super) head: Head,
}

impl Asked {
    /// Checks the identity and the header fields in the arguments.
    pub(super) fn check(&self, snapshot: &Snapshot) -> Result<(), String> {
        if let Some(text) = &self.identity {
            SpiffeId::parse(text).map_err(|error| {
                format!("--from {text}: {error}; write spiffe://cluster.local/ns/shop/sa/web")
            })?;
        }
        self.parsed(snapshot).map(|_| ())
    }

    /// The client's identity. `None` if the client has no certificate.
    pub(super) fn id(&self) -> Option<SpiffeId> {
        SpiffeId::parse(self.identity.as_deref()?).ok()
    }

    /// The request after the proxy has parsed it.
    pub(super) fn parsed(&self, snapshot: &Snapshot) -> Result<Parsed, String> {
        let (host, target) = self.host_and_target();
        let mut text = format!("{} {target} HTTP/1.1\r\nHost: {host}\r\n", self.method);
        for header in &self.headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        let text = (text + "\r\n").into_bytes();
        let mut head = Head::default();
        match parse::request(&text, 0..text.len(), &snapshot.limits.message, &mut head) {
            Ok(parse::Progress::Complete) => Ok(Parsed { text, head }),
            Ok(parse::Progress::Partial) => {
                Err("the proxy would wait for the rest of this request".to_owned())
            }
            Err(refusal) => Err(format!("the proxy would refuse this request: {refusal}")),
        }
    }

    /// The request after normalisation, as routes and rules of `listener` evaluate it.
    pub(super) fn normalised(
        &self,
        snapshot: &Snapshot,
        listener: &Listener,
    ) -> Result<Result<Parsed, Refusal>, String> {
        let mut parsed = self.parsed(snapshot)?;
        // The proxy normalises the path only for authorization and tokens.
        if !snapshot.is_guarded() {
            return Ok(Ok(parsed));
        }
        let (slashes, mut scratch) = (listener.escaped_slashes, Vec::new());
        let Parsed { text, head } = &mut parsed;
        let normal = decision::normalise(slashes, head, text, 0, &mut scratch);
        Ok(normal.map(|()| parsed))
    }

    /// The original destination of a captured connection: `--to`, or else the address in the URL. A
    /// CONNECT request needs `--to`, because its URL is the destination of the tunnel.
    pub(super) fn original(&self) -> Option<SocketAddr> {
        if self.to.is_some() || self.is_connect() {
            return self.to;
        }
        let host = self.host_and_target().0;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let with_default = || Some(SocketAddr::new(bare.parse().ok()?, self.default_port()));
        host.parse().ok().or_else(with_default)
    }

    /// The port in the URL, or the default port of its scheme.
    pub(super) fn url_port(&self) -> u16 {
        let host = self.host_and_target().0;
        let named = host.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        named.unwrap_or_else(|| self.default_port())
    }

    fn default_port(&self) -> u16 {
        if self.is_https() { HTTPS_PORT } else { HTTP_PORT }
    }

    /// Whether the URL is https, so that the client uses TLS.
    pub(super) fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }

    fn is_connect(&self) -> bool {
        self.method.as_bytes() == CONNECT
    }

    /// The host of the request, without its port.
    pub(super) fn host_name(&self) -> &str {
        let host = self.host_and_target().0;
        match host.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => name,
            _ => host,
        }
    }

    fn host_and_target(&self) -> (&str, String) {
        let url = &*self.url;
        let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
        let end = after_scheme.find(['/', '?']).unwrap_or(after_scheme.len());
        let (host, mut target) = (&after_scheme[..end], after_scheme[end..].to_owned());
        if self.is_connect() {
            return (host, host.to_owned());
        }
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        (host, target)
    }
}
