//! The actions of route rules.

use std::io::Write as _;

use super::rewrite::put_joined;
use super::split::Split;
use crate::matching::PathMatch;
use crate::message::HeadView;

/// The treatment of a request that matches a rule.
#[derive(Debug)]
pub enum Action {
    /// Forward the request to a service.
    Forward(Split),
    /// Respond with a redirect.
    Redirect(Redirect),
    /// Respond with a fixed response.
    Respond(Respond),
}

/// A redirect to the request's own URL, with some parts replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redirect {
    /// The status code: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// A new scheme. The port of the request is then dropped, too.
    pub scheme: Option<Box<str>>,
    /// A new host. The port of the request is then dropped, too.
    pub host: Option<Box<str>>,
    /// A new port. The default port of the scheme is not written.
    pub port: Option<u16>,
    /// A new path. If it has no query, the redirect keeps the query of the request.
    pub path: Option<Box<str>>,
    /// Replaces the part of the path that the rule matched.
    pub prefix: Option<Box<str>>,
}

/// A fixed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Respond {
    /// The status code.
    pub status: u16,
    /// The body: UTF-8 text.
    pub body: Box<[u8]>,
}

impl Redirect {
    /// Appends the value of `location` to `out`. `matched` is the condition of the rule on the
    /// path, and `scheme` is the scheme of the request.
    pub fn location(
        &self,
        matched: &PathMatch,
        request: HeadView<'_>,
        scheme: &str,
        out: &mut Vec<u8>,
    ) {
        let new_scheme = self.scheme.as_deref().unwrap_or(scheme);
        out.extend_from_slice(new_scheme.as_bytes());
        out.extend_from_slice(b"://");
        let authority = request.authority();
        let (host, port) = crate::matching::split_authority(authority);
        let kept_port = if self.host.is_some() || self.scheme.is_some() { None } else { port };
        out.extend_from_slice(self.host.as_deref().map_or(host, str::as_bytes));
        let default = if new_scheme == "https" { 443 } else { 80 };
        if let Some(port) = self.port.or(kept_port).filter(|&port| port != default) {
            // Writing to a Vec does not fail.
            write!(out, ":{port}").ok();
        }
        let path = request.path();
        match (&self.path, &self.prefix) {
            (Some(path), _) => out.extend_from_slice(path.as_bytes()),
            (None, Some(prefix)) => {
                put_joined(out, prefix.as_bytes(), &path[matched.matched(path)..]);
            }
            (None, None) => out.extend_from_slice(path),
        }
        let own_query = self.path.as_deref().is_some_and(|path| path.contains('?'));
        if !own_query && !request.query().is_empty() {
            out.push(b'?');
            out.extend_from_slice(request.query());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;
    use crate::message::Head;
    use crate::message::Limits;

    #[test]
    fn locations() {
        let to = |scheme: Option<&str>, host: Option<&str>, port, path: Option<&str>| Redirect {
            status: 301,
            scheme: scheme.map(Into::into),
            host: host.map(Into::into),
            port,
            path: path.map(Into::into),
            prefix: None,
        };
        for (redirect, location) in [
            (to(Some("https"), None, None, None), "https://a.b/x?y=z"),
            (to(Some("https"), None, Some(8443), None), "https://a.b:8443/x?y=z"),
            (to(Some("https"), None, Some(443), None), "https://a.b/x?y=z"),
            (to(None, None, None, Some("/new")), "http://a.b:8080/new?y=z"),
            (to(None, Some("c"), None, Some("/new?q")), "http://c/new?q"),
        ] {
            let text = b"GET /x?y=z HTTP/1.1\r\nHost: a.b:8080\r\n\r\n";
            let mut head = Head::default();
            parse::request(text, 0..text.len(), &Limits::default(), &mut head).unwrap();
            let mut out = Vec::new();
            redirect.location(&PathMatch::Any, head.view(text), "http", &mut out);
            assert_eq!(out, location.as_bytes());
        }
    }
}
