//! `Io` over monoio: io_uring, or epoll where io_uring is not allowed.
//!
//! Only this file names monoio. Three properties of io_uring determine its design.
//!
//! - A pending accept must never be dropped. So a listener waits for readiness and then calls
//!   accept4(2).
//! - A dropped read loses its bytes. So an idle read is cancelled and then awaited.
//! - On an O_NONBLOCK socket the ring returns EAGAIN and does not wait. So the flag is set only for
//!   epoll and during a splice.
#![allow(unsafe_code)]

mod splice;

use std::cell::{Cell, UnsafeCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller};
use monoio::net::TcpStream;
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::alarm::{self, Alarm, Alarms};
use super::buffer::{Buf, BufferPool, POOLED_BUFFERS_MAX};
use super::datagram;
use super::io::{Io, Quiet, Read, SpliceError, Spliced, Stream};
use super::own::Own;
use super::socket::{self, Pipe};
use super::spare::Spare;
use super::timer::Timer;
use super::udp::UdpSocket;
use crate::net::{Address, Egress};
use crate::time::Time;

/// The number of submission queue entries of a worker's ring.
pub const RING_ENTRIES: u32 = 1024;

/// How many empty splice pipes a worker keeps for reuse.
pub const PIPES_POOLED_MAX: usize = 16;

/// [`alarm::GRANULARITY`] in microseconds.
const GRANULARITY_US: u64 = alarm::GRANULARITY.as_micros() as u64;

/// The number of values that SO_MEMINFO returns, as in `linux/sock_diag.h`.
const MEMINFO_VALUES: usize = 9;

/// The kernel interface of the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Driver {
    /// io_uring, or epoll when the kernel or a seccomp filter refuses it.
    #[default]
    Auto,
    /// io_uring only.
    IoUring,
    /// epoll.
    Epoll,
}

/// Runs `main` on a runtime of this thread until it completes. `began` is the zero of the worker's
/// clock. `main` gets the worker's [`RingIo`], which has the name of the driver in use.
///
/// # Errors
/// When no runtime can be created: io_uring is refused with [`Driver::IoUring`], or there are no
/// descriptors left.
pub fn run<F, M>(driver: Driver, began: Instant, main: M) -> io::Result<()>
where
    F: Future<Output = ()> + 'static,
    M: FnOnce(RingIo) -> F,
{
    let forced_epoll = std::env::var_os("MONOIO_FORCE_LEGACY_DRIVER").is_some_and(|on| on == "1");
    let ring = match driver {
        Driver::Epoll => Err(None),
        Driver::Auto if forced_epoll => Err(None),
        Driver::Auto => build_ring().map_err(Some),
        Driver::IoUring => Ok(build_ring()?),
    };
    match ring {
        Ok(mut runtime) => runtime.block_on(start(RingState::new(false, began, None), main)),
        Err(refused) => RuntimeBuilder::<LegacyDriver>::new()
            .build()?
            .block_on(start(RingState::new(true, began, refused), main)),
    }
}

async fn start<F: Future<Output = ()>>(
    state: RingState,
    main: impl FnOnce(RingIo) -> F,
) -> io::Result<()> {
    let timer = Timer::new()?;
    let io = RingIo(Rc::new(state));
    let expired = io.wrap(timer.descriptor()?)?;
    let alarms = alarm::run(io.clone(), async move |until: Time| {
        timer.set(until.since(expired.io.now()));
        // If the wait fails, the ring is broken, and every other operation fails, too.
        expired.readable().await.ok();
    });
    monoio::spawn(alarms);
    main(io).await;
    Ok(())
}

type RingRuntime = monoio::Runtime<IoUringDriver>;

/// Creates the best ring that this kernel supports. Deferred task work needs Linux 6.1; a single
/// issuer needs 6.0.
fn build_ring() -> io::Result<RingRuntime> {
    let mut deferred = io_uring::IoUring::builder();
    deferred.setup_single_issuer().setup_defer_taskrun();
    let mut cooperative = io_uring::IoUring::builder();
    cooperative.setup_coop_taskrun();
    let build = |flags: io_uring::Builder| {
        RuntimeBuilder::<IoUringDriver>::new()
            .with_entries(RING_ENTRIES)
            .uring_builder(flags)
            .build()
    };
    build(deferred).or_else(|_| build(cooperative)).or_else(|_| build(io_uring::IoUring::builder()))
}

/// The I/O interface of one worker, on the ring.
#[derive(Clone)]
pub struct RingIo(Rc<RingState>);

struct RingState {
    epoll: bool,
    /// The reason why the kernel refused io_uring.
    refused: Cell<Option<io::Error>>,
    began: Instant,
    recent: Cell<Time>,
    buffers: BufferPool,
    alarms: Alarms,
    pipes: Spare<Pipe>,
    /// Handles for cancelling reads of the ring, kept for reuse.
    cancellers: Spare<Canceller>,
}

impl RingState {
    fn new(epoll: bool, began: Instant, refused: Option<io::Error>) -> Self {
        Self {
            epoll,
            refused: Cell::new(refused),
            began,
            recent: Cell::default(),
            buffers: BufferPool::default(),
            alarms: Alarms::default(),
            pipes: Spare::new(PIPES_POOLED_MAX),
            cancellers: Spare::new(POOLED_BUFFERS_MAX),
        }
    }
}

impl RingIo {
    /// The name of the driver: `io_uring` or `epoll`.
    pub fn driver_name(&self) -> &'static str {
        if self.0.epoll { "epoll" } else { "io_uring" }
    }

    /// Takes the reason why the kernel refused io_uring. `None` if it did not, or after the first
    /// call.
    pub fn take_refusal(&self) -> Option<io::Error> {
        self.0.refused.take()
    }

    /// Creates a stream from a connected, blocking socket, as accept(2) returns it.
    ///
    /// # Errors
    /// When the socket cannot be registered with the driver.
    pub fn accepted(&self, descriptor: OwnedFd) -> io::Result<RingStream> {
        if self.0.epoll {
            socket::set_nonblocking(&descriptor, true)?;
        }
        self.wrap(descriptor)
    }

    /// Creates a stream from a socket that is only used to wait for readiness: a listener or a
    /// wake-up socket. Makes the socket nonblocking.
    ///
    /// # Errors
    /// When the socket cannot be registered with the driver.
    pub fn readiness(&self, descriptor: OwnedFd) -> io::Result<RingStream> {
        socket::set_nonblocking(&descriptor, true)?;
        self.wrap(descriptor)
    }

    fn take_pipe(&self) -> io::Result<Pipe> {
        self.0.pipes.take().map_or_else(Pipe::new, Ok)
    }

    fn put_pipe(&self, pipe: Option<Pipe>) {
        if let Some(pipe) = pipe.filter(|pipe| pipe.filled_bytes() == 0) {
            self.0.pipes.put(pipe);
        }
    }

    fn wrap(&self, descriptor: OwnedFd) -> io::Result<RingStream> {
        let stream = TcpStream::from_std(descriptor.into())?;
        Ok(RingStream {
            stream: UnsafeCell::new(stream),
            io: self.clone(),
            splicing: Cell::new(0),
            own: None,
        })
    }
}

impl Io for RingIo {
    type Stream = RingStream;
    type Datagrams = UdpSocket;

    fn now(&self) -> Time {
        let now = Time::from_micros(self.0.began.elapsed().as_micros() as u64);
        self.0.recent.set(now);
        now
    }

    fn recent(&self) -> Time {
        self.0.recent.get()
    }

    fn buffers(&self) -> &BufferPool {
        &self.0.buffers
    }

    fn alarms(&self) -> &Alarms {
        &self.0.alarms
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }

    async fn connect(&self, to: &Address, egress: Egress) -> io::Result<RingStream> {
        let socket = socket::start_connect(to, egress)?;
        let local = socket.local_addr().ok().filter(|_| egress.mark != 0);
        let mut stream = self.wrap(socket.into())?;
        if let (Some(local), Address::Tcp(remote)) = (local.and_then(|l| l.as_socket()), to) {
            stream.own = Some(Own::note(local, *remote));
        }
        stream.monoio().writable(false).await?;
        if let Some(error) = socket2::SockRef::from(&stream.as_fd()).take_error()? {
            return Err(error);
        }
        if !self.0.epoll {
            socket::set_nonblocking(&stream, false)?;
        }
        Ok(stream)
    }

    fn datagrams(&self, to: SocketAddr, egress: Egress) -> io::Result<UdpSocket> {
        let (descriptor, _) = datagram::towards(to, egress)?;
        UdpSocket::over(self, descriptor)
    }

    async fn sleep_until(&self, until: Time) {
        let alarm = self.alarms().alarm();
        // An alarm rings up to this much later than its deadline, and a sleep is exact. If other
        // alarms make it ring earlier, it is set again.
        let early = Time::from_micros(until.as_micros().saturating_sub(GRANULARITY_US));
        while self.now() < until {
            alarm.set(early);
            poll_fn(|context| alarm.poll_woken(context)).await;
        }
    }
}

/// A TCP or Unix-domain socket on the ring. Its operations are the same for both kinds.
pub struct RingStream {
    stream: UnsafeCell<TcpStream>,
    io: RingIo,
    /// The number of running splices in both directions. The socket is nonblocking during them.
    splicing: Cell<u32>,
    /// The entry in the table of connections that this process opened. `None` if no traffic is
    /// captured.
    own: Option<Own>,
}

impl RingStream {
    fn monoio(&self) -> &TcpStream {
        // SAFETY: `operate` hands out the only `&mut`, never across an await; this thread owns it.
        unsafe { &*self.stream.get() }
    }

    /// monoio's operations take `&mut self` only to forbid two readers. They capture only a shared
    /// descriptor; monoio's own `into_split` relies on that too.
    #[allow(clippy::mut_from_ref)]
    fn operate(&self) -> &mut TcpStream {
        // SAFETY: the stream never leaves this thread, and no monoio call looks at the stream
        // itself again after it has submitted the operation with a clone of the descriptor.
        unsafe { &mut *self.stream.get() }
    }

    /// Accepts the next connection of a listener from [`RingIo::readiness`].
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        socket::accept(self)
    }

    /// Completes when a write would not wait.
    ///
    /// # Errors
    /// Only when the ring itself fails.
    pub async fn writable(&self) -> io::Result<()> {
        self.monoio().writable(false).await
    }

    /// Half of the free space of the send buffer, or `usize::MAX` when it is not known. The kernel
    /// counts the memory of packets, which is up to twice their bytes. So this many bytes certainly
    /// fit.
    fn free_bytes(&self) -> usize {
        let mut info = [0_u32; MEMINFO_VALUES];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: the descriptor is open, and SO_MEMINFO writes at most `len` bytes to `info`.
        let done = unsafe {
            let descriptor = self.as_fd().as_raw_fd();
            let info = info.as_mut_ptr().cast();
            libc::getsockopt(descriptor, libc::SOL_SOCKET, libc::SO_MEMINFO, info, &mut len)
        };
        if done != 0 {
            return usize::MAX;
        }
        let [_, _, in_flight, send_buffer, _, queued, ..] = info;
        // TCP counts what is queued; a Unix-domain socket counts what the peer has not read.
        send_buffer.saturating_sub(queued.max(in_flight)) as usize / 2
    }
}

impl Stream for RingStream {
    async fn read(&self, buf: Buf) -> (io::Result<Read>, Buf) {
        let mut inbound = Inbound(buf);
        loop {
            let (result, back) = self.operate().read(inbound).await;
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    inbound = back;
                    if let Err(error) = self.readable().await {
                        return (Err(error), inbound.0);
                    }
                }
                result => return (result.map(read_from_count), back.0),
            }
        }
    }

    async fn read_or_woken(&self, buf: Buf, alarm: &Alarm) -> (io::Result<Read>, Buf) {
        let (result, back) = if self.io.0.epoll {
            if !buf.is_empty() {
                // The buffer with its bytes must come back, so no read holds it during the wait.
                return match alarm.guard(self.readable()).await {
                    Ok(_) => Box::pin(self.read(buf)).await,
                    Err(_) => (Ok(Read::Woken), buf),
                };
            }
            // With epoll, a read that waits has read nothing, so it may be dropped.
            let read = pin!(self.operate().read(Inbound(buf)));
            match unless_woken(read, alarm).await {
                Ok(done) => done,
                Err(_) => return (Ok(Read::Woken), self.io.0.buffers.take()),
            }
        } else {
            let canceller = self.io.0.cancellers.take().unwrap_or_default();
            let read = pin!(self.operate().cancelable_read(Inbound(buf), canceller.handle()));
            let (done, canceller) = match unless_woken(read, alarm).await {
                Ok(done) => (done, canceller),
                Err(read) => {
                    let canceller = canceller.cancel();
                    (read.await, canceller)
                }
            };
            self.io.0.cancellers.put(canceller);
            done
        };
        let result = match result {
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(Read::Woken),
            // During a splice the socket is nonblocking, so the read returns at once. Wait until
            // the socket is readable instead: this loses no bytes.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match alarm.guard(self.readable()).await {
                    // Boxed, because this read is rare and would enlarge every waiting connection.
                    Ok(_) => return Box::pin(self.read(back.0)).await,
                    Err(_) => Ok(Read::Woken),
                }
            }
            result => result.map(read_from_count),
        };
        (result, back.0)
    }

    async fn readable(&self) -> io::Result<()> {
        self.monoio().readable(false).await
    }

    async fn write_all(&self, buf: Buf) -> (io::Result<()>, Buf) {
        let window = buf.window();
        let mut outbound = Outbound(buf);
        let result = loop {
            if outbound.0.is_empty() {
                break Ok(());
            }
            let (result, back) = self.operate().write(outbound).await;
            outbound = back;
            match result {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => outbound.0.consume(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.writable().await {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let mut buf = outbound.0;
        buf.restore(window);
        (result, buf)
    }

    async fn room(&self, enough_bytes: usize) -> usize {
        let free_bytes = self.free_bytes();
        if free_bytes >= enough_bytes {
            return free_bytes;
        }
        // The kernel reports a socket as writable when about a third of its buffer is free. If the
        // wait fails, the next write returns the error.
        self.writable().await.ok();
        self.free_bytes()
    }

    fn quiet(&self) -> Quiet {
        socket::quiet(self)
    }

    async fn shutdown_write(&self) {
        socket::shutdown_write(self);
    }

    fn reset_on_close(&self) {
        socket::reset_on_close(self);
    }

    fn unsent_bytes(&self) -> usize {
        if socket::is_broken(self) {
            return 0;
        }
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and SIOCOUTQ (tcp(7), unix(7)), which has the number of
        // TIOCOUTQ, writes one int to the address of `bytes`.
        let done = unsafe { libc::ioctl(self.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
        if done == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
    }

    async fn splice_to(
        &self,
        to: &Self,
        bytes_max: u64,
        moved: impl FnMut(u64),
    ) -> Result<Spliced, SpliceError> {
        splice::run(self, to, bytes_max, moved).await
    }
}

impl AsFd for RingStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as the stream it is borrowed from.
        unsafe { BorrowedFd::borrow_raw(self.monoio().as_raw_fd()) }
    }
}

/// A buffer to which the kernel appends.
struct Inbound(Buf);

// SAFETY: the spare room of a Buf is a part of its mapped block, which does not move with the Buf,
// and stays allocated until the operation gives the Buf back.
unsafe impl IoBufMut for Inbound {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.spare_mut().as_mut_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.room()
    }

    unsafe fn set_init(&mut self, filled: usize) {
        self.0.advance(filled);
    }
}

/// A buffer whose data the kernel sends.
struct Outbound(Buf);

// SAFETY: as for `Inbound`; the window is initialised data.
unsafe impl IoBuf for Outbound {
    fn read_ptr(&self) -> *const u8 {
        self.0.data().as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

/// The output of `read`, or `read` itself if the alarm is woken first.
async fn unless_woken<'r, T, R: Future<Output = T>>(
    mut read: Pin<&'r mut R>,
    alarm: &Alarm,
) -> Result<T, Pin<&'r mut R>> {
    let done = poll_fn(|context| match read.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => alarm.poll_woken(context).map(|_| None),
    });
    match done.await {
        Some(done) => Ok(done),
        None => Err(read),
    }
}

fn read_from_count(n: usize) -> Read {
    if n == 0 { Read::End } else { Read::Data(n) }
}
