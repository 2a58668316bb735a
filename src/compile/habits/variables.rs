//! Variables of other proxies in texts. Ringway has none, so they would be sent as they are.

/// Variables of nginx.
const NGINX: [&str; 16] = [
    "host",
    "hostname",
    "scheme",
    "uri",
    "args",
    "query_string",
    "is_args",
    "request",
    "request_uri",
    "request_id",
    "request_method",
    "remote_addr",
    "remote_port",
    "remote_user",
    "binary_remote_addr",
    "document_uri",
];

/// The beginnings of variables of nginx.
const NGINX_BEGINS: [&str; 10] = [
    "http_",
    "arg_",
    "cookie_",
    "server_",
    "proxy_",
    "upstream_",
    "ssl_",
    "sent_http_",
    "time_",
    "realip_",
];

/// Operators of Envoy without an underscore.
const ENVOY: [&str; 2] = ["PROTOCOL", "HOSTNAME"];

/// Placeholders of Caddy.
const CADDY: [&str; 8] = [
    "host",
    "hostport",
    "uri",
    "scheme",
    "remote_host",
    "remote_port",
    "client_ip",
    "upstream_hostport",
];

/// The first variable of another proxy in `text`: `$host`, `%PROTOCOL%`, `%[src]`, `{host}` or
/// `{{.Host}}`.
pub fn variable(text: &str) -> Option<&str> {
    let starts = text.char_indices().filter(|(_, c)| matches!(c, '$' | '%' | '{'));
    starts.map(|(at, _)| &text[at..]).find_map(|rest| {
        let len = of_nginx(rest).or_else(|| in_percent(rest)).or_else(|| in_braces(rest))?;
        rest.get(..len)
    })
}

/// The length of the variable of nginx at the beginning of `text`.
fn of_nginx(text: &str) -> Option<usize> {
    let name = text.strip_prefix('$')?;
    let is_of = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let end = name.find(|c| !is_of(c)).unwrap_or(name.len());
    let name = &name[..end];
    let begins = NGINX_BEGINS.iter().any(|begin| name.starts_with(begin));
    (NGINX.contains(&name) || begins).then_some(end + 1)
}

/// The length of the operator of Envoy or HAProxy at the beginning of `text`.
fn in_percent(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('%')?;
    if rest.starts_with('[') {
        return rest.find(']').map(|end| end + 2);
    }
    let is_of = |c: char| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit();
    let end = rest.find(|c| !is_of(c))?;
    let (name, after) = rest.split_at(end);
    // Two digits after a percent sign are a byte.
    if name.len() < 3 || name.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit) && name.len() < 6 {
        return None;
    }
    match after.chars().next()? {
        '%' if name.contains('_') || ENVOY.contains(&name) => Some(end + 2),
        '(' => after.rfind('%').map(|last| end + last + 2),
        _ => None,
    }
}

/// The length of the placeholder of a template or of Caddy at the beginning of `text`.
fn in_braces(text: &str) -> Option<usize> {
    let is_name = |name: &str| {
        let is_of = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        !name.is_empty() && name.chars().all(is_of)
    };
    if let Some(rest) = text.strip_prefix("{{") {
        let (name, _) = rest.split_once("}}")?;
        return is_name(name.trim()).then_some(name.len() + 4);
    }
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let known = CADDY.contains(&name) || name.starts_with("http.") && is_name(name);
    known.then_some(name.len() + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_of_other_proxies_are_found() {
        for (text, found) in [
            ("$remote_addr", Some("$remote_addr")),
            ("a $host:80", Some("$host")),
            ("$http_x_user", Some("$http_x_user")),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", Some("%DOWNSTREAM_REMOTE_ADDRESS%")),
            ("a%REQ(X-A?X-B):3%b", Some("%REQ(X-A?X-B):3%")),
            ("%START_TIME(%Y)%", Some("%START_TIME(%Y)%")),
            ("%PROTOCOL%", Some("%PROTOCOL%")),
            ("%[src]", Some("%[src]")),
            ("{{.Host}}", Some("{{.Host}}")),
            ("x {{ host }}", Some("{{ host }}")),
            ("{http.request.host}", Some("{http.request.host}")),
            ("{remote_host}", Some("{remote_host}")),
            ("", None),
            ("$5", None),
            ("pa$word", None),
            ("$hostile", None),
            ("100%", None),
            ("%BDA%20", None),
            ("%E4%BD%A0", None),
            ("a%20b%20c", None),
            ("%ABC(", None),
            ("{\"group\": \"a\"}", None),
            ("{}", None),
            ("max-age=60", None),
        ] {
            assert_eq!(variable(text), found, "{text}");
        }
    }
}
