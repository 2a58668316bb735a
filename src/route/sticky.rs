//! Keeps the requests of each user on one version while the weights of a split change.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use super::split::Split;
use crate::balance::{HashKey, cookies, hash_point, key_point};
use crate::cluster::Destination;
use crate::message::HeadView;

/// The value that identifies the user of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// A part of the request, or the address of the client.
    Key(HashKey),
    /// The SPIFFE ID of the client.
    Identity,
    /// A cookie that the proxy sets. It names the version, not the user.
    Set(Box<StickyCookie>),
}

impl Sticky {
    /// Returns the position of the user among all users, from 0 to `u64::MAX`, or `None` if the
    /// request does not have the value.
    ///
    /// The position depends only on the value, so it is the same on all workers and proxies, and
    /// after a restart. A hash with a secret of the process would prevent that users select their
    /// version by the value, but then two proxies would choose different versions. The position is
    /// also the same for all rules: rules with the same shares select the new version for the same
    /// users.
    pub fn point(
        &self,
        request: Option<HeadView<'_>>,
        client: Option<IpAddr>,
        identity: Option<&str>,
    ) -> Option<u64> {
        match self {
            Self::Key(key) => key_point(key, request, client),
            Self::Identity => identity.map(|identity| hash_point(identity.as_bytes())),
            Self::Set(_) => None,
        }
    }
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(HashKey::Header(name)) => write!(f, "the header {name}"),
            Self::Key(HashKey::Cookie(name)) => write!(f, "the cookie {name}"),
            Self::Key(HashKey::SourceIp) => f.write_str("the address of the client"),
            Self::Identity => f.write_str("the identity of the client"),
            Self::Set(cookie) => write!(f, "the cookie {}, which the proxy sets", cookie.name),
        }
    }
}

/// A cookie that the proxy sets, with a token for the version.
///
/// A token depends only on the names of the service and the version. So all workers and proxies
/// have the same tokens, also after a restart, and all rules with the same versions share them. A
/// client can neither read these names in a token, nor reach a version that the rule does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StickyCookie {
    name: Box<str>,
    /// The attributes, each with `; ` before it.
    attributes: Box<str>,
    tokens: Box<[(Destination, Token)]>,
}

/// A version as the value of a cookie: hexadecimal digits.
type Token = [u8; 16];

impl StickyCookie {
    /// Creates the cookie `name` for the versions of a rule, which have names as in `to`. Without
    /// `ttl`, the cookie ends with the session of the client.
    pub fn new(
        name: &str,
        ttl: Option<Duration>,
        path: &str,
        versions: impl Iterator<Item = (Destination, String)>,
    ) -> Self {
        let mut attributes = format!("; Path={path}");
        if let Some(ttl) = ttl {
            // Writing to a String does not fail.
            write!(attributes, "; Max-Age={}", ttl.as_secs()).ok();
        }
        attributes.push_str("; HttpOnly; SameSite=Lax");
        Self {
            name: name.into(),
            attributes: attributes.into(),
            tokens: versions.map(|(to, version)| (to, token(&version))).collect(),
        }
    }

    /// The version that the cookie of a request names, if it has a share of the requests now.
    pub fn kept(&self, request: HeadView<'_>, split: &Split) -> Option<Destination> {
        // A client has several cookies with this name if services or rules have set them for
        // different paths.
        let named = |value: &[u8]| self.tokens.iter().find(|(_, token)| token == value);
        let versions = cookies(request, self.name.as_bytes()).filter_map(named);
        versions.map(|(to, _)| *to).find(|to| split.has_share(*to))
    }

    /// The parts of `set-cookie` for the version `to`. `is_secure` is whether the client uses TLS.
    /// `None` if the rule does not have this version.
    pub fn field(&self, to: Destination, is_secure: bool) -> Option<[&[u8]; 5]> {
        let (_, token) = self.tokens.iter().find(|(known, _)| *known == to)?;
        let secure: &[u8] = if is_secure { b"; Secure" } else { b"" };
        Some([self.name.as_bytes(), b"=", token, self.attributes.as_bytes(), secure])
    }
}

fn token(version: &str) -> Token {
    let point = hash_point(format!("version {version}").as_bytes());
    std::array::from_fn(|digit| {
        let value = (point >> (60 - 4 * digit)) as u8 & 0xf;
        b"0123456789abcdef"[usize::from(value)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cells::PerWorker;
    use crate::message::{Field, Head, Span};
    use std::sync::Arc;

    fn to(subset: u32) -> Destination {
        Destination { service: 0, subset }
    }

    fn cookie(ttl: Option<Duration>) -> StickyCookie {
        let versions = [1, 2].map(|version| (to(version), format!("shop/v{version}")));
        StickyCookie::new("V", ttl, "/a", versions.into_iter())
    }

    fn text(cookie: &StickyCookie, to: Destination, is_secure: bool) -> String {
        let field = cookie.field(to, is_secure).unwrap();
        String::from_utf8(field.concat()).unwrap()
    }

    #[test]
    fn a_cookie_has_its_attributes_and_a_token_that_never_changes() {
        // Proxies of another version must know these tokens, too.
        for (ttl, version, is_secure, expected) in [
            (None, 1, false, "V=da451b483c1005a4; Path=/a; HttpOnly; SameSite=Lax"),
            (
                Some(Duration::from_secs(3600)),
                2,
                true,
                "V=08c898b88ee23035; Path=/a; Max-Age=3600; HttpOnly; SameSite=Lax; Secure",
            ),
        ] {
            assert_eq!(text(&cookie(ttl), to(version), is_secure), expected);
        }
        assert_eq!(cookie(None).field(to(3), false), None);
    }

    #[test]
    fn a_request_stays_on_the_version_that_its_cookie_names() {
        let cookie = cookie(None);
        let token = |version| text(&cookie, to(version), false)[2..18].to_owned();
        let (v1, v2) = (token(1), token(2));
        let weighted = |first, second| {
            let shares = [(to(1), first), (to(2), second)];
            Split::weighted(&shares, Arc::new(PerWorker::new(1)))
        };
        let (both, only_second) = (weighted(99, 1), weighted(0, 1));
        for (line, split, expected) in [
            (format!("V={v1}"), &both, Some(1)),
            (format!("a=b; V={v2}; c=d"), &both, Some(2)),
            (format!("V={v1}"), &only_second, None),
            // The cookie of another path has the same name.
            (format!("V=0123456789abcdef; V={v2}"), &both, Some(2)),
            (format!("V={v1}; V={v2}"), &only_second, Some(2)),
            (format!("v={v1}"), &both, None),
            (format!("V={}", v1.to_uppercase()), &both, None),
            (format!("V={v1}0"), &both, None),
            ("V=".to_owned(), &both, None),
        ] {
            let block = format!("Cookie{line}");
            let (name, value) = (Span::new(0, 6), Span::new(6, block.len()));
            let fields = vec![Field { name, value, sensitive: false }];
            let head = Head { fields, ..Head::default() };
            let kept = cookie.kept(head.view(block.as_bytes()), split);
            assert_eq!(kept, expected.map(to), "{line}");
        }
    }
}
