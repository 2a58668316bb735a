//! Injects the faults of a rule into an exchange.

use std::cell::Cell;

use super::download::Failure;
use super::exchange::Exchange;
use super::relay;
use crate::error::{Flag, Refusal};
use crate::resilience::{Bandwidth, Injected};
use crate::runtime::buffer::{Buf, filled};
use crate::runtime::io::Io;
use crate::time::Time;

/// The deadline of a gRPC call has passed during its injected delay.
const DELAYED_TOO_LONG: Refusal = Refusal {
    status: 504,
    flag: Flag::UpstreamTimeout,
    detail: "the deadline of the call passed during an injected delay",
};

const LEFT: &str = "the client left during an injected delay";

/// Delays or aborts the exchange before an endpoint is chosen.
///
/// # Errors
/// The refusal of an abort. Also if the client disconnects or its deadline passes during the delay.
pub async fn inject<I: Io>(exchange: &Exchange<'_, I>, fault: &Injected) -> Result<(), Failure> {
    let worker = &exchange.downstream.worker;
    let cells = exchange.plan.rule.stats.worker(worker.index);
    if let Some(delay) = fault.delay {
        cells.delays.increment();
        exchange.record.delayed();
        if !relay::wait_until(exchange, worker.io.now() + delay, LEFT).await? {
            return Err(Failure::Refused(DELAYED_TOO_LONG));
        }
    }
    match fault.abort {
        Some(abort) => {
            cells.aborts.increment();
            Err(Failure::Refused(abort.refusal()))
        }
        None => {
            if fault.bandwidth.is_some() {
                cells.bandwidths.increment();
            }
            Ok(())
        }
    }
}

/// Limits the bandwidth of a response while it is sent.
pub struct Throttle {
    limit: Bandwidth,
    /// The time at which the next portion may be sent.
    due: Cell<Time>,
}

impl Throttle {
    /// The limit for the response of `exchange`. Returns `None` if no fault limits it.
    pub fn of<I: Io>(exchange: &Exchange<'_, I>) -> Option<Self> {
        let limit = exchange.plan.fault?.bandwidth?;
        Some(Self { limit, due: Cell::new(exchange.downstream.worker.io.now()) })
    }

    /// Sends `buf` at the limited rate, except for its last portion. Returns that portion; the
    /// caller sends it together with the end of the body.
    ///
    /// # Errors
    /// If the client disconnects or does not read, or if the deadline of the exchange passes.
    pub async fn send<I: Io>(
        &self,
        exchange: &Exchange<'_, I>,
        mut buf: Buf,
    ) -> Result<Buf, Failure> {
        let io = &exchange.downstream.worker.io;
        exchange.record.slow_down();
        loop {
            if !relay::wait_until(exchange, self.due.get(), LEFT).await? {
                return Err(relay::stalled(exchange));
            }
            let len = buf.len().min(self.limit.portion_bytes());
            self.due.set(self.limit.next(self.due.get(), io.now(), len));
            if len == buf.len() {
                return Ok(buf);
            }
            let portion = filled(io.buffers().take_sized(len), &buf.data()[..len]);
            buf.consume(len);
            relay::portion_to_client(exchange, portion).await?;
        }
    }
}
