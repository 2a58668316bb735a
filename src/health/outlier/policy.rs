//! The settings of outlier detection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{FailurePercentage, OutlierGroup, SuccessRate};

/// The default number of failures in a row.
pub const CONSECUTIVE_5XX: u32 = 5;

/// The default interval.
pub const EJECTION_INTERVAL: Duration = Duration::from_secs(10);

/// The default length of the first ejection.
pub const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);

/// The default length of the longest ejection.
pub const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

/// The default part of the endpoints that may be ejected at the same time.
pub const MAX_EJECTION_PERCENT: u8 = 10;

/// The outlier detection of a service.
#[derive(Debug)]
pub struct OutlierDetection {
    /// The settings.
    pub policy: OutlierPolicy,
    /// The ejected endpoints. They survive reloads while the name of the service stays the same.
    pub group: Arc<OutlierGroup>,
}

/// The settings of outlier detection. A number of failures of 0 means that they are not counted.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierPolicy {
    /// Responses of 5xx in a row.
    pub consecutive_5xx: u32,
    /// Responses of 502, 503 and 504 in a row.
    pub consecutive_gateway_errors: u32,
    /// Attempts without a response in a row. With 0, they count as 5xx and as gateway errors.
    pub consecutive_local_failures: u32,
    /// The time over which rates are measured. After each interval without an ejection, the next
    /// ejection is shorter.
    pub interval: Duration,
    /// The length of the first ejection. The second takes twice as long, and so on.
    pub base_ejection_time: Duration,
    /// The length of the longest ejection.
    pub max_ejection_time: Duration,
    /// The part of the endpoints that may be ejected at the same time. One endpoint always may.
    pub max_ejection_percent: u8,
    /// Success rates far below the average.
    pub success_rate: Option<SuccessRate>,
    /// Too many failures.
    pub failure_percentage: Option<FailurePercentage>,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            consecutive_5xx: CONSECUTIVE_5XX,
            consecutive_gateway_errors: 0,
            consecutive_local_failures: 0,
            interval: EJECTION_INTERVAL,
            base_ejection_time: BASE_EJECTION_TIME,
            max_ejection_time: MAX_EJECTION_TIME,
            max_ejection_percent: MAX_EJECTION_PERCENT,
            success_rate: None,
            failure_percentage: None,
        }
    }
}

impl OutlierPolicy {
    /// The number of failures in a row that ejects an endpoint, for `reason`. 0 means never.
    pub fn limit(&self, reason: EjectionReason) -> u32 {
        match reason {
            EjectionReason::GatewayErrors => self.consecutive_gateway_errors,
            EjectionReason::Consecutive5xx => self.consecutive_5xx,
            EjectionReason::LocalFailures => self.consecutive_local_failures,
            EjectionReason::SuccessRate | EjectionReason::FailurePercentage => 0,
        }
    }

    /// Whether rates of failures are measured.
    pub fn is_rated(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }

    /// Whether anything ejects an endpoint.
    pub fn ejects(&self) -> bool {
        let limits = EjectionReason::IN_A_ROW.iter().any(|&reason| self.limit(reason) > 0);
        limits || self.is_rated()
    }

    /// How many of `members` endpoints may be ejected at the same time.
    pub fn ejected_max(&self, members: usize) -> usize {
        (members * usize::from(self.max_ejection_percent) / 100).max(1)
    }

    /// The length of an ejection, if it is number `times` on the account of the endpoint.
    pub fn lasts(&self, times: u32) -> Duration {
        self.base_ejection_time.saturating_mul(times).min(self.max_ejection_time)
    }

    /// The number of ejections on the account of an endpoint after `quiet`, the time since its last
    /// ejection ended. Ejections beyond the longest one do not count, so that the account shrinks
    /// at once.
    pub fn remaining(&self, times: u32, quiet: Duration) -> u32 {
        let intervals = quiet.as_micros() / self.interval.as_micros().max(1);
        times.saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    /// The largest number of ejections on the account of an endpoint.
    pub fn times_max(&self) -> u32 {
        let base = self.base_ejection_time.as_micros().max(1);
        u32::try_from(self.max_ejection_time.as_micros().div_ceil(base)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for OutlierPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = "";
        for reason in EjectionReason::IN_A_ROW {
            let limit = self.limit(reason);
            if limit > 0 {
                write!(f, "{before}{limit} {}", reason.words())?;
                before = ", ";
            }
        }
        if let Some(rate) = &self.success_rate {
            write!(f, "{before}{rate}")?;
            before = ", ";
        }
        if let Some(percentage) = &self.failure_percentage {
            write!(f, "{before}{percentage}")?;
        }
        let Self { base_ejection_time: base, max_ejection_time: max, .. } = self;
        write!(f, "; ejected for {base:?} to {max:?}, at most {}%", self.max_ejection_percent)
    }
}

/// The reason of an ejection, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    /// Too many responses of 502, 503 and 504 in a row.
    GatewayErrors,
    /// Too many responses of 5xx in a row.
    Consecutive5xx,
    /// Too many attempts without a response in a row.
    LocalFailures,
    /// The success rate was far below that of the other endpoints.
    SuccessRate,
    /// Too many of the requests in an interval failed.
    FailurePercentage,
}

impl EjectionReason {
    /// All reasons, in the order of [`EjectionReason::index`].
    pub const ALL: [Self; 5] = [
        Self::GatewayErrors,
        Self::Consecutive5xx,
        Self::LocalFailures,
        Self::SuccessRate,
        Self::FailurePercentage,
    ];

    /// The reasons that count failures in a row. They are the first of [`EjectionReason::ALL`].
    pub const IN_A_ROW: [Self; 3] =
        [Self::GatewayErrors, Self::Consecutive5xx, Self::LocalFailures];

    /// The value of the metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::GatewayErrors => "consecutive_gateway_errors",
            Self::Consecutive5xx => "consecutive_5xx",
            Self::LocalFailures => "consecutive_local_failures",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::GatewayErrors => "gateway errors in a row",
            Self::Consecutive5xx => "times 5xx in a row",
            Self::LocalFailures => "local failures in a row",
            Self::SuccessRate | Self::FailurePercentage => "",
        }
    }

    /// The position in [`EjectionReason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_endpoint_may_always_go() {
        let policy =
            |percent| OutlierPolicy { max_ejection_percent: percent, ..Default::default() };
        for (percent, members, expected) in
            [(10, 1, 1), (10, 10, 1), (10, 19, 1), (10, 20, 2), (50, 3, 1), (100, 3, 3), (99, 3, 2)]
        {
            assert_eq!(policy(percent).ejected_max(members), expected, "{percent}% of {members}");
        }
    }

    #[test]
    fn ejections_grow_to_the_longest_and_are_forgotten_by_interval() {
        let policy = OutlierPolicy::default();
        let lengths: Vec<_> = [1, 2, 3, 10, 11].map(|times| policy.lasts(times).as_secs()).into();
        assert_eq!(lengths, [30, 60, 90, 300, 300]);
        assert_eq!(policy.times_max(), 10);
        for (times, quiet, expected) in [(3, 0, 3), (3, 9, 3), (3, 10, 2), (3, 25, 1), (3, 99, 0)] {
            assert_eq!(policy.remaining(times, Duration::from_secs(quiet)), expected);
        }
    }

    #[test]
    fn the_settings_are_shown() {
        let text = OutlierPolicy { consecutive_gateway_errors: 3, ..Default::default() };
        let expected = "3 gateway errors in a row, 5 times 5xx in a row; \
            ejected for 30s to 300s, at most 10%";
        assert_eq!(text.to_string(), expected);
    }
}
