//! Compiles the HTTP/2 settings of listeners and services, and the limits on HTTP/2 frames.

use super::Compiler;
use crate::http2::{FloodLimits, Settings};
use crate::model::{Http2, Http2Limits, Item};

/// The maximum flow-control window (RFC 9113 6.9.1).
const WINDOW_BYTES_MAX: u64 = (1 << 31) - 1;

/// Compiles the HTTP/2 settings.
pub(super) fn settings(compiler: &mut Compiler<'_>, written: &Http2) -> Settings {
    let default = Settings::default();
    let mut size = |written: &Option<Item<usize>>, range: [u64; 2], default: u32| {
        let Some(written) = written else { return default };
        let bytes = written.value as u64;
        if !(range[0]..=range[1]).contains(&bytes) {
            let message = format!("this must be from {} to {} bytes", range[0], range[1]);
            compiler.fault(&written.origin, message);
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
    // `stream_buffer` has no effect. It is still checked, because older files have it.
    size(&written.stream_buffer, [1, WINDOW_BYTES_MAX], 0);
    let streams_max = match &written.max_concurrent_streams {
        None => default.streams_max,
        Some(streams) => {
            if streams.value == 0 {
                compiler.fault(&streams.origin, "without streams nothing can be asked");
            }
            streams.value
        }
    };
    Settings {
        streams_max,
        stream_window_bytes,
        connection_window_bytes,
        ping_interval: written.ping_interval.unwrap_or(default.ping_interval),
        ping_timeout: written.ping_timeout.unwrap_or(default.ping_timeout),
        age_max: written.max_connection_age.unwrap_or(default.age_max),
    }
}

/// The minimum of a limit on frames. A correct peer also sends some frames of each kind.
const FRAMES_MIN: u32 = 10;

/// The minimum of the limit on the overhead of small DATA frames, in bytes. A correct peer also
/// sends a few of them.
const DATA_OVERHEAD_MIN: usize = 25_600;

/// Compiles a limit on frames. Reports one that would close normal connections.
pub(super) fn burst(compiler: &mut Compiler<'_>, written: &Option<Item<u32>>, default: u32) -> u32 {
    let Some(frames) = written else { return default };
    if frames.value < FRAMES_MIN {
        let message = format!("a limit below {FRAMES_MIN} frames would close normal connections");
        compiler.fault(&frames.origin, message);
    }
    frames.value
}

/// Compiles the limits on HTTP/2 frames.
pub(super) fn limits(compiler: &mut Compiler<'_>, written: &Http2Limits) -> FloodLimits {
    let default = FloodLimits::default();
    let mut frames = |written: &Option<Item<u32>>, default| burst(compiler, written, default);
    let limits = FloodLimits {
        window: written.window.unwrap_or(default.window),
        continuation_frames: written.continuation_frames.unwrap_or(default.continuation_frames),
        stream_resets: frames(&written.stream_resets, default.stream_resets),
        provoked_resets: frames(&written.provoked_resets, default.provoked_resets),
        empty_frames: frames(&written.empty_frames, default.empty_frames),
        settings_frames: frames(&written.settings_frames, default.settings_frames),
        ping_frames: frames(&written.ping_frames, default.ping_frames),
        priority_frames: frames(&written.priority_frames, default.priority_frames),
        window_update_frames: frames(&written.window_update_frames, default.window_update_frames),
        other_frames: frames(&written.other_frames, default.other_frames),
        data_overhead_bytes: written
            .data_overhead
            .as_ref()
            .map_or(default.data_overhead_bytes, |size| size.value),
        endpoint_header_timeout: written
            .endpoint_header_timeout
            .unwrap_or(default.endpoint_header_timeout),
    };
    if let Some(size) = &written.data_overhead
        && size.value < DATA_OVERHEAD_MIN
    {
        compiler.fault(&size.origin, format!("this must be at least {DATA_OVERHEAD_MIN} bytes"));
    }
    limits
}
