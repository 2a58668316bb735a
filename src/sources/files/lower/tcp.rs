//! Lowers `tcp:`, of the process and of single listeners and services, to the model.

use super::super::grammar::tcp::{Keepalive, KeepaliveMap, Tcp};
use super::super::values::{Placed, TimeOrNone};
use super::{origin, time};
use crate::model::{self, Item};

pub(super) fn tcp(written: Tcp) -> model::Tcp {
    let user_timeout = |it: Placed<TimeOrNone>| Item::new(it.value.0, origin(it.place));
    model::Tcp {
        keepalive: written.keepalive.map(keepalive),
        user_timeout: written.user_timeout.map(user_timeout),
    }
}

fn keepalive(written: Placed<Keepalive>) -> Item<Option<model::Keepalive>> {
    let keepalive = |map: KeepaliveMap| model::Keepalive {
        time: time(map.time),
        interval: time(map.interval),
        probes: map.probes,
    };
    Item::new(written.value.0.map(keepalive), origin(written.place))
}
