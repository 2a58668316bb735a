//! Outlier detection of Envoy's API.

use std::time::Duration;

use super::proto::{Message, Reason};
use super::schemas::OUTLIERS;
use crate::model::{FailurePercentage, Item, Origin, OutlierDetection, SuccessRate};

/// Envoy's defaults.
const CONSECUTIVE: u32 = 5;
const INTERVAL: Duration = Duration::from_secs(10);
const EJECTION_TIME: Duration = Duration::from_secs(30);
const EJECTION_TIME_MAX: Duration = Duration::from_secs(300);
const EJECTION_PERCENT: u32 = 10;
const FAILURE_PERCENT: u32 = 85;
const FAILURE_PERCENTAGE_VOLUME: u32 = 50;

/// Whether an `enforcing_*` field asks for ejections.
fn enforced(message: &mut Message<'_>, number: u64, default: u32) -> Result<bool, Reason> {
    match message.wrapped_u32(number)?.unwrap_or(default) {
        0 => Ok(false),
        100 => Ok(true),
        _ => {
            Err(message.about(number, "is a share of the ejections; only 0 and 100 are supported"))
        }
    }
}

/// Reads the outlier detection of a cluster. `None` if nothing ejects an endpoint.
pub(super) fn read(
    cluster: &mut Message<'_>,
    origin: &Origin,
    panic_percent: u8,
) -> Result<Option<Item<OutlierDetection>>, Reason> {
    let Some(mut message) = cluster.message(19, &OUTLIERS)? else { return Ok(None) };
    let m = &mut message;
    let item = |value: u8| Item::new(value, origin.clone());
    let counted = |m: &mut Message<'_>, number, enforcing, default| -> Result<u32, Reason> {
        let count = m.wrapped_u32(number)?.unwrap_or(CONSECUTIVE);
        Ok(if enforced(m, enforcing, default)? { count } else { 0 })
    };
    let consecutive_5xx = counted(m, 1, 5, 100)?;
    let gateway = counted(m, 10, 11, 0)?;
    let is_split = m.flag(12)?;
    let local = counted(m, 13, 14, 100)?;
    let (volume, hosts) = (m.wrapped_u32(8)?, m.wrapped_u32(7)?);
    let stdev = m.wrapped_u32(9)?.map(|thousandths| f64::from(thousandths) / 1000.0);
    let by_rate = enforced(m, 6, 100)?;
    let (threshold, failing_hosts) = (m.wrapped_u32(16)?, m.wrapped_u32(19)?);
    let failing_volume = m.wrapped_u32(20)?;
    let by_failures = enforced(m, 17, 0)?;
    let base = m.pause(3)?.unwrap_or(EJECTION_TIME);
    let max = m.pause(21)?.unwrap_or(EJECTION_TIME_MAX).max(base);
    let percent = m.wrapped_u32(4)?.unwrap_or(EJECTION_PERCENT).clamp(1, 100);
    let threshold = threshold.unwrap_or(FAILURE_PERCENT).clamp(1, 100) as u8;
    let detection = OutlierDetection {
        consecutive_5xx: Some(consecutive_5xx),
        consecutive_gateway_errors: Some(gateway),
        consecutive_local_failures: Some(if is_split { local } else { 0 }),
        interval: Some(m.pause(2)?.unwrap_or(INTERVAL)),
        base_ejection_time: Some(base),
        max_ejection_time: Some(Item::new(max, origin.clone())),
        max_ejection_percent: Some(item(percent as u8)),
        panic_percent: Some(item(panic_percent)),
        success_rate: by_rate.then_some(SuccessRate {
            minimum_hosts: hosts,
            request_volume: volume,
            stdev_factor: stdev,
        }),
        failure_percentage: by_failures.then_some(FailurePercentage {
            threshold: Some(item(threshold)),
            minimum_hosts: failing_hosts,
            request_volume: Some(failing_volume.unwrap_or(FAILURE_PERCENTAGE_VOLUME)),
        }),
    };
    // Failures of the proxy itself count together with those of the endpoint.
    m.ignore(&[15, 18, 25]);
    m.off(&[23])?; // successful_active_health_check_uneject_host
    if m.duration(22)?.is_some_and(|jitter| !jitter.is_zero()) {
        return Err(m.unsupported(22));
    }
    message.finish()?;
    let ejects = consecutive_5xx > 0 || gateway > 0 || (is_split && local > 0);
    let ejects = ejects || by_rate || by_failures;
    Ok(ejects.then(|| Item::new(detection, origin.clone())))
}
