//! Connections to endpoints that only one client may use.
//!
//! NTLM and Negotiate authenticate a connection instead of a request (RFC 4559 6). After that, the
//! endpoint considers all requests on the connection to come from the same client. So no other
//! client may use the connection, and the next requests of this client must use it.

use std::cell::Cell;
use std::rc::Rc;

use crate::message::{HeadView, elements, is_named};
use crate::runtime::io::{Io, Quiet, Stream};
use crate::upstream::{LocalService, Upstream};
use crate::wire::Wire;

/// The private connections of one client connection. Boxed, because most clients have none.
pub struct Private<I: Io>(Cell<Option<Box<Connections<I>>>>);

struct Connections<I: Io>(Vec<Kept<I>>);

/// The maximum number of private connections of a client connection. The oldest one is closed for a
/// new one.
const PRIVATE_MAX: usize = 8;

struct Kept<I: Io> {
    service: Rc<str>,
    subset: usize,
    upstream: Upstream<Wire<I::Stream>>,
}

impl<I: Io> Default for Private<I> {
    fn default() -> Self {
        Self(Cell::new(None))
    }
}

impl<I: Io> Private<I> {
    /// Keeps a connection for the client's next request to this subset of `service`.
    pub fn keep(
        &self,
        service: &LocalService<I>,
        subset: usize,
        upstream: Upstream<Wire<I::Stream>>,
    ) {
        upstream.alarm.clear();
        let upstream = upstream.again();
        let mut all = self.0.take().unwrap_or_else(|| Box::new(Connections(Vec::new())));
        if all.0.len() == PRIVATE_MAX {
            all.0.remove(0);
        }
        all.0.push(Kept { service: Rc::clone(&service.name), subset, upstream });
        self.0.set(Some(all));
    }

    /// Takes the connection to this subset of `service`. Returns `None` if there is none, or if it
    /// has ended.
    pub fn take(
        &self,
        service: &LocalService<I>,
        subset: usize,
    ) -> Option<Upstream<Wire<I::Stream>>> {
        let mut all = self.0.take()?;
        let is_it = |kept: &Kept<I>| kept.subset == subset && *kept.service == *service.name;
        let at = all.0.iter().position(is_it);
        let upstream = at.map(|at| all.0.remove(at).upstream);
        self.0.set(Some(all).filter(|all| !all.0.is_empty()));
        let upstream = upstream?;
        let usable = !upstream.endpoint.is_gone() && upstream.stream.quiet() == Quiet::Quiet;
        usable.then_some(upstream)
    }
}

/// Whether the client authenticates its connection with this request.
pub fn is_asked_for(request: HeadView<'_>) -> bool {
    request.fields().any(|(name, value)| {
        let is_credentials =
            is_named(name, b"authorization") || is_named(name, b"proxy-authorization");
        is_credentials && is_of_connection(value)
    })
}

/// Whether the endpoint requests that the client authenticates its connection.
pub fn is_demanded(response: HeadView<'_>) -> bool {
    let is_challenge =
        |name| is_named(name, b"www-authenticate") || is_named(name, b"proxy-authenticate");
    matches!(response.head.status, 401 | 407)
        && response.fields().any(|(name, value)| is_challenge(name) && is_of_connection(value))
}

/// Whether the scheme of a challenge or of credentials authenticates connections.
fn is_of_connection(value: &[u8]) -> bool {
    // A field may list several challenges. The scheme may be any of them.
    elements(value).any(|part| {
        let scheme = part.split(|&byte| byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemes_that_authenticate_a_connection() {
        for (value, expected) in [
            ("NTLM", true),
            ("ntlm TlRMTVNTUAAB", true),
            ("Negotiate YII=", true),
            ("Basic realm=\"a\", NTLM", true),
            ("Basic bnRsbQ==", false),
            ("Bearer negotiate", false),
            ("NTLMv9", false),
            ("", false),
        ] {
            assert_eq!(is_of_connection(value.as_bytes()), expected, "{value}");
        }
    }
}
