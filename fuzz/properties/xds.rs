//! Resources and responses of an xDS server, alone and in a row: no panic, whatever the bytes are,
//! and what is kept stays within its limits.

use ringway::grpc::xds::Response;
use ringway::sources::xds::{TYPES, is_readable, replay};

pub fn holds(bytes: &[u8]) {
    for url in TYPES {
        is_readable(url, bytes);
    }
    for read in [Response::state_of_the_world(bytes, 100), Response::delta(bytes, 100)] {
        let Ok(response) = read else { continue };
        let kept = response.resources.iter().map(|resource| resource.bytes.len()).sum::<usize>();
        assert!(kept <= bytes.len());
        for resource in response.resources {
            is_readable(resource.type_url, resource.bytes);
        }
    }
    for is_delta in [false, true] {
        assert!(replay(&[bytes, bytes], is_delta));
        assert!(replay(&rows(bytes), is_delta));
    }
}

/// Messages in a row, each after its length in two bytes.
fn rows(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut rows = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (row, others) = rest.split_at(length);
        rows.push(row);
        bytes = others;
    }
    rows
}
