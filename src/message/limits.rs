//! Limits on the parts of a message.

/// Limits on one message of any HTTP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum bytes of a request or response head.
    pub header_bytes: usize,
    /// Maximum number of field lines in a head.
    pub headers: usize,
    /// Maximum bytes of a request target.
    pub uri_bytes: usize,
    /// Maximum bytes of chunk extensions in one message.
    pub chunk_extension_bytes: usize,
    /// Maximum bytes of the trailer section of one message.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 60 * 1024,
            headers: 100,
            uri_bytes: 8 * 1024,
            chunk_extension_bytes: 4 * 1024,
            trailer_bytes: 8 * 1024,
        }
    }
}
