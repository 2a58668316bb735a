//! Access checks of a request. The path is normalised first. Then the token and the authorization
//! rules are checked.

use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::downstream::Downstream;
use super::limits;
use super::overload;
use super::plan;
use super::record::ExchangeRecord;
use super::workspace::Workspace;
use crate::authz::{EscapedSlashes, Verdict};
use crate::decision::{self, DENIED};
use crate::error::Refusal;
use crate::jwt::{Accepted, Claims, Requirement};
use crate::message::HeadView;
use crate::route::Rule;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;
use crate::snapshot::Listener;
use crate::tls::reason::Failure;
use crate::upstream::{Local, LocalService};

/// Normalises the path of the request in `buf`, so that routes, rules and the endpoint use the same
/// path. The path is changed in place, because the normal form is never longer.
///
/// # Errors
/// 400 for a path that has no normal form.
pub fn normalise_path(
    slashes: EscapedSlashes,
    workspace: &mut Workspace,
    buf: &mut Buf,
) -> Result<(), Refusal> {
    let offset = buf.window().start;
    let Workspace { request, drafts } = workspace;
    decision::normalise(slashes, request, buf.data_mut(), offset, &mut drafts.scratch)
}

/// Checks whether a request may be forwarded by its rule to `service`. `None` means that the proxy
/// itself responds. The request must have the required token, the authorization rules must allow
/// it, and it must not exceed the rate limits of the rule and the service. Returns the token.
/// # Errors
/// 401 without a valid token, 403 if the authorization rules deny the request, 429 at a rate
/// limit.
pub fn admit<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    record: &ExchangeRecord<I>,
    rule: &Rule,
    service: Option<&Rc<LocalService<I>>>,
    request: HeadView<'_>,
) -> Result<Option<Rc<Accepted>>, Refusal> {
    let is_probe = plan::is_probe(downstream, listener, request);
    if is_probe.inspect_err(|_| report_plain(downstream, listener))? {
        return Ok(None);
    }
    let config = service.map(|service| &*service.config);
    if config.is_some() {
        overload::check(downstream, local.snapshot.priority.as_ref(), rule, request)?;
    }
    let token = match decision::demanded(rule, config, listener) {
        Some(requirement) => authenticate(downstream, requirement, request)?,
        None => None,
    };
    let name = service.map_or("", |service| &*service.config.name);
    let claims = token.as_ref().map(|token| &token.claims);
    let verdict = authorize(downstream, local, listener, name, Some(request), claims);
    if !verdict.is_allowed() {
        record.set_denial(verdict);
        return Err(DENIED);
    }
    limits::check(downstream, record, &rule.rate_limits, Some(request))?;
    let of_service = config.map_or(&[][..], |config| &config.rate_limits);
    limits::check(downstream, record, of_service, Some(request))?;
    Ok(token)
}

/// Counts and logs a client without TLS on a port that requires it. Does so once for each
/// connection.
pub fn report_plain<I: Io>(downstream: &Downstream<I>, listener: &Listener) {
    if !downstream.captured.as_ref().is_some_and(|captured| captured.is_first_report()) {
        return;
    }
    let cells = listener.stats.worker(downstream.worker.index);
    cells.tls_failures[Failure::NotTls.index()].increment();
    let (peer, port) = (downstream.peer.ip_text(), downstream.peer.local_port);
    downstream.worker.log_limited(|suppressed| {
        tracing::warn!(
            listener = &*listener.name,
            port,
            peer,
            suppressed,
            "plain text refused on a port that requires mutual TLS; give the client a sidecar or \
             `tls: mesh`, or write `mesh: {{inbound: {{ports: {{\"{port}\": permissive}}}}}}`",
        );
    });
}

/// Checks the token of a request. Returns `None` if the request has no token and `requirement` does
/// not require one.
///
/// # Errors
/// 401 without a valid token.
fn authenticate<I: Io>(
    downstream: &Downstream<I>,
    requirement: &Requirement,
    request: HeadView<'_>,
) -> Result<Option<Rc<Accepted>>, Refusal> {
    let worker = &downstream.worker;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now_unix_s = i64::try_from(now).unwrap_or(i64::MAX);
    let checked = requirement.token(request).and_then(|token| {
        token.map(|token| worker.tokens.check(requirement, token, now_unix_s)).transpose()
    });
    match checked {
        Ok(accepted) => {
            if let Some(accepted) = &accepted {
                accepted.provider.stats.worker(worker.index).accepted.increment();
            }
            Ok(accepted)
        }
        Err(rejection) => {
            requirement.count(rejection, worker.index);
            Err(decision::no_token(rejection))
        }
    }
}

/// Evaluates the authorization rules. Counts and logs the results of audit and dry-run rules.
/// `request` is `None` for an L4 connection. `service` is empty if the proxy itself responds.
pub fn authorize<'l, I: Io>(
    downstream: &Downstream<I>,
    local: &'l Local<I>,
    listener: &Listener,
    service: &str,
    request: Option<HeadView<'_>>,
    claims: Option<&Claims>,
) -> Verdict<'l> {
    let policies = &local.snapshot.authorization;
    if policies.is_empty() {
        return Verdict::Unconcerned;
    }
    let client = downstream.client(listener);
    let decision = client.authorize(policies, service, request, claims);
    decision.count(downstream.worker.index);
    for report in decision.reports() {
        downstream.worker.log_limited(|suppressed| {
            let (peer, identity) = (downstream.peer.ip_text(), client.identity.unwrap_or("-"));
            tracing::info!(
                service, peer, identity, %report, suppressed,
                "result of an audit or dry-run authorization rule; the decision is not affected"
            );
        });
    }
    decision.verdict
}

/// Whether the rules allow opaque bytes from the client to `service`. Does not count the result:
/// when bytes are forwarded, the rules are evaluated again and counted.
pub fn would_carry<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    service: &str,
) -> bool {
    let policies = &local.snapshot.authorization;
    let decision = downstream.client(listener).authorize(policies, service, None, None);
    decision.verdict.is_allowed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::parse;
    use crate::message::Limits;
    use crate::runtime::buffer::BufferPool;

    fn read(text: &str) -> (Workspace, Buf) {
        let mut buf = BufferPool::default().take();
        buf.append(text.as_bytes());
        let mut workspace = Workspace::default();
        let (block, window) = (buf.block(), buf.window());
        parse::request(block, window, &Limits::default(), &mut workspace.request).unwrap();
        (workspace, buf)
    }

    #[test]
    fn routes_rules_and_endpoints_see_the_same_path() {
        for (target, normal, path, query) in [
            ("/a/b?c=/../d", "/a/b?c=/../d", "/a/b", "c=/../d"),
            ("/a/../b", "/b", "/b", ""),
            ("//a//./%62/?x=%2e", "/a/b/?x=%2e", "/a/b/", "x=%2e"),
            ("http://h/a/..//b?q", "http://h/b?q", "/b", "q"),
            ("http://h", "http://h", "/", ""),
            ("/x?", "/x?", "/x", ""),
            ("/a/../x?", "/x?", "/x", ""),
        ] {
            let (mut workspace, mut buf) =
                read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
            normalise_path(EscapedSlashes::Keep, &mut workspace, &mut buf).unwrap();
            let view = workspace.request.view(buf.block());
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let seen = (text(view.target()), text(view.path()), text(view.query()));
            assert_eq!(seen, (normal.to_owned(), path.to_owned(), query.to_owned()), "{target}");
        }
        let (mut workspace, mut buf) = read("GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n");
        assert_eq!(
            normalise_path(EscapedSlashes::Keep, &mut workspace, &mut buf).unwrap_err().status,
            400
        );
    }
}
