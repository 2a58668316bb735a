//! Lowers `outlier_detection:` of services to the model.

use std::time::Duration;

use super::super::grammar::outlier::OutlierDetection;
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
    };
    Item::new(detection, origin(place))
}

fn percent(written: Placed<Percent>) -> Item<u8> {
    Item::new(written.value.0, origin(written.place))
}

fn duration(written: Placed<Time>) -> Item<Duration> {
    Item::new(written.value.0, origin(written.place))
}
