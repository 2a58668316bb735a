//! Which clients of the admin interface get an answer.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The pages for orchestrators. They need no token, and tell nothing else.
const OPEN: [&str; 2] = ["/live", "/ready"];

/// The clients that may read the pages of one address. Clones share it. A reload may change it.
#[derive(Clone, Debug, Default)]
pub(super) struct Token(Arc<RwLock<Access>>);

#[derive(Clone, Debug, Default)]
enum Access {
    /// Everybody who can connect.
    #[default]
    Everybody,
    /// Clients that send this token.
    With(Arc<str>),
    /// Nobody: the interface has left this address. A connection that is open lives on without it.
    Nobody,
}

impl Token {
    /// Sets the token. `None` means that clients need none.
    pub(super) fn set(&self, token: Option<Arc<str>>) {
        self.put(token.map_or(Access::Everybody, Access::With));
    }

    /// Refuses all clients from now on.
    pub(super) fn close(&self) {
        self.put(Access::Nobody);
    }

    fn put(&self, access: Access) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// Whether a client that sends these fields may read the pages.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let token = match self.0.read().unwrap_or_else(PoisonError::into_inner).clone() {
            Access::Everybody => return true,
            Access::With(token) => token,
            Access::Nobody => return false,
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

/// Compares two texts in a time that does not depend on their common beginning.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// Answers a client without the token with 401.
pub(super) async fn check(State(token): State<Token>, request: Request, next: Next) -> Response {
    if OPEN.contains(&request.uri().path()) || token.admits(request.headers()) {
        return next.run(request).await;
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
    fn only_the_token_itself_is_accepted() {
        let token = Token::default();
        let admits = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            value.map(|value| headers.insert(header::AUTHORIZATION, value.parse().unwrap()));
            token.admits(&headers)
        };
        assert!(admits(None) && admits(Some("Bearer x")));
        token.set(Some("0123456789abcdef".into()));
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
        token.close();
        assert!(!admits(None) && !admits(Some("Bearer 0123456789abcdef")));
    }
}
