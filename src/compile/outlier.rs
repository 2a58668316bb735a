//! Compiles the outlier detection of services.

use super::{Compiler, health};
use crate::health::{
    BASE_EJECTION_TIME, CONSECUTIVE_5XX, EJECTION_INTERVAL, EjectionReason, MAX_EJECTION_PERCENT,
    MAX_EJECTION_TIME, OutlierDetection, OutlierPolicy,
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
    };
    faults(compiler, value, &policy);
    if EjectionReason::ALL.iter().all(|&reason| policy.limit(reason) == 0) {
        let help = "write `consecutive_5xx: 5`, or leave `outlier_detection` out";
        compiler.fault_with_help(&written.origin, "nothing can eject an endpoint", help);
    }
    let group = compiler.registry.outlier_group(&service.name.value);
    Some(OutlierDetection { policy, group })
}

fn faults(compiler: &mut Compiler<'_>, written: &model::OutlierDetection, policy: &OutlierPolicy) {
    let base = policy.base_ejection_time;
    if let Some(max) = written.max_ejection_time.as_ref().filter(|max| max.value < base) {
        let message = format!("the longest ejection is shorter than the first one, {base:?}");
        let help = "write a longer max_ejection_time, or a shorter base_ejection_time";
        compiler.fault_with_help(&max.origin, message, help);
    }
    if let Some(percent) = written.max_ejection_percent.as_ref().filter(|it| it.value == 0) {
        let help = "write at least 1%, or leave `outlier_detection` out";
        let message = "one endpoint may always be ejected, so 0% would not hold";
        compiler.fault_with_help(&percent.origin, message, help);
    }
}

/// The panic threshold of a service. Health checks and outlier detection have the same.
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
