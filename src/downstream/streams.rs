//! The streams of a client's multiplexed connection: each is one exchange.

use std::cell::Cell;
use std::rc::Rc;

use crate::error::Refusal;
use crate::http1::parse;
use crate::http2::{Fault, Message};
use crate::message;
use crate::runtime::alarm::WakeHandle;
use crate::runtime::buffer::Buf;
use crate::runtime::io::Io;
use crate::serve::exchange::{After, exchange};
use crate::serve::registry::Registry;
use crate::serve::workspace::Workspace;
use crate::serve::{Downstream, reply};
use crate::wire::Wire;

/// Counts a stream while it is served. Wakes the connection when the last stream ends.
pub(super) struct Open(Rc<Cell<usize>>, WakeHandle);

impl Open {
    pub(super) fn new(count: &Rc<Cell<usize>>, wake: WakeHandle) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count), wake)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
        if self.0.get() == 0 {
            self.1.ring();
        }
    }
}

/// Serves one request on its stream.
pub(super) async fn serve_stream<I: Io>(
    downstream: Downstream<I>,
    request: Box<Message>,
    stream: Wire<I::Stream>,
    limits: message::Limits,
    open: Open,
) {
    let downstream = downstream.with_stream(|_| stream);
    let state = Rc::clone(&downstream.registered().state);
    Registry::cuttable(&state, answer(&downstream, request, &limits)).await;
    // Drop the stream first, so that it is counted until it has ended.
    drop(downstream);
    drop(open);
}

/// Serves one request. If the stream becomes a tunnel, runs the tunnel to its end.
async fn answer<I: Io>(
    downstream: &Downstream<I>,
    request: Box<Message>,
    limits: &message::Limits,
) {
    let mut workspace = downstream.worker.workspaces.take();
    let head = read_head(downstream, &mut workspace, request, limits);
    let after = match head {
        Ok(buf) => exchange(downstream, &mut workspace, buf).await,
        Err(refusal) => Box::pin(reply::refuse_early(downstream, refusal)).await,
    };
    downstream.worker.workspaces.put(workspace);
    match after {
        After::Tunnel(tunnel) => Box::pin(tunnel.run(downstream)).await,
        After::Linger if !downstream.stream.ended() => Box::pin(downstream.linger()).await,
        After::Linger | After::Next(_) | After::Close => {}
    }
}

/// Copies the head of the request to a buffer, with the part of its body that has arrived.
fn read_head<I: Io>(
    downstream: &Downstream<I>,
    workspace: &mut Workspace,
    mut request: Box<Message>,
    limits: &message::Limits,
) -> Result<Buf, Refusal> {
    let worker = &downstream.worker;
    match request.fault {
        None => {}
        Some(Fault::Refused(refusal)) => return Err(refusal),
        Some(Fault::Malformed(why)) => return Err(Refusal::downstream(400, why)),
        Some(Fault::TooLarge) => return Err(parse::too_large()),
    }
    if request.is_websocket() {
        request.upgrade(worker.random.borrow_mut().u128(..).to_ne_bytes());
    }
    let mut buf = worker.io.buffers().take();
    request.place(&mut buf);
    std::mem::swap(&mut workspace.request, &mut request.head);
    parse::understand(buf.block(), limits, &mut workspace.request)?;
    if !workspace.request.ends {
        downstream.stream.read_ready(&mut buf);
    }
    Ok(buf)
}
