//! Response heads and their framing: the parser does not panic, and all offsets are inside the
//! block.

use ringway::http1::{framing, parse};
use ringway::message::Limits;
use ringway::message::{Head, Method};

pub fn holds(bytes: &[u8]) {
    let mut head = Head::default();
    let parsed = parse::response(bytes, 0..bytes.len(), &Limits::default(), &mut head);
    if let Ok(parse::Progress::Complete) = parsed {
        assert!(head.start + head.len <= bytes.len());
        assert!((100..=599).contains(&head.status));
        for method in [Method::Get, Method::Head, Method::Connect] {
            for upgrade in [false, true] {
                framing::response(head.view(bytes), method, upgrade).ok();
            }
        }
    }
}
