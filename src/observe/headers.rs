//! Copies of header fields for filters, log lines and taps.

use crate::message::HeadView;

/// The maximum number of bytes of a header value in a copy. The rest is cut.
pub const HEADER_VALUE_MAX: usize = 1024;

/// Fields that may carry a secret. No log line has them.
const SECRETS: [&str; 10] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "x-auth-token",
    "x-csrf-token",
    "x-amz-security-token",
    "x-goog-iam-authorization-token",
];

/// Whether the header field `name` may carry a secret.
pub fn is_secret(name: &[u8]) -> bool {
    SECRETS.iter().any(|secret| name.eq_ignore_ascii_case(secret.as_bytes()))
}

/// The names of the header fields to copy, in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Fields of the request.
    pub request: Vec<Box<str>>,
    /// Fields of the response.
    pub response: Vec<Box<str>>,
}

impl Wanted {
    /// Adds the names in `other`.
    pub fn extend(&mut self, other: &Self) {
        let pairs = [(&mut self.request, &other.request), (&mut self.response, &other.response)];
        for (names, more) in pairs {
            names.extend(more.iter().cloned());
            names.sort();
            names.dedup();
        }
    }
}

/// Copies of some header fields.
#[derive(Clone, Debug, Default)]
pub struct HeaderCopy {
    block: Vec<u8>,
    /// Where each name begins, where its value begins, and where the value ends.
    spans: Vec<[u32; 3]>,
}

impl HeaderCopy {
    /// Copies the first value of each field in `names` that `head` has.
    pub fn of(head: HeadView<'_>, names: &[Box<str>]) -> Self {
        let mut copy = Self::default();
        for name in names {
            if let Some(value) = head.value(name.as_bytes()) {
                copy.push(name.as_bytes(), value);
            }
        }
        copy
    }

    /// Copies all fields of `head`.
    pub fn of_all(head: HeadView<'_>) -> Self {
        let mut copy = Self::default();
        for (name, value) in head.fields() {
            copy.push(name, value);
        }
        copy
    }

    /// Adds a field.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.block.len();
        self.block.extend(name.iter().map(u8::to_ascii_lowercase));
        let middle = self.block.len();
        self.block.extend_from_slice(&value[..value.len().min(HEADER_VALUE_MAX)]);
        self.spans.push([start, middle, self.block.len()].map(|at| at as u32));
    }

    /// The value of the first field called `name`, which is in lower case.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == name.as_bytes()).map(|(_, value)| value)
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.spans.iter().map(|span| {
            let [start, middle, end] = span.map(|at| at as usize);
            (&self.block[start..middle], &self.block[middle..end])
        })
    }
}
