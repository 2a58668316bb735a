//! The base of the tests: a running proxy, real and scripted peers, and functions that wait for a
//! condition.

pub mod cgroup;
pub mod collector;
pub mod frames;
pub mod http;
pub mod names;
pub mod netns;
pub mod origin;
pub mod peers;
pub mod pki;
#[cfg(feature = "uring")]
pub mod proxy;
#[cfg(feature = "uring")]
pub mod quic;
pub mod tls;

use std::io::{self, Read};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use crate::skipped::skipped;

/// How long a test waits for a condition before it fails. It is long, because machines may be slow
/// and busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Ports for servers. They are below the ports that Linux gives to outgoing connections (32768 and
/// up). So no outgoing connection of another test takes a port before its server binds it.
const PORTS: Range<u16> = 12_000..32_000;

/// A loopback port that is free now. No other test of this process gets it.
pub fn free_port() -> u16 {
    free_listener().local_addr().unwrap().port()
}

/// A listener on a port like that of [`free_port`]. A test that listens itself uses this listener.
/// If it freed the port and bound it again, the bind could fail: a process that another test starts
/// holds a copy of the socket until its exec.
pub fn free_listener() -> TcpListener {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Test processes that run at the same time begin at different ports.
    let begin = std::process::id().wrapping_mul(97);
    let next = || {
        let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
        PORTS.start + (number % PORTS.len() as u32) as u16
    };
    let bind = |port: u16| TcpListener::bind(("127.0.0.1", port)).ok();
    std::iter::repeat_with(next).take(PORTS.len()).find_map(bind).expect("a free port")
}

/// Runs `operation` again when it was interrupted. A read with a timeout fails with EINTR when the
/// process was stopped for a moment, by a debugger or a snapshot of the machine (signal(7)).
pub fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Reads once, uninterrupted.
pub fn read_once(stream: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| stream.read(into))
}

/// Waits until `condition` returns a value, and returns it. Fails after [`PATIENCE`].
#[track_caller]
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "gave up waiting for: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until `condition` holds. Fails after [`PATIENCE`].
#[track_caller]
pub fn until(condition: impl Fn() -> bool) {
    eventually("the condition", || condition().then_some(()));
}
