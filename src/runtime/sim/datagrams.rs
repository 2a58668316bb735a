//! Simulated UDP: datagrams may be lost, repeated and overtaken.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::{SimIo, Weather};
use crate::runtime::io::Io as _;
use crate::runtime::udp::{Datagrams, Incoming, Outgoing};

/// How many datagrams an inbox holds. More are lost, as in a kernel.
const INBOX_MAX: usize = 1024;

/// The datagrams that have arrived at a port.
pub(super) type Inbox = Rc<RefCell<Arrivals>>;

#[derive(Default)]
pub(super) struct Arrivals {
    waiting: VecDeque<(SocketAddr, u8, Vec<u8>)>,
    reader: Option<Waker>,
}

/// A UDP socket of a simulated process. Dropping it closes its port.
pub struct SimDatagrams {
    io: SimIo,
    address: SocketAddr,
    inbox: Inbox,
    weather: Weather,
}

impl SimDatagrams {
    /// Opens the port `address`.
    pub fn open(io: &SimIo, address: SocketAddr) -> Self {
        let inbox = Inbox::default();
        io.world.ports.borrow_mut().insert(address, Rc::clone(&inbox));
        Self { io: io.clone(), address, inbox, weather: io.weather.get() }
    }

    /// Opens a port of a client that talks to `to`.
    pub(super) fn towards(io: &SimIo, to: SocketAddr) -> Self {
        let port = io.world.last_port.get() + 1;
        io.world.last_port.set(port);
        let ip: IpAddr = if to.is_ipv4() { [127, 0, 0, 1].into() } else { to.ip() };
        Self::open(io, SocketAddr::new(ip, port))
    }

    /// Sends one datagram through the weather: it arrives later, twice or not at all.
    fn carry(&self, to: SocketAddr, ecn: u8, bytes: &[u8]) {
        let world = &self.io.world;
        if world.chance(self.weather.lost) {
            return;
        }
        let times = if world.chance(self.weather.repeated) { 2 } else { 1 };
        for _ in 0..times {
            let at = self.io.now() + world.up_to(self.weather.latency_max);
            let (io, from, bytes) = (self.io.clone(), self.address, bytes.to_vec());
            self.io.spawn(async move {
                io.sleep_until(at).await;
                let inbox = io.world.ports.borrow().get(&to).cloned();
                let Some(inbox) = inbox else { return };
                let mut inbox = inbox.borrow_mut();
                if inbox.waiting.len() < INBOX_MAX {
                    inbox.waiting.push_back((from, ecn, bytes));
                }
                if let Some(reader) = inbox.reader.take() {
                    reader.wake();
                }
            });
        }
    }
}

impl Datagrams for SimDatagrams {
    async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| {
            let mut inbox = self.inbox.borrow_mut();
            if !inbox.waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
            inbox.reader = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    async fn writable(&self) -> io::Result<()> {
        Ok(())
    }

    fn receive(&self, take: &mut dyn FnMut(Incoming<'_>)) -> io::Result<bool> {
        let arrived = self.inbox.borrow_mut().waiting.pop_front();
        let (from, ecn, bytes) = arrived.ok_or(io::ErrorKind::WouldBlock)?;
        take(Incoming { from, to: Some(self.address.ip()), ecn, bytes: &bytes });
        Ok(true)
    }

    fn send(&self, outgoing: &Outgoing<'_>) -> io::Result<()> {
        let segment_bytes = outgoing.segment_bytes.unwrap_or(outgoing.bytes.len()).max(1);
        for datagram in outgoing.bytes.chunks(segment_bytes) {
            self.carry(outgoing.to, outgoing.ecn, datagram);
        }
        Ok(())
    }

    fn segments_max(&self) -> usize {
        8
    }

    fn may_fragment(&self) -> bool {
        true
    }
}

impl Drop for SimDatagrams {
    fn drop(&mut self) {
        self.io.world.ports.borrow_mut().remove(&self.address);
    }
}
