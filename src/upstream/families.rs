//! Remembers the address families (IPv4 or IPv6) for which this host currently has no route.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::net::Address;
use crate::time::Time;

/// How long the endpoints of an address family are chosen last, after a connect has found no route.
/// After this time, one of them is tried again.
pub const UNREACHABLE_FOR: Duration = Duration::from_secs(5);

/// The address families without a route, for the endpoints of one service.
#[derive(Debug, Default)]
pub struct UnreachableFamilies {
    /// The times until which endpoints are chosen last: IPv4 first, then IPv6. `None` means that
    /// they are chosen normally.
    until: [Cell<Option<Time>>; 2],
}

impl UnreachableFamilies {
    /// Records the result of a connect to `address`.
    pub fn hear(&self, address: &Address, result: Result<(), &io::Error>, now: Time) {
        let Some(until) = self.of(address) else { return };
        match result {
            Ok(()) => until.set(None),
            Err(error) if is_unreachable(error) => until.set(Some(now + UNREACHABLE_FOR)),
            Err(_) => {}
        }
    }

    /// Whether the endpoints of the family of `address` are chosen last.
    pub fn includes(&self, address: &Address, now: Time) -> bool {
        self.of(address).is_some_and(|until| until.get().is_some_and(|until| now < until))
    }

    /// Whether the endpoints of at least one family are chosen last.
    #[inline]
    pub fn is_any(&self, now: Time) -> bool {
        self.until.iter().any(|until| until.get().is_some_and(|until| now < until))
    }

    fn of(&self, address: &Address) -> Option<&Cell<Option<Time>>> {
        match address {
            Address::Tcp(address) => Some(&self.until[usize::from(address.is_ipv6())]),
            Address::Unix(_) => None,
        }
    }
}

/// Whether the error means that this host has no route for the whole address family.
fn is_unreachable(error: &io::Error) -> bool {
    // EHOSTUNREACH is not in the list, because it usually concerns only one host.
    let codes = [libc::ENETUNREACH, libc::ENETDOWN, libc::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
