//! The conditions of one rule. A request must meet all of them.

use crate::matching::{PathMatch, ValueMatch};
use crate::message::{HeadView, Method};

/// The method that opens a tunnel. A rule matches it only if the rule names it in `methods`.
pub const CONNECT: &[u8] = b"CONNECT";

/// The conditions on a request.
#[derive(Clone, Debug, Default)]
pub struct Matcher {
    /// The condition on the path, without the query.
    pub path: PathMatch,
    /// The allowed methods. Empty means any method except CONNECT.
    pub methods: Vec<Box<str>>,
    /// Conditions on header fields. If a field has several lines, one matching line is enough.
    pub headers: Vec<(Box<str>, ValueMatch)>,
    /// Conditions on query parameters, by name as written in the query (not percent-decoded).
    pub query: Vec<(Box<str>, ValueMatch)>,
    /// Conditions that few rules have.
    pub rare: Option<Box<RareMatch>>,
}

/// Conditions that few rules have. They are apart, so that other rules need not check each of them.
#[derive(Clone, Debug, Default)]
pub struct RareMatch {
    /// Conditions on header fields. No line of the field may match.
    pub without_headers: Vec<(Box<str>, ValueMatch)>,
    /// The condition on the authority, as received.
    pub authority: Option<ValueMatch>,
    /// A condition on the name of the method.
    pub method: Option<ValueMatch>,
}

impl RareMatch {
    fn check(&self, request: HeadView<'_>) -> Result<(), Mismatch<'_>> {
        if self.method.as_ref().is_some_and(|wanted| !wanted.fits(request.method_name())) {
            return Err(Mismatch::Method);
        }
        if self.authority.as_ref().is_some_and(|wanted| !wanted.fits(request.authority())) {
            return Err(Mismatch::Authority);
        }
        let unwanted = |(name, value): &&(Box<str>, ValueMatch)| has_field(request, name, value);
        match self.without_headers.iter().find(unwanted) {
            Some((name, _)) => Err(Mismatch::UnwantedHeader(name)),
            None => Ok(()),
        }
    }
}

/// The first condition that did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'a> {
    /// The path does not match.
    Path,
    /// The method does not match.
    Method,
    /// The request is a CONNECT, and the rule does not name this method.
    Connect,
    /// The header field with this name does not match.
    Header(&'a str),
    /// The header field with this name is there, and the rule does not want it.
    UnwantedHeader(&'a str),
    /// The authority does not match.
    Authority,
    /// The query parameter with this name does not match.
    Query(&'a str),
}

impl std::fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path => f.write_str("the path does not match"),
            Self::Method => f.write_str("the method does not match"),
            Self::Connect => f.write_str("the rule does not name the method CONNECT"),
            Self::Header(name) => write!(f, "the header {name} does not match"),
            Self::UnwantedHeader(name) => {
                write!(f, "the header {name} matches a condition of without_headers")
            }
            Self::Authority => f.write_str("the authority does not match"),
            Self::Query(name) => write!(f, "the query parameter {name} does not match"),
        }
    }
}

impl Matcher {
    /// Whether every request matches.
    pub fn is_any(&self) -> bool {
        matches!(self.path, PathMatch::Any)
            && self.methods.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.rare.is_none()
    }

    /// Checks the request against every condition. The error is the first condition that does not
    /// match.
    pub fn check(&self, request: HeadView<'_>) -> Result<(), Mismatch<'_>> {
        let names = |method: &[u8]| self.methods.iter().any(|m| m.as_bytes() == method);
        // No rule checks the requests inside the tunnel of a CONNECT, so a rule must allow CONNECT
        // explicitly.
        if request.head.method == Method::Connect && !names(CONNECT) {
            return Err(Mismatch::Connect);
        }
        if !self.path.fits(request.path()) {
            return Err(Mismatch::Path);
        }
        if !self.methods.is_empty() && !names(request.method_name()) {
            return Err(Mismatch::Method);
        }
        if let Some((name, _)) = first_unfit(request, &self.headers) {
            return Err(Mismatch::Header(name));
        }
        for (name, wanted) in &self.query {
            let fits = parameters(request.query())
                .any(|(key, value)| key == name.as_bytes() && wanted.fits(value));
            if !fits {
                return Err(Mismatch::Query(name));
            }
        }
        self.rare.as_ref().map_or(Ok(()), |rare| rare.check(request))
    }

    /// Whether every request that `later` matches certainly matches this matcher, too. A later rule
    /// with `later` then never gets a request.
    pub fn shadows(&self, later: &Self) -> bool {
        let has = |method: &str| match self.methods.is_empty() {
            true => method.as_bytes() != CONNECT,
            false => self.methods.iter().any(|known| **known == *method),
        };
        let any_method = self.methods.is_empty() || !later.methods.is_empty();
        let methods = any_method && later.methods.iter().all(|method| has(method));
        let conditions = !self.headers.is_empty() || !self.query.is_empty() || self.rare.is_some();
        self.path.covers(&later.path) && methods && !conditions
    }
}

/// Whether all conditions on header fields match.
pub(super) fn fits_headers(request: HeadView<'_>, headers: &[(Box<str>, ValueMatch)]) -> bool {
    first_unfit(request, headers).is_none()
}

fn first_unfit<'m>(
    request: HeadView<'_>,
    headers: &'m [(Box<str>, ValueMatch)],
) -> Option<&'m (Box<str>, ValueMatch)> {
    headers.iter().find(|(name, wanted)| !has_field(request, name, wanted))
}

fn has_field(request: HeadView<'_>, name: &str, wanted: &ValueMatch) -> bool {
    request
        .fields()
        .any(|(field, value)| field.eq_ignore_ascii_case(name.as_bytes()) && wanted.fits(value))
}

/// Splits a query into its parameters. A parameter without `=` has an empty value.
fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&byte| byte == b'&').filter(|part| !part.is_empty()).map(|part| {
        match memchr::memchr(b'=', part) {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (part, &b""[..]),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_rule_may_take_everything_from_a_later_one() {
        let path = |text| Matcher { path: PathMatch::parse(text).unwrap(), ..Matcher::default() };
        let method = |text, method: &str| Matcher { methods: vec![method.into()], ..path(text) };
        for (earlier, later, shadows) in [
            (path("/*"), path("/a"), true),
            (path("/a/*"), path("/a"), true),
            (path("/a/*"), path("/a/b/*"), true),
            (path("/a/b/*"), path("/a/*"), false),
            (path("/a"), path("/a/*"), false),
            (path("~/x"), path("~/x"), true),
            (path("~/.*"), path("/x"), false),
            (method("/*", "GET"), path("/a"), false),
            (method("/*", "GET"), method("/a", "GET"), true),
            (path("/*"), method("/a", "GET"), true),
            (path("/*"), method("/*", "CONNECT"), false),
            (method("/*", "CONNECT"), method("/*", "CONNECT"), true),
            (method("/*", "CONNECT"), path("/*"), false),
        ] {
            assert_eq!(earlier.shadows(&later), shadows, "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn query_parameters() {
        let all: Vec<_> = parameters(b"a=1&&b&c=x=y").collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"b", b""), (b"c", b"x=y")];
        assert_eq!(all, expected);
    }
}
