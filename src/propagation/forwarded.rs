//! The fields in which proxies in front of this one report the client's address and scheme:
//! `x-forwarded-for` and `x-forwarded-proto`.
//!
//! Each of these proxies appends to a list, so the list is read from its end. The client may have
//! forged the entries that come before the entries of the trusted proxies.

use std::net::{IpAddr, SocketAddr};

use crate::message::{HeadView, elements};

/// The client's address: entry number `trusted_hops` of `x-forwarded-for`, counted from the end.
/// `None` if there is no such entry or `trusted_hops` is 0.
pub fn client_ip(request: HeadView<'_>, trusted_hops: u32) -> Option<IpAddr> {
    let entry = std::str::from_utf8(from_end(request, b"x-forwarded-for", trusted_hops)?).ok()?;
    // Some proxies append the port to the address.
    let with_port = || entry.parse::<SocketAddr>().map(|address| address.ip());
    entry.parse().or_else(|_| with_port()).ok()
}

/// The client's address for policies and for the log: the address that trusted proxies report, or
/// else the address of the peer. `request` is `None` for an L4 connection.
pub fn client(
    request: Option<HeadView<'_>>,
    trusted_hops: u32,
    peer: Option<SocketAddr>,
) -> Option<IpAddr> {
    let reported = request.and_then(|request| client_ip(request, trusted_hops));
    reported.or_else(|| peer.map(|peer| peer.ip())).map(|ip| ip.to_canonical())
}

/// `http` or `https`, if trusted proxies say so in `x-forwarded-proto`. Most proxies replace this
/// field and do not append to it. So a list may be shorter than the number of trusted proxies, and
/// its first entry then comes from one of them.
pub fn scheme(request: HeadView<'_>, trusted_hops: u32) -> Option<&'static str> {
    if trusted_hops == 0 {
        return None;
    }
    let entries = request.values(NAME_PROTO).flat_map(elements).count();
    let entry = from_end(request, NAME_PROTO, trusted_hops.min(entries as u32))?;
    ["https", "http"].into_iter().find(|scheme| entry.eq_ignore_ascii_case(scheme.as_bytes()))
}

const NAME_PROTO: &[u8] = b"x-forwarded-proto";

fn from_end<'a>(request: HeadView<'a>, name: &[u8], place: u32) -> Option<&'a [u8]> {
    if place == 0 {
        return None;
    }
    // Several lines of a field are one list (RFC 9110 5.3).
    let all: Vec<_> = request.values(name).flat_map(elements).collect();
    all.len().checked_sub(place as usize).map(|at| all[at])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::examples::with;

    #[test]
    fn only_what_trusted_hops_have_added_names_the_client() {
        let fields =
            [("X-Forwarded-For", "9.9.9.9, 1.1.1.1:80"), ("x-forwarded-for", "[2::2]:1, 2.2.2.2")];
        for (hops, expected) in [
            (0, None),
            (1, Some("2.2.2.2")),
            (2, Some("2::2")),
            (3, Some("1.1.1.1")),
            (4, Some("9.9.9.9")),
            (5, None),
        ] {
            let expected = expected.map(|ip| ip.parse::<IpAddr>().unwrap());
            assert_eq!(with(&fields, |head| client_ip(head, hops)), expected, "{hops}");
        }
    }

    #[test]
    fn the_scheme_is_read_from_the_trusted_end() {
        for (lines, hops, expected) in [
            (&["https"][..], 0, None),
            (&["https"], 1, Some("https")),
            (&["https"], 2, Some("https")),
            (&["https", "http"], 1, Some("http")),
            (&["https, http"], 1, Some("http")),
            (&["http", "https", "http"], 2, Some("https")),
            (&["HTTPS"], 1, Some("https")),
            (&["https", "ftp"], 1, None),
            (&[], 1, None),
        ] {
            let fields: Vec<_> = lines.iter().map(|line| ("X-Forwarded-Proto", *line)).collect();
            assert_eq!(with(&fields, |head| scheme(head, hops)), expected, "{lines:?} {hops}");
        }
    }
}
