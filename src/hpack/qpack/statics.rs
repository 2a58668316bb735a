//! The static table of QPACK (RFC 9204 Appendix A).

use crate::hpack::hash;

/// The number of lines.
const COUNT: usize = 99;

/// The static table. Its first line has index 0.
pub static LINES: [(&[u8], &[u8]); COUNT] = TABLE;

const TABLE: [(&[u8], &[u8]); COUNT] = [
    (b":authority", b""),
    (b":path", b"/"),
    (b"age", b"0"),
    (b"content-disposition", b""),
    (b"content-length", b"0"),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"referer", b""),
    (b"set-cookie", b""),
    (b":method", b"CONNECT"),
    (b":method", b"DELETE"),
    (b":method", b"GET"),
    (b":method", b"HEAD"),
    (b":method", b"OPTIONS"),
    (b":method", b"POST"),
    (b":method", b"PUT"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"103"),
    (b":status", b"200"),
    (b":status", b"304"),
    (b":status", b"404"),
    (b":status", b"503"),
    (b"accept", b"*/*"),
    (b"accept", b"application/dns-message"),
    (b"accept-encoding", b"gzip, deflate, br"),
    (b"accept-ranges", b"bytes"),
    (b"access-control-allow-headers", b"cache-control"),
    (b"access-control-allow-headers", b"content-type"),
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"max-age=0"),
    (b"cache-control", b"max-age=2592000"),
    (b"cache-control", b"max-age=604800"),
    (b"cache-control", b"no-cache"),
    (b"cache-control", b"no-store"),
    (b"cache-control", b"public, max-age=31536000"),
    (b"content-encoding", b"br"),
    (b"content-encoding", b"gzip"),
    (b"content-type", b"application/dns-message"),
    (b"content-type", b"application/javascript"),
    (b"content-type", b"application/json"),
    (b"content-type", b"application/x-www-form-urlencoded"),
    (b"content-type", b"image/gif"),
    (b"content-type", b"image/jpeg"),
    (b"content-type", b"image/png"),
    (b"content-type", b"text/css"),
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-type", b"text/plain"),
    (b"content-type", b"text/plain;charset=utf-8"),
    (b"range", b"bytes=0-"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains"),
    (b"strict-transport-security", b"max-age=31536000; includesubdomains; preload"),
    (b"vary", b"accept-encoding"),
    (b"vary", b"origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-xss-protection", b"1; mode=block"),
    (b":status", b"100"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"302"),
    (b":status", b"400"),
    (b":status", b"403"),
    (b":status", b"421"),
    (b":status", b"425"),
    (b":status", b"500"),
    (b"accept-language", b""),
    (b"access-control-allow-credentials", b"FALSE"),
    (b"access-control-allow-credentials", b"TRUE"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-allow-methods", b"get"),
    (b"access-control-allow-methods", b"get, post, options"),
    (b"access-control-allow-methods", b"options"),
    (b"access-control-expose-headers", b"content-length"),
    (b"access-control-request-headers", b"content-type"),
    (b"access-control-request-method", b"get"),
    (b"access-control-request-method", b"post"),
    (b"alt-svc", b"clear"),
    (b"authorization", b""),
    (b"content-security-policy", b"script-src 'none'; object-src 'none'; base-uri 'none'"),
    (b"early-data", b"1"),
    (b"expect-ct", b""),
    (b"forwarded", b""),
    (b"if-range", b""),
    (b"origin", b""),
    (b"purpose", b"prefetch"),
    (b"server", b""),
    (b"timing-allow-origin", b"*"),
    (b"upgrade-insecure-requests", b"1"),
    (b"user-agent", b""),
    (b"x-forwarded-for", b""),
    (b"x-frame-options", b"deny"),
    (b"x-frame-options", b"sameorigin"),
];

/// The number of slots. A slot has the index of its first line, or [`NONE`]. The hash of a line
/// selects its slot.
const SLOTS: usize = 256;

/// The end of a chain.
const NONE: u8 = u8::MAX;

/// The lines by a hash: the first line of each slot, and for each line the next one of its slot.
struct Chains {
    first: [u8; SLOTS],
    next: [u8; COUNT],
}

/// `BY_LINE` finds each line by the hash of its name and value. `BY_NAME` finds the first line with
/// a name by the hash of the name.
static BY_LINE: Chains = chains(false);
static BY_NAME: Chains = chains(true);

const fn chains(by_name: bool) -> Chains {
    let mut chains = Chains { first: [NONE; SLOTS], next: [NONE; COUNT] };
    // From the last line to the first, so that each chain has the order of the table.
    let mut at = COUNT;
    while at > 0 {
        at -= 1;
        let (name, value) = TABLE[at];
        let mut hash = hash::of_name(name);
        if !by_name {
            hash = hash::after(hash, value);
        }
        if !by_name || is_first(at) {
            let slot = hash::short(hash) as usize % SLOTS;
            chains.next[at] = chains.first[slot];
            chains.first[slot] = at as u8;
        }
    }
    chains
}

/// Whether no line before this one has its name.
const fn is_first(at: usize) -> bool {
    let mut before = 0;
    while before < at {
        if same(TABLE[before].0, TABLE[at].0) {
            return false;
        }
        before += 1;
    }
    true
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

impl Chains {
    #[inline]
    fn find(&self, hash: u32, is_it: impl Fn(&(&[u8], &[u8])) -> bool) -> Option<usize> {
        let mut at = self.first[hash as usize % SLOTS];
        loop {
            let line = LINES.get(usize::from(at))?;
            if is_it(line) {
                return Some(usize::from(at));
            }
            at = self.next[usize::from(at)];
        }
    }
}

/// Returns the index of the line with this name and value. `line_hash` is the hash of the name and
/// then of the value.
#[inline]
pub fn find_line(line_hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
    BY_LINE.find(line_hash, |line| *line == (name, value))
}

/// Returns the index of the first line whose name is `name`. `name_hash` is the hash of `name`.
#[inline]
pub fn find_name(name_hash: u32, name: &[u8]) -> Option<usize> {
    BY_NAME.find(name_hash, |line| line.0 == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_found_and_others_are_not() {
        for (index, (name, value)) in LINES.iter().enumerate() {
            let hash = hash::of_name(name);
            let line_hash = |value| hash::short(hash::after(hash, value));
            assert_eq!(find_line(line_hash(value), name, value), Some(index));
            assert_eq!(find_line(line_hash(b"another"), name, b"another"), None);
            let first = LINES.iter().position(|line| line.0 == *name);
            assert_eq!(find_name(hash::short(hash), name), first);
        }
        for name in [&b""[..], b"x", b":pat", b":paths", b"grpc-status"] {
            assert_eq!(find_name(hash::short(hash::of_name(name)), name), None);
        }
    }
}
