//! Parses addresses in the forms that authors of configurations use: URLs, addresses, names and
//! ports.

use std::net::{IpAddr, SocketAddr};

/// A parsed text: an address, or a part of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// An address with its port. For a URL without a port, the port is that of its scheme.
    Whole(SocketAddr),
    /// An address without a port.
    Ip(IpAddr),
    /// Only a port: `:PORT` or `*:PORT`.
    Port(u16),
    /// A DNS name, and its port if it has one.
    Name(String, Option<u16>),
}

/// Parses the address in `text`. Also returns whether its scheme is https. Returns `None` if `text`
/// has no address.
pub fn written(text: &str) -> Option<(Written, bool)> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let text = rest.split('/').next().unwrap_or_default();
    let bare = text.trim_start_matches('*').trim_start_matches(':');
    let found = if let Ok(address) = text.parse() {
        Written::Whole(address)
    } else if let Ok(ip) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        match default {
            Some(port) => Written::Whole(SocketAddr::new(ip, port)),
            None => Written::Ip(ip),
        }
    } else if let Ok(port @ 1..) = bare.parse() {
        Written::Port(port)
    } else {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|port| *port > 0)?)),
            None => (text, default),
        };
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let named = host.starts_with(|c: char| c.is_ascii_alphanumeric());
        (named && host.bytes().all(letter)).then(|| Written::Name(host.to_owned(), port))?
    };
    Some((found, scheme == "https"))
}

/// The keys of a service for `text`, which is an address, a name or a URL.
pub fn service(text: &str) -> Option<String> {
    let (written, https) = written(text)?;
    let to = match written {
        Written::Whole(address) if address.is_ipv6() => format!("endpoints: ['{address}']"),
        Written::Whole(address) => format!("endpoints: [{address}]"),
        Written::Name(host, Some(port)) => format!("dns: {host}:{port}"),
        Written::Ip(_) | Written::Port(_) | Written::Name(_, None) => return None,
    };
    Some(if https { format!("{to}, tls: {{ca: FILE}}") } else { to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_connects_to_the_address_of_the_author() {
        for (text, keys) in [
            ("10.0.0.1:80", Some("endpoints: [10.0.0.1:80]")),
            ("http://10.0.0.1", Some("endpoints: [10.0.0.1:80]")),
            ("https://10.0.0.1:8443/a/b", Some("endpoints: [10.0.0.1:8443], tls: {ca: FILE}")),
            ("http://[::1]:80/", Some("endpoints: ['[::1]:80']")),
            ("https://[::1]", Some("endpoints: ['[::1]:443'], tls: {ca: FILE}")),
            ("https://a.example", Some("dns: a.example:443, tls: {ca: FILE}")),
            ("app:8080", Some("dns: app:8080")),
            ("app", None),
            ("10.0.0.1", None),
            (":80", None),
            ("http://$host:80", None),
            ("a.example:0", None),
            ("a.example:http", None),
            ("", None),
        ] {
            assert_eq!(service(text).as_deref(), keys, "{text}");
        }
    }
}
