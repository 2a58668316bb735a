//! Lowers `fault:` of rules to the model.

use super::super::grammar::fault::{Abort, Bandwidth, Delay, Fault};
use super::super::values::Placed;
use super::settings::size;
use super::{Lower, origin, route, time};
use crate::model::{self, InjectedFault, Item};

pub(super) fn fault(lower: &mut Lower<'_>, written: Placed<Fault>) -> Item<InjectedFault> {
    let Fault { headers, delay, abort, bandwidth } = written.value;
    let fault = InjectedFault {
        headers: route::values(lower, headers),
        delay: delay.map(self::delay),
        abort: abort.map(self::abort),
        bandwidth: bandwidth.map(self::bandwidth),
    };
    Item::new(fault, origin(written.place))
}

fn delay(written: Placed<Delay>) -> Item<model::Delay> {
    let Delay { duration, percent } = written.value;
    let share = percent.map(|share| share.0);
    Item::new(model::Delay { duration: time(duration), share }, origin(written.place))
}

fn abort(written: Placed<Abort>) -> Item<model::Abort> {
    let Abort { status, grpc_status, percent } = written.value;
    let abort = model::Abort {
        status: status.map(Into::into),
        grpc_status: grpc_status.map(Into::into),
        share: percent.map(|share| share.0),
    };
    Item::new(abort, origin(written.place))
}

fn bandwidth(written: Placed<Bandwidth>) -> Item<model::Bandwidth> {
    let Bandwidth { bytes_per_second, percent } = written.value;
    let share = percent.map(|share| share.0);
    let bandwidth = model::Bandwidth { bytes_per_second: size(bytes_per_second), share };
    Item::new(bandwidth, origin(written.place))
}
