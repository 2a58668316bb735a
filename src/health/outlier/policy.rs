//! The settings of outlier detection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{FailurePercentage, OutlierGroup, SuccessRate};

/// The default number of consecutive 5xx responses that ejects an endpoint.
pub const CONSECUTIVE_5XX: u32 = 5;

/// The default interval over which rates are measured.
pub const EJECTION_INTERVAL: Duration = Duration::from_secs(10);

/// The default length of the first ejection.
pub const BASE_EJECTION_TIME: Duration = Duration::from_secs(30);

/// The default length of the longest ejection.
pub const MAX_EJECTION_TIME: Duration = Duration::from_secs(300);

/// The default percentage of the endpoints that may be ejected at the same time.
pub const MAX_EJECTION_PERCENT: u8 = 10;

/// The outlier detection of a service.
#[derive(Debug)]
pub struct OutlierDetection {
    /// The limits that eject an endpoint, and the length of ejections.
    pub policy: OutlierPolicy,
    /// The ejected endpoints. They are kept over reloads while the name of the service stays the
    /// same.
    pub group: Arc<OutlierGroup>,
}

/// The settings of outlier detection. In the three counts of failures, 0 means that they never
/// eject.
#[derive(Clone, Debug, PartialEq)]
pub struct OutlierPolicy {
    /// Ejects an endpoint after this many consecutive 5xx responses.
    pub consecutive_5xx: u32,
    /// Ejects an endpoint after this many consecutive responses with status 502, 503 or 504.
    pub consecutive_gateway_errors: u32,
    /// Ejects an endpoint after this many consecutive attempts without a response. With 0, they
    /// count as 5xx and as gateway errors.
    pub consecutive_local_failures: u32,
    /// The time over which rates are measured. For each such time that passes without an ejection,
    /// the next ejection of an endpoint is shorter.
    pub interval: Duration,
    /// The length of the first ejection. The second takes twice as long, and so on.
    pub base_ejection_time: Duration,
    /// The length of the longest ejection.
    pub max_ejection_time: Duration,
    /// The percentage of the endpoints that may be ejected at the same time. One endpoint always
    /// may.
    pub max_ejection_percent: u8,
    /// Ejects endpoints with a success rate far below the average. `None` means that it is off.
    pub success_rate: Option<SuccessRate>,
    /// Ejects endpoints with too many failed requests. `None` means that it is off.
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
    /// The number of consecutive failures that ejects an endpoint, for `reason`. 0 means never.
    pub fn limit(&self, reason: EjectionReason) -> u32 {
        match reason {
            EjectionReason::GatewayErrors => self.consecutive_gateway_errors,
            EjectionReason::Consecutive5xx => self.consecutive_5xx,
            EjectionReason::LocalFailures => self.consecutive_local_failures,
            EjectionReason::SuccessRate | EjectionReason::FailurePercentage => 0,
        }
    }

    /// Whether success rates or failure percentages are measured.
    pub fn is_rated(&self) -> bool {
        self.success_rate.is_some() || self.failure_percentage.is_some()
    }

    /// Whether any setting ejects endpoints.
    pub fn ejects(&self) -> bool {
        let limits = EjectionReason::IN_A_ROW.iter().any(|&reason| self.limit(reason) > 0);
        limits || self.is_rated()
    }

    /// How many of `members` endpoints may be ejected at the same time.
    pub fn ejected_max(&self, members: usize) -> usize {
        (members * usize::from(self.max_ejection_percent) / 100).max(1)
    }

    /// The length of the ejection that brings the account of an endpoint to `times` ejections.
    pub fn lasts(&self, times: u32) -> Duration {
        self.base_ejection_time.saturating_mul(times).min(self.max_ejection_time)
    }

    /// The number of ejections that are left on the account of an endpoint after `quiet`, the time
    /// since its last ejection ended. Each interval removes one.
    pub fn remaining(&self, times: u32, quiet: Duration) -> u32 {
        let intervals = quiet.as_micros() / self.interval.as_micros().max(1);
        times.saturating_sub(u32::try_from(intervals).unwrap_or(u32::MAX))
    }

    /// The maximum number of ejections on the account of an endpoint. More would not make an
    /// ejection longer, but would delay the return to short ones.
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

/// The reason of an ejection, as in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EjectionReason {
    /// Too many consecutive responses with status 502, 503 or 504.
    GatewayErrors,
    /// Too many consecutive 5xx responses.
    Consecutive5xx,
    /// Too many consecutive attempts without a response.
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

    /// The reasons that count consecutive failures. They are the first ones of
    /// [`EjectionReason::ALL`].
    pub const IN_A_ROW: [Self; 3] =
        [Self::GatewayErrors, Self::Consecutive5xx, Self::LocalFailures];

    /// The value of the metric label `reason`.
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
            Self::GatewayErrors => "consecutive gateway errors",
            Self::Consecutive5xx => "consecutive 5xx",
            Self::LocalFailures => "consecutive local failures",
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
        let expected = "3 consecutive gateway errors, 5 consecutive 5xx; \
            ejected for 30s to 300s, at most 10%";
        assert_eq!(text.to_string(), expected);
    }
}
