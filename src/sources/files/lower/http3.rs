//! Lowers `http3:` of listeners, and `limits.http3:`, to the model.

use super::super::grammar::http3::{self as grammar, Http3};
use super::super::values::Placed;
use super::settings::size;
use super::{origin, time};
use crate::model::{self, Item, Retry};

/// Returns `None` for `http3: false`.
pub(super) fn http3(written: Placed<Http3>) -> Option<Item<model::Http3>> {
    let map = match written.value {
        Http3::Switch(false) => return None,
        Http3::Switch(true) => grammar::Http3Map::default(),
        Http3::Settings(map) => map,
    };
    let settings = model::Http3 {
        alt_svc: map.alt_svc,
        max_concurrent_streams: map.max_concurrent_streams.map(Into::into),
        stream_window: size(map.stream_window),
        connection_window: size(map.connection_window),
        retry: match map.retry {
            grammar::Retry::Auto => Retry::Auto,
            grammar::Retry::Always => Retry::Always,
            grammar::Retry::Never => Retry::Never,
        },
        max_handshakes: map.max_handshakes.map(Into::into),
        migration: map.migration,
        early_data: map.early_data.map(Into::into),
    };
    Some(Item::new(settings, origin(written.place)))
}

pub(super) fn limits(written: grammar::Http3Limits) -> model::Http3Limits {
    model::Http3Limits {
        window: time(written.window),
        stream_resets: written.stream_resets.map(Into::into),
        provoked_resets: written.provoked_resets.map(Into::into),
        empty_frames: written.empty_frames.map(Into::into),
        priority_frames: written.priority_frames.map(Into::into),
        other_frames: written.other_frames.map(Into::into),
        table_changes: written.table_changes.map(Into::into),
    }
}
