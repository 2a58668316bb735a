//! The ClientHello in QUIC datagrams is read like the one in TLS records, whatever parts it comes
//! in. No datagram and no frame causes a panic.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey, quic};
use ringway::detect::{Answer, QuicHello, client_hello, long_header};

/// The keys of RFC 9001 A.1, for version 1 and this connection ID.
const ID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const KEY: u128 = 0x1f36_9613_dd76_d546_7730_efcb_e3b1_a22d;
const IV: u128 = 0xfa04_4b2f_42a3_fd3b_46fb_255c;
const HEADER: u128 = 0x9f50_449e_04a0_e810_283a_1e99_33ad_edd2;

/// The first byte selects how the others are used: as datagrams, frames, or a ClientHello. The
/// second one selects the parts.
pub fn holds(input: &[u8]) {
    let [kind, seed, rest @ ..] = input else { return };
    match kind % 4 {
        0 => drop(read(&datagrams(rest, *seed))),
        1 => {
            let frames = datagrams(rest, *seed);
            let packets = frames.iter().enumerate().map(|(number, part)| packet(number, part));
            drop(read(&packets.collect::<Vec<_>>()));
        }
        _ => hello(rest, u32::from(*seed)),
    }
}

/// Cuts the input into datagrams.
fn datagrams(input: &[u8], seed: u8) -> Vec<Vec<u8>> {
    input.chunks(usize::from(seed) * 4 + 20).map(<[u8]>::to_vec).collect()
}

/// Reads datagrams. Returns the text of the result.
fn read(datagrams: &[Vec<u8>]) -> Result<Option<String>, ()> {
    let Some(first) = datagrams.first() else { return Ok(None) };
    let hello = QuicHello::new(first);
    assert!(hello.is_err() || long_header(first).is_some());
    let mut hello = hello.map_err(drop)?;
    for datagram in datagrams {
        if let Answer::Known(hello) = hello.receive(datagram).map_err(drop)? {
            return Ok(Some(format!("{hello:?}")));
        }
    }
    Ok(None)
}

/// Checks a ClientHello, whose parts come in an order that depends on `seed`.
fn hello(message: &[u8], mut seed: u32) {
    let message = &message[..message.len().min(8000)];
    let mut random = |limit: usize| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) as usize % limit.max(1)
    };
    let mut frames = Vec::new();
    let mut at = 0;
    while at < message.len() {
        let part = &message[at..message.len().min(at + 200 + random(800))];
        let frame = [&[6][..], &varint(at), &varint(part.len()), part].concat();
        frames.insert(random(frames.len() + 1), frame);
        at += part.len();
    }
    let count = frames.len();
    let mut packets = Vec::new();
    while !frames.is_empty() {
        let take = frames.len().min(1 + random(3) + count / 8);
        let payload: Vec<u8> = frames.drain(..take).collect::<Vec<_>>().concat();
        packets.push(packet(packets.len(), &payload));
    }
    let records: Vec<u8> = message
        .chunks(1000)
        .flat_map(|part| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat())
        .collect();
    let expected = match client_hello(&records) {
        Ok(Answer::Known(hello)) => Ok(Some(format!("{hello:?}"))),
        Ok(Answer::NeedMore) => Ok(None),
        Err(_) => Err(()),
    };
    assert_eq!(read(&packets), expected);
}

fn varint(value: usize) -> [u8; 4] {
    (value as u32 | 0x8000_0000).to_be_bytes()
}

/// An Initial packet with these frames, and some PADDING.
fn packet(number: usize, frames: &[u8]) -> Vec<u8> {
    let number = number as u8;
    let mut payload = [frames, &[0; 4]].concat();
    let mut packet = [&[0xc0, 0, 0, 0, 1, 8][..], &ID, &[0, 0]].concat();
    packet.extend(varint(payload.len() + 17));
    let number_at = packet.len();
    packet.push(number);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEY.to_be_bytes()).unwrap());
    let nonce = (IV ^ u128::from(number)).to_be_bytes();
    let nonce = Nonce::try_assume_unique_for_key(&nonce[4..]).unwrap();
    key.seal_in_place_append_tag(nonce, Aad::from(&packet), &mut payload).unwrap();
    packet.append(&mut payload);
    let header = quic::HeaderProtectionKey::new(&quic::AES_128, &HEADER.to_be_bytes()).unwrap();
    let mask = header.new_mask(&packet[number_at + 4..number_at + 20]).unwrap();
    packet[0] ^= mask[0] & 0x0f;
    packet[number_at] ^= mask[1];
    packet
}
