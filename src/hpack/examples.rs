//! The examples of RFC 7541 C.2 to C.6, and a receiver of field lines, for tests.

use super::Fields;

/// A name, a value, and whether the line is never indexed.
pub type Line = (Vec<u8>, Vec<u8>, bool);

/// Stores all field lines of a block.
#[derive(Default)]
pub struct Lines(pub Vec<Line>);

impl Fields for Lines {
    fn field(&mut self, name: &[u8], value: &[u8], never_indexed: bool) {
        self.0.push((name.to_vec(), value.to_vec(), never_indexed));
    }
}

/// An example of RFC 7541 Appendix C: a header block and its field lines.
pub struct Example {
    pub section: &'static str,
    /// The block in hexadecimal digits, as in the RFC.
    pub block: &'static str,
    pub lines: &'static [(&'static str, &'static str)],
    /// The size of the dynamic table after the block.
    pub table_bytes: usize,
}

impl Example {
    pub fn bytes(&self) -> Vec<u8> {
        let digits: String = self.block.split_whitespace().collect();
        let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect()
    }
}

const fn example(
    section: &'static str,
    block: &'static str,
    lines: &'static [(&'static str, &'static str)],
    table_bytes: usize,
) -> Example {
    Example { section, block, lines, table_bytes }
}

/// RFC 7541 C.2. Each example begins with an empty dynamic table.
pub const SINGLE: [Example; 4] = [
    example(
        "C.2.1",
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
        &[("custom-key", "custom-header")],
        55,
    ),
    example("C.2.2", "040c 2f73 616d 706c 652f 7061 7468", &[(":path", "/sample/path")], 0),
    example("C.2.3", "1008 7061 7373 776f 7264 0673 6563 7265 74", &[("password", "secret")], 0),
    example("C.2.4", "82", &[(":method", "GET")], 0),
];

const REQUESTS: [&[(&str, &str)]; 3] = [
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")],
    &[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "www.example.com"),
        ("cache-control", "no-cache"),
    ],
    &[
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/index.html"),
        (":authority", "www.example.com"),
        ("custom-key", "custom-value"),
    ],
];

/// RFC 7541 C.3: requests without Huffman strings.
pub const PLAIN_REQUESTS: [Example; 3] = [
    example("C.3.1", "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", REQUESTS[0], 57),
    example("C.3.2", "8286 84be 5808 6e6f 2d63 6163 6865", REQUESTS[1], 110),
    example(
        "C.3.3",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
        REQUESTS[2],
        164,
    ),
];

/// RFC 7541 C.4: the requests of C.3 with Huffman strings.
pub const HUFFMAN_REQUESTS: [Example; 3] = [
    example("C.4.1", "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", REQUESTS[0], 57),
    example("C.4.2", "8286 84be 5886 a8eb 1064 9cbf", REQUESTS[1], 110),
    example(
        "C.4.3",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        REQUESTS[2],
        164,
    ),
];

const COOKIE: &str = "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
const RESPONSES: [&[(&str, &str)]; 3] = [
    &[
        (":status", "302"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "307"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:21 GMT"),
        ("location", "https://www.example.com"),
    ],
    &[
        (":status", "200"),
        ("cache-control", "private"),
        ("date", "Mon, 21 Oct 2013 20:13:22 GMT"),
        ("location", "https://www.example.com"),
        ("content-encoding", "gzip"),
        ("set-cookie", COOKIE),
    ],
];

/// RFC 7541 C.5: responses without Huffman strings, with a table of 256 bytes.
pub const PLAIN_RESPONSES: [Example; 3] = [
    example(
        "C.5.1",
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133
         2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70
         6c65 2e63 6f6d",
        RESPONSES[0],
        222,
    ),
    example("C.5.2", "4803 3330 37c1 c0bf", RESPONSES[1], 222),
    example(
        "C.5.3",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d
         54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049
         5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e
         3d31",
        RESPONSES[2],
        215,
    ),
];

/// RFC 7541 C.6: the responses of C.5 with Huffman strings.
pub const HUFFMAN_RESPONSES: [Example; 3] = [
    example(
        "C.6.1",
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6
         2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        RESPONSES[0],
        222,
    ),
    example("C.6.2", "4883 640e ffc1 c0bf", RESPONSES[1], 222),
    example(
        "C.6.3",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab
         77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f
         9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        RESPONSES[2],
        215,
    ),
];
