//! Connections that carry opaque bytes to a service.

use std::rc::Rc;

use crate::cluster::Destination;
use crate::decision::{self, DENIED};
use crate::error::Refusal;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Stream};
use crate::serve::record::ExchangeRecord;
use crate::serve::tunnel::Tunnel;
use crate::serve::{Downstream, guard, limits};
use crate::snapshot::{Limits, Serves};
use crate::time::Time;
use crate::upstream::choose::{self, Choice, Target};
use crate::upstream::{Attempt, Local, LocalRule, LocalService, Upstream};
use crate::wire::Wire;

/// Opens the tunnel for a connection of a TCP listener. Returns `None` when the connection is
/// refused. `first` has the bytes that were read after a PROXY protocol header.
pub async fn begin<I: Io>(
    downstream: &Downstream<I>,
    first: Option<Buf>,
) -> Option<Box<Tunnel<I>>> {
    let local = downstream.local();
    // A destination is an index into one snapshot. So it is read from `local`, the current
    // snapshot: a reload may have replaced the snapshot since the connection was accepted.
    let Serves::Tcp(destination) = downstream.listener(&local)?.0.serves else { return None };
    let service = Rc::clone(local.service(destination, None)?);
    let begun = Begun { first, ..Begun::default() };
    open(downstream, local, service, By { subset: destination.subset, ..By::default() }, begun)
        .await
}

/// The rule and the subset that selected the service of a connection.
#[derive(Default)]
pub struct By {
    /// The rule. `None` if no rule selected the service.
    pub rule: Option<LocalRule>,
    /// The subset of the service.
    pub subset: u32,
    /// The destination that the rule has chosen.
    pub chosen: Option<Destination>,
}

/// The state of a connection before it becomes a tunnel.
pub struct Begun<I: Io> {
    /// The first bytes from the client.
    pub first: Option<Buf>,
    /// The connection to the endpoint, or the reason why it failed. `None` if it was not tried yet.
    pub upstream: Option<Result<Upstream<Wire<I::Stream>>, Refusal>>,
    /// The first bytes from the endpoint.
    pub answer: Option<Buf>,
}

impl<I: Io> Default for Begun<I> {
    fn default() -> Self {
        Self { first: None, upstream: None, answer: None }
    }
}

/// Opens the tunnel between a client and `service`. Returns `None` when the authorization rules
/// deny the connection, when the service requires a token, at a rate limit, or when no endpoint
/// accepts a connection. The caller runs the tunnel, because this function must drop its reference
/// to the snapshot first.
pub async fn open<I: Io>(
    downstream: &Downstream<I>,
    local: Rc<Local<I>>,
    service: Rc<LocalService<I>>,
    by: By,
    begun: Begun<I>,
) -> Option<Box<Tunnel<I>>> {
    let (listener, terms) = downstream.listener(&local)?;
    let (record, terms) = (ExchangeRecord::open(downstream, terms), Rc::clone(terms));
    if let Some(rule) = &by.rule {
        record.set_rule(rule);
        let side = |to| rule.shift().and_then(|shift| shift.side_of(to));
        record.set_side(by.chosen.and_then(side));
    }
    record.set_service(&service);
    let name = &service.config.name;
    let verdict = guard::authorize(downstream, &local, listener, name, None, None);
    if !verdict.is_allowed() {
        record.set_denial(verdict);
        record.set_refusal(&DENIED);
        return None;
    }
    let (rule, config) = (by.rule.as_deref().map(|it| &**it), &service.config);
    let admitted = decision::check_bytes(rule, config)
        .and_then(|()| limits::check_bytes(downstream, &record, rule, config));
    if let Err(refusal) = admitted {
        record.set_refusal(&refusal);
        return None;
    }
    drop(local);
    let opened = match begun.upstream {
        Some(Ok(upstream)) => {
            let attempt = Attempt::begin(&upstream.endpoint, downstream.worker.io.recent());
            Ok((upstream, attempt))
        }
        Some(Err(refusal)) => Err(refusal),
        None => {
            let target = target(downstream, &service, &terms.limits);
            let mut choice = Choice::new(&target, by.subset as usize, None);
            choice.fresh = true;
            let opened = Box::pin(choose::connection(&target, &mut choice)).await;
            if let Some(endpoint) = choice.tried.take() {
                record.set_endpoint(endpoint);
            }
            opened
        }
    };
    match opened {
        Ok((upstream, attempt)) => {
            record.set_endpoint(Rc::clone(&upstream.endpoint));
            record.opened();
            Some(Box::new(Tunnel {
                upstream,
                attempt,
                service,
                slot: None,
                record,
                idle: terms.timeouts.tcp_idle,
                has_stream_limit: false,
                to_endpoint: begun.first,
                to_client: begun.answer,
            }))
        }
        Err(refusal) => {
            record.set_refusal(&refusal);
            downstream.stream.reset_on_close();
            None
        }
    }
}

/// Returns the target of a connection that carries opaque bytes.
pub fn target<'a, I: Io>(
    downstream: &'a Downstream<I>,
    service: &'a Rc<LocalService<I>>,
    limits: &'a Limits,
) -> Target<'a, I> {
    let (core, client) = (downstream.worker.core(), downstream.peer.address);
    Target {
        core,
        service,
        client,
        trusted_hops: 0,
        limits,
        deadline: Time::NEVER,
        bytes: true,
        old_way: false,
    }
}
