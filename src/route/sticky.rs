//! The requests that stay on one version while the weights of a split move.

use std::fmt;
use std::net::IpAddr;

use crate::balance::{HashKey, hash_point, key_point};
use crate::message::HeadView;

/// The value that keeps a request on its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sticky {
    /// A part of the request, or the address of the client.
    Key(HashKey),
    /// The SPIFFE ID of the client.
    Identity,
}

impl Sticky {
    /// The position of a request among all users, from 0 to `u64::MAX`. Returns `None` if the
    /// request lacks the value.
    ///
    /// The position depends on nothing but the value. So all workers and proxies agree, and a
    /// restart changes nothing. A secret for each process would be safer against users who choose
    /// their version, but then two proxies would disagree. Rules agree, too: a user who gets the
    /// new version of one service gets it of another one with the same shares.
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
