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
    /// The local port of the connection.
    pub ports: Choice<u16>,
    /// The original destination address of a captured connection.
    pub ips: Choice<Network>,
    /// The host without its port, compared case-insensitively.
    pub hosts: Choice<Pattern>,
    /// The request method. [`ANY_METHOD`] is the method of every request.
    pub methods: Choice<Box<str>>,
    /// The normalised path.
    pub paths: Choice<PathPattern>,
}

impl Operation {
    /// Returns the name of the first field that has a condition which applies only to HTTP.
    fn needs_request(&self) -> Option<&'static str> {
        let Self { hosts, methods, paths, .. } = self;
        let paths = (!paths.is_empty()).then(|| paths.field(PATHS));
        let methods = || (!methods.is_empty()).then(|| methods.field(METHODS));
        paths.or_else(methods).or_else(|| (!hosts.is_empty()).then(|| hosts.field(HOSTS)))
    }

    pub(super) fn concerns(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|pattern| pattern.fits(service))
    }

    /// Whether the destination address matches. A connection that was not captured has no original
    /// destination, so it matches only if the operation has no condition on the address.
    fn holds_destination(&self, facts: &Facts<'_>, certainty: Certainty) -> bool {
        self.ips.is_empty()
            || facts.destination.is_some()
                && self.ips.holds(facts.destination, certainty, |n, ip, _| n.contains(ip))
    }

    /// Returns the name of the first field that does not match.
    pub(super) fn mismatch(&self, facts: &Facts<'_>, certainty: Certainty) -> Option<&'static str> {
        let port = Some(facts.port).filter(|&port| port != 0);
        if !self.concerns(facts.service) {
            return Some("service");
        }
        if !self.ports.holds(port, certainty, |p, port, _| *p == port) {
            return Some(self.ports.field(["ports", "not_ports"]));
        }
        if !self.holds_destination(facts, certainty) {
            return Some(self.ips.field(["ips", "not_ips"]));
        }
        let Some(request) = &facts.request else {
            // The bytes of an L4 connection are not parsed, so they may contain any request.
            return self.needs_request().filter(|_| certainty == Certainty::Sure);
        };
        let host = Some(request.host).filter(|host| !host.is_empty());
        let method = Some(request.method).filter(|method| !method.is_empty());
        let paths = match request.path.is_empty() {
            // A CONNECT has no path. The requests in its tunnel may be for any path.
            true => self.paths.is_empty() || certainty == Certainty::Possible,
            false => self.paths.holds(Some(&request.path), certainty, PathPattern::fits),
        };
        if !paths {
            return Some(self.paths.field(PATHS));
        }
        let methods = self.methods.holds(method, certainty, |wanted, method, _| {
            **wanted == *ANY_METHOD || wanted.as_bytes() == method
        });
        if !methods {
            return Some(self.methods.field(METHODS));
        }
        if !self.hosts.holds(host, certainty, |p, host, _| p.fits_in_any_case(host)) {
            return Some(self.hosts.field(HOSTS));
        }
        None
    }
}

/// The method that stands for all methods. It needs a request: opaque bytes do not match it surely.
pub const ANY_METHOD: &str = "*";

/// The names of the fields, and of their negations.
const HOSTS: [&str; 2] = ["hosts", "not_hosts"];
const METHODS: [&str; 2] = ["methods", "not_methods"];
const PATHS: [&str; 2] = ["paths", "not_paths"];

/// Parses a pattern for hosts.
///
/// # Errors
/// When no host can match the pattern.
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
