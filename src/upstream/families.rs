//! Address families (IPv4 or IPv6) for which this host has no route now.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::net::Address;
use crate::time::Time;

/// How long the endpoints of a family are chosen last after a connect found no route. After this
/// time one of them is tried again.
pub const UNREACHABLE_FOR: Duration = Duration::from_secs(5);

/// The address families without a route, for one service.
#[derive(Debug, Default)]
pub struct UnreachableFamilies {
    /// The time until which endpoints of IPv4 (first) and IPv6 (second) are chosen last. `None`
    /// means that they are chosen normally.
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

    /// Whether `address` is of a family whose endpoints are chosen last.
    pub fn includes(&self, address: &Address, now: Time) -> bool {
        self.of(address).is_some_and(|until| until.get().is_some_and(|until| now < until))
    }

    /// Whether there is any family whose endpoints are chosen last.
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

/// Whether the error says that the host has no route for the whole family of the address.
fn is_unreachable(error: &io::Error) -> bool {
    // EHOSTUNREACH is not in this list: it is mostly about one host.
    let codes = [libc::ENETUNREACH, libc::ENETDOWN, libc::EAFNOSUPPORT];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}
