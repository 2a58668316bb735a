//! Keeps the requests of each user on one version while the weights of a split change.

use std::fmt;
use std::net::IpAddr;

use crate::balance::{HashKey, hash_point, key_point};
use crate::message::HeadView;

/// The value that identifies the user of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// A part of the request, or the address of the client.
    Key(HashKey),
    /// The SPIFFE ID of the client.
    Identity,
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
        }
    }
}
