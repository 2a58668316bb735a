//! The head of a request for the endpoint.

use super::exchange::Exchange;
use crate::grpc::{self, Kind};
use crate::http1::encode::{self, Replaced, RequestEdits};
use crate::http1::framing;
use crate::http1::sink::Sink;
use crate::message::HeadView;
use crate::net::Address;
use crate::propagation::{RequestId, forwarded};
use crate::runtime::io::Io;
use crate::time::Time;
use crate::upstream::Upstream;
use crate::wire::Wire;

/// Writes the head of the request to `upstream`. For HTTP/1.1 its text goes to `scratch`.
pub fn put_head<I: Io>(
    exchange: &Exchange<'_, I>,
    upstream: &Upstream<Wire<I::Stream>>,
    scratch: &mut Vec<u8>,
    request: HeadView<'_>,
    request_id: Option<&RequestId>,
) {
    let (downstream, plan) = (exchange.downstream, exchange.plan);
    let mut target = Vec::new();
    let rewrite = plan.rule.rewrite.as_ref();
    let rewritten = rewrite.is_some_and(|rewrite| rewrite.target(&plan.rule, request, &mut target));
    let replaced = exchange.kind.map(|kind| replaced(exchange, kind, request)).unwrap_or_default();
    // An HTTP/1.0 request may have no host, but the request to the endpoint needs one (RFC 9112
    // 3.2).
    let address =
        request.authority().is_empty().then(|| host_of(&upstream.endpoint.config.borrow().address));
    let host = rewrite.and_then(|rewrite| rewrite.host.as_deref()).or(address.as_deref());
    let edits = RequestEdits {
        replaced: &replaced,
        host: host.map(str::as_bytes),
        target: rewritten.then_some(&target[..]),
        client_ip: downstream.peer.ip_bytes(),
        forwarded_proto: forwarded_proto(exchange, request),
        client_cert: downstream.client_cert(plan.terms.forward_client_cert),
        request_id: request_id.map(RequestId::as_bytes),
        via: plan.terms.via.as_deref(),
        token_field: plan.token_field(),
        headers: &plan.rule.request_headers,
    };
    let write = |out: &mut dyn Sink| encode::request(out, request, &exchange.framing, &edits);
    upstream.stream.put_head(scratch, write);
}

/// The host of a request without one: the address of the endpoint.
fn host_of(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(_) => "localhost".to_owned(),
    }
}

/// The fields that are replaced in a gRPC call: the time left, and the framing of gRPC-Web.
fn replaced<I: Io>(exchange: &Exchange<'_, I>, kind: Kind, request: HeadView<'_>) -> Vec<Replaced> {
    let mut replaced = Vec::new();
    if exchange.plan.deadline != Time::NEVER {
        let mut value = Vec::new();
        let left = exchange.plan.deadline.since(exchange.downstream.worker.io.now());
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

/// `http` or `https`: the scheme of the client's connection to this proxy, or the scheme that a
/// trusted proxy reports.
fn forwarded_proto<I: Io>(exchange: &Exchange<'_, I>, request: HeadView<'_>) -> &'static str {
    let reported = forwarded::scheme(request, exchange.plan.terms.trusted_hops);
    reported.unwrap_or_else(|| exchange.downstream.peer.scheme())
}
