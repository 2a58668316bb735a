//! Request heads: no panic, offsets inside the block, and dripped bytes read like whole ones.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::http1::{framing, parse};
use ringway::message::Head;
use ringway::message::Limits;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let mut whole = Head::default();
    let at_once = parse::request(bytes, 0..bytes.len(), &limits, &mut whole);
    if let Ok(parse::Progress::Complete) = at_once {
        let view = whole.view(bytes);
        assert!(whole.start + whole.len <= bytes.len());
        for (name, value) in view.fields() {
            assert!(!name.is_empty() && !value.contains(&b'\n') && !value.contains(&0));
        }
        // Whatever it says of framing, it says without a panic.
        drop(framing::request(view));
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
});
