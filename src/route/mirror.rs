//! Where a rule sends copies of requests.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::cluster::Destination;
use crate::matching::split_authority;
use crate::resilience::MirrorPolicy;

/// The mirror of a rule: copies of requests are sent to a second destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The destination of the copies.
    pub to: Destination,
    /// Which requests are copied.
    pub policy: MirrorPolicy,
}

/// The text that is appended to the name in the Host field of a copy.
const SHADOW: &[u8] = b"-shadow";

impl Mirror {
    /// Returns the Host value of a copy, with the port if `authority` has one. An IP address stays
    /// unchanged.
    pub fn host<'a>(&self, authority: &'a [u8]) -> Cow<'a, [u8]> {
        let (host, _) = split_authority(authority);
        if !self.policy.shadow_host || host.is_empty() || is_address(host) {
            return authority.into();
        }
        [host, SHADOW, &authority[host.len()..]].concat().into()
    }
}

fn is_address(host: &[u8]) -> bool {
    let text = std::str::from_utf8(host).unwrap_or_default();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::{Chance, MIRROR_BYTES, MIRROR_TIMEOUT};

    #[test]
    fn the_host_of_a_copy_is_that_of_envoy() {
        let mirror = |shadow_host| Mirror {
            to: Destination { service: 0, subset: 0 },
            policy: MirrorPolicy {
                chance: Chance::ALWAYS,
                mirror_bytes: MIRROR_BYTES,
                timeout: MIRROR_TIMEOUT,
                shadow_host,
            },
        };
        for (host, expected) in [
            ("shop.example.com", "shop.example.com-shadow"),
            ("shop:8080", "shop-shadow:8080"),
            ("shop.:8080", "shop-shadow.:8080"),
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("", ""),
        ] {
            assert_eq!(&*mirror(true).host(host.as_bytes()), expected.as_bytes(), "{host}");
            assert_eq!(&*mirror(false).host(host.as_bytes()), host.as_bytes(), "{host}");
        }
    }
}
