//! `http2:` of listeners and services.

use std::time::Duration;

use super::compile::Compiler;
use super::file_http2::Http2;
use super::values::{Placed, Size, TimeOrNone};
use crate::http2::Settings;

/// The largest window that there is (RFC 9113 6.9.1).
const WINDOW_BYTES_MAX: u64 = (1 << 31) - 1;

/// How HTTP/2 is spoken, as `written`.
pub(super) fn settings(compiler: &mut Compiler<'_>, written: &Http2) -> Settings {
    let default = Settings::default();
    let mut size = |written: &Option<Placed<Size>>, range: [u64; 2], default: u32| {
        let Some(written) = written else { return default };
        let bytes = written.value.0 as u64;
        if !(range[0]..=range[1]).contains(&bytes) {
            let message = format!("a size from {} to {} bytes is wanted here", range[0], range[1]);
            compiler.mistake(written.place, message);
        }
        u32::try_from(bytes).unwrap_or(default)
    };
    let stream_window_bytes =
        size(&written.stream_window, [1, WINDOW_BYTES_MAX], default.stream_window_bytes);
    let connection_window_bytes = size(
        &written.connection_window,
        [65_535, WINDOW_BYTES_MAX],
        default.connection_window_bytes,
    );
    let stream_buffer_bytes =
        size(&written.stream_buffer, [1, WINDOW_BYTES_MAX], default.stream_buffer_bytes);
    let streams_max = match &written.max_concurrent_streams {
        None => default.streams_max,
        Some(streams) => {
            if streams.value == 0 {
                compiler.mistake(streams.place, "without streams nothing can be asked");
            }
            streams.value
        }
    };
    Settings {
        streams_max,
        stream_window_bytes,
        connection_window_bytes,
        stream_buffer_bytes,
        ping_interval: time(&written.ping_interval, default.ping_interval),
        ping_timeout: time(&written.ping_timeout, default.ping_timeout),
        age_max: time(&written.max_connection_age, default.age_max),
    }
}

fn time(written: &Option<TimeOrNone>, default: Option<Duration>) -> Option<Duration> {
    written.as_ref().map_or(default, |time| time.0)
}
