//! TLS passthrough: the server name in the ClientHello selects the route.

use std::rc::Rc;
use std::sync::Arc;

use super::tcp::{self, Begun, By};
use crate::detect::{Answer, ClientHello, client_hello};
use crate::error::{Flag, Refusal};
use crate::route::{Action, Rule, Table};
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::{Io, Read, Stream};
use crate::serve::Downstream;
use crate::serve::plan;
use crate::serve::record::ExchangeRecord;
use crate::serve::tunnel::Tunnel;
use crate::snapshot::{Listener, Serves};
use crate::upstream::Local;

const LEFT: Refusal = Refusal {
    status: 0,
    flag: Flag::DownstreamConnectionTermination,
    detail: "the client left before the end of its ClientHello",
};

/// The fatal alert `unrecognized_name` (RFC 6066 3), as a TLS record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Opens the tunnel for a connection of a TLS passthrough listener. Returns `None` when the
/// connection is refused. `first` has the bytes that were read after a PROXY protocol header.
pub async fn begin<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    first: Option<Buf>,
) -> Option<Box<Tunnel<I>>> {
    let (hello, first) = hello(downstream, listener, first).await?;
    let local = downstream.local();
    // Take the rule from `local`, not from `listener`: a reload may have replaced the snapshot
    // while the ClientHello arrived.
    let Serves::Tls(routes) = &downstream.listener(&local)?.0.serves else { return None };
    let Some(rule) = rule(routes, &hello).map(Arc::clone) else {
        let detail = "no route for the server name in the ClientHello";
        let refusal = Refusal { status: 0, flag: Flag::NoRoute, detail };
        let buf = filled(downstream.worker.io.buffers().take(), &UNRECOGNIZED_NAME);
        downstream.alarm.guard(downstream.stream.write_all(buf)).await.ok();
        refuse(downstream, listener, &refusal);
        return None;
    };
    let begun = Begun { first: Some(first), ..Begun::default() };
    open(downstream, local, &rule, begun).await
}

/// Reads the ClientHello; `first` has its first bytes. Returns `None` if there is no valid
/// ClientHello. The connection must then be closed.
pub async fn hello<I: Io>(
    downstream: &Downstream<I>,
    listener: &Listener,
    first: Option<Buf>,
) -> Option<(ClientHello, Buf)> {
    let io = &downstream.worker.io;
    downstream.alarm.set(io.now() + listener.timeouts.handshake);
    let mut buf = first.unwrap_or_else(|| io.buffers().take());
    loop {
        let detail = match client_hello(buf.data()) {
            Ok(Answer::Known(hello)) => return Some((hello, buf)),
            Ok(Answer::NeedMore) if buf.room() > 0 => None,
            Ok(Answer::NeedMore) => Some("the ClientHello is too large"),
            Err(_) => Some("the client did not begin with a TLS ClientHello"),
        };
        if let Some(detail) = detail {
            let refusal = Refusal::downstream(0, detail);
            refuse(downstream, listener, &refusal);
            return None;
        }
        match downstream.alarm.guard(downstream.stream.read(buf)).await {
            Ok((Ok(Read::Data(_)), back)) => buf = back,
            Ok((_, back)) => {
                // A client that sends nothing is a port scan or a health check, so it is not
                // logged.
                if !back.is_empty() {
                    refuse(downstream, listener, &LEFT);
                }
                return None;
            }
            Err(_) => {
                let detail = "the ClientHello was not complete within its timeout";
                let refusal = Refusal { status: 0, flag: Flag::DownstreamTimeout, detail };
                refuse(downstream, listener, &refusal);
                return None;
            }
        }
    }
}

/// Returns the rule for the client's server name, if the rule forwards to a service.
pub fn rule<'t>(routes: &'t Table, hello: &ClientHello) -> Option<&'t Arc<Rule>> {
    let rule = routes.passes(hello.server_name.as_deref().unwrap_or_default().as_bytes())?;
    matches!(rule.action, Action::Forward(_)).then_some(rule)
}

/// Opens the tunnel between a client and the service of `rule`.
pub async fn open<I: Io>(
    downstream: &Downstream<I>,
    local: Rc<Local<I>>,
    rule: &Rule,
    begun: Begun<I>,
) -> Option<Box<Tunnel<I>>> {
    let Action::Forward(split) = &rule.action else { return None };
    let to = match downstream.listener(&local) {
        Some((listener, _)) => plan::destination(downstream, listener, (rule, split), None).to,
        None => split.next(downstream.worker.index),
    };
    let service = Rc::clone(local.service(to, None)?);
    let by = By { rule: Some(Rc::clone(local.rule(rule))), subset: to.subset, chosen: Some(to) };
    tcp::open(downstream, local, service, by, begun).await
}

fn refuse<I: Io>(downstream: &Downstream<I>, listener: &Listener, refusal: &Refusal) {
    listener.stats.worker(downstream.worker.index).refused.increment();
    let local = downstream.local();
    let Some((_, terms)) = downstream.listener(&local) else { return };
    ExchangeRecord::open(downstream, terms).set_refusal(refusal);
}
