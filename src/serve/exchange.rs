//! One request's way, top to bottom.
//!
//! framing -> route -> answer here, or: service -> endpoint -> connection -> request out ->
//! response back. Each step is one call; what can go wrong in it comes back as a [`Refusal`].

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::pin;
use std::task::Poll;

use super::body::{BodyProgress, CallBody, Passage};
use super::captured;
use super::choose::{self, Choice, Target};
use super::connection::Connection;
use super::download::{self, Downloaded, Failure};
use super::guard;
use super::ledger::Ledger;
use super::relay::filled;
use super::reply;
use super::tunnel;
use super::upload::{self, UploadEnd};
use super::worker::{Local, LocalService};
use super::workspace::Workspace;
use crate::cluster::Protocol;
use crate::error::{Flag, Refusal};
use crate::grpc::{self, Kind};
use crate::http1::encode::{self, Replaced, RequestEdits};
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

/// Times a request is sent again because nobody has looked at it.
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
    /// It is a call of gRPC.
    pub kind: Option<Kind>,
}

impl<'a, 'l, I: Io> Call<'a, 'l, I> {
    /// The part of it that finding a connection to an endpoint needs.
    fn target(&self) -> Target<'a, 'l, I> {
        let Self { connection, ledger, service, deadline, .. } = *self;
        Target { connection, ledger, service, deadline, bytes: false }
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
    ledger.set_call(grpc::kind_of(request));
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
    let kind =
        ledger.call().filter(|kind| !kind.is_web() || service.config.protocol == Protocol::Grpc);
    let asked = kind.and_then(|_| request.value(b"grpc-timeout")).and_then(grpc::parse_timeout);
    let timeouts = [rule.timeout.or(service.config.timeout), asked];
    let timeout = timeouts.into_iter().flatten().min();
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
        kind,
    };
    forward(&call, destination.subset as usize, workspace, buf).await
}

/// A request on its way out. Until more of its body is read from the client than had come with its
/// head, it can be sent again from the beginning.
struct Outgoing<'b> {
    /// The client's buffer.
    buf: &'b Buf,
    /// What of it is the beginning of the body.
    first: Range<usize>,
    /// The lines of the trailers, when that is all of a body that ends by itself.
    ended: Option<Vec<u8>>,
    /// All of the body was read.
    whole: bool,
    /// The rest of the body is (being) read from the client.
    streamed: bool,
    /// What that read beyond the body: the beginning of the client's next request.
    beyond: Option<Buf>,
    /// The id that was made for it, if it had none.
    request_id: Option<RequestId>,
}

impl<'b> Outgoing<'b> {
    /// The request whose body begins in `buf` behind its head.
    fn new<I: Io>(
        call: &Call<'_, '_, I>,
        request: HeadView<'_>,
        buf: &'b Buf,
    ) -> Result<Self, Refusal> {
        let connection = call.connection;
        let wants_id = call.listener.request_id && request.value(b"x-request-id").is_none();
        let request_id =
            wants_id.then(|| RequestId::new(&mut connection.worker.random.borrow_mut()));
        let start = request.head.start + request.head.len - buf.window().start;
        let mut body = BodyProgress::new(call.framing.body);
        let taken = body.take(&buf.data()[start..], &call.local.snapshot.limits)?;
        call.ledger.received(taken as u64);
        let ended = connection.stream.ended().then(|| connection.stream.take_trailers());
        let whole = body.is_done() || ended.is_some();
        let first = start..start + taken;
        Ok(Self { buf, first, ended, whole, streamed: false, beyond: None, request_id })
    }

    /// Whether the whole request was read, and what the client sent behind it is at hand: only
    /// then can another request be read from its connection.
    fn is_read(&self) -> bool {
        self.whole && (!self.streamed || self.beyond.is_some())
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
    let mut outgoing = match Outgoing::new(call, request, &buf) {
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
            let sent_early = &buf.data()[outgoing.first.end..];
            Box::pin(tunnel::switched(call, upstream, early, sent_early)).await;
            call.ledger.log(Some(request), request_id);
            return After::Close;
        }
        Err(Failure::Refused(refusal)) => {
            let keep = call.framing.keep_alive && outgoing.is_read();
            let send = reply::send_refusal(call.ledger, call.connection, request, refusal, keep);
            Box::pin(send).await
        }
        Err(Failure::Silent | Failure::Unprocessed | Failure::Late | Failure::Broken) => {
            // A body that ends with the connection must not look whole: a reset tells the client.
            call.connection.stream.reset_on_close();
            if let (Some(_), Wire::Client(stream)) = (call.kind, &call.connection.stream) {
                stream.cancel_on_close();
            }
            call.ledger.log(Some(request), request_id);
            return After::Close;
        }
    };
    call.ledger.log(Some(request), request_id);
    let (whole, consumed, beyond) = (outgoing.is_read(), outgoing.first.end, outgoing.beyond);
    let beyond = beyond.unwrap_or_else(|| {
        let mut buf = buf;
        buf.consume(consumed);
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

/// Puts the head of the request to `stream`; as text into `scratch`.
fn put_head<I: Io>(
    call: &Call<'_, '_, I>,
    stream: &Wire<I::Stream>,
    scratch: &mut Vec<u8>,
    request: HeadView<'_>,
    request_id: Option<&RequestId>,
) {
    let connection = call.connection;
    let mut target = Vec::new();
    let rewrite = call.rule.rewrite.as_ref();
    let rewritten = rewrite.is_some_and(|rewrite| rewrite.target(call.rule, request, &mut target));
    let replaced = call.kind.map(|kind| replaced(call, kind, request)).unwrap_or_default();
    let edits = RequestEdits {
        replaced: &replaced,
        host: rewrite.and_then(|rewrite| rewrite.host.as_deref()).map(str::as_bytes),
        target: rewritten.then_some(&target[..]),
        client_ip: connection.peer_text.as_str(),
        forwarded_proto: forwarded_proto(call, request),
        client_cert: connection.client_cert(call.listener),
        request_id: request_id.map(RequestId::as_str),
        via: call.listener.via.as_deref(),
        token_field: call.token_field,
        headers: &call.rule.request_headers,
    };
    let origin = Some((&connection.stream, request));
    stream.put_head(scratch, origin, |out| encode::request(out, request, &call.framing, &edits));
}

/// What a call of gRPC goes on with: the time that is left, and the framing that the service knows.
fn replaced<I: Io>(call: &Call<'_, '_, I>, kind: Kind, request: HeadView<'_>) -> Vec<Replaced> {
    let mut replaced = Vec::new();
    if call.deadline != Time::NEVER {
        let mut value = Vec::new();
        let left = call.deadline.since(call.connection.worker.io.now());
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

/// Sends the request to an endpoint and its answer to the client; again when that is safe: the
/// endpoint has said that it has not looked at it, or a pooled connection had died unnoticed and
/// the request may be repeated.
async fn send<I: Io>(
    call: &Call<'_, '_, I>,
    mut choice: Choice,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing<'_>,
) -> Result<Answered<Wire<I::Stream>>, Failure> {
    let mut repeats = 0;
    loop {
        let upstream =
            choose::connection(&call.target(), &mut choice).await.map_err(Failure::Refused)?;
        let reused = upstream.reused;
        let result = attempt(call, workspace, outgoing, upstream).await;
        let (safe, refusal) = match result {
            Err(Failure::Unprocessed) => (true, UNPROCESSED),
            Err(Failure::Silent) => (reused && call.method.is_idempotent(), SILENT),
            other => return other,
        };
        if !safe || outgoing.streamed || repeats == REPEATS_MAX {
            return Err(Failure::Refused(refusal));
        }
        repeats += 1;
        choice.fresh = true;
        call.service.config.stats.worker(call.connection.worker.index).repeated.increment();
    }
}

/// One request out and its response back over `upstream`.
async fn attempt<I: Io>(
    call: &Call<'_, '_, I>,
    workspace: &mut Workspace,
    outgoing: &mut Outgoing<'_>,
    upstream: Upstream<Wire<I::Stream>>,
) -> Result<Answered<Wire<I::Stream>>, Failure> {
    let worker = &call.connection.worker;
    let request = workspace.request.view(outgoing.buf.block());
    let (scratch, request_id) = (&mut workspace.scratch, outgoing.request_id.as_ref());
    put_head(call, &upstream.stream, scratch, request, request_id);
    let first = &outgoing.buf.data()[outgoing.first.clone()];
    let portion = filled(worker.io.buffers().take_sized(first.len()), first);
    let mut body = Passage::new(call.framing.body, upstream.stream.version())
        .of_call(call.kind.map(CallBody::request));
    let limits = &call.local.snapshot.limits;
    let taken = body.take(portion, outgoing.ended.clone(), limits);
    let (portion, taken) = taken.map_err(Failure::Refused)?;
    call.ledger.set_request_messages(body.messages());
    let _using = call.connection.using(call.service, &upstream);
    let idle_deadline = call.ledger.began + call.listener.timeouts.body_idle;
    upstream.alarm.set(call.deadline.min(idle_deadline));
    let end = taken.last.then(|| body.trailers());
    let sent = {
        let write = pin!(upstream.stream.write_message(&workspace.scratch, portion, end));
        upstream.alarm.guard(write).await
    };
    let Ok((sent, _)) = sent else { return Err(Failure::Refused(download::TIMED_OUT)) };
    let between = Between::default();
    between.uploaded.set(body.is_done());
    let downloaded = if body.is_done() || sent.is_err() {
        // Where sending failed, the endpoint may still have said why before it closed.
        download::run(call, workspace, &upstream, &between).await?
    } else {
        outgoing.streamed = true;
        let both = both_ways(call, workspace, (outgoing, &mut body), &upstream, &between);
        Box::pin(both).await?
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
    (outgoing, body): (&mut Outgoing<'_>, &mut Passage),
    upstream: &Upstream<Wire<I::Stream>>,
    between: &Between,
) -> Result<Downloaded, Failure> {
    let mut up = pin!(upload::run(call, body, upstream, between));
    let mut down = pin!(download::run(call, workspace, upstream, between));
    let mut upload_over = false;
    poll_fn(|context| {
        if !upload_over && let Poll::Ready(end) = up.as_mut().poll(context) {
            upload_over = true;
            match end {
                UploadEnd::Done(rest) => {
                    outgoing.whole = true;
                    outgoing.beyond = Some(rest);
                }
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

const SILENT: Refusal = Refusal {
    status: 502,
    flag: Flag::UpstreamConnectionTermination,
    detail: "the endpoint closed the connection before it answered",
};

const UNPROCESSED: Refusal = Refusal {
    status: 503,
    flag: Flag::UpstreamConnectionTermination,
    detail: "the endpoint did not take the request",
};
