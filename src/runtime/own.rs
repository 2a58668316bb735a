//! The connections that this process has opened. If one of them is captured and comes back to this
//! process, the rules of traffic capture form a loop.
//!
//! All workers share one table without locks. A connection stores a fingerprint of its two
//! addresses in the slot that its hash selects. Two connections with the same slot overwrite each
//! other, so one in many thousands is not recognised. A loop opens further connections until one of
//! them is recognised.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh64::Xxh64;

/// The number of slots. The table has 512 KiB, of which the kernel maps only the used pages.
const PLACES: usize = 1 << 16;

static TABLE: LazyLock<Box<[AtomicU64]>> =
    LazyLock::new(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());

/// A connection that this process opened. Dropping this value removes the connection from the
/// table.
#[derive(Debug)]
pub struct Own(NonZeroU64);

impl Own {
    /// Records a connection from `local` to `remote`.
    pub fn note(local: SocketAddr, remote: SocketAddr) -> Self {
        let print = fingerprint(local, remote);
        place(print).store(print.get(), Ordering::Release);
        Self(print)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // If another connection has overwritten the slot, the entry of that connection stays.
        place(self.0).compare_exchange(self.0.get(), 0, Ordering::Release, Ordering::Relaxed).ok();
    }
}

/// Whether this process has opened the connection from `local` to `remote`.
pub fn is_own(local: SocketAddr, remote: SocketAddr) -> bool {
    let print = fingerprint(local, remote);
    place(print).load(Ordering::Acquire) == print.get()
}

fn place(print: NonZeroU64) -> &'static AtomicU64 {
    &TABLE[print.get() as usize % PLACES]
}

/// Returns the hash of both addresses. It is never 0, because 0 means an empty slot.
fn fingerprint(local: SocketAddr, remote: SocketAddr) -> NonZeroU64 {
    let mut hash = Xxh64::new(0);
    for address in [local, remote] {
        match address.ip().to_canonical() {
            std::net::IpAddr::V4(ip) => hash.update(&ip.octets()),
            std::net::IpAddr::V6(ip) => hash.update(&ip.octets()),
        }
        hash.update(&address.port().to_be_bytes());
    }
    NonZeroU64::new(hash.digest()).unwrap_or(NonZeroU64::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_as_long_as_it_lives() {
        let (here, there) = ("10.0.0.1:4000", "10.0.0.2:80");
        let (here, there): (SocketAddr, SocketAddr) =
            (here.parse().unwrap(), there.parse().unwrap());
        assert!(!is_own(here, there));
        let own = Own::note(here, there);
        assert!(is_own(here, there));
        assert!(is_own("[::ffff:10.0.0.1]:4000".parse().unwrap(), there));
        assert!(!is_own(there, here));
        drop(own);
        assert!(!is_own(here, there));
    }
}
