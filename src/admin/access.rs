//! Which clients of the admin interface get an answer.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::listen::Caller;

/// The pages for orchestrators. They need no token, and tell nothing else.
const OPEN: [&str; 2] = ["/live", "/ready"];

/// The clients that may read the pages of one address. Clones share it. A reload may change it.
#[derive(Clone, Debug, Default)]
pub(super) struct Token(Arc<RwLock<Access>>, Arc<AtomicU64>);

/// The answer to a request for a name, if the interface is open.
const NOT_HERE: &str = "\
without `token` of `admin`, ask for these pages by an address, such as 127.0.0.1, or as localhost:
a website could make a browser ask by a name of its own
";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Access {
    /// Everybody who can connect.
    #[default]
    Everybody,
    /// Clients that send this token.
    With(Arc<str>),
    /// Clients with a certificate.
    Certified,
    /// Nobody: the interface has left this address. A connection that is open lives on without it.
    Nobody,
}

impl Token {
    /// Sets the token. `None` means that clients need none, or a certificate if they are asked for
    /// one.
    pub(super) fn set(&self, token: Option<Arc<str>>, asks_certificates: bool) {
        self.put(match token {
            Some(token) => Access::With(token),
            None if asks_certificates => Access::Certified,
            None => Access::Everybody,
        });
    }

    /// Refuses all clients from now on.
    pub(super) fn close(&self) {
        self.put(Access::Nobody);
    }

    fn put(&self, access: Access) {
        let mut own = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if *own != access {
            *own = access;
            self.1.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A right that ends when other clients are accepted than now.
    fn right(&self, is_proven: bool) -> Right {
        let changes = self.1.load(Ordering::SeqCst);
        Right { is_proven, token: self.clone(), changes }
    }

    fn access(&self) -> Access {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a client without a certificate that sends these fields may read the pages.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let token = match self.access() {
            Access::Everybody => return true,
            Access::With(token) => token,
            Access::Certified | Access::Nobody => return false,
        };
        let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, credentials)) = sent.and_then(|sent| sent.split_once(' ')) else {
            return false;
        };
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => is_same(credentials.trim().as_bytes(), token.as_bytes()),
            "basic" => {
                let decoded = STANDARD.decode(credentials.trim()).unwrap_or_default();
                let password = decoded.iter().position(|byte| *byte == b':');
                password.is_some_and(|at| is_same(&decoded[at + 1..], token.as_bytes()))
            }
            _ => false,
        }
    }
}

/// The right of a client that was admitted.
#[derive(Clone, Debug)]
pub(super) struct Right {
    /// Whether it is proven: by the token, a certificate or a Unix socket.
    pub(super) is_proven: bool,
    token: Token,
    changes: u64,
}

impl Right {
    /// Whether other clients are accepted now than when this one was.
    pub(super) fn has_ended(&self) -> bool {
        self.token.1.load(Ordering::SeqCst) != self.changes
    }
}

/// Whether a client asks for this interface by an address or as `localhost`. A page of a website
/// may ask a loopback address by a name of its own (DNS rebinding), and then read the answer as if
/// it were its own. Clients that send no host are no browsers.
fn is_asked_here(request: &Request) -> bool {
    let sent = request.headers().get_all(header::HOST).iter();
    let in_uri = request.uri().authority().map(|authority| authority.as_str());
    let mut all = sent.map(|host| host.to_str().unwrap_or("?")).chain(in_uri);
    all.all(|host| {
        if host.is_empty() {
            return true;
        }
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((ip, _)) => return ip.parse::<IpAddr>().is_ok(),
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
    })
}

/// Compares two texts in a time that does not depend on their common beginning.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// Answers a client without a certificate or the token with 401, or with 403 if there is no token.
pub(super) async fn check(
    State(token): State<Token>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let right = token.right(false);
    let access = token.access();
    if matches!(access, Access::Nobody) {
        let text = "the admin interface has changed; connect again\n";
        let fields = [(header::CONNECTION, "close")];
        return (StatusCode::SERVICE_UNAVAILABLE, fields, text).into_response();
    }
    let open = OPEN.contains(&request.uri().path());
    let is_known = caller.is_owner || caller.is_encrypted;
    let anybody = matches!(access, Access::Everybody) && !is_known;
    if !open && anybody && !is_asked_here(&request) {
        return (StatusCode::MISDIRECTED_REQUEST, NOT_HERE).into_response();
    }
    if open || caller.is_certified || token.admits(request.headers()) {
        let is_proven = caller.is_certified || caller.is_owner || matches!(access, Access::With(_));
        request.extensions_mut().insert(Right { is_proven, ..right });
        return next.run(request).await;
    }
    if matches!(access, Access::Certified) {
        let text = "present a certificate of the CAs in `client_ca` of `admin.tls`\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let challenge = "Basic realm=\"ringway: the token is the password\", charset=\"UTF-8\"";
    let text = "send `authorization: Bearer TOKEN` with the token of the file in `admin.token`\n";
    let fields = [(header::WWW_AUTHENTICATE, challenge)];
    (StatusCode::UNAUTHORIZED, fields, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_interface_is_asked_by_an_address() {
        let asked = |host: &str, uri: &str| {
            let mut request = http::Request::builder().uri(uri);
            if host != "none" {
                request = request.header("host", host);
            }
            is_asked_here(&request.body(axum::body::Body::empty()).unwrap())
        };
        let here = [
            "none",
            "",
            "127.0.0.1:9900",
            "127.0.0.1",
            "10.0.0.7:80",
            "[::1]:9900",
            "[::1]",
            "localhost:9900",
            "LocalHost.",
            "a.localhost:1",
        ];
        here.iter().for_each(|host| assert!(asked(host, "/"), "{host}"));
        let elsewhere = [
            "evil.example:9900",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "[evil]:9900",
            "127.0.0.1@evil.example",
        ];
        elsewhere.iter().for_each(|host| assert!(!asked(host, "/"), "{host}"));
        assert!(!asked("127.0.0.1", "http://evil.example/metrics"));
        assert!(asked("127.0.0.1", "http://127.0.0.1/metrics"));
    }

    #[test]
    fn only_the_token_itself_is_accepted() {
        let token = Token::default();
        let admits = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            value.map(|value| headers.insert(header::AUTHORIZATION, value.parse().unwrap()));
            token.admits(&headers)
        };
        assert!(admits(None) && admits(Some("Bearer x")));
        token.set(Some("0123456789abcdef".into()), true);
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        for (value, accepted) in [
            ("Bearer 0123456789abcdef".to_owned(), true),
            ("bearer 0123456789abcdef".to_owned(), true),
            (basic("operator:0123456789abcdef"), true),
            (basic(":0123456789abcdef"), true),
            ("Bearer 0123456789abcde".to_owned(), false),
            ("Bearer 0123456789abcdef0".to_owned(), false),
            ("Bearer ".to_owned(), false),
            ("0123456789abcdef".to_owned(), false),
            (basic("0123456789abcdef"), false),
            (basic("0123456789abcdef:"), false),
            ("Basic %%%".to_owned(), false),
            ("Digest 0123456789abcdef".to_owned(), false),
        ] {
            assert_eq!(admits(Some(&value)), accepted, "{value}");
        }
        assert!(!admits(None));
        token.set(None, true);
        assert!(!admits(None));
        token.set(None, false);
        assert!(admits(None));
        token.close();
        assert!(!admits(None) && !admits(Some("Bearer 0123456789abcdef")));
    }
}
