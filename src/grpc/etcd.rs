//! The messages of etcd that the proxy sends and reads: `etcdserverpb`, version 3.
//!
//! Unknown fields are skipped, as protobuf asks for.

use super::protobuf::{Fields, Malformed, Value, put_bytes, put_nested, put_number};

/// The method that reads keys.
pub const RANGE: &str = "/etcdserverpb.KV/Range";

/// The method that reports changes of keys.
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The method that exchanges a password for a token.
pub const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";

/// The metadata with the token.
pub const TOKEN: &str = "token";

/// The metadata that asks a member without a leader to end a watch.
pub const HAS_LEADER: &str = "hasleader";

/// The end of the range of keys that begin with `prefix`.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys from `prefix` on.
    vec![0]
}

/// The request for all keys that begin with `prefix`.
pub fn range_request(prefix: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, prefix);
    put_bytes(&mut out, 2, &end_of(prefix));
    out
}

/// The request for changes, from the revision `start` on, of the keys that begin with `prefix`.
pub fn watch_request(prefix: &[u8], start: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put_nested(&mut out, 1, |out| {
        put_bytes(out, 1, prefix);
        put_bytes(out, 2, &end_of(prefix));
        put_number(out, 3, start);
    });
    out
}

/// The request for a token.
pub fn authenticate_request(user: &str, password: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_bytes(&mut out, 1, user.as_bytes());
    put_bytes(&mut out, 2, password.as_bytes());
    out
}

/// The part of a response that says which cluster has sent it, and at which revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster.
    pub cluster: u64,
    /// The revision of the cluster.
    pub revision: u64,
}

fn header(message: &[u8]) -> Result<Header, Malformed> {
    let mut header = Header::default();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Number(cluster)) => header.cluster = cluster,
            (3, Value::Number(revision)) => header.revision = revision,
            _ => {}
        }
    }
    Ok(header)
}

/// A key and its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The revision of its last change.
    pub revision: u64,
    /// The value. Empty in a deletion.
    pub value: &'a [u8],
}

fn key_value(message: &[u8]) -> Result<KeyValue<'_>, Malformed> {
    let mut found = KeyValue::default();
    for field in Fields::of(message) {
        match field? {
            (1, Value::Bytes(key)) => found.key = key,
            (3, Value::Number(revision)) => found.revision = revision,
            (5, Value::Bytes(value)) => found.value = value,
            _ => {}
        }
    }
    Ok(found)
}

/// All keys of a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range<'a> {
    /// The cluster, and its revision.
    pub header: Header,
    /// The keys, with their values.
    pub all: Vec<KeyValue<'a>>,
    /// Whether there are more keys than those in `all`.
    pub more: bool,
}

impl<'a> Range<'a> {
    /// Reads a response.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut range = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(bytes)) => range.header = header(bytes)?,
                (2, Value::Bytes(bytes)) => range.all.push(key_value(bytes)?),
                (3, Value::Number(more)) => range.more = more != 0,
                _ => {}
            }
        }
        Ok(range)
    }
}

/// A change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The key has this value now.
    Put(KeyValue<'a>),
    /// The key is deleted.
    Delete(KeyValue<'a>),
}

fn event(message: &[u8]) -> Result<Event<'_>, Malformed> {
    let (mut deleted, mut found) = (false, KeyValue::default());
    for field in Fields::of(message) {
        match field? {
            (1, Value::Number(kind)) => deleted = kind == 1,
            (2, Value::Bytes(bytes)) => found = key_value(bytes)?,
            _ => {}
        }
    }
    Ok(if deleted { Event::Delete(found) } else { Event::Put(found) })
}

/// A message of a watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WatchMessage<'a> {
    /// The cluster, and its revision.
    pub header: Header,
    /// Whether the watch has begun.
    pub created: bool,
    /// Whether the watch has ended. The stream may stay open.
    pub canceled: bool,
    /// The oldest revision that is left. Set only if the watch began before it.
    pub compact_revision: u64,
    /// The reason of the end.
    pub cancel_reason: String,
    /// The changes, in their order. All changes of one revision are in one message.
    pub events: Vec<Event<'a>>,
}

impl<'a> WatchMessage<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// If it is no such message.
    pub fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut read = Self::default();
        for field in Fields::of(message) {
            match field? {
                (1, Value::Bytes(bytes)) => read.header = header(bytes)?,
                (3, Value::Number(created)) => read.created = created != 0,
                (4, Value::Number(canceled)) => read.canceled = canceled != 0,
                (5, Value::Number(revision)) => read.compact_revision = revision,
                (6, Value::Bytes(why)) => {
                    read.cancel_reason = String::from_utf8_lossy(why).into_owned();
                }
                (11, Value::Bytes(bytes)) => read.events.push(event(bytes)?),
                _ => {}
            }
        }
        Ok(read)
    }
}

/// Reads the token of a response to [`AUTHENTICATE`].
///
/// # Errors
/// If it is no such message.
pub fn token(message: &[u8]) -> Result<String, Malformed> {
    let mut token = String::new();
    for field in Fields::of(message) {
        if let (2, Value::Bytes(bytes)) = field? {
            token = std::str::from_utf8(bytes).map_err(|_| Malformed)?.to_owned();
        }
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_after_its_last_key() {
        assert_eq!(range_request(b"/r/"), b"\x0a\x03/r/\x12\x03/r0");
        assert_eq!(end_of(b"a\xff\xff"), b"b");
        assert_eq!(end_of(b"\xff"), [0], "all keys from it on");
        assert_eq!(watch_request(b"/r/", 300), b"\x0a\x0d\x0a\x03/r/\x12\x03/r0\x18\xac\x02");
        assert_eq!(authenticate_request("u", "p"), b"\x0a\x01u\x12\x01p");
    }

    /// As etcd 3.4.23 has sent them.
    #[test]
    fn messages_of_etcd_are_read() {
        let head = b"\x08\x07\x10\x09\x18\x05\x20\x02";
        let header = Header { cluster: 7, revision: 5 };
        let pair = b"\x0a\x01k\x10\x02\x18\x05\x20\x03\x2a\x01v";
        let pair_read = KeyValue { key: b"k", revision: 5, value: b"v" };
        let range = [b"\x0a\x08", &head[..], b"\x12\x0c", pair, b"\x20\x01"].concat();
        let read = Range { header, all: vec![pair_read], more: false };
        assert_eq!(Range::read(&range), Ok(read));
        let put = [b"\x12\x0c", &pair[..]].concat();
        let delete = b"\x08\x01\x12\x05\x0a\x01k\x18\x05";
        let watch = [b"\x0a\x08", &head[..], b"\x5a\x0e", &put, b"\x5a\x09", &delete[..]].concat();
        let events =
            vec![Event::Put(pair_read), Event::Delete(KeyValue { value: b"", ..pair_read })];
        let read = WatchMessage { header, events, ..WatchMessage::default() };
        assert_eq!(WatchMessage::read(&watch), Ok(read));
        let ended = b"\x20\x01\x28\x06\x32\x03why";
        let read = WatchMessage::read(ended).unwrap();
        assert!(read.canceled && !read.created);
        assert_eq!((read.compact_revision, &*read.cancel_reason), (6, "why"));
        assert_eq!(token(b"\x12\x03abc"), Ok("abc".to_owned()));
    }

    #[test]
    fn what_is_no_message_is_an_error() {
        for bytes in [&b"\x0a\x7f"[..], b"\x12\x05\x0a\x09", b"\x07", b"\xff"] {
            assert!(Range::read(bytes).is_err(), "{bytes:?}");
            assert!(WatchMessage::read(bytes).is_err() || bytes[0] == 0x12, "{bytes:?}");
        }
    }
}
