//! The messages of `grpc.health.v1.Health/Check` in the Protocol Buffers encoding. Each has one
//! field.

/// The path of the gRPC method.
pub const PATH: &str = "/grpc.health.v1.Health/Check";

/// The serving status in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serving {
    /// UNKNOWN.
    Unknown,
    /// SERVING.
    Serving,
    /// NOT_SERVING.
    NotServing,
    /// SERVICE_UNKNOWN. The protocol uses this status for `Watch` only, but some servers may send
    /// it here.
    ServiceUnknown,
    /// A number that the protocol does not define.
    Other(u64),
}

/// Encodes the request body for `service`: an uncompressed gRPC message with the field `string
/// service = 1`.
pub fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 8);
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut body = vec![0];
    body.extend_from_slice(&(message.len() as u32).to_be_bytes());
    body.extend_from_slice(&message);
    body
}

/// Decodes the status in a response body (`ServingStatus status = 1`). `None` if the body is not
/// exactly one valid message.
pub fn answer(body: &[u8]) -> Option<Serving> {
    let (&[0, a, b, c, d], message) = body.split_first_chunk::<5>()? else { return None };
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return None;
    }
    let (mut rest, mut status) = (message, 0);
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let value = match key & 7 {
            0 => varint(&mut rest)?,
            1 => skip(&mut rest, 8)?,
            2 => {
                let length = varint(&mut rest)?;
                skip(&mut rest, length)?
            }
            5 => skip(&mut rest, 4)?,
            _ => return None,
        };
        if key == 1 << 3 {
            status = value; // the last field counts
        }
    }
    Some(match status {
        0 => Serving::Unknown,
        1 => Serving::Serving,
        2 => Serving::NotServing,
        3 => Serving::ServiceUnknown,
        other => Serving::Other(other),
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn skip(rest: &mut &[u8], bytes: u64) -> Option<u64> {
    *rest = rest.get(usize::try_from(bytes).ok()?..)?;
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_service() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn answers_are_read_whatever_else_is_in_them() {
        for (message, said) in [
            (&b""[..], Some(Serving::Unknown)),
            (b"\x08\x00", Some(Serving::Unknown)),
            (b"\x08\x01", Some(Serving::Serving)),
            (b"\x08\x02", Some(Serving::NotServing)),
            (b"\x08\x03", Some(Serving::ServiceUnknown)),
            (b"\x08\x81\x00", Some(Serving::Serving)),
            (b"\x08\x02\x08\x01", Some(Serving::Serving)),
            (b"\x08\x96\x01", Some(Serving::Other(150))),
            // Fields of a later version.
            (b"\x12\x02ab\x08\x01\x1d1234\x2112345678\x30\x05", Some(Serving::Serving)),
            (b"\x0a\x01\x01", Some(Serving::Unknown)),
            // Malformed bodies.
            (b"\x08", None),
            (b"\x08\xff", None),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x12\x05a", None),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", None),
            (b"\x0b", None),
        ] {
            let mut body = vec![0, 0, 0, 0, message.len() as u8];
            body.extend_from_slice(message);
            assert_eq!(answer(&body), said, "{message:?}");
        }
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let mut body = vec![0, 0, 0, 0, random.u8(..20)];
            body.resize_with(5 + usize::from(body[4]), || random.u8(..) & random.u8(..));
            answer(&body); // any bytes: no panic
        }
        for body in [&b""[..], b"\0\0\0\0", b"\x01\0\0\0\0", b"\0\0\0\0\x01", b"\0\0\0\0\0\x08\x01"]
        {
            assert_eq!(answer(body), None, "{body:?}");
        }
    }
}
