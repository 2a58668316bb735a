//! Lowers `outlier_detection:` and `slow_start:` of services to the model.

use std::time::Duration;

use super::super::grammar::outlier::{OutlierDetection, SlowStart};
use super::super::values::{Percent, Placed, Time};
use super::{origin, time};
use crate::model::{self, Item};

pub(super) fn detection(written: Placed<OutlierDetection>) -> Item<model::OutlierDetection> {
    let Placed { place, value } = written;
    let detection = model::OutlierDetection {
        consecutive_5xx: value.consecutive_5xx,
        consecutive_gateway_errors: value.consecutive_gateway_errors,
        consecutive_local_failures: value.consecutive_local_failures,
        interval: time(value.interval),
        base_ejection_time: time(value.base_ejection_time),
        max_ejection_time: value.max_ejection_time.map(duration),
        max_ejection_percent: value.max_ejection_percent.map(percent),
        panic_percent: value.panic_threshold.map(percent),
        success_rate: value.success_rate.map(|rate| model::SuccessRate {
            minimum_hosts: rate.minimum_hosts,
            request_volume: rate.request_volume,
            stdev_factor: rate.stdev_factor.map(|factor| factor.0),
        }),
        failure_percentage: value.failure_percentage.map(|failures| model::FailurePercentage {
            threshold: failures.threshold.map(percent),
            minimum_hosts: failures.minimum_hosts,
            request_volume: failures.request_volume,
        }),
    };
    Item::new(detection, origin(place))
}

pub(super) fn slow_start(written: Placed<SlowStart>) -> Item<model::SlowStart> {
    let Placed { place, value: SlowStart(map) } = written;
    let slow_start = model::SlowStart {
        window: map.window.0,
        aggression: map.aggression.map(|factor| factor.0),
        min_percent: map.min_weight_percent.map(|percent| percent.0),
    };
    Item::new(slow_start, origin(place))
}

fn percent(written: Placed<Percent>) -> Item<u8> {
    Item::new(written.value.0, origin(written.place))
}

fn duration(written: Placed<Time>) -> Item<Duration> {
    Item::new(written.value.0, origin(written.place))
}
