//! The parts of a URL as the keys of a redirect.

use super::quoted;

/// Variables that stand for the path of the request at other proxies.
const SAME_PATH: [&str; 3] = ["$request_uri", "{uri}", "{http.request.uri}"];

/// The keys of a redirect to `url`. A URL without a path means the path `/`.
pub(super) fn redirect(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let end = rest.find(['/', '?', '#', '$', '{']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, format!(", port: {}", port.parse::<u16>().ok()?)),
        None => (authority, String::new()),
    };
    let bare = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
    if !bare || host.is_empty() {
        return None;
    }
    let path = match path {
        "" => ", path: /".to_owned(),
        path if SAME_PATH.contains(&path.trim_start_matches('/')) => String::new(),
        // Another variable of another proxy is no text.
        path if path.starts_with('/') && !path.contains(['$', '{']) => {
            format!(", path: {}", quoted(path)?)
        }
        _ => return None,
    };
    Some(format!("scheme: {scheme}, host: {host}{port}{path}"))
}

/// The path of a URL, if it has one.
pub(super) fn path(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let path = &rest[rest.find('/')?..];
    (!path.contains(['$', '{', '?', '#'])).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_goes_to_the_very_url() {
        for (url, keys) in [
            ("https://a.example", Some("scheme: https, host: a.example, path: /")),
            (
                "http://a.example:81/b/c",
                Some("scheme: http, host: a.example, port: 81, path: /b/c"),
            ),
            ("https://a.example$request_uri", Some("scheme: https, host: a.example")),
            ("https://a.example{uri}", Some("scheme: https, host: a.example")),
            ("https://a.example/x$uri", None),
            ("https://$host/", None),
            ("https://u@a.example/", None),
            ("/b", None),
        ] {
            assert_eq!(redirect(url).as_deref(), keys, "{url}");
        }
    }
}
