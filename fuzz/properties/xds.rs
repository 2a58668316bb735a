//! Resources and responses of an xDS server: no panic, whatever the bytes are.

use ringway::grpc::xds::Response;
use ringway::sources::xds::{TYPES, is_readable};

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
}
