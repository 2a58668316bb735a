//! The addresses in use for a DNS name, and since when the name has had no addresses.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Family;

/// The result of a lookup of one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The addresses, and how long they are valid (their TTL).
    Addresses(Vec<IpAddr>, Duration),
    /// A server answered that the name has no addresses of the family.
    None,
    /// No server answered. The text is the reason.
    Failed(String),
}

/// The addresses in use for a DNS name.
#[derive(Debug, Default)]
pub struct KnownAddresses {
    by_family: [Vec<IpAddr>; 2],
    reported: Option<Vec<IpAddr>>,
    gone_since: Option<Instant>,
}

impl KnownAddresses {
    /// Records the results of a lookup, one for each family in the order of [`Family::ALL`]. `None`
    /// means that the family is not wanted. Returns the addresses to use if they have changed.
    ///
    /// A family whose lookup failed keeps its addresses. When the name has no addresses any more,
    /// its last addresses stay in use for `gone_after`, because a DNS server may lose a name for a
    /// moment.
    pub fn hear(
        &mut self,
        found: &[Option<Found>; 2],
        now: Instant,
        gone_after: Duration,
    ) -> Option<Vec<IpAddr>> {
        let mut new = self.by_family.clone();
        for (family, found) in new.iter_mut().zip(found) {
            match found {
                Some(Found::Addresses(list, _)) => *family = list.clone(),
                Some(Found::None) | None => family.clear(),
                Some(Found::Failed(_)) => {}
            }
        }
        let is = |wanted: fn(&Found) -> bool| found.iter().flatten().any(wanted);
        let failed = is(|found| matches!(found, Found::Failed(_)));
        if is(|found| matches!(found, Found::Addresses(..))) {
            self.gone_since = None;
        }
        if new.iter().all(Vec::is_empty) {
            if failed {
                return None; // a lookup failed, so the name may still have addresses
            }
            let since = *self.gone_since.get_or_insert(now);
            let has_some = self.reported.as_ref().is_some_and(|list| !list.is_empty());
            if has_some && now.duration_since(since) < gone_after {
                return None;
            }
        }
        let mut list = new.concat();
        list.sort_unstable();
        list.dedup();
        self.by_family = new;
        (self.reported.as_ref() != Some(&list)).then(|| {
            self.reported = Some(list.clone());
            list
        })
    }

    /// The number of addresses in use.
    pub fn len(&self) -> usize {
        self.reported.as_ref().map_or(0, Vec::len)
    }

    /// Whether there is no address in use.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// For a name that has lost its addresses: the time until its last addresses are dropped.
    /// `None` if the name has addresses, if its last addresses are dropped already, or if the time
    /// has passed but lookups have failed since then.
    pub fn goes_in(&self, now: Instant, gone_after: Duration) -> Option<Duration> {
        let since = self.gone_since.filter(|_| !self.is_empty())?;
        Some((since + gone_after).saturating_duration_since(now)).filter(|left| !left.is_zero())
    }
}

impl Family {
    /// The position in [`Family::ALL`].
    pub fn index(self) -> usize {
        usize::from(self == Self::Ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE_AFTER: Duration = Duration::from_secs(30);

    fn some(ip: &str) -> Option<Found> {
        Some(Found::Addresses(vec![ip.parse().unwrap()], Duration::from_secs(1)))
    }

    fn failed() -> Option<Found> {
        Some(Found::Failed("SERVFAIL".to_owned()))
    }

    #[test]
    fn an_answer_replaces_and_a_failure_keeps() {
        let none = || Some(Found::None);
        let ips = |list: &[&str]| Some(list.iter().map(|ip| ip.parse().unwrap()).collect());
        let began = Instant::now();
        let mut known = KnownAddresses::default();
        for (at_s, found, expected) in [
            (0, [failed(), failed()], None),
            (1, [some("10.0.0.1"), failed()], ips(&["10.0.0.1"])),
            (2, [some("10.0.0.1"), some("::1")], ips(&["10.0.0.1", "::1"])),
            // The lookup of one family failed: its addresses stay in use.
            (3, [some("10.0.0.2"), failed()], ips(&["10.0.0.2", "::1"])),
            (4, [failed(), none()], ips(&["10.0.0.2"])),
            (5, [failed(), failed()], None),
            // One lookup failed, so the name may still have addresses.
            (6, [none(), failed()], None),
            (7, [none(), none()], None),
            (8, [failed(), failed()], None),
            (36, [none(), none()], None),
            (37, [none(), none()], ips(&[])),
            (38, [none(), none()], None),
            (39, [some("10.0.0.3"), none()], ips(&["10.0.0.3"])),
            // The time of `gone_after` begins again.
            (40, [none(), none()], None),
            (69, [none(), none()], None),
            (69, [some("10.0.0.3"), none()], None),
            (75, [none(), none()], None),
        ] {
            let now = began + Duration::from_secs(at_s);
            assert_eq!(known.hear(&found, now, GONE_AFTER), expected, "{at_s}: {found:?}");
        }
        let left = known.goes_in(began + Duration::from_secs(80), GONE_AFTER);
        assert_eq!(left, Some(Duration::from_secs(25)));
    }

    #[test]
    fn a_name_without_addresses_is_empty_at_once() {
        let mut known = KnownAddresses::default();
        let none = [Some(Found::None), Some(Found::None)];
        assert_eq!(known.hear(&none, Instant::now(), GONE_AFTER), Some(Vec::new()));
        assert_eq!(known.goes_in(Instant::now(), GONE_AFTER), None);
    }
}
