//! Messages between the control thread and the workers, and the hand-over of connections.
//!
//! A worker's mailbox is a channel and a socket pair. The sender writes one byte to the socket to
//! wake the worker's ring. A new snapshot takes two phases: first every worker prepares it, then
//! all workers commit it. So either all workers change to the new snapshot, or none.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::net::Bind;
use crate::snapshot::{DrainStep, Listener, Snapshot};

/// How long a worker still accepts on a removed listening socket. The socket ignores new
/// handshakes, and a handshake that has begun completes within a round trip.
pub const HANDSHAKE_GRACE: Duration = Duration::from_millis(200);

/// An order to a worker.
pub enum Order {
    /// Prepare the snapshot without using it yet, and report [`ReportKind::Prepared`].
    Prepare(Preparation),
    /// Use the prepared snapshot from now on and report [`ReportKind::Committed`].
    Commit {
        /// The snapshot's version.
        version: u64,
    },
    /// Drop the prepared snapshot.
    Abort {
        /// The snapshot's version.
        version: u64,
    },
    /// Use the new endpoints of a service. The order makes even an idle worker close its
    /// connections to removed endpoints.
    Endpoints {
        /// The version of the snapshot that has the service.
        version: u64,
        /// Index into `Snapshot::services`.
        service: usize,
        /// The addresses that were added or removed. Empty if no traffic is captured.
        addresses: Arc<[SocketAddr]>,
    },
    /// Serve this connection. A worker with more connections accepted it.
    Adopt(Adopted),
    /// Stop accepting on the listeners of this step, let exchanges complete, and close idle
    /// connections. Report [`ReportKind::Drained`] when no worker accepts on these listeners and
    /// none has a connection of them.
    Drain(DrainStep),
}

/// A snapshot, and the sockets from which this worker accepts.
pub struct Preparation {
    /// The compiled configuration.
    pub snapshot: Arc<Snapshot>,
    /// The worker's own listening socket for each bind of each listener. If the worker already has
    /// a socket for a bind, it ignores the new one and keeps the old one.
    pub sockets: Vec<ListeningSocket>,
}

/// A listening socket for one worker.
pub struct ListeningSocket {
    /// Index into `Snapshot::listeners`.
    pub listener: usize,
    /// The bind of the listener.
    pub bind: Bind,
    /// The socket is nonblocking and close-on-exec. For TCP it has TCP_NODELAY set, which accepted
    /// sockets inherit.
    pub descriptor: OwnedFd,
}

/// A connection that is handed to another worker before its first byte was read.
pub struct Adopted {
    /// The connected socket.
    pub descriptor: OwnedFd,
    /// The bind that accepted the connection.
    pub bind: Bind,
    /// The listener at the time of accept. A reload may remove the listener during the hand-over.
    pub listener: Arc<Listener>,
    /// The client's address. `None` means a Unix-domain socket.
    pub peer: Option<SocketAddr>,
}

/// A report from a worker to the control thread.
pub struct Report {
    /// The index of the worker.
    pub worker: usize,
    /// The content of the report.
    pub kind: ReportKind,
}

/// The content of a [`Report`].
pub enum ReportKind {
    /// The runtime of the worker is running.
    Started {
        /// The name of the driver: `io_uring` or `epoll`.
        driver: &'static str,
        /// The reason why the kernel refused io_uring. `None` if it was not tried or not refused.
        refused: Option<io::Error>,
    },
    /// The snapshot of this version is ready to be committed.
    Prepared {
        /// The snapshot's version.
        version: u64,
    },
    /// The snapshot of this version is in use.
    Committed {
        /// The snapshot's version.
        version: u64,
    },
    /// No connection of the listeners of this step is left.
    Drained(DrainStep),
    /// The worker cannot continue. The text is the reason.
    Failed(String),
}

impl ReportKind {
    /// The version, if the report is [`ReportKind::Prepared`].
    pub fn prepared(&self) -> Option<u64> {
        if let Self::Prepared { version } = self { Some(*version) } else { None }
    }

    /// The version, if the report is [`ReportKind::Committed`].
    pub fn committed(&self) -> Option<u64> {
        if let Self::Committed { version } = self { Some(*version) } else { None }
    }
}

/// The channel for reports. It is unbounded, so a report never blocks a worker. The number of
/// reports is limited, because workers send one for each order.
pub type Reports = tokio::sync::mpsc::UnboundedSender<Report>;

/// The sending end of a worker's mailbox. A clone is cheap.
#[derive(Clone)]
pub struct Mailbox {
    orders: mpsc::Sender<Order>,
    wake: Arc<UnixStream>,
}

/// The worker's end of its mailbox.
pub struct Inbox {
    /// Orders in the sequence in which they were posted.
    pub orders: mpsc::Receiver<Order>,
    /// Readable when there may be orders.
    pub wake: UnixStream,
}

/// Creates a mailbox.
///
/// # Errors
/// When the socket pair cannot be created.
pub fn mailbox() -> io::Result<(Mailbox, Inbox)> {
    let (sender, orders) = mpsc::channel();
    let (ring, wake) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    Ok((Mailbox { orders: sender, wake: Arc::new(ring) }, Inbox { orders, wake }))
}

impl Mailbox {
    /// Posts an order. Returns false if the worker has ended.
    pub fn post(&self, order: Order) -> bool {
        if self.orders.send(order).is_err() {
            return false;
        }
        // If the socket is full, the worker has not read the earlier bytes. When it reads them, it
        // finds this order, too.
        match (&*self.wake).write_all(&[1]) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// The number of connections of each worker. Every worker reads these numbers at accept. They
/// change only when a connection opens or closes.
#[derive(Clone)]
pub struct Loads(Arc<[Load]>);

#[derive(Default)]
#[repr(align(128))]
struct Load {
    /// By direction: connections of inbound and of outbound listeners.
    connections: [AtomicU32; 2],
    /// By direction: the number of listening sockets from which the worker accepts.
    accepting: [AtomicU32; 2],
}

impl Loads {
    /// Creates the loads of `workers` workers, all zero.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Load::default()).collect())
    }

    /// Counts one more connection on `worker`. `outbound` says whether its listener is outbound.
    pub fn opened(&self, worker: usize, outbound: bool) {
        self.0[worker].connections[usize::from(outbound)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less connection on `worker`.
    pub fn closed(&self, worker: usize, outbound: bool) {
        self.0[worker].connections[usize::from(outbound)].fetch_sub(1, Ordering::Relaxed);
    }

    /// The number of connections of all workers together.
    pub fn total(&self) -> u32 {
        self.0.iter().map(Load::connections).sum()
    }

    /// Counts one more socket that `worker` accepts from.
    pub fn accepts(&self, worker: usize, outbound: bool) {
        self.0[worker].accepting[usize::from(outbound)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less socket that `worker` accepts from.
    pub fn accepts_no_more(&self, worker: usize, outbound: bool) {
        // Release ordering: a worker that reads this number also reads the connections that were
        // handed over before.
        self.0[worker].accepting[usize::from(outbound)].fetch_sub(1, Ordering::Release);
    }

    /// Whether no worker accepts from the listeners of `step`, and none of their connections is
    /// open or being handed over.
    pub fn are_over(&self, step: DrainStep) -> bool {
        let directions = match step {
            DrainStep::Inbound => 0..1,
            DrainStep::All => 0..2,
        };
        directions.into_iter().all(|direction| {
            let accepting = |load: &Load| load.accepting[direction].load(Ordering::Acquire);
            let open = |load: &Load| load.connections[direction].load(Ordering::Relaxed);
            self.0.iter().map(accepting).sum::<u32>() == 0
                && self.0.iter().map(open).sum::<u32>() == 0
        })
    }

    /// Returns the worker that should serve a connection accepted by `worker`. Another worker is
    /// chosen only if it has clearly fewer connections, because a hand-over costs two system calls.
    pub fn place(&self, worker: usize) -> usize {
        let mine = self.0[worker].connections();
        let least = self.0.iter().enumerate().min_by_key(|(_, load)| load.connections());
        match least {
            Some((index, load)) if mine > load.connections() + skew_tolerated(mine) => index,
            _ => worker,
        }
    }
}

impl Load {
    fn connections(&self) -> u32 {
        self.connections.iter().map(|open| open.load(Ordering::Relaxed)).sum()
    }
}

/// How many connections more than the least loaded worker a worker may have without a hand-over:
/// one eighth of its connections. With few connections the number is 0, so that two long-lived
/// connections use two workers.
fn skew_tolerated(mine: u32) -> u32 {
    mine / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(counts: &[u32]) -> Loads {
        let loads = Loads::new(counts.len());
        for (worker, &count) in counts.iter().enumerate() {
            (0..count).for_each(|_| loads.opened(worker, false));
        }
        loads
    }

    #[test]
    fn connections_go_where_there_is_clearly_less_to_do() {
        // (connections of each worker, worker that accepts, worker that serves)
        for (counts, accepted, serves) in [
            (&[0, 0][..], 0, 0),
            (&[1, 0], 0, 1),
            (&[1, 1], 0, 0),
            (&[1, 0], 1, 1),
            (&[7, 5, 6], 0, 1),
            (&[80, 75], 0, 0),
            (&[80, 60], 0, 1),
        ] {
            assert_eq!(loads(counts).place(accepted), serves, "{counts:?} {accepted}");
        }
    }

    #[test]
    fn an_order_wakes_the_worker() {
        let (mailbox, inbox) = mailbox().unwrap();
        assert!(mailbox.post(Order::Drain(DrainStep::All)));
        let mut byte = [0; 4];
        assert_eq!(io::Read::read(&mut &inbox.wake, &mut byte).unwrap(), 1);
        assert!(matches!(inbox.orders.try_recv(), Ok(Order::Drain(DrainStep::All))));
        drop(inbox);
        assert!(!mailbox.post(Order::Drain(DrainStep::All)));
    }
}
