//! Lowers `http2:` of listeners and services, and `limits.http2:`, to the model.

use super::super::grammar::http2::{Http2, Http2Limits};
use super::settings::size;
use super::time;
use crate::model;

pub(super) fn http2(written: Http2) -> model::Http2 {
    model::Http2 {
        max_concurrent_streams: written.max_concurrent_streams.map(Into::into),
        stream_window: size(written.stream_window),
        connection_window: size(written.connection_window),
        stream_buffer: size(written.stream_buffer),
        ping_interval: written.ping_interval.map(|time| time.0),
        ping_timeout: written.ping_timeout.map(|time| time.0),
        max_connection_age: written.max_connection_age.map(|time| time.0),
    }
}

pub(super) fn limits(written: Http2Limits) -> model::Http2Limits {
    model::Http2Limits {
        window: time(written.window),
        continuation_frames: written.continuation_frames,
        stream_resets: written.stream_resets.map(Into::into),
        provoked_resets: written.provoked_resets.map(Into::into),
        empty_frames: written.empty_frames.map(Into::into),
        settings_frames: written.settings_frames.map(Into::into),
        ping_frames: written.ping_frames.map(Into::into),
        priority_frames: written.priority_frames.map(Into::into),
        window_update_frames: written.window_update_frames.map(Into::into),
        other_frames: written.other_frames.map(Into::into),
        data_overhead: size(written.data_overhead),
        endpoint_header_timeout: time(written.endpoint_header_timeout),
    }
}
