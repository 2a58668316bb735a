//! Response heads and their framing: no panic, offsets inside the block.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::http1::{framing, parse};
use ringway::message::{Head, Method};
use ringway::message::Limits;

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::default();
    let parsed = parse::response(bytes, 0..bytes.len(), &Limits::default(), &mut head);
    if let Ok(parse::Progress::Complete) = parsed {
        assert!(head.start + head.len <= bytes.len());
        assert!((100..=599).contains(&head.status));
        for method in [Method::Get, Method::Head, Method::Connect] {
            for upgrade in [false, true] {
                drop(framing::response(head.view(bytes), method, upgrade));
            }
        }
    }
});
