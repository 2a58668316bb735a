//! Compiles the outlier detection and the slow start of services.

use super::{Compiler, health};
use crate::balance::Policy;
use crate::health::{
    AGGRESSION, BASE_EJECTION_TIME, CONSECUTIVE_5XX, EJECTION_INTERVAL, FAILURE_PERCENT,
    FAILURE_PERCENTAGE_VOLUME, FailurePercentage, MAX_EJECTION_PERCENT, MAX_EJECTION_TIME,
    MIN_WEIGHT_PERCENT, MINIMUM_HOSTS, OutlierDetection, OutlierPolicy, STDEV_FACTOR,
    SUCCESS_RATE_VOLUME, SlowStart, SuccessRate,
};
use crate::model::{self, Service};

/// Compiles the outlier detection of a service.
pub(super) fn detection(
    compiler: &mut Compiler<'_>,
    service: &Service,
) -> Option<OutlierDetection> {
    let written = service.outlier_detection.as_ref()?;
    let value = &written.value;
    let base_ejection_time = value.base_ejection_time.unwrap_or(BASE_EJECTION_TIME);
    let longest = MAX_EJECTION_TIME.max(base_ejection_time);
    let policy = OutlierPolicy {
        consecutive_5xx: value.consecutive_5xx.unwrap_or(CONSECUTIVE_5XX),
        consecutive_gateway_errors: value.consecutive_gateway_errors.unwrap_or_default(),
        consecutive_local_failures: value.consecutive_local_failures.unwrap_or_default(),
        interval: value.interval.unwrap_or(EJECTION_INTERVAL),
        base_ejection_time,
        max_ejection_time: value.max_ejection_time.as_ref().map_or(longest, |max| max.value),
        max_ejection_percent: value
            .max_ejection_percent
            .as_ref()
            .map_or(MAX_EJECTION_PERCENT, |percent| percent.value),
        success_rate: value.success_rate.as_ref().map(success_rate),
        failure_percentage: value.failure_percentage.as_ref().map(failure_percentage),
    };
    faults(compiler, value, &policy);
    if !policy.ejects() {
        let help = "write `consecutive_5xx: 5`, or leave `outlier_detection` out";
        compiler.fault_with_help(&written.origin, "nothing can eject an endpoint", help);
    }
    let group = compiler.registry.outlier_group(&service.name.value);
    Some(OutlierDetection { policy, group })
}

fn success_rate(written: &model::SuccessRate) -> SuccessRate {
    SuccessRate {
        minimum_hosts: written.minimum_hosts.unwrap_or(MINIMUM_HOSTS),
        request_volume: written.request_volume.unwrap_or(SUCCESS_RATE_VOLUME),
        stdev_factor: written.stdev_factor.unwrap_or(STDEV_FACTOR),
    }
}

fn failure_percentage(written: &model::FailurePercentage) -> FailurePercentage {
    FailurePercentage {
        threshold: written.threshold.as_ref().map_or(FAILURE_PERCENT, |percent| percent.value),
        minimum_hosts: written.minimum_hosts.unwrap_or(MINIMUM_HOSTS),
        request_volume: written.request_volume.unwrap_or(FAILURE_PERCENTAGE_VOLUME),
    }
}

fn faults(compiler: &mut Compiler<'_>, written: &model::OutlierDetection, policy: &OutlierPolicy) {
    let base = policy.base_ejection_time;
    if let Some(max) = written.max_ejection_time.as_ref().filter(|max| max.value < base) {
        let message = format!("the longest ejection is shorter than the first one, {base:?}");
        let help = "write a longer max_ejection_time, or a shorter base_ejection_time";
        compiler.fault_with_help(&max.origin, message, help);
    }
    let threshold = written.failure_percentage.as_ref().and_then(|it| it.threshold.as_ref());
    if let Some(percent) = threshold.filter(|it| it.value == 0) {
        let help = "write at least 1%, or leave `failure_percentage` out";
        let message = "with 0%, an endpoint is ejected although nothing fails";
        compiler.fault_with_help(&percent.origin, message, help);
    }
    if let Some(percent) = written.max_ejection_percent.as_ref().filter(|it| it.value == 0) {
        let help = "write at least 1%, or leave `outlier_detection` out";
        let message = "one endpoint may always be ejected, so 0% would not hold";
        compiler.fault_with_help(&percent.origin, message, help);
    }
}

/// Compiles the slow start of a service.
pub(super) fn slow_start(
    compiler: &mut Compiler<'_>,
    service: &Service,
    policy: &Policy,
) -> Option<SlowStart> {
    let written = service.slow_start.as_ref()?;
    if matches!(policy, Policy::Hash(_)) {
        let message = "`balance: {hash: ...}` has no slow start: each key has its endpoint at once";
        let help = "leave `slow_start` out, or write another `balance`";
        compiler.fault_with_help(&written.origin, message, help);
    }
    let model::SlowStart { window, aggression, min_percent } = written.value;
    Some(SlowStart {
        window,
        aggression: aggression.unwrap_or(AGGRESSION),
        min_percent: min_percent.unwrap_or(MIN_WEIGHT_PERCENT),
    })
}

/// The panic threshold of a service, in percent. Health checks and outlier detection share it.
pub(super) fn panic_percent(compiler: &mut Compiler<'_>, service: &Service) -> u8 {
    let checked = service.health_check.as_ref().and_then(|check| check.value.panic_percent);
    let detection = service.outlier_detection.as_ref();
    let detected = detection.and_then(|detection| detection.value.panic_percent.as_ref());
    if let (Some(checked), Some(detected)) = (checked, detected)
        && checked != detected.value
    {
        let message = format!("`health_check` of the service has another threshold, {checked}%");
        let help = "keep one of them: a service has one panic threshold";
        compiler.fault_with_help(&detected.origin, message, help);
    }
    checked.or_else(|| detected.map(|it| it.value)).unwrap_or(health::PANIC_PERCENT)
}
