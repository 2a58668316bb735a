//! Conditions on the target of a request.

use super::facts::Facts;
use super::path_pattern::PathPattern;
use super::pattern::{Certainty, Choice};
use crate::matching::{Pattern, PatternError};
use crate::net::Network;

/// Conditions on a request or connection (Istio's `to.operation`). All must match.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// The service must match one of these. Empty means any service.
    pub services: Vec<Pattern>,
    /// The local port.
    pub ports: Choice<u16>,
    /// The original destination address of a captured connection.
    pub ips: Choice<Network>,
    /// The host without its port, in upper or lower case.
    pub hosts: Choice<Pattern>,
    /// The method.
    pub methods: Choice<Box<str>>,
    /// The path.
    pub paths: Choice<PathPattern>,
}

impl Operation {
    /// Whether there is a condition that applies only to HTTP.
    fn needs_request(&self) -> bool {
        !(self.hosts.is_empty() && self.methods.is_empty() && self.paths.is_empty())
    }

    pub(super) fn concerns(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|pattern| pattern.fits(service))
    }

    /// A connection that was not captured certainly has no original destination.
    fn holds_destination(&self, facts: &Facts<'_>, certainty: Certainty) -> bool {
        self.ips.is_empty()
            || facts.destination.is_some()
                && self.ips.holds(facts.destination, certainty, |n, ip, _| n.contains(ip))
    }

    pub(super) fn holds(&self, facts: &Facts<'_>, certainty: Certainty) -> bool {
        let port = Some(facts.port).filter(|&port| port != 0);
        if !self.concerns(facts.service)
            || !self.ports.holds(port, certainty, |p, port, _| *p == port)
            || !self.holds_destination(facts, certainty)
        {
            return false;
        }
        let Some(request) = &facts.request else {
            // Bytes that are not parsed may be any request.
            return !self.needs_request() || certainty == Certainty::Possible;
        };
        let host = Some(request.host).filter(|host| !host.is_empty());
        let method = Some(request.method).filter(|method| !method.is_empty());
        let path = Some(&request.path).filter(|path| !path.is_empty());
        self.methods.holds(method, certainty, |m, method, _| m.as_bytes() == method)
            && self.hosts.holds(host, certainty, |p, host, _| p.fits_in_any_case(host))
            && self.paths.holds(path, certainty, PathPattern::fits)
    }
}

/// Parses a pattern for hosts.
///
/// # Errors
/// When no host can match it.
pub fn host_pattern(text: &str) -> Result<Pattern, PatternError> {
    let bare = text.strip_suffix('.').unwrap_or(text);
    let pattern = Pattern::parse(bare)?;
    let name = pattern.text();
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:".contains(&byte);
    if !name.bytes().all(in_host) {
        let help = "write shop.example.com, *.example.com, shop.* or *";
        return Err(PatternError::new(format!("{text:?} is not a host"), help));
    }
    if name.rsplit(']').next().is_some_and(|after_brackets| after_brackets.contains(':')) {
        let help = "leave it out here, and write `ports: [...]` beside `hosts`";
        return Err(PatternError::new(format!("{text:?}: hosts are compared without ports"), help));
    }
    Ok(pattern)
}
