//! The static table (RFC 7541 Appendix A).

use super::hash;

/// The static table. Its first line has index 1. Lines with the same name are neighbours.
pub static LINES: [(&[u8], &[u8]); 61] = TABLE;

const TABLE: [(&[u8], &[u8]); 61] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    (b":status", b"200"),
    (b":status", b"204"),
    (b":status", b"206"),
    (b":status", b"304"),
    (b":status", b"400"),
    (b":status", b"404"),
    (b":status", b"500"),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    (b"accept-language", b""),
    (b"accept-ranges", b""),
    (b"accept", b""),
    (b"access-control-allow-origin", b""),
    (b"age", b""),
    (b"allow", b""),
    (b"authorization", b""),
    (b"cache-control", b""),
    (b"content-disposition", b""),
    (b"content-encoding", b""),
    (b"content-language", b""),
    (b"content-length", b""),
    (b"content-location", b""),
    (b"content-range", b""),
    (b"content-type", b""),
    (b"cookie", b""),
    (b"date", b""),
    (b"etag", b""),
    (b"expect", b""),
    (b"expires", b""),
    (b"from", b""),
    (b"host", b""),
    (b"if-match", b""),
    (b"if-modified-since", b""),
    (b"if-none-match", b""),
    (b"if-range", b""),
    (b"if-unmodified-since", b""),
    (b"last-modified", b""),
    (b"link", b""),
    (b"location", b""),
    (b"max-forwards", b""),
    (b"proxy-authenticate", b""),
    (b"proxy-authorization", b""),
    (b"range", b""),
    (b"referer", b""),
    (b"refresh", b""),
    (b"retry-after", b""),
    (b"server", b""),
    (b"set-cookie", b""),
    (b"strict-transport-security", b""),
    (b"transfer-encoding", b""),
    (b"user-agent", b""),
    (b"vary", b""),
    (b"via", b""),
    (b"www-authenticate", b""),
];

/// The number of slots. Each slot has the index of a line, or zero. The hash of a line selects its
/// slot. [`hash::SEED`] is chosen so that no two lines share a slot.
const SLOTS: usize = 512;

/// `BY_LINE` finds each line by the hash of its name and value. `BY_NAME` finds the first line with
/// a name by the hash of the name.
static BY_LINE: [u8; SLOTS] = slots(false);
static BY_NAME: [u8; SLOTS] = slots(true);

const fn slots(by_name: bool) -> [u8; SLOTS] {
    let mut slots = [0; SLOTS];
    let mut at = 0;
    while at < TABLE.len() {
        let (name, value) = TABLE[at];
        let mut hash = hash::of_name(name);
        if !by_name {
            hash = hash::after(hash, value);
        }
        if !by_name || at == 0 || !same(TABLE[at - 1].0, name) {
            let slot = hash::short(hash) as usize % SLOTS;
            assert!(slots[slot] == 0, "two lines have one slot: choose another hash::SEED");
            slots[slot] = at as u8 + 1;
        }
        at += 1;
    }
    slots
}

/// For each line: the number of lines with the same name, counted from this line on.
static SAME_NAME: [u8; 61] = same_name();

const fn same_name() -> [u8; 61] {
    let mut counts = [1; 61];
    let mut at = TABLE.len() - 1;
    while at > 0 {
        at -= 1;
        if same(TABLE[at].0, TABLE[at + 1].0) {
            counts[at] = counts[at + 1] + 1;
        }
    }
    counts
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

/// Returns the index of the line with this name and value, or zero if there is none. `line_hash` is
/// the hash of the name and then of the value.
#[inline]
pub fn find_line(line_hash: u32, name: &[u8], value: &[u8]) -> usize {
    let index = usize::from(BY_LINE[line_hash as usize % SLOTS]);
    let line = LINES.get(index.wrapping_sub(1));
    if line.is_some_and(|line| *line == (name, value)) { index } else { 0 }
}

/// Returns the index of the first line whose name is `name`, or zero if there is none. `name_hash`
/// is the hash of `name`.
#[inline]
pub fn find_name(name_hash: u32, name: &[u8]) -> usize {
    let index = usize::from(BY_NAME[name_hash as usize % SLOTS]);
    let line = LINES.get(index.wrapping_sub(1));
    if line.is_some_and(|line| line.0 == name) { index } else { 0 }
}

/// Returns the index of the line with `value`, or zero. `first` is the index of the first line with
/// its name.
#[inline]
pub fn find_value(first: usize, value: &[u8]) -> usize {
    let count = SAME_NAME.get(first.wrapping_sub(1)).map_or(0, |count| usize::from(*count));
    (first..first + count).find(|index| LINES[index - 1].1 == value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(name: &[u8]) -> u32 {
        hash::short(hash::of_name(name))
    }

    #[test]
    fn each_line_is_found() {
        for ((name, value), index) in LINES.iter().zip(1..) {
            let line_hash = hash::short(hash::after(hash::of_name(name), value));
            assert_eq!(find_line(line_hash, name, value), index);
            assert_eq!(find_line(line_hash, name, b"another"), 0);
            let first = LINES.iter().position(|line| line.0 == *name).unwrap() + 1;
            assert_eq!(find_name(hash_of(name), name), first);
            assert_eq!(find_value(first, value), index);
            assert_eq!(find_value(first, b"another"), 0);
        }
        assert_eq!(find_value(0, b""), 0);
    }

    #[test]
    fn other_names_are_not_found() {
        for name in [&b""[..], b"x", b":pat", b":paths", b"www-authenticat", b"grpc-status"] {
            assert_eq!(find_name(hash_of(name), name), 0);
        }
        // An equal hash is not enough: the names are compared, too.
        assert_eq!(find_name(hash_of(b":path"), b":patH"), 0);
    }
}
