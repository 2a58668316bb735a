//! The messages of Envoy's rate limit service, `envoy.service.ratelimit.v3`: one method, two small
//! messages.
//!
//! Unknown fields are skipped, as protobuf asks for. The answer comes from a peer, so all that is
//! kept of it has a limit.

use std::time::Duration;

use super::protobuf::{Fields, Malformed, Value, put_bytes, put_nested, put_number};

/// The path of the method.
pub const SHOULD_RATE_LIMIT: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";

/// The largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How many statuses and how many header fields of an answer are kept. The rest is ignored.
const KEPT_MAX: usize = 64;

/// The bytes before a message: a flag and a length.
pub const PREFIX_BYTES: usize = 5;

/// A request that is written to a buffer, with the prefix of gRPC.
pub struct Question<'a> {
    out: &'a mut Vec<u8>,
    is_empty: bool,
}

impl<'a> Question<'a> {
    /// Begins a request about `domain`. Replaces the contents of `out`.
    pub fn begin(out: &'a mut Vec<u8>, domain: &str) -> Self {
        out.clear();
        out.extend([0; PREFIX_BYTES]);
        put_bytes(out, 1, domain.as_bytes());
        Self { out, is_empty: true }
    }

    /// Adds a descriptor. `write` adds its entries.
    pub fn descriptor(&mut self, write: impl FnOnce(&mut Descriptor<'_>)) {
        self.is_empty = false;
        put_nested(self.out, 2, |out| write(&mut Descriptor { out }));
    }

    /// Whether there is no descriptor yet. Then there is nothing to ask.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Ends the request, which counts as `hits` requests.
    pub fn end(self, hits: u32) {
        put_number(self.out, 3, hits.into());
        let len = (self.out.len() - PREFIX_BYTES) as u32;
        self.out[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
    }
}

/// A descriptor that is written.
pub struct Descriptor<'a> {
    out: &'a mut Vec<u8>,
}

impl Descriptor<'_> {
    /// Adds an entry. Bytes that are not UTF-8 are replaced: the service could not read them, and a
    /// client could avoid its limit.
    pub fn entry(&mut self, key: &str, value: &[u8]) {
        let value = String::from_utf8_lossy(value);
        put_nested(self.out, 1, |out| {
            put_bytes(out, 1, key.as_bytes());
            put_bytes(out, 2, value.as_bytes());
        });
    }
}

/// The name and the value of a field.
pub type AddedField = (Box<[u8]>, Box<[u8]>);

/// The service's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The decision. `None`: the service does not know.
    pub decision: Option<Decision>,
    /// The states of the limits, in the order of the descriptors. Those without a limit are left
    /// out.
    pub limits: Vec<LimitState>,
    /// The fields to add to the response: names and values.
    pub fields: Vec<AddedField>,
}

/// The decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It passes.
    Pass,
    /// It is over a limit.
    OverLimit,
}

impl Decision {
    fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Pass),
            2 => Some(Self::OverLimit),
            _ => None,
        }
    }
}

/// The state of a limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitState {
    /// The name. It may be empty.
    pub name: Box<str>,
    /// How many requests pass in each window.
    pub requests: u32,
    /// The window. `None` means that it is not known.
    pub window: Option<Duration>,
    /// Whether the request is over this limit.
    pub is_over: bool,
    /// How many more requests would pass now.
    pub left: u32,
    /// The time until the window ends, in seconds, rounded up. `None` means that it is not known.
    pub reset_s: Option<u32>,
}

impl Answer {
    /// Reads an answer with the prefix of gRPC.
    ///
    /// # Errors
    /// When the bytes are not exactly one message, or it is compressed or malformed.
    pub fn parse(framed: &[u8]) -> Result<Self, Malformed> {
        let (prefix, message) = framed.split_first_chunk::<PREFIX_BYTES>().ok_or(Malformed)?;
        let [compressed, len @ ..] = *prefix;
        if compressed != 0 || u32::from_be_bytes(len) as usize != message.len() {
            return Err(Malformed);
        }
        let mut answer = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, Value::Number(number)) => answer.decision = Decision::from_number(number),
                (2, Value::Bytes(status)) if answer.limits.len() < KEPT_MAX => {
                    answer.limits.extend(limit_state(status)?);
                }
                (3, Value::Bytes(field)) if answer.fields.len() < KEPT_MAX => {
                    answer.fields.push(header(field)?);
                }
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// Reads a `DescriptorStatus`. `None`: its descriptor has no limit.
fn limit_state(message: &[u8]) -> Result<Option<LimitState>, Malformed> {
    let (mut state, mut has_limit) = (LimitState::default(), false);
    for field in Fields::of(message) {
        match field? {
            (1, Value::Number(number)) => {
                state.is_over = Decision::from_number(number) == Some(Decision::OverLimit);
            }
            (2, Value::Bytes(limit)) => {
                has_limit = true;
                current_limit(limit, &mut state)?;
            }
            (3, Value::Number(left)) => state.left = u32::try_from(left).unwrap_or(u32::MAX),
            (4, Value::Bytes(duration)) => state.reset_s = Some(seconds(duration)?),
            _ => {}
        }
    }
    Ok(has_limit.then_some(state))
}

fn current_limit(message: &[u8], state: &mut LimitState) -> Result<(), Malformed> {
    for field in Fields::of(message) {
        match field? {
            (1, Value::Number(count)) => state.requests = u32::try_from(count).unwrap_or(u32::MAX),
            (2, Value::Number(unit)) => state.window = window(unit),
            (3, Value::Bytes(name)) => state.name = String::from_utf8_lossy(name).into(),
            _ => {}
        }
    }
    Ok(())
}

/// The time of a `Unit`. The numbers are not in the order of their lengths.
fn window(unit: u64) -> Option<Duration> {
    const DAY: u64 = 24 * 3600;
    let seconds = match unit {
        1 => 1,
        2 => 60,
        3 => 3600,
        4 => DAY,
        5 => 30 * DAY,
        6 => 365 * DAY,
        7 => 7 * DAY,
        _ => return None,
    };
    Some(Duration::from_secs(seconds))
}

/// Reads a `Duration` in seconds, rounded up. A negative one is none.
fn seconds(message: &[u8]) -> Result<u32, Malformed> {
    let (mut seconds, mut nanos) = (0, 0);
    for field in Fields::of(message) {
        match field? {
            (1, Value::Number(number)) => seconds = number as i64,
            (2, Value::Number(number)) => nanos = number as i64,
            _ => {}
        }
    }
    let rounded = seconds.saturating_add(i64::from(nanos > 0)).max(0);
    Ok(u32::try_from(rounded).unwrap_or(u32::MAX))
}

/// Reads a `HeaderValue`.
fn header(message: &[u8]) -> Result<AddedField, Malformed> {
    let (mut name, mut value) = (&b""[..], &b""[..]);
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2 | 3, Value::Bytes(bytes)) if !bytes.is_empty() => value = bytes,
            _ => {}
        }
    }
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(byte).collect()
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    /// The expected bytes are those of the official definitions and Go's protobuf.
    #[test]
    fn requests_are_as_the_official_ones() {
        let mut out = vec![1, 2, 3];
        let mut question = Question::begin(&mut out, "shop");
        assert!(question.is_empty());
        question.descriptor(|descriptor| descriptor.entry("remote_address", b"10.0.0.1"));
        question.descriptor(|descriptor| {
            descriptor.entry("user", b"ada");
            descriptor.entry("method", b"GET");
        });
        assert!(!question.is_empty());
        question.end(1);
        let expected = bytes(
            "0a0473686f70121c0a1a0a0e72656d6f74655f61646472657373120831302e302e302e31121c0a0b0a0475\
             73657212036164610a0d0a066d6574686f6412034745541801",
        );
        assert_eq!(out, framed(&expected));
        let mut question = Question::begin(&mut out, "d");
        question.descriptor(|descriptor| descriptor.entry("k", &[b'x'; 200]));
        question.end(1);
        let expected = [bytes("0a016412d1010ace010a016b12c801"), vec![b'x'; 200], vec![0x18, 1]];
        assert_eq!(out, framed(&expected.concat()));
    }

    #[test]
    fn a_value_that_is_not_utf8_stays_a_value() {
        let mut out = Vec::new();
        let mut question = Question::begin(&mut out, "d");
        question.descriptor(|descriptor| descriptor.entry("k", b"a\xff"));
        question.end(1);
        assert_eq!(out, framed(&bytes("0a0164120b0a090a016b120461efbfbd1801")));
    }

    const OVER: &str = "08021202080112190802120f08ac0210021a08706572207573657222040829100512100801\
        120408071004180622040880f1041a080a03782d611201621a0a0a05782d7261771a016322090a04782d757012\
        01312a09736c6f7720646f776e320a0a080a016112031a0162";

    #[test]
    fn answers_are_read_as_official_ones_are_written() {
        let pass = Answer { decision: Some(Decision::Pass), ..Answer::default() };
        assert_eq!(Answer::parse(&framed(&bytes("0801"))), Ok(pass));
        assert_eq!(Answer::parse(&framed(b"")), Ok(Answer::default()));
        let (minute, day) = (Duration::from_secs(60), Duration::from_secs(24 * 3600));
        let field = |name: &[u8], value: &[u8]| (name.into(), value.into());
        let expected = Answer {
            decision: Some(Decision::OverLimit),
            limits: vec![
                LimitState {
                    name: "per user".into(),
                    requests: 300,
                    window: Some(minute),
                    is_over: true,
                    left: 0,
                    reset_s: Some(42),
                },
                LimitState {
                    name: "".into(),
                    requests: 7,
                    window: Some(day),
                    is_over: false,
                    left: 6,
                    reset_s: Some(80000),
                },
            ],
            fields: vec![field(b"x-a", b"b"), field(b"x-raw", b"c")],
        };
        assert_eq!(Answer::parse(&framed(&bytes(OVER))), Ok(expected));
    }

    #[test]
    fn malformed_answers_are_refused_and_unknown_fields_skipped() {
        let over = bytes(OVER);
        // The end of each field: only there may a message end.
        let ends: Vec<usize> =
            (0..=over.len()).filter(|&len| Answer::parse(&framed(&over[..len])).is_ok()).collect();
        assert_eq!(ends, [0, 2, 6, 33, 51, 61, 73, 84, 95, over.len()]);
        for (message, is_read) in [
            ("0801", true),
            ("08ff", false),
            ("08ffffffffffffffffff7f", false),
            ("088180808080808080808000", false),
            ("0001", false),
            ("0b", false),
            ("0c", false),
            ("0f", false),
            ("3d01020304", true),
            ("3d010203", false),
            ("390102030405060708", true),
            ("12ffffffff7f", false),
            ("1201ff", false),
            ("fa7f0161", true),
            ("0a0101", true),
        ] {
            assert_eq!(Answer::parse(&framed(&bytes(message))).is_ok(), is_read, "{message}");
        }
        for framed in ["", "00000000", "0100000000", "000000000108", "00000000020801ff"] {
            assert_eq!(Answer::parse(&bytes(framed)), Err(Malformed), "{framed}");
        }
    }

    #[test]
    fn an_answer_keeps_a_limited_number_of_states_and_fields() {
        let status = bytes("120412020807");
        let field = bytes("1a030a0161");
        let message = [status.repeat(1000), field.repeat(1000)].concat();
        let answer = Answer::parse(&framed(&message)).unwrap();
        assert_eq!((answer.limits.len(), answer.fields.len()), (KEPT_MAX, KEPT_MAX));
    }

    #[test]
    fn durations_are_whole_seconds() {
        for (message, expected) in [
            ("", 0),
            ("0803", 3),
            ("08031001", 4),
            ("1001", 1),
            ("08ffffffffffffffffff01", 0),
            ("08ffffffffffffffff7f", u32::MAX),
        ] {
            assert_eq!(seconds(&bytes(message)), Ok(expected), "{message}");
        }
    }
}
