//! Request heads: no panic, all offsets are inside the block, and single bytes give the same result
//! as all bytes at once.

use ringway::http1::{framing, parse};
use ringway::message::Head;
use ringway::message::Limits;

pub fn holds(bytes: &[u8]) {
    let limits = Limits::default();
    let mut whole = Head::default();
    let at_once = parse::request(bytes, 0..bytes.len(), &limits, &mut whole);
    if let Ok(parse::Progress::Complete) = at_once {
        let view = whole.view(bytes);
        assert!(whole.start + whole.len <= bytes.len());
        for (name, value) in view.fields() {
            assert!(!name.is_empty() && !value.contains(&b'\n') && !value.contains(&0));
        }
        // Reading the framing must not panic.
        framing::request(view).ok();
        let mut dripped = Head::default();
        for end in 0..=bytes.len() {
            match parse::request(bytes, 0..end, &limits, &mut dripped) {
                Ok(parse::Progress::Partial) => {}
                Ok(parse::Progress::Complete) => {
                    assert_eq!((dripped.start, dripped.len), (whole.start, whole.len));
                    assert_eq!(dripped.fields, whole.fields);
                    break;
                }
                Err(refusal) => panic!("refused in parts, taken as a whole: {refusal}"),
            }
        }
    }
}
