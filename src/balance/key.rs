//! The hash key of a request.

use std::net::IpAddr;

use xxhash_rust::xxh64::xxh64;

use crate::message::HeadView;

/// The part of a request from which the hash policy computes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of the header field with this name.
    Header(Box<str>),
    /// The value of the cookie with this name.
    Cookie(Box<str>),
    /// The client's IP address.
    SourceIp,
}

/// Computes the hash of a request from `client` by `key`. `request` is `None` for an L4 connection.
/// Returns `None` if the request does not have the header field or cookie. The hash is stable
/// across restarts, machines and versions.
pub fn hash_key(
    key: &HashKey,
    request: Option<HeadView<'_>>,
    client: Option<IpAddr>,
) -> Option<u64> {
    hashed(key, request, client, hash)
}

/// Returns the position of a user among all users, from 0 to `u64::MAX`: a hash of the part of the
/// request that `key` names. `None` if the request does not have this part. The hash has another
/// seed than that of [`hash_key`], so that the users of one version are spread over all endpoints
/// of the version.
pub fn key_point(
    key: &HashKey,
    request: Option<HeadView<'_>>,
    client: Option<IpAddr>,
) -> Option<u64> {
    hashed(key, request, client, hash_point)
}

/// Returns the position of a user among all users, from 0 to `u64::MAX`. `bytes` identify the user.
pub fn hash_point(bytes: &[u8]) -> u64 {
    xxh64(bytes, 1)
}

fn hashed(
    key: &HashKey,
    request: Option<HeadView<'_>>,
    client: Option<IpAddr>,
    hash: impl Fn(&[u8]) -> u64,
) -> Option<u64> {
    match key {
        HashKey::Header(name) => request?.value(name.as_bytes()).map(hash),
        HashKey::Cookie(name) => cookies(request?, name.as_bytes()).next().map(hash),
        HashKey::SourceIp => client.map(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        }),
    }
}

/// The hash function for keys and for endpoints.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The values of the cookies with this name (RFC 6265 5.4). Names are case-sensitive.
pub fn cookies<'a>(request: HeadView<'a>, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
    let pairs = request.values(b"cookie").flat_map(|line| line.split(|&byte| byte == b';'));
    pairs.map(<[u8]>::trim_ascii).filter_map(move |pair| {
        let equals = memchr::memchr(b'=', pair)?;
        (&pair[..equals] == name).then(|| &pair[equals + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Field, Head, Span};

    #[test]
    fn keys_are_found_in_the_request() {
        let block = b"Cookie: a=1; session=abc;b=2Cookie: session=later; c=4X-User: jo";
        let span = |start, end| Span::new(start, end);
        let head = Head {
            fields: vec![
                Field { name: span(0, 6), value: span(8, 28), sensitive: false },
                Field { name: span(28, 34), value: span(36, 54), sensitive: false },
                Field { name: span(54, 60), value: span(62, 64), sensitive: false },
            ],
            ..Head::default()
        };
        let view = Some(head.view(block));
        let ip: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        let by = |key: HashKey| hash_key(&key, view, Some(ip));
        assert_eq!(by(HashKey::Cookie("session".into())), Some(hash(b"abc")));
        assert_eq!(by(HashKey::Cookie("c".into())), Some(hash(b"4")));
        assert_eq!(by(HashKey::Cookie("SESSION".into())), None);
        assert_eq!(by(HashKey::Header("x-user".into())), Some(hash(b"jo")));
        assert_eq!(by(HashKey::Header("x-none".into())), None);
        assert_eq!(by(HashKey::SourceIp), Some(hash(&[10, 0, 0, 1])));
        assert_eq!(hash_key(&HashKey::SourceIp, None, None), None);
    }
}
