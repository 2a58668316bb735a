//! TLS that is not terminated here: it goes where the name in its ClientHello leads.

use std::sync::Arc;

use super::connection::Connection;
use super::ledger::Ledger;
use super::relay::filled;
use super::tunnel::{self, Begun, By};
use super::worker::Local;
use crate::detect::{Answer, ClientHello, client_hello};
use crate::error::{Flag, Refusal};
use crate::route::{Action, Rule, Table};
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::snapshot::{Listener, Serves};

/// The fatal alert `unrecognized_name` (RFC 6066 3) as a record.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Serves a connection of a listener that passes TLS on. `first` is what was read beyond a PROXY
/// header.
pub async fn serve<I: Io>(connection: &Connection<I>, listener: &Listener, first: Option<Buf>) {
    let Serves::Tls(routes) = &listener.serves else { return };
    let Some((hello, first)) = hello(connection, listener, first).await else { return };
    let local = connection.worker.local();
    let Some(rule) = rule(routes, &hello) else {
        let detail = "no route for the name that the TLS client asks for";
        let refusal = Refusal { status: 0, flag: Flag::NoRoute, detail };
        let buf = filled(connection.worker.io.buffers().take(), &UNRECOGNIZED_NAME);
        connection.alarm.guard(connection.stream.write_all(buf)).await.ok();
        return refuse(connection, &local, listener, &refusal);
    };
    let begun = Begun { first: Some(first), ..Begun::default() };
    carry(connection, &local, listener, rule, begun).await;
}

/// Reads the ClientHello, of which `first` is the beginning; `None` when there is none, and the
/// connection is over.
pub async fn hello<I: Io>(
    connection: &Connection<I>,
    listener: &Listener,
    first: Option<Buf>,
) -> Option<(ClientHello, Buf)> {
    let io = &connection.worker.io;
    connection.alarm.set(io.now() + listener.timeouts.handshake);
    let mut buf = first.unwrap_or_else(|| io.buffers().take());
    loop {
        let detail = match client_hello(buf.data()) {
            Ok(Answer::Known(hello)) => return Some((hello, buf)),
            Ok(Answer::NeedMore) if buf.room() > 0 => None,
            Ok(Answer::NeedMore) => Some("the ClientHello is in too many records"),
            Err(_) => Some("the client does not begin with a ClientHello of TLS"),
        };
        if let Some(detail) = detail {
            let refusal = Refusal::downstream(0, detail);
            refuse(connection, &connection.worker.local(), listener, &refusal);
            return None;
        }
        match connection.alarm.guard(connection.stream.read(buf)).await {
            Ok((Ok(Read::Data(_)), back)) => buf = back,
            Ok(_) => return None,
            Err(_) => {
                let detail = "the ClientHello was not complete within its timeout";
                let refusal = Refusal { status: 0, flag: Flag::DownstreamTimeout, detail };
                refuse(connection, &connection.worker.local(), listener, &refusal);
                return None;
            }
        }
    }
}

/// The rule for the name that a client asks for, when it leads to a service.
pub fn rule<'t>(routes: &'t Table, hello: &ClientHello) -> Option<&'t Arc<Rule>> {
    let rule = routes.passes(hello.server_name.as_deref().unwrap_or_default().as_bytes())?;
    matches!(rule.action, Action::Forward(_)).then_some(rule)
}

/// Bytes both ways between the client and where `rule` leads.
pub async fn carry<I: Io>(
    connection: &Connection<I>,
    local: &Local<I>,
    listener: &Listener,
    rule: &Arc<Rule>,
    begun: Begun<I>,
) {
    let Action::Forward(split) = &rule.action else { return };
    let to = split.next(&rule.stats.worker(connection.worker.index).turn);
    let Some(service) = local.service(to, None) else { return };
    let by = By { rule: Some(rule), subset: to.subset };
    tunnel::carry(connection, local, listener, service, by, begun).await;
}

fn refuse<I: Io>(
    connection: &Connection<I>,
    local: &Local<I>,
    listener: &Listener,
    refusal: &Refusal,
) {
    listener.stats.worker(connection.worker.index).refused.increment();
    let ledger = Ledger::open(connection, local, listener);
    ledger.set_refusal(refusal);
    ledger.log(None, b"");
}
