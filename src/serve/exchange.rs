//! One exchange: a request and its response, from the head of the request to the end of the
//! response.
//!
//! 1. Normalise the path if rules depend on it, and determine the framing of the request.
//! 2. Make the plan: the route, the token and the authorization.
//! 3. If the rule has a local response, send it. Otherwise choose an endpoint, get a connection,
//!    send the request, read the head of the response, and relay the response.
//!
//! A failed attempt gets a verdict: relay its response, send the request again on a new connection
//! (needs no retry policy, but must be safe), or refuse the request. If the verdict is not to send
//! it again, the retry policy may still do so. An error before there is a connection to the
//! endpoint is a [`Refusal`]; a later error is a `Failure`.

use std::cell::OnceCell;
use std::rc::Rc;

use super::breaker::{self, Places};
use super::download::Failure;
use super::downstream::Downstream;
use super::global_limit;
use super::guard;
use super::limits;
use super::outgoing::Outgoing;
use super::overload;
use super::plan::{self, Chosen, Plan, Silence};
use super::record::ExchangeRecord;
use super::reply;
use super::send::{Answered, send};
use super::tunnel::Tunnel;
use super::workspace::Workspace;
use crate::cluster::Destination;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Kind};
use crate::http1::framing::{self, RequestFraming};
use crate::message::{HeadView, Method};
use crate::resilience::Chance;
use crate::route::{Action, Sticky};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Stream};
use crate::snapshot::Listener;
use crate::upstream::choose::{Choice, Target};
use crate::upstream::{Attempt, Local, LocalEndpoint, LocalRule, LocalService, Upstream};
use crate::wire::{Wire, delivered};

/// The next step for the client's connection after an exchange.
pub enum After<I: Io> {
    /// The connection serves the next request. The buffer may contain the beginning of that
    /// request.
    Next(Option<Buf>),
    /// The connection closes after a time in which the client can read the response.
    Linger,
    /// The connection closes now.
    Close,
    /// The connection has become a tunnel. The tunnel does not keep the snapshot in memory.
    Tunnel(Box<Tunnel<I>>),
}

/// One exchange: the client, the plan for its request, and its record.
pub struct Exchange<'a, I: Io> {
    /// The connection of the client.
    pub downstream: &'a Downstream<I>,
    /// The values of the snapshot for this request.
    pub plan: &'a Plan<I>,
    /// The record, for counters and the access log.
    pub record: &'a ExchangeRecord<I>,
    /// The framing of the request.
    pub framing: RequestFraming,
    /// The method of the request.
    pub method: Method,
    /// The kind of gRPC call. `None` if the request is not a gRPC call.
    pub kind: Option<Kind>,
    /// The endpoint that has refused the request over HTTP/3 because of its host. Then the request
    /// is sent over TCP.
    pub misdirected: OnceCell<LocalEndpoint<I>>,
}

impl<'a, I: Io> Exchange<'a, I> {
    /// The values that are needed to choose an endpoint and a connection.
    pub fn target(&self) -> Target<'a, I> {
        Target {
            core: self.downstream.worker.core(),
            service: &self.plan.service,
            client: self.downstream.peer.address,
            trusted_hops: self.plan.terms.trusted_hops,
            limits: &self.plan.terms.limits,
            deadline: self.plan.deadline,
            bytes: false,
            old_way: self.plan.service.config.beside.is_some()
                && (self.framing.upgrade
                    || self.method == Method::Connect
                    || self.misdirected.get().is_some()),
        }
    }
}

/// Serves one request. Its head is in `workspace.request`, with offsets into `buf`.
pub async fn exchange<I: Io>(
    downstream: &Downstream<I>,
    workspace: &mut Workspace,
    mut buf: Buf,
) -> After<I> {
    let record;
    let planned = {
        // `local` is dropped at the end of this block, so that the exchange does not keep the
        // snapshot.
        let local = downstream.local();
        let Some((listener, terms)) = downstream.listener(&local) else { return After::Close };
        record = ExchangeRecord::open(downstream, terms);
        plan_of(downstream, &local, listener, &record, workspace, &mut buf)
    };
    let method = workspace.request.method;
    match planned {
        Planned::Unframed(refusal) => {
            record.keep_request(workspace.request.view(buf.block()));
            Box::pin(reply::refuse(&record, downstream, method, refusal)).await
        }
        Planned::Refused(mut framing, refusal) => {
            framing.keep_alive &= !overload::closes(downstream, &refusal);
            let refuse =
                reply::refuse_framed(&record, downstream, workspace, framing, buf, refusal);
            Box::pin(refuse).await
        }
        Planned::Answer(framing, rule) => {
            let answer = reply::answer(&record, downstream, workspace, framing, buf, &rule);
            Box::pin(answer).await
        }
        Planned::Forward(framing, plan, kind) => {
            let exchange = Exchange {
                downstream,
                plan: &plan,
                record: &record,
                framing,
                method,
                kind,
                misdirected: OnceCell::new(),
            };
            match forward(&exchange, workspace, buf).await {
                Forwarded::Over(after) => after,
                Forwarded::Switched(switched) => {
                    After::Tunnel(Box::new(Tunnel::switched(*switched, plan, record)))
                }
            }
        }
    }
}

/// The decision about a request.
enum Planned<I: Io> {
    /// Refuse the request and close the connection, because its framing is not known.
    Unframed(Refusal),
    /// Refuse the request. Its framing is known, so the connection may stay open.
    Refused(RequestFraming, Refusal),
    /// Send the local response of this rule, without an endpoint.
    Answer(RequestFraming, LocalRule),
    /// Forward the request to a service.
    Forward(RequestFraming, Plan<I>, Option<Kind>),
}

/// Makes the plan for a request.
fn plan_of<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    listener: &Listener,
    record: &ExchangeRecord<I>,
    workspace: &mut Workspace,
    buf: &mut Buf,
) -> Planned<I> {
    let original = plan::original_service(downstream, local, listener);
    let spelled = match local.snapshot.is_guarded() {
        true => guard::normalise_path(listener.escaped_slashes, workspace, buf),
        false => Ok(()),
    };
    let request = workspace.request.view(buf.block());
    record.set_request(request);
    record.begin_trace(request);
    let framing = match spelled.and_then(|()| framing::request(request)) {
        Ok(framing) => framing,
        Err(refusal) => return Planned::Unframed(refusal),
    };
    let limited = limits::check(downstream, record, &listener.rate_limits, Some(request));
    let rule = match limited.and_then(|()| plan::rule(downstream, listener, request)) {
        Ok(rule) => local.rule(rule),
        Err(refusal) => return Planned::Refused(framing, refusal),
    };
    record.set_rule(rule);
    let destination = destination_of(downstream, listener, record, rule, request);
    let service = destination.as_ref().and_then(|it| local.service(it.to, original.as_ref()));
    let token = match guard::admit(downstream, local, listener, record, rule, service, request) {
        Ok(token) => token,
        Err(refusal) => return Planned::Refused(framing, refusal),
    };
    let (Some(destination), Some(service)) = (destination, service) else {
        return Planned::Answer(framing, Rc::clone(rule));
    };
    record.set_service(service);
    let places = match breaker::request(&service.config, downstream.worker.index) {
        Ok(slot) => Places { slot, ..Places::default() },
        Err(refusal) => return Planned::Refused(framing, refusal),
    };
    let kind = plan::kind_for(record, service);
    let asked = plan::asked_timeout(request, kind);
    let fault = rule.fault.as_ref().and_then(|fault| {
        let mut random = downstream.worker.random.borrow_mut();
        fault.decide(request, || random.u32(..Chance::PARTS))
    });
    // An injected delay makes the timeouts of the configuration longer, but not the deadline that
    // the client has sent.
    let delay = fault.and_then(|fault| fault.delay).unwrap_or_default();
    let own = rule.timeout.or(service.config.timeout).map(|own| own.saturating_add(delay));
    if let Some(budget) = &service.config.retry_budget {
        budget.request(downstream.worker.index, downstream.worker.io.recent());
    }
    let plan = Plan {
        terms: Rc::clone(record.terms()),
        rule: Rc::clone(rule),
        service: Rc::clone(service),
        subset: destination.to.subset as usize,
        cookie_for: cookie_for(rule, &destination),
        token,
        places,
        fault,
        mirror: mirror_of(downstream, local, rule),
        limiters: global_limit::limiters(
            downstream,
            local,
            listener,
            (rule, &service.config),
            request,
        ),
        deadline: plan::deadline(record, own, asked),
        is_timeout_asked: asked.is_some(),
        silence: Silence::new(rule, &service.config, record.terms(), kind),
    };
    Planned::Forward(framing, plan, kind)
}

/// Chooses the destination of a request of `rule`. `None` means that the proxy itself answers it.
fn destination_of<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    record: &ExchangeRecord<I>,
    rule: &LocalRule,
    request: HeadView<'_>,
) -> Option<Chosen> {
    let Action::Forward(split) = &rule.action else { return None };
    let destination = plan::destination(downstream, listener, (rule, split), Some(request));
    if let Some(shift) = split.shift() {
        record.set_side(shift.side_of(destination.to));
    }
    Some(destination)
}

/// The version that the cookie of a rule must name, if the client needs a new one.
fn cookie_for(rule: &LocalRule, chosen: &Chosen) -> Option<Destination> {
    let sets_cookie = matches!(rule.sticky.as_deref(), Some(Sticky::Set(_)));
    (sets_cookie && chosen.is_new).then_some(chosen.to)
}

/// The service that gets a copy of the request, if the rule mirrors this request.
fn mirror_of<I: Io>(
    downstream: &Downstream<I>,
    local: &Local<I>,
    rule: &LocalRule,
) -> Option<Rc<LocalService<I>>> {
    let mirror = rule.mirror.as_ref()?;
    let draw = || downstream.worker.random.borrow_mut().u32(..Chance::PARTS);
    mirror
        .policy
        .chance
        .takes(draw)
        .then(|| local.service_at(mirror.to.service as usize).map(Rc::clone))?
}

/// The result of forwarding a request.
enum Forwarded<I: Io> {
    /// The exchange has ended.
    Over(After<I>),
    /// The connection has become a tunnel.
    Switched(Box<Switched<I>>),
}

/// A connection that has become a tunnel.
pub struct Switched<I: Io> {
    /// The connection to the endpoint.
    pub upstream: Upstream<Wire<I::Stream>>,
    /// The attempt, for the counters of the endpoint.
    pub attempt: Attempt<I>,
    /// Bytes that the client sent after its request.
    pub early_request: Option<Buf>,
    /// Bytes that the endpoint sent after the head of its response.
    pub early_response: Option<Buf>,
}

async fn forward<I: Io>(
    exchange: &Exchange<'_, I>,
    workspace: &mut Workspace,
    buf: Buf,
) -> Forwarded<I> {
    let Exchange { downstream, record, .. } = exchange;
    let Workspace { request: head, drafts } = workspace;
    let request = head.view(buf.block());
    let choice = Choice::new(&exchange.target(), exchange.plan.subset, Some(request));
    let outgoing = match Outgoing::new(exchange, head, buf) {
        Ok(outgoing) => outgoing,
        Err(refusal) => {
            let refuse = reply::refuse(record, downstream, exchange.method, refusal);
            return Forwarded::Over(Box::pin(refuse).await);
        }
    };
    let result = send(exchange, choice, drafts, &outgoing).await;
    let keep = match result {
        Ok(Answered::Done { keep }) => keep,
        Ok(Answered::Switched { upstream, attempt, early }) => {
            // Keep the request for the access log: a tunnel may fail long after its request was
            // dropped.
            outgoing.keep_request();
            let early_request = outgoing.take_beyond().filter(|early| !early.is_empty());
            let early_response = (!early.is_empty()).then_some(early);
            let switched = Switched { upstream, attempt, early_request, early_response };
            return Forwarded::Switched(Box::new(switched));
        }
        Err(Failure::Refused(refusal)) => {
            let keep = exchange.framing.keep_alive && outgoing.is_read();
            outgoing.keep_request();
            let injected = exchange.plan.fault.and_then(|fault| fault.code_of(&refusal));
            let refused = (refusal, injected.unwrap_or_else(|| grpc::code_of_refusal(&refusal)));
            let send = reply::send_refusal_of(record, downstream, exchange.method, refused, keep);
            Box::pin(send).await
        }
        Err(failure @ (Failure::Late | Failure::Broken)) => {
            // If the connection were closed normally, a partial body without a length would look
            // complete. So let the client read the bytes relayed so far, and then reset the
            // connection.
            let is_late = matches!(failure, Failure::Late);
            if is_late || record.flag().is_some_and(Flag::blames_endpoint) {
                let stalled = exchange.plan.silence.stalled;
                Box::pin(delivered(&downstream.worker.io, &downstream.stream, stalled)).await;
            }
            downstream.stream.reset_on_close();
            if exchange.kind.is_some() {
                downstream.stream.cancel_on_close();
            }
            return Forwarded::Over(After::Close);
        }
    };
    let (whole, beyond) = (outgoing.is_read(), outgoing.take_beyond());
    // A client that did not ask to close may already have sent its next request. Closing the
    // connection at once would cause a reset, and the client could lose the response (RFC 9112
    // 9.6).
    let expected =
        whole && beyond.as_ref().is_none_or(Buf::is_empty) && !exchange.framing.keep_alive;
    Forwarded::Over(match keep {
        true => After::Next(beyond),
        false if expected => After::Close,
        false => After::Linger,
    })
}
