//! First bytes: no panic. More bytes never change a final answer. A ClientHello is parsed to the
//! same result in records of any size.

use ringway::detect::{Answer, Protocol, client_hello, protocol};

pub fn holds(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(2048)];
    let mut known = None;
    let mut hello = None;
    for end in 0..=bytes.len() {
        let begin = &bytes[..end];
        match (protocol(begin), known) {
            (Answer::Known(now), None) => known = Some(now),
            (now, Some(before)) => assert_eq!(now, Answer::Known(before), "at {end}"),
            (Answer::NeedMore, None) => {}
        }
        match (client_hello(begin), &hello) {
            (Ok(Answer::NeedMore), None) => {}
            (now, None) => hello = Some(now),
            (now, Some(before)) => assert_eq!(&now, before, "at {end}"),
        }
    }
    if let Some(Ok(Answer::Known(hello))) = hello {
        assert_eq!(known, Some(Protocol::Tls));
        let again = client_hello(&in_portions(bytes));
        assert_eq!(again, Ok(Answer::Known(hello)), "in other records");
    }
}

/// The handshake messages at the beginning of `bytes`, split into records of three bytes.
fn in_portions(mut bytes: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = bytes {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        message.extend_from_slice(&rest[..len]);
        bytes = &rest[len..];
    }
    let mut out = Vec::new();
    for part in message.chunks(3) {
        out.extend_from_slice(&[22, 3, 1, 0, part.len() as u8]);
        out.extend_from_slice(part);
    }
    out
}
