//! How the control thread and the workers talk, and how workers hand connections to each other.
//!
//! A worker's mailbox is a channel plus a socket pair: whoever posts writes one byte, which wakes
//! the worker's ring. A new snapshot goes in two phases: every worker prepares it, and only when
//! all have, all commit; so either the whole proxy has it or nobody does.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;

use crate::net::Bind;
use crate::snapshot::Snapshot;

/// What a worker is told.
pub enum Order {
    /// Build everything the snapshot needs, change nothing yet, and report
    /// [`ReportKind::Prepared`].
    Prepare(Preparation),
    /// Use the prepared snapshot from now on and report [`ReportKind::Committed`].
    Commit {
        /// The snapshot's version.
        version: u64,
    },
    /// Forget the prepared snapshot.
    Abort {
        /// The snapshot's version.
        version: u64,
    },
    /// Take in new endpoints of a service. A worker would notice with its next request; an idle
    /// one must close its connections to endpoints that left.
    Endpoints {
        /// The version of the snapshot that has the service.
        version: u64,
        /// Index into `Snapshot::services`.
        service: usize,
        /// The addresses that came or went, where traffic is captured.
        addresses: Arc<[SocketAddr]>,
    },
    /// Serve this connection, accepted by a more loaded worker.
    Adopt(Adopted),
    /// Stop accepting, let exchanges finish, close idle connections; report
    /// [`ReportKind::Drained`] when none is left.
    Drain,
    /// Hand over what has been gathered for the access log.
    FlushLog,
}

/// A snapshot and the sockets that this worker accepts from.
pub struct Preparation {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// For every bind of every listener the worker's own listening descriptor. A bind that was
    /// there before brings the same socket (a duplicate of its descriptor may be passed; the
    /// worker keeps the one it has).
    pub sockets: Vec<ListeningSocket>,
}

/// A listening socket for one worker.
pub struct ListeningSocket {
    /// Index into `Snapshot::listeners`.
    pub listener: usize,
    /// Which of the listener's binds.
    pub bind: Bind,
    /// Nonblocking and close-on-exec; for TCP with TCP_NODELAY set (accepted sockets inherit it).
    pub descriptor: OwnedFd,
}

/// A connection that changes its worker before its first byte was read.
pub struct Adopted {
    /// The connected socket.
    pub descriptor: OwnedFd,
    /// Where it was accepted.
    pub bind: Bind,
    /// Who connected; `None` for a Unix-domain socket.
    pub peer: Option<SocketAddr>,
}

/// What a worker tells the control thread.
pub struct Report {
    /// Which worker.
    pub worker: usize,
    /// What it says.
    pub kind: ReportKind,
}

/// The content of a [`Report`].
pub enum ReportKind {
    /// The runtime is up; the name of its driver (`io_uring` or `epoll`).
    Started {
        /// `io_uring` or `epoll`.
        driver: &'static str,
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
    /// No connection is left.
    Drained,
    /// Whole lines for the access log.
    Log(Vec<u8>),
    /// The worker cannot go on.
    Failed(String),
}

impl ReportKind {
    /// The version that is prepared, if that is what it says.
    pub fn prepared(&self) -> Option<u64> {
        if let Self::Prepared { version } = self { Some(*version) } else { None }
    }

    /// The version that is committed, if that is what it says.
    pub fn committed(&self) -> Option<u64> {
        if let Self::Committed { version } = self { Some(*version) } else { None }
    }
}

/// Where workers report to: an unbounded channel that never blocks a worker. What is in it is
/// bounded by the workers themselves (one report an order, log batches of limited size).
pub type Reports = tokio::sync::mpsc::UnboundedSender<Report>;

/// The sending end of a worker's mailbox. Cheap to clone.
#[derive(Clone)]
pub struct Mailbox {
    orders: mpsc::Sender<Order>,
    wake: Arc<UnixStream>,
}

/// The worker's end.
pub struct Inbox {
    /// Orders, in the order they were posted.
    pub orders: mpsc::Receiver<Order>,
    /// Becomes readable when there may be orders.
    pub wake: UnixStream,
}

/// Makes a mailbox.
///
/// # Errors
/// When no socket pair can be made.
pub fn mailbox() -> io::Result<(Mailbox, Inbox)> {
    let (sender, orders) = mpsc::channel();
    let (ring, wake) = UnixStream::pair()?;
    ring.set_nonblocking(true)?;
    wake.set_nonblocking(true)?;
    Ok((Mailbox { orders: sender, wake: Arc::new(ring) }, Inbox { orders, wake }))
}

impl Mailbox {
    /// Posts an order. False when the worker is gone.
    pub fn post(&self, order: Order) -> bool {
        if self.orders.send(order).is_err() {
            return false;
        }
        // A full wake means that the worker has not looked yet: it will find this order too.
        match (&*self.wake).write_all(&[1]) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// How many connections each worker has: read by all when one is accepted, written by the owner
/// when one opens or closes (never per request).
#[derive(Clone)]
pub struct Loads(Arc<[Load]>);

#[derive(Default)]
#[repr(align(128))]
struct Load(AtomicU32);

impl Loads {
    /// Loads of `workers` workers, all zero.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Load::default()).collect())
    }

    /// One more connection on `worker`.
    pub fn opened(&self, worker: usize) {
        self.0[worker].0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less connection on `worker`.
    pub fn closed(&self, worker: usize) {
        self.0[worker].0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections of all workers.
    pub fn total(&self) -> u32 {
        self.0.iter().map(|load| load.0.load(Ordering::Relaxed)).sum()
    }

    /// The worker that should take a connection which `worker` has just accepted: another one
    /// only if that one has clearly less to do, because handing over costs two system calls.
    pub fn place(&self, worker: usize) -> usize {
        let mine = self.0[worker].0.load(Ordering::Relaxed);
        let least =
            self.0.iter().enumerate().min_by_key(|(_, load)| load.0.load(Ordering::Relaxed));
        match least {
            Some((index, load)) if mine > load.0.load(Ordering::Relaxed) + skew_tolerated(mine) => {
                index
            }
            _ => worker,
        }
    }
}

/// Connections more than the least loaded worker that are not worth a hand-over: none when there
/// are few (two long-lived connections must use two workers), an eighth when there are many.
fn skew_tolerated(mine: u32) -> u32 {
    mine / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(counts: &[u32]) -> Loads {
        let loads = Loads::new(counts.len());
        for (worker, &count) in counts.iter().enumerate() {
            (0..count).for_each(|_| loads.opened(worker));
        }
        loads
    }

    #[test]
    fn connections_go_where_there_is_clearly_less_to_do() {
        // (connections a worker, who accepted, who serves)
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
    fn an_order_rings_the_bell() {
        let (mailbox, inbox) = mailbox().unwrap();
        assert!(mailbox.post(Order::Drain));
        let mut byte = [0; 4];
        assert_eq!(io::Read::read(&mut &inbox.wake, &mut byte).unwrap(), 1);
        assert!(matches!(inbox.orders.try_recv(), Ok(Order::Drain)));
        drop(inbox);
        assert!(!mailbox.post(Order::Drain));
    }
}
