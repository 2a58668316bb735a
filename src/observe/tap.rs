//! Taps: live views of the exchanges that a filter accepts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::body_copy::BodyCopy;
use super::filter::Filter;
use super::format;
use super::headers::{HeaderCopy, is_secret};
use super::record::Record;
use super::text::put_json;

/// The maximum number of taps at a time.
pub const TAPS_MAX: usize = 8;

/// The value that a tap shows for a field that may not be shown.
pub const REDACTED: &[u8] = b"[redacted]";

/// Fields whose values every tap shows. It also shows those that begin with `content-`.
const HARMLESS: [&str; 24] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "age",
    "cache-control",
    "connection",
    "date",
    "etag",
    "expect",
    "grpc-encoding",
    "grpc-status",
    "grpc-timeout",
    "host",
    "range",
    "retry-after",
    "server",
    "te",
    "traceparent",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "x-forwarded-proto",
    "x-request-id",
];

/// A function that takes one line. It returns false if it has no room for the line. It must not
/// block.
pub type Take = Box<dyn Fn(Vec<u8>) -> bool + Send + Sync>;

/// A tap.
pub struct Tap {
    /// The exchanges to show. `None` means all.
    pub filter: Option<Filter>,
    /// The fields whose values are shown in addition to the harmless ones, in lower case. A field
    /// that may carry a secret is never shown.
    pub shown: Vec<String>,
    /// The number of bytes of each body that are shown. 0 shows none.
    pub bodies: usize,
    /// The function that takes the lines.
    pub take: Take,
}

/// All open taps. Workers share them.
#[derive(Default)]
pub struct Taps {
    active: AtomicUsize,
    /// The largest number of bytes of a body that a tap shows.
    bodies: AtomicUsize,
    /// The number of bytes of bodies that are copied now.
    copied: Arc<AtomicUsize>,
    open: Mutex<Vec<(u64, Tap)>>,
    next: AtomicU64,
    lines: AtomicU64,
    dropped: AtomicU64,
}

/// An open tap. Dropping it closes the tap.
pub struct OpenTap {
    taps: Arc<Taps>,
    number: u64,
}

impl Taps {
    /// Whether a tap is open.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) != 0
    }

    /// Copies for the bodies of a request and its response. `None` if no tap shows bodies.
    pub fn copies(&self) -> Option<Box<[BodyCopy; 2]>> {
        let max = self.bodies.load(Ordering::Relaxed);
        (max > 0).then(|| Box::new([(); 2].map(|()| BodyCopy::new(max, &self.copied))))
    }

    /// The number of open taps.
    pub fn count(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// The numbers of lines that were passed on, and that were dropped because a tap had no room.
    pub fn lines(&self) -> (u64, u64) {
        (self.lines.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }

    /// Opens a tap. Returns `None` if [`TAPS_MAX`] taps are open.
    pub fn open(self: &Arc<Self>, tap: Tap) -> Option<OpenTap> {
        let mut open = self.lock();
        if open.len() >= TAPS_MAX {
            return None;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.push((number, tap));
        self.tell(&open);
        Some(OpenTap { taps: Arc::clone(self), number })
    }

    /// Shows an exchange to the taps that accept it.
    pub fn show(&self, record: &Record<'_>) {
        for (_, tap) in &*self.lock() {
            if tap.filter.as_ref().is_none_or(|filter| filter.accepts(record)) {
                let count = match (tap.take)(tap.line(record)) {
                    true => &self.lines,
                    false => &self.dropped,
                };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells the workers which taps are open.
    fn tell(&self, open: &[(u64, Tap)]) {
        let bodies = open.iter().map(|(_, tap)| tap.bodies).max().unwrap_or_default();
        self.bodies.store(bodies, Ordering::Relaxed);
        self.active.store(open.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, Tap)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenTap {
    fn drop(&mut self) {
        let mut open = self.taps.lock();
        open.retain(|(number, _)| *number != self.number);
        self.taps.tell(&open);
    }
}

impl Tap {
    /// The line for `record`: that of the access log, with the fields of both heads.
    fn line(&self, record: &Record<'_>) -> Vec<u8> {
        let mut line = Vec::with_capacity(1024);
        format::write_json(&mut line, record);
        line.pop();
        for (key, copy) in [
            ("request_headers", record.request_headers),
            ("response_headers", record.response_headers),
        ] {
            if let Some(copy) = copy {
                line.extend_from_slice(b",\"");
                line.extend_from_slice(key.as_bytes());
                line.extend_from_slice(b"\":");
                self.put_fields(&mut line, copy);
            }
        }
        let bodies =
            [("request_body", record.request_body), ("response_body", record.response_body)];
        for ((key, body), ended) in bodies.into_iter().zip(record.bodies_ended) {
            put_body(&mut line, key, &body[..body.len().min(self.bodies)]);
            if ended && body.len() < self.bodies {
                line.extend_from_slice(format!(",\"{key}_incomplete\":true").as_bytes());
            }
        }
        line.extend_from_slice(b"}\n");
        line
    }

    /// Writes the fields as a list of pairs, because a name may occur twice.
    fn put_fields(&self, line: &mut Vec<u8>, copy: &HeaderCopy) {
        line.push(b'[');
        for (index, (name, value)) in copy.iter().enumerate() {
            line.extend_from_slice(if index == 0 { b"[" } else { b",[" });
            put_json(line, name);
            line.push(b',');
            put_json(line, if self.is_shown(name) { value } else { REDACTED });
            line.push(b']');
        }
        line.push(b']');
    }

    fn is_shown(&self, name: &[u8]) -> bool {
        let is_one = |shown: &str| name.eq_ignore_ascii_case(shown.as_bytes());
        let is_wanted = name.starts_with(b"content-")
            || HARMLESS.iter().any(|it| is_one(it))
            || self.shown.iter().any(|it| is_one(it));
        is_wanted && !is_secret(name)
    }
}

/// Writes the beginning of a body as text, or as base64 if it is no text.
fn put_body(line: &mut Vec<u8>, key: &str, body: &[u8]) {
    let text = match std::str::from_utf8(body) {
        Ok(_) => Some(body),
        // The end is cut in the middle of a character.
        Err(error) if error.error_len().is_none() => Some(&body[..error.valid_up_to()]),
        Err(_) => None,
    };
    if body.is_empty() {
        return;
    }
    line.extend_from_slice(b",\"");
    line.extend_from_slice(key.as_bytes());
    match text {
        Some(text) => {
            line.extend_from_slice(b"\":");
            put_json(line, text);
        }
        None => {
            line.extend_from_slice(b"_base64\":");
            put_json(line, STANDARD.encode(body).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Address;
    use crate::observe::format::tests::record;

    #[test]
    fn a_tap_shows_what_its_filter_accepts_without_secrets() {
        let taps = Arc::new(Taps::default());
        assert!(!taps.is_active());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let took = Arc::clone(&lines);
        let tap = Tap {
            filter: Some(Filter::parse("path == '/seen'").unwrap()),
            shown: vec!["x-tenant".into(), "cookie".into()],
            bodies: 0,
            take: Box::new(move |line| {
                let mut lines = took.lock().unwrap();
                lines.push(String::from_utf8(line).unwrap());
                lines.len() < 3
            }),
        };
        let open = taps.open(tap).unwrap();
        assert!(taps.is_active());
        let mut fields = HeaderCopy::default();
        for (name, value) in [
            ("Authorization", "Bearer s3cret"),
            ("Cookie", "s3cret"),
            ("X-Tenant", "blue"),
            ("X-Unknown", "s3cret"),
            ("Accept", "*/*"),
        ] {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        let address = Address::Tcp("10.0.0.1:80".parse().unwrap());
        for target in ["/seen", "/other", "/seen?a", "/seen"] {
            let record = record(target.as_bytes(), &address);
            taps.show(&Record { request_headers: Some(&fields), ..record });
        }
        let lines = lines.lock().unwrap();
        assert_eq!((lines.len(), taps.lines()), (3, (2, 1)));
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["target"], "/seen");
        assert!(!lines[0].contains("s3cret"), "{}", lines[0]);
        assert_eq!(line["request_headers"][2], serde_json::json!(["x-tenant", "blue"]));
        assert_eq!(line["request_headers"][4], serde_json::json!(["accept", "*/*"]));
        drop(open);
        assert!(!taps.is_active());
    }

    #[test]
    fn bodies_are_shown_only_to_taps_that_ask_for_them() {
        let taps = Arc::new(Taps::default());
        assert!(taps.copies().is_none());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let tap = |bodies| {
            let took = Arc::clone(&lines);
            let take = Box::new(move |line: Vec<u8>| {
                let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
                took.lock().unwrap().push(line);
                true
            });
            Tap { filter: None, shown: Vec::new(), bodies, take }
        };
        let open = [0, 3, 100].map(|bodies| taps.open(tap(bodies)).unwrap());
        assert!(taps.copies().is_some_and(|copies| copies[1].again().has_room()));
        let address = Address::Tcp("10.0.0.1:80".parse().unwrap());
        let record = record(b"/", &address);
        let (request_body, response_body) = ("ab\u{e9}\n".as_bytes(), &b"\xff\x00"[..]);
        let bodies_ended = [true, false];
        taps.show(&Record { request_body, response_body, bodies_ended, ..record });
        let lines = lines.lock().unwrap();
        assert!(lines[0]["request_body"].is_null());
        assert_eq!(
            (&lines[1]["request_body"], &lines[2]["request_body"]),
            (&"ab".into(), &"ab\u{e9}\n".into())
        );
        assert_eq!(lines[2]["response_body_base64"], "/wA=");
        // The tap of three bytes has all that it wants.
        let incomplete = |line: usize| lines[line]["request_body_incomplete"].as_bool();
        assert_eq!([0, 1, 2].map(incomplete), [None, None, Some(true)]);
        assert!(lines[2]["response_body_incomplete"].is_null());
        drop(open);
        assert!(taps.copies().is_none());
    }

    #[test]
    fn the_number_of_taps_is_limited() {
        let taps = Arc::new(Taps::default());
        let tap = || Tap { filter: None, shown: Vec::new(), bodies: 0, take: Box::new(|_| true) };
        let mut open: Vec<_> = (0..TAPS_MAX).map(|_| taps.open(tap()).unwrap()).collect();
        assert!(taps.open(tap()).is_none());
        open.pop();
        assert!(taps.open(tap()).is_some());
    }
}
