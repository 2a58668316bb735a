//! SETTINGS (RFC 9114 7.2.4, RFC 9204 5, RFC 9220 3, RFC 9297 2.1.1).

use super::code::{Code, ConnectionError};
use super::frame::{self, read_varint, write_frame, write_varint};

/// SETTINGS_QPACK_MAX_TABLE_CAPACITY.
const TABLE_CAPACITY: u64 = 0x1;
/// SETTINGS_MAX_FIELD_SECTION_SIZE.
const FIELD_SECTION_MAX: u64 = 0x6;
/// SETTINGS_QPACK_BLOCKED_STREAMS.
const BLOCKED_STREAMS: u64 = 0x7;
/// SETTINGS_ENABLE_CONNECT_PROTOCOL.
const CONNECT_PROTOCOL: u64 = 0x8;
/// SETTINGS_H3_DATAGRAM.
const DATAGRAM: u64 = 0x33;
/// A reserved setting, so that peers keep ignoring unknown ones (RFC 9114 7.2.4.1).
const GREASE: u64 = 0x1f * 0x2a + 0x21;

/// The number of settings that a peer may send.
const SETTINGS_MAX: usize = 64;

/// The longest payload of SETTINGS that a peer may send.
pub(super) const PAYLOAD_BYTES_MAX: usize = SETTINGS_MAX * 16;

/// The settings of the peer that we use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PeerSettings {
    pub(super) table_capacity: u64,
    pub(super) blocked_streams: u64,
    pub(super) field_section_max: Option<u64>,
    pub(super) extended_connect: bool,
}

impl PeerSettings {
    /// Reads the payload of SETTINGS.
    pub(super) fn read(payload: &[u8]) -> Result<Self, ConnectionError> {
        let wrong = |why| ConnectionError::new(Code::SETTINGS_ERROR, why);
        let mut settings = Self::default();
        let mut seen: Vec<u64> = Vec::new();
        let mut rest = payload;
        while !rest.is_empty() {
            let setting = read_varint(&mut rest).zip(read_varint(&mut rest));
            let why = "SETTINGS ends inside a setting";
            let (id, value) =
                setting.ok_or_else(|| ConnectionError::new(Code::FRAME_ERROR, why))?;
            if seen.contains(&id) {
                return Err(wrong("the same setting twice"));
            }
            if seen.len() >= SETTINGS_MAX {
                return Err(ConnectionError::new(Code::EXCESSIVE_LOAD, "too many settings"));
            }
            seen.push(id);
            match id {
                TABLE_CAPACITY => settings.table_capacity = value,
                BLOCKED_STREAMS => settings.blocked_streams = value,
                FIELD_SECTION_MAX => settings.field_section_max = Some(value),
                CONNECT_PROTOCOL if value > 1 => {
                    return Err(wrong("SETTINGS_ENABLE_CONNECT_PROTOCOL is neither 0 nor 1"));
                }
                CONNECT_PROTOCOL => settings.extended_connect = value == 1,
                DATAGRAM if value > 1 => {
                    return Err(wrong("SETTINGS_H3_DATAGRAM is neither 0 nor 1"));
                }
                0x2..=0x5 => return Err(wrong("a setting of HTTP/2")),
                _ => {}
            }
        }
        Ok(settings)
    }
}

/// The settings that we send.
pub(super) struct OurSettings {
    pub(super) table_capacity: u64,
    pub(super) blocked_streams: u64,
    pub(super) field_section_max: u64,
    pub(super) extended_connect: bool,
}

impl OurSettings {
    /// Writes the SETTINGS frame.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(32);
        let mut put = |id, value| {
            write_varint(&mut payload, id);
            write_varint(&mut payload, value);
        };
        put(TABLE_CAPACITY, self.table_capacity);
        put(FIELD_SECTION_MAX, self.field_section_max);
        put(BLOCKED_STREAMS, self.blocked_streams);
        if self.extended_connect {
            put(CONNECT_PROTOCOL, 1);
        }
        put(GREASE, 0);
        write_frame(out, frame::SETTINGS, &payload);
    }
}
