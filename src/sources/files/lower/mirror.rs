//! Lowers `mirror:` of rules to the model.

use super::super::grammar::mirror::Mirror;
use super::super::values::Placed;
use super::{origin, time};
use crate::model::{self, Item};

pub(super) fn mirror(written: Placed<Mirror>) -> Item<model::Mirror> {
    let Mirror { to, percent, mirror_bytes, timeout, shadow_host } = written.value;
    let mirror = model::Mirror {
        to: to.map(Into::into),
        share: percent.map(|share| share.0),
        mirror_bytes: mirror_bytes.map(|bytes| bytes.0),
        timeout: time(timeout),
        shadow_host,
    };
    Item::new(mirror, origin(written.place))
}
