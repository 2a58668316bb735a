//! A small HPACK (RFC 7541): sent fields are never indexed, and received fields are fully decoded.

use std::collections::{HashMap, VecDeque};
use std::sync::LazyLock;

/// A block of fields, names first.
pub type Fields = Vec<(String, String)>;

/// Decodes the header blocks of the peer, and holds the peer's dynamic table.
pub struct Decoder {
    table: VecDeque<(String, String)>,
    bytes: usize,
    bytes_max: usize,
    /// The table size that this side's SETTINGS allow.
    pub allowed: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), bytes: 0, bytes_max: 4096, allowed: 4096 }
    }
}

impl Decoder {
    /// The fields of a complete block.
    pub fn decode(&mut self, mut block: &[u8]) -> Fields {
        let mut fields = Fields::new();
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = integer(&mut block, 7);
                fields.push(self.entry(index));
                continue;
            }
            if first & 0xe0 == 0x20 {
                self.bytes_max = integer(&mut block, 5);
                assert!(self.bytes_max <= self.allowed, "a table larger than allowed");
                self.evict();
                continue;
            }
            let kept = first & 0x40 != 0;
            let index = integer(&mut block, if kept { 6 } else { 4 });
            let name = if index > 0 { self.entry(index).0 } else { text(&mut block) };
            let field = (name, text(&mut block));
            if kept {
                self.bytes += size(&field);
                self.table.push_front(field.clone());
                self.evict();
            }
            fields.push(field);
        }
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        let entry = match index.checked_sub(STATIC.len() + 1) {
            Some(at) => self.table.get(at).cloned(),
            None => STATIC.get(index - 1).map(|entry| {
                let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                (name.to_owned(), value.to_owned())
            }),
        };
        entry.expect("an index in the table")
    }

    fn evict(&mut self) {
        while self.bytes > self.bytes_max {
            self.bytes -= size(&self.table.pop_back().expect("what was counted"));
        }
    }
}

fn size((name, value): &(String, String)) -> usize {
    name.len() + value.len() + 32
}

fn integer(block: &mut &[u8], prefix: u32) -> usize {
    let mut next = || {
        let (first, rest) = block.split_first().expect("a whole integer");
        *block = rest;
        usize::from(*first)
    };
    let most = (1 << prefix) - 1;
    let mut value = next() & most;
    let mut shift = 0;
    while value >= most {
        let byte = next();
        value += (byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

fn text(block: &mut &[u8]) -> String {
    let packed = block.first().expect("a length") & 0x80 != 0;
    let (bytes, rest) = {
        let len = integer(block, 7);
        block.split_at(len)
    };
    *block = rest;
    let bytes = if packed { unpack(bytes) } else { bytes.to_vec() };
    String::from_utf8(bytes).expect("text")
}

/// Writes a field without indexing and without Huffman coding.
pub fn put(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for part in [name, value] {
        match part.len() {
            len @ ..127 => block.push(len as u8),
            len => block.extend([127, (len - 127) as u8 & 0x7f | 0x80, ((len - 127) >> 7) as u8]),
        }
        block.extend(part.bytes());
    }
}

/// The number of bits of the Huffman code of each byte, and then of the end, in base 36. The code
/// is canonical: codes with the same number of bits are consecutive (RFC 7541 appendix B).
const BITS: &str = "\
dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad677777777777777\
77777777878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnno\
mlkmmnnlnmmolmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqn\
qrqqrrrrrsrrrrrqu";

static SYMBOLS: LazyLock<HashMap<(u32, u32), u8>> = LazyLock::new(|| {
    let bits = |symbol: usize| BITS.as_bytes()[symbol] as char;
    let mut symbols: Vec<usize> = (0..256).collect();
    symbols.sort_by_key(|&symbol| bits(symbol));
    let (mut code, mut before) = (0, 0);
    let pair = |symbol: usize| {
        let len = bits(symbol).to_digit(36).unwrap();
        code <<= len - before;
        before = len;
        code += 1;
        ((len, code - 1), symbol as u8)
    };
    symbols.into_iter().map(pair).collect()
});

fn unpack(bytes: &[u8]) -> Vec<u8> {
    let (mut out, mut len, mut code) = (Vec::new(), 0, 0);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| u32::from(byte >> at & 1))) {
        (len, code) = (len + 1, code << 1 | bit);
        if let Some(&symbol) = SYMBOLS.get(&(len, code)) {
            out.push(symbol);
            (len, code) = (0, 0);
        }
    }
    assert!(len < 8 && code == (1 << len) - 1, "filled up with ones");
    out
}

/// RFC 7541 appendix A.
const STATIC: [&str; 61] = [
    ":authority",
    ":method=GET",
    ":method=POST",
    ":path=/",
    ":path=/index.html",
    ":scheme=http",
    ":scheme=https",
    ":status=200",
    ":status=204",
    ":status=206",
    ":status=304",
    ":status=400",
    ":status=404",
    ":status=500",
    "accept-charset",
    "accept-encoding=gzip, deflate",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
];

#[test]
fn the_examples_of_rfc_7541_c_4_are_decoded() {
    let mut decoder = Decoder::default();
    let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
    let said = |fields: Fields| {
        let lines = fields.iter().map(|(name, value)| format!("{name}={value}"));
        lines.collect::<Vec<_>>().join(" ")
    };
    let begin = ":method=GET :scheme=http :path=/ :authority=www.example.com";
    assert_eq!(said(decoder.decode(first)), begin);
    assert_eq!(said(decoder.decode(second)), format!("{begin} cache-control=no-cache"));
    let mut block = Vec::new();
    put(&mut block, "x", &"y".repeat(300));
    assert_eq!(said(decoder.decode(&block)), format!("x={}", "y".repeat(300)));
}
