//! Compiles `tcp`: the socket options with which the kernel detects a dead TCP peer.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::Compiler;
use crate::model;
use crate::net::{Keepalive, TcpLiveness};

/// The default settings. They detect a dead peer within two minutes, both on an idle connection and
/// while bytes are unacknowledged. A shorter user timeout would close connections of live peers
/// that read slowly.
pub(super) const DEFAULT: TcpLiveness = TcpLiveness {
    keepalive: Some(DEFAULT_KEEPALIVE),
    user_timeout: Some(Duration::from_secs(120)),
};

const DEFAULT_KEEPALIVE: Keepalive =
    Keepalive { time: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 6 };

/// The ranges that the kernel accepts (tcp(7)). It counts whole seconds.
const SECONDS: RangeInclusive<u64> = 1..=32767;
const PROBES: RangeInclusive<u32> = 1..=127;

/// The minimum user timeout. It leaves time for a few retransmissions.
const USER_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Compiles the `written` settings. A setting that is not written comes from `base`.
pub(super) fn liveness(
    compiler: &mut Compiler<'_>,
    written: &model::Tcp,
    base: TcpLiveness,
) -> TcpLiveness {
    let keepalive = match &written.keepalive {
        None => base.keepalive,
        Some(item) => item.value.map(|keepalive| {
            let before = base.keepalive.unwrap_or(DEFAULT_KEEPALIVE);
            let new = Keepalive {
                time: keepalive.time.unwrap_or(before.time),
                interval: keepalive.interval.unwrap_or(before.interval),
                probes: keepalive.probes.unwrap_or(before.probes),
            };
            if [new.time, new.interval].iter().any(|time| !SECONDS.contains(&time.as_secs())) {
                let message = "this must be from 1s to 32767s: `time` and `interval`";
                compiler.fault(&item.origin, message);
            }
            if !PROBES.contains(&new.probes) {
                compiler.fault(&item.origin, "this must be from 1 to 127: `probes`");
            }
            new
        }),
    };
    let user_timeout = match &written.user_timeout {
        None => base.user_timeout,
        Some(item) => {
            if item.value.is_some_and(|timeout| timeout < USER_TIMEOUT_MIN) {
                compiler.fault(&item.origin, "this must be at least 1s, or none");
            }
            item.value
        }
    };
    TcpLiveness { keepalive, user_timeout }
}
