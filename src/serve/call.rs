//! A gRPC call of the proxy itself: one message to a service, and one message back.
//!
//! The service is an ordinary one: its balancer, health, TLS, circuit breaker, outlier detection
//! and connections serve the call like any request.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use super::breaker;
use super::request_head::host_of;
use super::retry;
use super::worker::Worker;
use crate::error::Refusal;
use crate::grpc::{self, Code};
use crate::http1::sink::Sink;
use crate::http2::Gone;
use crate::message::Head;
use crate::resilience::Flight;
use crate::runtime::buffer::filled;
use crate::runtime::io::{Io, Read, Stream};
use crate::snapshot::Limits;
use crate::time::Time;
use crate::upstream::choose::{self, Choice, Target};
use crate::upstream::{LocalService, Outcome, Upstream};
use crate::wire::Wire;

/// A call. It may be dropped at any time, and its stream is reset then.
pub struct UnaryCall<'a, I: Io> {
    /// The worker.
    pub worker: &'a Rc<Worker<I>>,
    /// The service.
    pub service: &'a Rc<LocalService<I>>,
    /// Limits on what endpoints may send.
    pub limits: &'a Limits,
    /// The path of the method.
    pub path: &'a str,
    /// The message, with its prefix.
    pub message: &'a [u8],
    /// The largest answer, in bytes with its prefix.
    pub answer_bytes_max: usize,
    /// The time limit of the call.
    pub deadline: Time,
    /// The time from which an endpoint without an answer is blamed. It is later than the deadline
    /// if the request for which the proxy makes the call has less time.
    pub blamed_from: Time,
}

/// The reason why a call has no answer, for the log.
#[derive(Debug)]
pub enum CallError {
    /// There was no connection.
    Refused(Refusal),
    /// The endpoint did not process the call, or its connection has closed before an answer.
    Lost,
    /// The response is not the complete response to a gRPC call.
    Malformed,
    /// The service answered with this code.
    Code(Code),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(refusal.detail),
            Self::Lost => f.write_str("the connection closed before an answer"),
            Self::Malformed => f.write_str("the response is no complete answer to a gRPC call"),
            Self::Code(code) => write!(f, "grpc-status: {}, {}", code.number(), code.name()),
        }
    }
}

impl<I: Io> UnaryCall<'_, I> {
    /// Makes the call. Returns the message of the answer, with its prefix. The caller ends the call
    /// at its deadline.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn run(&self) -> Result<Vec<u8>, CallError> {
        let config = &self.service.config;
        let _slot = breaker::request(config, self.worker.index).map_err(CallError::Refused)?;
        let flight = breaker::fly(config, self.worker).map_err(CallError::Refused)?;
        if let Some(budget) = &config.retry_budget {
            budget.request(self.worker.index, self.worker.io.recent());
        }
        let core = self.worker.core();
        let target = Target {
            core,
            service: self.service,
            client: None,
            trusted_hops: 0,
            limits: self.limits,
            deadline: self.deadline,
            bytes: false,
            old_way: false,
        };
        let mut choice = Choice::new(&target, 0, None);
        let mut retries = 0;
        loop {
            let error = match self.attempt(&target, &mut choice, flight.as_ref()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // A connection that was idle may be dead. Such a call costs no retry.
            let is_repeat = matches!(error, CallError::Lost) && !choice.fresh;
            choice.fresh = true;
            if !is_repeat && !self.may_retry(retries) {
                return Err(error);
            }
            retries += u32::from(!is_repeat);
            choice.failed.extend(choice.tried.take());
        }
    }

    /// Whether the policy of the service allows one more retry. The call is short, so retries do
    /// not wait.
    fn may_retry(&self, retries: u32) -> bool {
        let config = &self.service.config;
        let (Some(policy), Some(budget)) = (&config.retries, &config.retry_budget) else {
            return false;
        };
        let cells = config.stats.worker(self.worker.index);
        if retries >= policy.attempts {
            cells.retries_exhausted.increment();
            return false;
        }
        let allowed = retry::within_budget(budget, config, self.worker, policy);
        if allowed {
            cells.retries.increment();
        }
        allowed
    }

    async fn attempt(
        &self,
        target: &Target<'_, I>,
        choice: &mut Choice<I>,
        flight: Option<&Flight>,
    ) -> Result<Vec<u8>, CallError> {
        let connecting = pin!(choose::connection(target, choice));
        let (upstream, attempt) = connecting.await.map_err(CallError::Refused)?;
        upstream.alarm.set(Time::NEVER);
        let attempt = RefCell::new(Some(attempt));
        let end = |outcome| {
            if let Some(attempt) = attempt.take() {
                attempt.finish(self.worker.io.now(), outcome);
            }
        };
        let sent = self.worker.io.now();
        let took = || {
            if let Some(flight) = flight {
                flight.answered(self.worker.index, sent, self.worker.io.now());
            }
        };
        // A call that is dropped has reached its time limit or that of its request, or its client
        // has left. Only for the first, the endpoint is blamed.
        let late = OnDrop(|| {
            if self.worker.io.now() >= self.blamed_from {
                took();
                end(Outcome::Failed);
            }
        });
        let carried = self.carry(&upstream).await;
        match &carried {
            Ok(_) => {
                took();
                end(Outcome::Answered(200, Some(Code::OK)));
            }
            // The request of the client has given the call less time than its limit.
            Err(CallError::Code(Code::DEADLINE_EXCEEDED)) if self.deadline < self.blamed_from => {
                end(Outcome::Expired(200))
            }
            Err(CallError::Code(code)) => end(Outcome::Answered(200, Some(*code))),
            Err(_) => end(Outcome::Failed),
        }
        drop(late);
        if carried.is_ok() {
            upstream.release(self.worker.io.now());
        }
        carried
    }

    async fn carry(&self, upstream: &Upstream<Wire<I::Stream>>) -> Result<Vec<u8>, CallError> {
        let stream = &upstream.stream;
        if !stream.is_endpoint_stream() {
            return Err(CallError::Malformed);
        }
        let buffers = self.worker.io.buffers();
        upstream.stream.put_head(&mut Vec::new(), |out| self.put_head(upstream, out));
        let message = filled(buffers.take_sized(self.message.len()), self.message);
        let (sent, message) = upstream.stream.write_message(b"", message, Some(b"")).await;
        drop(message);
        // The answer may come before the whole message was sent.
        let mut head = Head::default();
        let mut buf = loop {
            let response = stream.response(&mut head, || buffers.take()).await;
            let buf = response.map_err(lost)?;
            if head.status >= 200 {
                break buf;
            }
            head.clear();
        };
        let view = head.view(buf.block());
        if head.status != 200 {
            return Err(CallError::Malformed);
        }
        let mut code = view.value(b"grpc-status").map(Code::from_value);
        buf.consume(head.start + head.len - buf.window().start);
        let mut answer = Vec::new();
        loop {
            answer.extend_from_slice(buf.data());
            if answer.len() > self.answer_bytes_max {
                return Err(CallError::Malformed);
            }
            if upstream.stream.ended() {
                break;
            }
            buf.clear();
            let (read, back) = upstream.stream.read(buf).await;
            buf = back;
            match read {
                Ok(Read::Data(_)) => {}
                Ok(_) if upstream.stream.ended() => {}
                _ => return Err(CallError::Lost),
            }
        }
        code = code.or_else(|| Code::from_trailers(&upstream.stream.take_trailers()));
        match code {
            Some(Code::OK) if sent.is_ok() => Ok(answer),
            Some(Code::OK) | None => Err(CallError::Malformed),
            Some(code) => Err(CallError::Code(code)),
        }
    }

    fn put_head(&self, upstream: &Upstream<Wire<I::Stream>>, out: &mut dyn Sink) {
        out.request_line(b"POST", &[self.path.as_bytes()]);
        out.authority(host_of(&upstream.endpoint.config.borrow().address).as_bytes());
        out.add(b"content-type", &[b"application/grpc"]);
        out.add(b"te", &[b"trailers"]);
        let mut left = Vec::new();
        grpc::write_timeout(&mut left, self.deadline.since(self.worker.io.now()));
        out.add(b"grpc-timeout", &[&left]);
        out.add(b"user-agent", &[b"ringway"]);
        out.end();
    }
}

fn lost(gone: Gone) -> CallError {
    match gone {
        Gone::Unprocessed | Gone::Silent => CallError::Lost,
        Gone::Refused(refusal) => CallError::Refused(refusal),
    }
}

/// Calls its function when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
