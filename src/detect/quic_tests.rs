//! The examples of RFC 9001 A and RFC 9369 A, and ClientHellos in many parts.

use super::*;

fn bytes(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

/// The ClientHello of RFC 9001 A.2.
const HELLO: &str = "
    010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c000004130113020100
    00c000000010000e00000b6578616d706c652e636f6dff01000100000a00080006001d001700180010000700050461
    6c706e000500050100000000003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d
    43e994ec74d748002b0003020304000d0010000e0403050306030203080408050806002d00020101001c0002400100
    3900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e515708
    06048000ffff";

/// Integers of QUIC in two bytes.
fn integer(value: usize) -> [u8; 2] {
    (value as u16 | 0x4000).to_be_bytes()
}

/// A CRYPTO frame.
fn crypto_frame(at: usize, part: &[u8]) -> Vec<u8> {
    [&[6][..], &integer(at), &integer(part.len()), part].concat()
}

/// An Initial packet with a packet number of `number_bytes`.
fn packet(version: &Version, number: u64, number_bytes: usize, frames: &[u8]) -> Vec<u8> {
    let first = 0xc0 | version.initial | (number_bytes - 1) as u8;
    let mut packet = [&[first][..], &version.number.to_be_bytes(), &[8], &ID, &[0, 0]].concat();
    packet.extend(integer(number_bytes + frames.len() + TAG_BYTES));
    let number_at = packet.len();
    packet.extend_from_slice(&number.to_be_bytes()[8 - number_bytes..]);
    let keys = Keys::new(version, &ID).unwrap();
    let mut payload = frames.to_vec();
    keys.payload
        .seal_in_place_append_tag(keys.nonce(number), Aad::from(&packet), &mut payload)
        .unwrap();
    packet.append(&mut payload);
    let mask = keys.header.new_mask(&packet[number_at + 4..number_at + 20]).unwrap();
    packet[0] ^= mask[0] & 0x0f;
    for (byte, mask) in packet[number_at..number_at + number_bytes].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
    packet
}

/// The datagrams of a client in version 1: one packet each, with these frames.
fn datagrams(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let packets = frames.iter().zip(0..);
    packets.map(|(frames, number)| packet(&VERSIONS[0], number, 2, frames)).collect()
}

/// A connection to example.com, whose ClientHello takes two datagrams.
pub fn example_in_two_datagrams() -> [Vec<u8>; 2] {
    let hello = bytes(HELLO);
    let (first, second) = hello.split_at(100);
    let frames = [crypto_frame(0, first), crypto_frame(100, second)];
    datagrams(&frames).try_into().unwrap()
}

/// Reads datagrams. Returns the server name as soon as it is known.
fn name(datagrams: &[Vec<u8>]) -> Result<Option<String>, QuicError> {
    let mut hello = QuicHello::new(&datagrams[0])?;
    for datagram in datagrams {
        if let Answer::Known(hello) = hello.receive(datagram)? {
            return Ok(hello.server_name.map(String::from));
        }
    }
    Ok(None)
}

fn example() -> Result<Option<String>, QuicError> {
    Ok(Some("example.com".into()))
}

#[test]
fn keys_are_those_of_the_rfcs() {
    for (version, key, iv, header) in [
        (
            &VERSIONS[0],
            "1f369613dd76d5467730efcbe3b1a22d",
            "fa044b2f42a3fd3b46fb255c",
            "9f50449e04a0e810283a1e9933adedd2",
        ),
        (
            &VERSIONS[1],
            "8b1a0bc121284290a29e0971b5cd045d",
            "91f73e2351d8fa91660e909f",
            "45b95e15235d6f45a6b19cbcb0294ba9",
        ),
    ] {
        let (its_key, its_iv, its_header) = secrets(version, &ID).unwrap();
        assert_eq!(its_key[..], bytes(key));
        assert_eq!(its_iv[..], bytes(iv));
        assert_eq!(its_header[..], bytes(header));
    }
}

#[test]
fn the_packets_of_the_rfcs() {
    // The payload is a CRYPTO frame with 241 bytes at 0, and PADDING to 1162 bytes.
    let mut frames = [&bytes("060040f1")[..], &bytes(HELLO)].concat();
    frames.resize(1162, 0);
    for (version, begin, end) in [
        (
            &VERSIONS[0],
            "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b",
            "e221af44860018ab0856972e194cd934",
        ),
        (&VERSIONS[1], "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04", ""),
    ] {
        let packet = packet(version, 2, 4, &frames);
        assert_eq!(packet.len(), 1200);
        assert!(packet.starts_with(&bytes(begin)), "{:x?}", &packet[..40]);
        assert!(packet.ends_with(&bytes(end)));
        let header = long_header(&packet).unwrap();
        assert_eq!((header.destination, header.source), (&ID[..], &b""[..]));
        assert_eq!(name(&[packet]), example());
    }
}

#[test]
fn a_hello_may_come_in_any_order_and_over_several_datagrams() {
    let hello = bytes(HELLO);
    // As of Chromium: about ten parts, shuffled over two datagrams, with PING and PADDING between
    // them, and gaps in the packet numbers.
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = random.usize(1..12);
        let mut cuts: Vec<usize> = (0..count).map(|_| random.usize(..hello.len())).collect();
        cuts.extend([0, hello.len()]);
        cuts.sort_unstable();
        let mut frames: Vec<_> =
            cuts.windows(2).map(|cut| crypto_frame(cut[0], &hello[cut[0]..cut[1]])).collect();
        // A part comes again, and overlaps others.
        frames.push(crypto_frame(cuts[1] / 2, &hello[cuts[1] / 2..]));
        random.shuffle(&mut frames);
        let version = random.choice(&VERSIONS).unwrap();
        let mut number = random.u64(..3);
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        for part in frames.chunks(random.usize(1..=frames.len())) {
            let filler = [0_u8, 1].repeat(random.usize(..20));
            let payload = [&filler[..], &part.concat(), &filler, &[0; 4]].concat();
            let packet = packet(version, number, random.usize(1..=4), &payload);
            number += random.u64(1..20);
            match datagrams.last_mut().filter(|_| random.bool()) {
                Some(last) => last.extend(packet),
                None => datagrams.push(packet),
            }
        }
        // Garbage, and bare zeros behind a packet as of aioquic.
        datagrams[0].extend(vec![0; random.usize(..700)]);
        assert_eq!(name(&datagrams), example(), "{seed}");
        // Without a part there is no answer.
        let incomplete = crypto_frame(0, &hello[..hello.len() - 1]);
        assert_eq!(name(&self::datagrams(&[incomplete])), Ok(None));
    }
}

#[test]
fn other_packets_are_ignored_and_wrong_ones_refused() {
    let hello = crypto_frame(0, &bytes(HELLO));
    let padded = |frames: &[u8]| [frames, &[0; 20]].concat();
    let good = packet(&VERSIONS[0], 0, 1, &hello);
    let with = |at: usize, byte: u8| {
        let mut packet = good.clone();
        packet[at] = byte;
        packet
    };
    assert_eq!(name(&[b"\x16\xfe\xff\0\0\0\0".to_vec()]), Err(QuicError::NotQuic));
    assert_eq!(name(&[with(0, 0x80)]), Err(QuicError::NotQuic));
    assert_eq!(name(&[vec![0xc0; 6]]), Err(QuicError::NotQuic));
    assert_eq!(name(&[with(4, 29)]), Err(QuicError::Version));
    assert_eq!(name(&[with(5, 21)]), Err(QuicError::NotQuic));
    assert_eq!(name(&[with(0, good[0] | 0x20)]), Err(QuicError::NotInitial));
    assert_eq!(name(&[with(100, !good[100])]), Err(QuicError::NotInitial));
    assert_eq!(name(&[good[..good.len() - 1].to_vec()]), Err(QuicError::NotInitial));
    // Later garbage is ignored.
    let first = packet(&VERSIONS[0], 0, 1, &padded(&hello[..0]));
    let garbage = with(100, !good[100]);
    assert_eq!(name(&[first.clone(), garbage, vec![7; 30], good.clone()]), example());
    // A packet of 0-RTT comes first in the second datagram.
    let early = [&[0xd0, 0, 0, 0, 1, 8][..], &ID, &[0, 3, 1, 2, 3]].concat();
    assert_eq!(name(&[first.clone(), [early, good].concat()]), example());
    // Frames.
    let ack = [&[2, 9, 0, 1, 0, 0, 0][..], &[3, 9, 0, 0, 0, 1, 1, 1], &hello].concat();
    assert_eq!(name(&datagrams(&[ack])), example());
    for wrong in [
        padded(&[0x1c, 0, 0, 0]),
        padded(&[0x08, 1]),
        [&[0; 20][..], &[6, 0, 9, 1]].concat(),
        [&[0; 20][..], &[2, 9, 0, 0x3f, 0]].concat(),
        padded(&[crypto_frame(0, &[1, 0, 0]), crypto_frame(2, &[1, 0, 0])].concat()),
        padded(&[crypto_frame(9, &[1, 0, 0]), crypto_frame(8, &[1, 0, 0, 0])].concat()),
    ] {
        assert_eq!(name(&datagrams(&[wrong])), Err(QuicError::Malformed));
    }
    let too_large = Err(QuicError::Hello(HelloError::TooLarge));
    assert_eq!(name(&datagrams(&[padded(&crypto_frame(16_383, &[0; 9]))])), too_large);
    assert_eq!(name(&datagrams(&[padded(&crypto_frame(0, &[1, 1, 0, 0]))])), too_large);
    let server = padded(&crypto_frame(0, &[2]));
    assert_eq!(name(&datagrams(&[server])), Err(QuicError::Hello(HelloError::Malformed)));
}

#[test]
fn a_hello_without_an_end_is_bounded() {
    let many: Vec<_> = (0..80).map(|n| crypto_frame(2 * n + 1, &[0])).collect();
    assert_eq!(name(&datagrams(&[many.concat()])), Err(QuicError::TooManyParts));
    let slow: Vec<_> = (0..20).map(|_| vec![1; 20]).collect();
    assert_eq!(name(&datagrams(&slow[..15])), Ok(None));
    assert_eq!(name(&datagrams(&slow)), Err(QuicError::TooManyParts));
}

#[test]
fn packet_numbers_are_completed() {
    // RFC 9000 A.3.
    assert_eq!(packet_number(Some(0xa82f_30ea), 0x9b32, 16), 0xa82f_9b32);
    for (largest, truncated, bits, number) in
        [(None, 5, 8, 5), (Some(255), 0, 8, 256), (Some(256), 255, 8, 255), (Some(3), 200, 8, 200)]
    {
        assert_eq!(packet_number(largest, truncated, bits), number);
    }
}
