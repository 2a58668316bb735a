//! SPIFFE IDs (SPIFFE-ID specification, section 2). The parser is as strict as the specification
//! allows. If one identity had two spellings, a rule for one spelling would not protect the other.

use std::fmt;
use std::str::FromStr;

/// The maximum number of bytes of an ID (section 2.3: implementations must support 2048, and must
/// not make longer ones).
const ID_BYTES_MAX: usize = 2048;

/// The maximum number of bytes of a trust domain (section 2.3).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

const SCHEME: &str = "spiffe://";

/// The SPIFFE ID of a workload (`spiffe://cluster.local/ns/shop/sa/cart`) or of a trust domain.
/// Each ID has only one spelling, so equal IDs have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Box<str>);

impl SpiffeId {
    /// Parses an ID. An ID without a path is that of a trust domain, as in CA certificates.
    ///
    /// # Errors
    /// The violated rule of the SPIFFE-ID specification.
    pub fn parse(text: &str) -> Result<Self, SpiffeError> {
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeError::Scheme)?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(trust_domain)?;
        check_path(path)?;
        Ok(Self(text.into()))
    }

    /// Creates the ID of a trust domain, as in CA certificates.
    ///
    /// # Errors
    /// When `name` is not a trust domain name.
    pub fn of_trust_domain(name: &str) -> Result<Self, SpiffeError> {
        check_trust_domain(name)?;
        Ok(Self(format!("{SCHEME}{name}").into()))
    }

    /// The complete ID, with its scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain, for example `cluster.local`.
    pub fn trust_domain(&self) -> &str {
        let rest = &self.0[SCHEME.len()..];
        &rest[..rest.find('/').unwrap_or(rest.len())]
    }

    /// The path with its leading slash: `/ns/shop/sa/cart`. Empty for the ID of a trust domain.
    pub fn path(&self) -> &str {
        &self.0[SCHEME.len() + self.trust_domain().len()..]
    }

    /// Parses the workload in the path. `None` if the path does not have the form of a known
    /// mesh.
    pub fn workload(&self) -> Option<Workload<'_>> {
        let mut segments = self.path().strip_prefix('/')?.split('/');
        // Take one segment more than the longest form has, to check that nothing follows.
        let segments: [Option<&str>; 9] = std::array::from_fn(|_| segments.next());
        match segments {
            [Some("ns"), Some(namespace), Some("sa"), Some(service_account), None, ..] => {
                Some(Workload::ServiceAccount { namespace, service_account })
            }
            [Some("ap"), Some(partition), consul @ ..] => service(Some(partition), &consul),
            consul => service(None, &consul),
        }
    }
}

/// Parses the rest of Consul's form: `ns/NAMESPACE/dc/DATACENTER/svc/SERVICE`.
fn service<'a>(partition: Option<&'a str>, rest: &[Option<&'a str>]) -> Option<Workload<'a>> {
    let &[
        Some("ns"),
        Some(namespace),
        Some("dc"),
        Some(datacenter),
        Some("svc"),
        Some(service),
        None,
        ..,
    ] = rest
    else {
        return None;
    };
    Some(Workload::Service { partition, namespace, datacenter, service })
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        Self::parse(text)
    }
}

/// A workload, in the terms of the mesh that wrote its ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload<'a> {
    /// Istio: `/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
    ServiceAccount {
        /// The Kubernetes namespace.
        namespace: &'a str,
        /// The Kubernetes service account.
        service_account: &'a str,
    },
    /// Consul: `[/ap/PARTITION]/ns/NAMESPACE/dc/DATACENTER/svc/SERVICE`.
    Service {
        /// The admin partition, if there is one.
        partition: Option<&'a str>,
        /// The Consul namespace.
        namespace: &'a str,
        /// The Consul datacenter.
        datacenter: &'a str,
        /// The name of the service.
        service: &'a str,
    },
}

impl<'a> Workload<'a> {
    /// The namespace of the workload.
    pub fn namespace(&self) -> &'a str {
        match self {
            Self::ServiceAccount { namespace, .. } | Self::Service { namespace, .. } => namespace,
        }
    }

    /// The name of the service account or of the service.
    pub fn name(&self) -> &'a str {
        match self {
            Self::ServiceAccount { service_account: name, .. }
            | Self::Service { service: name, .. } => name,
        }
    }
}

/// The reason why a text is not a SPIFFE ID, with advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// The ID is longer than 2048 bytes, or its trust domain longer than 255.
    #[error("it is too long: 2048 bytes at most, 255 in the trust domain")]
    TooLong,
    /// The text does not begin with `spiffe://`.
    #[error("it must begin with spiffe://, as in spiffe://cluster.local/ns/NAMESPACE/sa/NAME")]
    Scheme,
    /// The trust domain is empty.
    #[error("the trust domain is missing: spiffe://cluster.local/ns/NAMESPACE/sa/NAME")]
    NoTrustDomain,
    /// The trust domain has a port, a user, an upper case letter or the like.
    #[error("{0:?} cannot stand in a trust domain: a-z, 0-9, dot, dash and underscore can")]
    TrustDomain(char),
    /// The path ends with a slash.
    #[error("it ends with a slash: remove the slash")]
    TrailingSlash,
    /// The path has two consecutive slashes.
    #[error("a path segment is empty: write one slash between two segments")]
    EmptySegment,
    /// A segment of the path is `.` or `..`.
    #[error("\".\" and \"..\" cannot be segments of the path")]
    Dots,
    /// The path has a character that is not allowed, such as `%`, `?` or `#`.
    #[error("{0:?} cannot stand in the path: letters, digits, dot, dash and underscore can")]
    Path(char),
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeError> {
    if name.is_empty() {
        return Err(SpiffeError::NoTrustDomain);
    }
    if name.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(SpiffeError::TooLong);
    }
    let allowed = |c: &char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
    name.chars().find(|c| !allowed(c)).map_or(Ok(()), |c| Err(SpiffeError::TrustDomain(c)))
}

/// Checks `path`, which is empty or begins with a slash.
fn check_path(path: &str) -> Result<(), SpiffeError> {
    let Some(path) = path.strip_prefix('/') else { return Ok(()) };
    if path.is_empty() || path.ends_with('/') {
        return Err(SpiffeError::TrailingSlash);
    }
    for segment in path.split('/') {
        match segment {
            "" => return Err(SpiffeError::EmptySegment),
            "." | ".." => return Err(SpiffeError::Dots),
            _ => {}
        }
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    path.chars().find(|c| !allowed(c)).map_or(Ok(()), |c| Err(SpiffeError::Path(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_split_into_trust_domain_and_path() {
        for (text, trust_domain, path) in [
            ("spiffe://cluster.local", "cluster.local", ""),
            ("spiffe://cluster.local/ns/a/sa/b", "cluster.local", "/ns/a/sa/b"),
            ("spiffe://a_b-1.c/X/...", "a_b-1.c", "/X/..."),
            ("spiffe://1.2.3.4/a.b/_-/.a", "1.2.3.4", "/a.b/_-/.a"),
        ] {
            let id = SpiffeId::parse(text).unwrap();
            assert_eq!((id.trust_domain(), id.path()), (trust_domain, path), "{text}");
            assert_eq!(id.as_str(), text);
            assert_eq!(id.to_string().parse(), Ok(id), "{text}");
        }
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        use SpiffeError as E;
        for (text, error) in [
            ("", E::Scheme),
            ("cluster.local/ns/a", E::Scheme),
            ("http://cluster.local/a", E::Scheme),
            ("SPIFFE://cluster.local/a", E::Scheme),
            ("spiffe:/cluster.local/a", E::Scheme),
            (" spiffe://cluster.local/a", E::Scheme),
            ("spiffe://", E::NoTrustDomain),
            ("spiffe:///a", E::NoTrustDomain),
            ("spiffe://Cluster.local/a", E::TrustDomain('C')),
            ("spiffe://cluster.local:80/a", E::TrustDomain(':')),
            ("spiffe://me@cluster.local/a", E::TrustDomain('@')),
            ("spiffe://cluster.local?a=b", E::TrustDomain('?')),
            ("spiffe://[::1]/a", E::TrustDomain('[')),
            ("spiffe://clüster/a", E::TrustDomain('ü')),
            ("spiffe://a b/a", E::TrustDomain(' ')),
            ("spiffe://a%20b/a", E::TrustDomain('%')),
            ("spiffe://cluster.local/", E::TrailingSlash),
            ("spiffe://cluster.local/a/", E::TrailingSlash),
            ("spiffe://cluster.local//", E::TrailingSlash),
            ("spiffe://cluster.local//a", E::EmptySegment),
            ("spiffe://cluster.local/a//b", E::EmptySegment),
            ("spiffe://cluster.local/./a", E::Dots),
            ("spiffe://cluster.local/a/..", E::Dots),
            ("spiffe://cluster.local/a%2fb", E::Path('%')),
            ("spiffe://cluster.local/a?b", E::Path('?')),
            ("spiffe://cluster.local/a#b", E::Path('#')),
            ("spiffe://cluster.local/a:b", E::Path(':')),
            ("spiffe://cluster.local/\u{e9}", E::Path('\u{e9}')),
            ("spiffe://cluster.local/a\n", E::Path('\n')),
            ("spiffe://cluster.local/a\0", E::Path('\0')),
        ] {
            assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn lengths_are_limited() {
        let path = |bytes: usize| format!("spiffe://a/{}", "b".repeat(bytes - 11));
        assert_eq!(path(2048).len(), 2048);
        assert!(SpiffeId::parse(&path(2048)).is_ok());
        assert_eq!(SpiffeId::parse(&path(2049)), Err(SpiffeError::TooLong));
        let domain = |bytes: usize| format!("spiffe://{}/b", "a".repeat(bytes));
        assert!(SpiffeId::parse(&domain(255)).is_ok());
        assert_eq!(SpiffeId::parse(&domain(256)), Err(SpiffeError::TooLong));
    }

    #[test]
    fn a_trust_domain_has_an_id_of_its_own() {
        let id = SpiffeId::of_trust_domain("cluster.local").unwrap();
        assert_eq!(id.as_str(), "spiffe://cluster.local");
        assert_eq!(SpiffeId::of_trust_domain(""), Err(SpiffeError::NoTrustDomain));
        let slash = SpiffeId::of_trust_domain("cluster.local/ns");
        assert_eq!(slash, Err(SpiffeError::TrustDomain('/')));
    }

    #[test]
    fn workloads_of_istio_and_consul_are_read() {
        let consul = "11111111-2222-3333-4444-555555555555.consul";
        let service = |partition, namespace, datacenter, service| {
            Some(Workload::Service { partition, namespace, datacenter, service })
        };
        let account = |namespace, service_account| {
            Some(Workload::ServiceAccount { namespace, service_account })
        };
        for (trust_domain, path, workload) in [
            ("cluster.local", "/ns/shop/sa/cart", account("shop", "cart")),
            (consul, "/ns/default/dc/dc1/svc/web", service(None, "default", "dc1", "web")),
            (consul, "/ap/p/ns/n/dc/d/svc/s", service(Some("p"), "n", "d", "s")),
            ("cluster.local", "", None),
            ("cluster.local", "/ns/shop", None),
            ("cluster.local", "/ns/shop/sa", None),
            ("cluster.local", "/ns/shop/sa/cart/v1", None),
            ("cluster.local", "/sa/cart/ns/shop", None),
            (consul, "/ns/default/dc/dc1/svc", None),
            (consul, "/ns/n/dc/d/svc/s/x", None),
            (consul, "/ap/p/ns/n/dc/d/svc", None),
            (consul, "/ap/p/ns/n/dc/d/svc/s/x", None),
            (consul, "/ap/p/ns/n/dc/d/svc/s/x/y", None),
            (consul, "/agent/client/dc/dc1/id/x", None),
        ] {
            let id = SpiffeId::parse(&format!("spiffe://{trust_domain}{path}")).unwrap();
            assert_eq!(id.workload(), workload, "{path}");
        }
        let id = SpiffeId::parse("spiffe://a/ap/p/ns/n/dc/d/svc/s").unwrap();
        let workload = id.workload().unwrap();
        assert_eq!((workload.namespace(), workload.name()), ("n", "s"));
        let id = SpiffeId::parse("spiffe://a/ns/n/sa/s").unwrap();
        let workload = id.workload().unwrap();
        assert_eq!((workload.namespace(), workload.name()), ("n", "s"));
    }
}
