//! SPIFFE IDs (spiffe.io, SPIFFE-ID 2) and their parts in meshes.

use crate::matching::{Pattern, PatternError};

const SCHEME: &str = "spiffe://";

/// The parts of a SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity<'a> {
    /// The whole ID without `spiffe://`.
    pub(super) name: &'a str,
    /// The trust domain, before the path.
    pub(super) trust_domain: &'a str,
    /// The namespace. `None` if the path has no known form.
    pub(super) namespace: Option<&'a str>,
}

impl<'a> Identity<'a> {
    /// Parses `spiffe://TRUST-DOMAIN/PATH`. Returns `None` if it is not a SPIFFE ID.
    pub(super) fn parse(uri: &'a str) -> Option<Self> {
        let name = uri.strip_prefix(SCHEME)?;
        let (trust_domain, path) = name.split_once('/').unwrap_or((name, ""));
        (!trust_domain.is_empty()).then_some(Self {
            name,
            trust_domain,
            namespace: namespace(path),
        })
    }
}

/// Returns the namespace in a path of Istio and Linkerd (`ns/NS/sa/SA`) or of Consul
/// (`ns/NS/dc/DC/svc/SVC`, with `ap/AP/` before it in Enterprise). The path must have one of these
/// forms completely, so that no other path can claim a namespace.
fn namespace(path: &str) -> Option<&str> {
    let mut parts = path.split('/');
    let mut next = || parts.next().filter(|part| !part.is_empty());
    let mut first = next()?;
    if first == "ap" {
        next()?;
        first = next()?;
    }
    let namespace = (first == "ns").then(&mut next)??;
    match next()? {
        "sa" if path.starts_with("ns/") => next()?,
        "dc" => {
            next()?;
            (next()? == "svc").then(&mut next)??
        }
        _ => return None,
    };
    parts.next().is_none().then_some(namespace)
}

/// Parses a pattern for identities, with or without `spiffe://`.
///
/// # Errors
/// When no SPIFFE ID can match the pattern.
pub fn identity_pattern(text: &str) -> Result<Pattern, PatternError> {
    let help = "write spiffe://TRUST-DOMAIN/PATH, a prefix* of it, a *suffix, or * for any";
    let wrong = |what: &str| Err(PatternError::new(format!("{text:?}: {what}"), help));
    let bare = text.strip_prefix(SCHEME).unwrap_or(text);
    if bare.contains(':') {
        return wrong("it is not a SPIFFE ID");
    }
    let pattern = Pattern::parse(bare)?;
    let name = pattern.text();
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/".contains(&byte);
    if !name.bytes().all(in_name) {
        return wrong("a SPIFFE ID has only letters, digits and - . _ /");
    }
    let begins = matches!(pattern, Pattern::Exact(_) | Pattern::Prefix(_));
    let trust_domain = name.split('/').next().unwrap_or_default();
    if begins && trust_domain.is_empty() {
        return wrong("a SPIFFE ID begins with its trust domain");
    }
    if begins && trust_domain.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong("a trust domain is in lower case");
    }
    let ends = matches!(pattern, Pattern::Exact(_) | Pattern::Suffix(_));
    if name.contains("//") || ends && name.ends_with('/') {
        return wrong("a SPIFFE ID has no empty parts");
    }
    Ok(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces() {
        for (uri, trust_domain, namespace) in [
            ("spiffe://cluster.local/ns/shop/sa/web", "cluster.local", Some("shop")),
            ("spiffe://1-2.consul/ns/default/dc/dc1/svc/web", "1-2.consul", Some("default")),
            ("spiffe://1-2.consul/ap/a/ns/b/dc/dc1/svc/web", "1-2.consul", Some("b")),
            ("spiffe://1-2.consul/gateway/mesh/dc/dc1", "1-2.consul", None),
            ("spiffe://td", "td", None),
            ("spiffe://td/ns/shop", "td", None),
            ("spiffe://td/ns/shop/sa", "td", None),
            ("spiffe://td/ns//sa/web", "td", None),
            ("spiffe://td/ns/shop/sa/web/more", "td", None),
            ("spiffe://td/x/ns/shop/sa/web", "td", None),
            ("spiffe://td/ap/a/ns/shop/sa/web", "td", None),
            ("spiffe://td/ns/shop/dc/1/svc", "td", None),
        ] {
            let identity = Identity::parse(uri).unwrap();
            assert_eq!((identity.trust_domain, identity.namespace), (trust_domain, namespace));
        }
        for uri in ["", "spiffe://", "spiffe:///ns/a/sa/b", "https://td/ns/a/sa/b", "td/ns/a/sa/b"]
        {
            assert_eq!(Identity::parse(uri), None, "{uri}");
        }
    }

    #[test]
    fn patterns() {
        for (text, pattern) in [
            ("*", Pattern::Any),
            ("spiffe://*", Pattern::Any),
            ("spiffe://td/a", Pattern::Exact("td/a".into())),
            ("td/a", Pattern::Exact("td/a".into())),
            ("spiffe://td/ns/*", Pattern::Prefix("td/ns/".into())),
            ("*/sa/web", Pattern::Suffix("/sa/web".into())),
        ] {
            assert_eq!(identity_pattern(text), Ok(pattern), "{text}");
        }
        for text in [
            "",
            "**",
            "a*b",
            "spiffe://",
            "http://td/a",
            "spiffe:td/a",
            "/td/a",
            "TD/a",
            "td/a/",
            "td//a",
            "td/a b",
            "td/ü",
        ] {
            assert!(identity_pattern(text).is_err(), "{text}");
        }
    }
}
