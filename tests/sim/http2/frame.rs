//! Writes and reads frames (RFC 9113 4.1 and 6).

use std::collections::VecDeque;
use std::fmt::{Debug, Formatter};

use super::hpack::Fields;
use super::state::{Terms, block_of};
use crate::http2_format;
pub use crate::http2_format::{PREFACE, code, flag, frame, kind, setting};

#[derive(Hash)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u32,
    pub payload: Vec<u8>,
}

impl Debug for Frame {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { kind, flags, id, payload } = self;
        let len = payload.len();
        write!(f, "{kind}/{flags:#x} of {id}: {len} {:x?}", &payload[..len.min(8)])
    }
}

impl Frame {
    /// The first frame in `bytes`, if it is complete.
    pub fn first(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..9)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(
            len <= 16_384,
            "a frame larger than allowed: {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(80)])
        );
        let payload = bytes.get(9..9 + len)?.to_vec();
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Self { kind: head[3], flags: head[4], id, payload })
    }

    /// The length of the frame, including its head.
    pub fn len(&self) -> usize {
        9 + self.payload.len()
    }

    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn unpadded(&self) -> &[u8] {
        match self.has(flag::PADDED) {
            true => &self.payload[1..self.payload.len() - usize::from(self.payload[0])],
            false => &self.payload,
        }
    }
}

pub fn settings(terms: Terms) -> Vec<u8> {
    http2_format::settings(&[
        (setting::HEADER_TABLE_SIZE, terms.table_bytes),
        (setting::MAX_CONCURRENT_STREAMS, terms.streams_max),
        (setting::INITIAL_WINDOW_SIZE, terms.stream_window),
    ])
}

pub fn acknowledgement() -> Vec<u8> {
    frame(kind::SETTINGS, flag::ACK, 0, &[])
}

pub fn ping(flags: u8) -> Vec<u8> {
    frame(kind::PING, flags, 0, b"sim-ping")
}

pub fn goaway(last: u32, reason: u32) -> Vec<u8> {
    frame(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat())
}

pub fn reset(id: u32, reason: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, id, &reason.to_be_bytes())
}

pub fn window_update(id: u32, bytes: usize) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, id, &(bytes as u32).to_be_bytes())
}

pub fn data(id: u32, bytes: &[u8], end: bool, padding: Option<u8>) -> Vec<u8> {
    let flags = if end { flag::END_STREAM } else { 0 };
    let Some(padding) = padding else { return frame(kind::DATA, flags, id, bytes) };
    let payload = [&[padding][..], bytes, &vec![0; usize::from(padding)]].concat();
    frame(kind::DATA, flags | flag::PADDED, id, &payload)
}

/// A header block, sometimes split into CONTINUATION frames. It is one element of `out`, so that no
/// other frame comes between the parts.
pub fn headers(
    out: &mut VecDeque<Vec<u8>>,
    id: u32,
    fields: &Fields,
    end: bool,
    random: &mut fastrand::Rng,
) {
    let block = block_of(fields);
    let cut = if random.u8(..6) == 0 { random.usize(..block.len()) } else { block.len() };
    let (first, rest) = block.split_at(cut);
    let ends = if end { flag::END_STREAM } else { 0 };
    let whole = |rest: &[u8]| if rest.is_empty() { flag::END_HEADERS } else { 0 };
    let mut bytes = frame(kind::HEADERS, ends | whole(rest), id, first);
    if !rest.is_empty() {
        let (first, rest) = rest.split_at(random.usize(..=rest.len()));
        bytes.extend(frame(kind::CONTINUATION, whole(rest), id, first));
        if !rest.is_empty() {
            bytes.extend(frame(kind::CONTINUATION, flag::END_HEADERS, id, rest));
        }
    }
    out.push_back(bytes);
}
