//! Advice for a text that is not an address, although an address is expected.

use std::net::{IpAddr, SocketAddr};

use crate::compile::habits::address::{self, Written};

/// The advice that shows the forms of an endpoint.
const FORMS: &str = "write IP:PORT or unix:/path; a host name goes into `dns: HOST:PORT`";

/// The advice for `text`, which is not an address to listen on. `forms` is the advice if no other
/// fits.
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

/// The advice for `text`, which is not the address of an endpoint.
pub(super) fn help_for_endpoint(text: &str) -> String {
    if text.contains("://") {
        let Some((found, https)) = address::written(text) else { return FORMS.to_owned() };
        let tls = if https { ", and `tls: {ca: FILE}` in the service" } else { "" };
        return match found {
            Written::Whole(address) => format!("write {address}{tls}"),
            Written::Name(host, Some(port)) => {
                format!("in place of `endpoints`, write `dns: {host}:{port}`{tls}")
            }
            Written::Ip(_) | Written::Port(_) | Written::Name(_, None) => FORMS.to_owned(),
        };
    }
    if text.parse::<IpAddr>().is_ok() {
        return "write the port, too: IP:PORT, or \"[IPv6]:PORT\"".to_owned();
    }
    if let Some((address, rest)) = text.split_once(' ')
        && address.parse::<SocketAddr>().is_ok()
    {
        let has = |word: &str| rest.split(' ').any(|option| option == word);
        if has("backup") || has("down") {
            return "take it out: every endpoint of the list gets requests".to_owned();
        }
        let weight = rest.split(' ').find_map(|option| option.strip_prefix("weight="));
        let weight = weight.filter(|weight| weight.parse::<u32>().is_ok()).unwrap_or("2");
        return format!("write {address}, or a map: {{address: {address}, weight: {weight}}}");
    }
    let name = |host: &str| host.bytes().any(|byte| byte.is_ascii_alphabetic());
    match text.rsplit_once(':') {
        Some((host, port)) if name(host) && !host.contains(':') && port.parse::<u16>().is_ok() => {
            format!("for a name, write `dns: {text}` in place of `endpoints`")
        }
        _ => FORMS.to_owned(),
    }
}

/// The advice for `text`, which is not a DNS name with its port.
pub(super) fn help_for_name(text: &str) -> String {
    match address::written(text) {
        Some((Written::Name(host, Some(port)), _)) => format!("write {host}:{port}"),
        Some((Written::Name(host, None), _)) => {
            format!("write the port, too, such as {host}:8080")
        }
        Some((Written::Whole(address), _)) => format!("write {address}"),
        _ => "write the name and the port: app.internal:8080".to_owned(),
    }
}
