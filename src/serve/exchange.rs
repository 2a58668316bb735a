//! One request's way, top to bottom.
//!
//! framing -> route -> answer here, or: service -> endpoint -> connection -> request out ->
//! response back. Each step is one call; what can go wrong in it comes back as a [`Refusal`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::body::BodyProgress;
use super::captured;
use super::choose::{self, Choice, Target};
use super::connection::Connection;
use super::download::{self, Downloaded, Failure};
use super::guard;
use super::ledger::Ledger;
use super::reply;
use super::tunnel;
use super::upload::{self, UploadEnd};
use super::worker::{Local, LocalService};
use super::workspace::Workspace;
use crate::error::{Flag, Refusal};
use crate::http1::encode::{self, RequestEdits};
use crate::http1::framing::{self, RequestFraming};
use crate::message::{HeadView, Method};
use crate::route::{Action, Rule};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Stream};
use crate::snapshot::Listener;
use crate::telemetry::request_id::RequestId;
use crate::time::Time;
use crate::tls::Wire;
use crate::upstream::Upstream;

/// Times a request is sent again because a pooled connection died before its first response byte.
pub const REPEATS_MAX: usize = 2;

/// What becomes of the client's connection.
pub enum After {
    /// It serves the next request, of which the buffer may hold the beginning.
    Next(Buf),
    /// It closes, once the client has had time to read the answer.
    Linger,
    /// It closes now.
    Close,
}

/// Everything about an exchange that stays the same to its end.
pub struct Call<'a, 'l, I: Io> {
    /// The client.
    pub connection: &'a Connection<I>,
    /// The snapshot that the exchange began with.
    pub local: &'a Local<I>,
    /// The client's listener.
    pub listener: &'a Listener,
    /// The rule that matched.
    pub rule: &'a Rule,
    /// How the request is framed.
    pub framing: RequestFraming,
    /// The request's method.
    pub method: Method,
    /// The account.
    pub ledger: &'a Ledger<'l, I>,
    /// Where it goes.
    pub service: &'a LocalService<I>,
    /// The field that held its token, when the service must not see it.
    pub token_field: Option<&'a str>,
    /// When the whole exchange must be over.
    pub deadline: Time,
}

impl<'a, 'l, I: Io> Call<'a, 'l, I> {
    /// The part of it that finding a connection to an endpoint needs.
    fn target(&self) -> Target<'a, 'l, I> {
        let Self { connection, ledger, service, deadline, .. } = *self;
        Target { connection, ledger, service, deadline }
    }
}

/// Serves the request whose head is in `workspace.request`, with offsets into `buf`.
pub async fn exchange<I: Io>(
    connection: &Connection<I>,
    workspace: &mut Workspace,
    mut buf: Buf,
) -> After {
    let local = connection.worker.local();
    let Some(listener) = connection.listener(&local) else { return After::Close };
    let original = captured::service(connection, &local, listener);
    let ledger = Ledger::open(connection, &local, listener);
    let spelled = match local.snapshot.is_guarded() {
        true => guard::normalise_path(listener.escaped_slashes, workspace, &mut buf),
        false => Ok(()),
    };
    let request = workspace.request.view(buf.block());
    let framing = match spelled.and_then(|()| framing::request(request)) {
        Ok(framing) => framing,
        Err(refusal) => {
            return Box::pin(reply::refuse(&ledger, connection, request, refusal)).await;
        }
    };
    let rule = match captured::rule(connection, listener, request) {
        Ok(rule) => rule,
        Err(no) => {
            let refuse = reply::refuse_framed(&ledger, connection, workspace, framing, buf, no);
            return Box::pin(refuse).await;
        }
    };
    ledger.set_rule(rule);
    let destination = match &rule.action {
        Action::Forward(split) => {
            Some(split.next(&rule.stats.worker(connection.worker.index).turn))
        }
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let service = destination.and_then(|to| local.service(to, original.as_deref()));
    let token = match guard::admit(connection, &local, &ledger, rule, service, request) {
        Ok(token) => token,
        Err(no) => {
            let refuse = reply::refuse_framed(&ledger, connection, workspace, framing, buf, no);
            return Box::pin(refuse).await;
        }
    };
    let (Some(destination), Some(service)) = (destination, service) else {
        let answer = reply::answer(&ledger, connection, workspace, framing, buf, &rule.action);
        return Box::pin(answer).await;
    };
    ledger.set_service(service);
    let timeout = rule.timeout.or(service.config.timeout);
    let call = Call {
        connection,
        local: &local,
        listener,
        rule,
        service,
        framing,
        method: workspace.request.method,
        ledger: &ledger,
        token_field: token.as_ref().and_then(|token| token.provider.field_to_drop()),
        deadline: timeout.map_or(Time::NEVER, |timeout| ledger.began + timeout),
    };
    forward(&call, destination.subset as usize, workspace, buf).await
}

/// A request on its way out.
struct Outgoing {
    /// The encoded head and as much of the body as had come with it. Kept until the first
    /// response byte, for sending again; `None` while an operation has it or when it was lost.
    wire: Option<Buf>,
    /// Where the rest of the body stands.
    body: BodyProgress,
    /// Bytes of the client's buffer that belong to this request.
    consumed: usize,
    /// The body did not all come with the head: the rest is read from the client.
    streamed: bool,
    /// What that read beyond the body: the beginning of the client's next request.
    beyond: Option<Buf>,
    /// The id that was made for it, if it had none.
    request_id: Option<RequestId>,
}

impl Outgoing {
    /// Whether the whole request was read, and what the client sent behind it is at hand: only
    /// then can another request be read from its connection.
    fn is_read(&self) -> bool {
        self.body.is_done() && (!self.streamed || self.beyond.is_some())
    }
}

async fn forward<I: Io>(
    call: &Call<'_, '_, I>,
    subset: usize,
    workspace: &mut Workspace,
    buf: Buf,
) -> After {
    let request = workspace.request.view(buf.block());
    let choice = Choice::new(&call.target(), subset, Some(request));
    let mut outgoing = match encode_request(call, &mut workspace.scratch, request, &buf) {
        Ok(outgoing) => outgoing,
        Err(refusal) => {
            let refuse = reply::refuse(call.ledger, call.connection, request, refusal);
            return Box::pin(refuse).await;
        }
    };
    let result = send(call, choice, workspace, &mut outgoing).await;
    let request = workspace.request.view(buf.block());
    let request_id = outgoing.request_id.as_ref().map_or(&[][..], RequestId::as_bytes);
    let keep = match result {
        Ok(Answered::Done { keep }) => keep,
        Ok(Answered::Switched { upstream, early }) => {
            let sent_early = &buf.data()[outgoing.consumed..];
            Box::pin(tunnel::switched(call, upstream, early, sent_early)).await;
            call.ledger.log(Some(request), request_id);
            return After::Close;
        }
        Err(Failure::Refused(refusal)) => {
            let keep = call.framing.keep_alive && outgoing.is_read();
            let send = reply::send_refusal(call.ledger, call.connection, request, refusal, keep);
            Box::pin(send).await
        }
        Err(Failure::Silent | Failure::Broken) => {
            // A body that ends with the connection must not look whole: a reset tells the client.
            call.connection.stream.reset_on_close();
            call.ledger.log(Some(request), request_id);
            return After::Close;
        }
    };
    call.ledger.log(Some(request), request_id);
    let whole = outgoing.is_read();
    let beyond = outgoing.beyond.unwrap_or_else(|| {
        let mut buf = buf;
        buf.consume(outgoing.consumed);
        buf
    });
    // A client that did not ask for the end may be sending its next request already, and closing
    // on that would reset the answer out of its hands (RFC 9112 9.6).
    let expected = whole && beyond.is_empty() && !call.framing.keep_alive;
    match keep {
        true => After::Next(beyond),
        false if expected => After::Close,
        false => After::Linger,
    }
}

/// Encodes the request with the part of its body that is in `buf`.
fn encode_request<I: Io>(
    call: &Call<'_, '_, I>,
    scratch: &mut Vec<u8>,
    request: HeadView<'_>,
    buf: &Buf,
) -> Result<Outgoing, Refusal> {
    let connection = call.connection;
    let wants_id = call.listener.request_id && request.value(b"x-request-id").is_none();
    let request_id = wants_id.then(|| RequestId::new(&mut connection.worker.random.borrow_mut()));
    let mut target = Vec::new();
    let rewrite = call.rule.rewrite.as_ref();
    let rewritten = rewrite.is_some_and(|rewrite| rewrite.target(call.rule, request, &mut target));
    scratch.clear();
    let edits = RequestEdits {
        host: rewrite.and_then(|rewrite| rewrite.host.as_deref()).map(str::as_bytes),
        target: rewritten.then_some(&target[..]),
        client_ip: connection.peer_text.as_str(),
        forwarded_proto: forwarded_proto(call, request),
        client_cert: connection.client_cert(call.listener),
        request_id: request_id.as_ref().map(RequestId::as_str),
        via: call.listener.via.as_deref(),
        token_field: call.token_field,
        headers: &call.rule.request_headers,
    };
    encode::request(scratch, request, &call.framing, &edits);
    let mut body = BodyProgress::new(call.framing.body);
    let head_len = request.head.start + request.head.len - buf.window().start;
    let after_head = &buf.data()[head_len..];
    let taken = body.take(after_head, &call.local.snapshot.limits)?;
    call.ledger.received(taken as u64);
    let mut wire = connection.worker.io.buffers().take_sized(scratch.len() + taken);
    wire.append(scratch);
    wire.append(&after_head[..taken]);
    let consumed = head_len + taken;
    let streamed = !body.is_done();
    Ok(Outgoing { wire: Some(wire), body, consumed, streamed, beyond: None, request_id })
}

/// `http` or `https`: what the client used with us, or with the first of the proxies before us that
/// are trusted.
fn forwarded_proto<'a, I: Io>(call: &Call<'a, '_, I>, request: HeadView<'a>) -> &'a str {
    let claimed = match call.listener.trusted_hops {
        0 => None,
        _ => request.value(b"x-forwarded-proto"),
    };
    match claimed {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ => call.connection.scheme(),
    }
}

/// Sends the request to an endpoint and its answer to the client; again on a fresh connection
/// when a pooled one had died unnoticed and the request may be repeated.
async fn send<I: Io>(
    call: &Call<'_, '_, I>,
    mut choice: Choice,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing,
) -> Result<Answered<Wire<I::Stream>>, Failure> {
    let mut repeats = 0;
    loop {
        let upstream =
            choose::connection(&call.target(), &mut choice).await.map_err(Failure::Refused)?;
        let reused = upstream.reused;
        let result = attempt(call, workspace, outgoing, upstream).await;
        let Err(Failure::Silent) = result else { return result };
        let repeatable = call.method.is_idempotent() && outgoing.wire.is_some();
        if reused && repeatable && !outgoing.streamed && repeats < REPEATS_MAX {
            repeats += 1;
            choice.fresh = true;
            call.service.config.stats.worker(call.connection.worker.index).repeated.increment();
            continue;
        }
        let detail = "the endpoint closed the connection before it answered";
        let flag = Flag::UpstreamConnectionTermination;
        return Err(Failure::Refused(Refusal { status: 502, flag, detail }));
    }
}

/// One request out and its response back over `upstream`.
async fn attempt<I: Io>(
    call: &Call<'_, '_, I>,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Answered<Wire<I::Stream>>, Failure> {
    let Some(wire) = outgoing.wire.take() else { return Err(Failure::Silent) };
    let _using = call.connection.using(call.service, &upstream);
    let idle_deadline = call.ledger.began + call.listener.timeouts.body_idle;
    upstream.alarm.set(call.deadline.min(idle_deadline));
    let Ok((sent, wire)) = upstream.alarm.guard(upstream.stream.write_all(wire)).await else {
        return Err(Failure::Refused(download::TIMED_OUT));
    };
    outgoing.wire = Some(wire);
    let between = Between::default();
    between.uploaded.set(outgoing.body.is_done());
    let downloaded = if outgoing.body.is_done() || sent.is_err() {
        // Where sending failed, the endpoint may still have said why before it closed.
        download::run(call, workspace, &upstream, &between).await?
    } else {
        Box::pin(both_ways(call, workspace, outgoing, &upstream, &between)).await?
    };
    match downloaded {
        Downloaded::Switched { early } => Ok(Answered::Switched { upstream, early }),
        Downloaded::Done { keep, reusable } => {
            let now = call.connection.worker.io.now();
            call.ledger.ended(now);
            if reusable
                && between.uploaded.get()
                && call.service.config.send_proxy_protocol.is_none()
            {
                upstream.release(now);
            }
            Ok(Answered::Done { keep })
        }
    }
}

/// The rest of the request's body goes out while the response may already come back.
async fn both_ways<I: Io>(
    call: &Call<'_, '_, I>,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing,
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
) -> Result<Downloaded, Failure> {
    let Outgoing { body, beyond, .. } = outgoing;
    let mut up = pin!(upload::run(call, body, upstream, between));
    let mut down = pin!(download::run(call, workspace, upstream, between));
    let mut upload_over = false;
    poll_fn(|context| {
        if !upload_over && let Poll::Ready(end) = up.as_mut().poll(context) {
            upload_over = true;
            match end {
                UploadEnd::Done(rest) => *beyond = Some(rest),
                UploadEnd::EndpointClosed => {}
                UploadEnd::Failed(failure) => return Poll::Ready(Err(failure)),
            }
        }
        down.as_mut().poll(context)
    })
    .await
}

/// What the two directions of an exchange tell each other.
#[derive(Default)]
pub struct Between {
    /// The whole request has been sent.
    pub uploaded: Cell<bool>,
    /// The client has got the beginning of the response.
    pub answered: Cell<bool>,
}

/// How an exchange with an endpoint ended.
enum Answered<S: Stream> {
    /// The client has the response.
    Done {
        /// Whether its connection may serve another request.
        keep: bool,
    },
    /// From here on the connection is a tunnel.
    Switched {
        /// The other end.
        upstream: Upstream<S>,
        /// What it has sent after the head of its response.
        early: Buf,
    },
}
