//! The connections that this process has opened, so that one which comes back to it is known: a
//! loop in the rules of traffic capture.
//!
//! A table without locks that all workers share: a connection leaves a fingerprint of its two
//! addresses in the one place that it hashes to. Two that hash to the same place overwrite each
//! other, so that one in many thousands goes unseen; a loop goes round until it is seen.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh64::Xxh64;

/// Places in the table: 512 KiB, of which the kernel maps what is used.
const PLACES: usize = 1 << 16;

static TABLE: LazyLock<Box<[AtomicU64]>> =
    LazyLock::new(|| (0..PLACES).map(|_| AtomicU64::new(0)).collect());

/// A connection of ours, for as long as this lives.
#[derive(Debug)]
pub struct Own(NonZeroU64);

impl Own {
    /// Notes a connection from `local` to `remote`.
    pub fn note(local: SocketAddr, remote: SocketAddr) -> Self {
        let print = fingerprint(local, remote);
        place(print).store(print.get(), Ordering::Release);
        Self(print)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // When another one has taken the place it stays there.
        place(self.0).compare_exchange(self.0.get(), 0, Ordering::Release, Ordering::Relaxed).ok();
    }
}

/// Whether we have opened the connection from `local` to `remote` ourselves.
pub fn is_own(local: SocketAddr, remote: SocketAddr) -> bool {
    let print = fingerprint(local, remote);
    place(print).load(Ordering::Acquire) == print.get()
}

fn place(print: NonZeroU64) -> &'static AtomicU64 {
    &TABLE[print.get() as usize % PLACES]
}

/// Never 0, which stands for nothing.
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
