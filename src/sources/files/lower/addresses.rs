//! Advice for texts that are not addresses.

use std::net::{IpAddr, SocketAddr};

/// The advice for `text` where an address to listen on is expected; `forms` if there is no better.
pub(super) fn help_for_bind(text: &str, forms: &str) -> String {
    if let Ok(port) = text.parse::<u16>() {
        return both(port);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    if host.contains(':') && !host.starts_with('[') && !host.ends_with(':') {
        return format!("an IPv6 address is in brackets: \"[{host}]:{port}\"");
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return match ip {
            IpAddr::V4(ip) => format!("write the port, too: {ip}:8080"),
            IpAddr::V6(ip) => format!("write the port, too: \"[{ip}]:8080\""),
        };
    }
    match (host, port.parse::<u16>()) {
        ("" | "*", Ok(port)) => both(port),
        ("localhost", Ok(port)) => format!("write 127.0.0.1:{port}, or \"[::1]:{port}\""),
        (_, Err(_)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            "a port is at most 65535".to_owned()
        }
        _ => forms.to_owned(),
    }
}

fn both(port: u16) -> String {
    format!(
        "write [\"0.0.0.0:{port}\", \"[::]:{port}\"] for all addresses (IPv4 and IPv6), \
         or 127.0.0.1:{port} for clients on this host"
    )
}

/// The advice for `text` where the address of an endpoint is expected.
pub(super) fn help_for_endpoint(text: &str) -> String {
    if let Some((scheme, rest)) = text.split_once("://") {
        let bare = rest.split('/').next().unwrap_or_default();
        let tls = if scheme == "https" { ", and `tls: {ca: FILE}` in the service" } else { "" };
        return match bare.parse::<SocketAddr>() {
            Ok(address) => format!("write {address}{tls}"),
            Err(_) => format!("in place of `endpoints`, write `dns: {bare}`{tls}"),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return "write the port, too: IP:PORT, or \"[IPv6]:PORT\"".to_owned();
    }
    if let Some((address, _)) = text.split_once(' ')
        && address.parse::<SocketAddr>().is_ok()
    {
        return format!("write {address}, or a map: {{address: {address}, weight: 2}}");
    }
    let name = |host: &str| host.bytes().any(|byte| byte.is_ascii_alphabetic());
    match text.rsplit_once(':') {
        Some((host, port)) if name(host) && !host.contains(':') && port.parse::<u16>().is_ok() => {
            format!("for a name, write `dns: {text}` in place of `endpoints`")
        }
        _ => "write IP:PORT or unix:/path; a host name goes into `dns: HOST:PORT`".to_owned(),
    }
}

/// The advice for `text` where a name in DNS with its port is expected.
pub(super) fn help_for_name(text: &str) -> String {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or_default();
    match bare.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|it| it > 0) => {
            format!("write {bare}")
        }
        _ => "write the name and the port: app.internal:8080".to_owned(),
    }
}
