//! The streams of an HTTP/3 connection never cause a panic, and are read the same however their
//! bytes are split.

use ringway::http2::Peer;
use ringway::http3::{Config, ConnectionError, FloodLimits, Session, Uni};
use ringway::message::Limits;
use ringway::time::Time;

/// The first byte selects the peer and the size of the portions. The others are parts of streams:
/// each begins with the number of the stream, the end of the stream, and the length.
pub fn holds(input: &[u8]) {
    let Some((&first, script)) = input.split_first() else { return };
    let peer = if first & 1 == 0 { Peer::Client } else { Peer::Endpoint };
    assert_eq!(read(peer, script, usize::MAX), read(peer, script, usize::from(first >> 1) + 1));
}

fn read(peer: Peer, mut script: &[u8], portion_bytes: usize) -> String {
    let limits = Limits::default();
    let config = Config { peer, message: &limits, floods: FloodLimits::default() };
    let mut session = Session::new(&config, Time::default());
    let mut ignored = Vec::new();
    let mut result = Ok(());
    while let Some((&first, rest)) = script.split_first()
        && result.is_ok()
    {
        let (stream, fin) = (u64::from(first & 7), first & 8 != 0);
        let (part, rest) = rest.split_at(usize::from(first >> 4).min(rest.len()));
        script = rest;
        if first == 0xff {
            result = session.uni_reset(stream);
        } else if !ignored.contains(&stream) {
            result = pass(&mut session, stream, part, fin, portion_bytes, &mut ignored);
        }
        assert!(session.held_bytes() <= 64 * 1024, "{}", session.held_bytes());
    }
    let (greeted, goaway) = (session.is_greeted(), session.goaway());
    format!("{result:?} {greeted} {goaway:?} {:?} {ignored:?}", session.field_section_max())
}

fn pass(
    session: &mut Session,
    stream: u64,
    part: &[u8],
    fin: bool,
    portion_bytes: usize,
    ignored: &mut Vec<u64>,
) -> Result<(), ConnectionError> {
    let mut left = part.len();
    for portion in part.chunks(portion_bytes.min(part.len()).max(1)) {
        left -= portion.len();
        if session.receive_uni(stream, portion, fin && left == 0)? == Uni::Ignore {
            ignored.push(stream);
            return Ok(());
        }
    }
    Ok(())
}
