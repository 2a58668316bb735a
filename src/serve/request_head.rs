//! Writes the head of a request for the endpoint.

use std::borrow::Cow;
use std::time::Duration;

use super::downstream::Peer;
use super::exchange::Exchange;
use super::plan::ASKED_TIMEOUT;
use crate::grpc::{self, Kind};
use crate::http1::encode::{self, Replaced, RequestEdits};
use crate::http1::framing::{self, RequestFraming};
use crate::http1::sink::Sink;
use crate::message::HeadView;
use crate::net::Address;
use crate::propagation::{RequestId, forwarded};
use crate::route::{Mirror, Rule};
use crate::runtime::io::{Io, Stream};
use crate::time::Time;
use crate::upstream::{Terms, Upstream};
use crate::wire::Wire;

/// The values that determine how the head of a request is changed for the endpoint.
pub struct HeadChanges<'a> {
    /// The client that has sent the request.
    pub peer: &'a Peer,
    /// The settings of the listener.
    pub terms: &'a Terms,
    /// The rule that matched the request.
    pub rule: &'a Rule,
    /// The framing of the request.
    pub framing: &'a RequestFraming,
    /// The kind of gRPC call. `None` if the request is not a gRPC call.
    pub kind: Option<Kind>,
    /// The time until the deadline of a gRPC call. `None` if it has no deadline.
    pub left: Option<Duration>,
    /// The time until the deadline, if the client has asked for a timeout of its request.
    pub left_of_asked: Option<Duration>,
    /// The name of the field with the token, if the field must not be forwarded.
    pub token_field: Option<&'a str>,
    /// The `x-request-id` that the proxy has generated, if the request had none.
    pub request_id: Option<&'a RequestId>,
    /// The number of the attempt for `x-envoy-attempt-count`. `None` if the field is not added.
    pub attempt: Option<u32>,
    /// The fields with the trace context.
    pub trace: Vec<Replaced>,
    /// Whether the handshake of the client's connection is not complete.
    pub is_early: bool,
    /// The mirror, if this is a mirrored request.
    pub mirror: Option<&'a Mirror>,
}

impl<'a> HeadChanges<'a> {
    /// The changes for the attempt `number` at sending the request of `exchange`.
    pub fn of<I: Io>(
        exchange: &'a Exchange<'_, I>,
        request_id: Option<&'a RequestId>,
        number: u32,
    ) -> Self {
        let (downstream, plan) = (exchange.downstream, exchange.plan);
        let limited = exchange.kind.is_some() && plan.deadline != Time::NEVER;
        let left = || plan.deadline.since(downstream.worker.io.now());
        Self {
            peer: &downstream.peer,
            terms: &plan.terms,
            rule: &plan.rule,
            framing: &exchange.framing,
            kind: exchange.kind,
            left: limited.then(left),
            left_of_asked: plan.is_timeout_asked.then(left),
            token_field: plan.token_field(),
            request_id,
            attempt: plan.retries().filter(|it| it.attempt_count.in_request).map(|_| number),
            trace: exchange.record.trace_fields(number),
            is_early: downstream.stream.is_early(),
            mirror: None,
        }
    }
}

/// Tells an endpoint that somebody else may send the request again (RFC 8470 5.1).
fn early_data() -> Replaced {
    ("early-data", Some(b"1".to_vec()))
}

/// Writes the head of the request to `upstream`. For HTTP/1.1, its text is written to `scratch`.
pub fn put_head<S: Stream>(
    changes: &HeadChanges<'_>,
    upstream: &Upstream<Wire<S>>,
    scratch: &mut Vec<u8>,
    request: HeadView<'_>,
) {
    let HeadChanges { peer, terms, rule, .. } = changes;
    let mut target = Vec::new();
    let rewrite = rule.rewrite.as_ref();
    let rewritten = rewrite.is_some_and(|rewrite| rewrite.target(rule, request, &mut target));
    let mut replaced =
        changes.kind.map(|kind| replaced(changes, kind, request)).unwrap_or_default();
    replaced.extend(changes.left_of_asked.and_then(|left| asked_timeout(left, request)));
    replaced.extend(changes.attempt.map(attempt_count));
    replaced.extend(changes.is_early.then(early_data));
    replaced.extend(changes.trace.iter().cloned());
    // An HTTP/1.0 request may have no Host, but the request to the endpoint needs one (RFC 9112
    // 3.2).
    let address =
        request.authority().is_empty().then(|| host_of(&upstream.endpoint.config.borrow().address));
    let host = rewrite.and_then(|rewrite| rewrite.host.as_deref()).or(address.as_deref());
    let mut host = host.map(|host| Cow::from(host.as_bytes()));
    if let Some(mirror) = changes.mirror {
        let own = host.as_deref().unwrap_or_else(|| request.authority());
        host = Some(mirror.host(own).into_owned().into());
    }
    let edits = RequestEdits {
        replaced: &replaced,
        host: host.as_deref(),
        target: rewritten.then_some(&target[..]),
        client_ip: peer.ip_bytes(),
        forwarded_proto: forwarded_proto(changes, request),
        client_cert: peer.client_cert(terms.forward_client_cert),
        request_id: changes.request_id.map(RequestId::as_bytes),
        via: terms.via.as_deref(),
        token_field: changes.token_field,
        headers: &rule.request_headers,
    };
    let write = |out: &mut dyn Sink| encode::request(out, request, changes.framing, &edits);
    upstream.stream.put_head(scratch, write);
}

/// The field with the number of the attempt, which counts from 1.
pub fn attempt_count(number: u32) -> Replaced {
    ("x-envoy-attempt-count", Some(number.to_string().into_bytes()))
}

/// The field in which the client has asked for a timeout, with the time that is left.
fn asked_timeout(left: Duration, request: HeadView<'_>) -> Option<Replaced> {
    request.value(ASKED_TIMEOUT.as_bytes())?;
    // 0 would mean no timeout.
    let ms = left.as_millis().max(1);
    Some((ASKED_TIMEOUT, Some(ms.to_string().into_bytes())))
}

/// The host for a request that has none: the address of the endpoint.
pub fn host_of(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    }
}

/// The fields that are replaced in a gRPC call: its timeout, and the framing fields of gRPC-Web.
fn replaced(changes: &HeadChanges<'_>, kind: Kind, request: HeadView<'_>) -> Vec<Replaced> {
    let mut replaced = Vec::new();
    if let Some(left) = changes.left {
        let mut value = Vec::new();
        grpc::write_timeout(&mut value, left);
        replaced.push(("grpc-timeout", Some(value)));
    }
    if kind.is_web() {
        let value = request.value(b"content-type").unwrap_or_default();
        replaced.push(("content-type", Some(grpc::content_type_to_grpc(value, kind))));
        replaced.push(("te", Some(b"trailers".to_vec())));
    }
    if kind == Kind::WebText {
        replaced.push((framing::LENGTH_FIELD, None));
    }
    replaced
}

/// The value of `x-forwarded-proto`: the scheme of the client's connection, or the scheme that a
/// trusted proxy reports.
fn forwarded_proto(changes: &HeadChanges<'_>, request: HeadView<'_>) -> &'static str {
    let reported = forwarded::scheme(request, changes.terms.trusted_hops);
    reported.unwrap_or_else(|| changes.peer.scheme())
}
