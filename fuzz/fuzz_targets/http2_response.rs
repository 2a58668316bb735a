//! Responses on their way to HTTP/2: no panic, and the same parts however the text is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway::http2::{Event, ResponseReader};
use ringway::message::Method;
use ringway::snapshot::Limits;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, text)) = bytes.split_first() else { return };
    let method = if first & 1 == 0 { Method::Get } else { Method::Head };
    let whole = read(method, text, text.len().max(1));
    for size in [1, 2, usize::from(*first) + 1] {
        let cut = read(method, text, size);
        // In a head that drips in, a mistake may be found only when the head is complete.
        assert!(whole.is_err() || cut.is_ok());
        if let (Ok(whole), Ok(cut)) = (&whole, cut) {
            assert_eq!(*whole, cut);
        }
    }
});

/// Heads and trailers as text, and the body's bytes; then whether it may end there.
type Parts = (String, Vec<u8>, bool);

fn read(method: Method, text: &[u8], size: usize) -> Result<Parts, ()> {
    let mut reader = ResponseReader::new(method);
    let (mut said, mut body) = (String::new(), Vec::new());
    for portion in text.chunks(size) {
        for event in reader.read(portion, &Limits::default()).map_err(drop)? {
            match event {
                Event::Interim(response) => said += &format!("{response:?}"),
                Event::Head(response, ends) => said += &format!("{response:?}{ends}"),
                Event::Data(bytes, _) => body.extend_from_slice(&bytes),
                Event::Trailers(fields) => said += &format!("{fields:?}"),
            }
        }
    }
    Ok((said, body, reader.may_end()))
}
