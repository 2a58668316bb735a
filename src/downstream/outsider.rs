//! Clients without TLS on a captured port that requires mutual TLS. HTTP clients get a response:
//! health checks are served, and other requests get 403. Other bytes are refused.

use std::rc::Rc;

use super::captured::{Ready, refuse};
use crate::decision::MEMBERS_ONLY;
use crate::detect::{self, Answer, Protocol};
use crate::error::{Flag, Refusal};
use crate::l4::sniff::LEFT;
use crate::runtime::buffer::Buf;
use crate::runtime::io::{Io, Read, Stream};
use crate::serve::{Downstream, OriginalDestination, guard};
use crate::snapshot::Listener;

/// Decides how to serve a client without TLS, which has sent `first`. The alarm has the time limit
/// of the detection. Returns `None` when the connection must be closed.
pub async fn prepare<I: Io>(
    mut downstream: Downstream<I>,
    listener: &Listener,
    first: Buf,
) -> Option<Ready<I>> {
    let address = downstream.captured.as_ref()?.address;
    downstream.captured = Some(Rc::new(OriginalDestination::new(address, true)));
    let refusal = match protocol(&downstream, first).await {
        Ok((Protocol::Http1, first)) => {
            return Some(Ready::Http(downstream, listener.timeouts.header, Some(first)));
        }
        Ok((Protocol::Http2, first)) => return Some(Ready::Http2(downstream, Some(first))),
        Ok((Protocol::Tls | Protocol::Opaque, _)) => MEMBERS_ONLY,
        Err(refusal) => refusal,
    };
    guard::report_plain(&downstream, listener);
    refuse(&downstream, &refusal);
    None
}

/// Reads until the protocol is known. If the client ends its side before that, its bytes count as
/// opaque.
async fn protocol<I: Io>(
    downstream: &Downstream<I>,
    mut seen: Buf,
) -> Result<(Protocol, Buf), Refusal> {
    loop {
        if let Answer::Known(protocol) = detect::protocol(seen.data()) {
            return Ok((protocol, seen));
        }
        // Detection ends at `detect::LINE_BYTES_MAX`, which is less than the size of a buffer.
        seen.make_room(1);
        match downstream.alarm.guard(downstream.stream.read(seen)).await {
            Ok((Ok(Read::Data(_)), back)) => seen = back,
            Ok((Ok(_), back)) => return Ok((Protocol::Opaque, back)),
            Ok((Err(_), _)) => return Err(LEFT),
            Err(_) => return Err(SLOW),
        }
    }
}

const SLOW: Refusal = Refusal {
    status: 408,
    flag: Flag::DownstreamTimeout,
    detail: "the client did not send enough bytes to detect the protocol",
};
