//! Tells operators which condition of a rule did not match.

/// The first condition of a rule that did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch<'p> {
    /// No entry of `from` matches.
    From(Entries),
    /// No entry of `to` matches.
    To(Entries),
    /// The header field with this name does not match, or the connection is not HTTP.
    Header(&'p str),
    /// The claim with this name does not match, or the request has no token.
    Claim(&'p str),
    /// The issuer and subject of the token do not match, or the request has no token.
    Principal,
    /// The rule is only about traffic to this workload.
    Outbound,
}

/// The mismatch of a list of which one entry must match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entries {
    /// The number of entries.
    pub count: usize,
    /// The first field of the first entry that does not match.
    pub field: &'static str,
}

impl Entries {
    /// Checks whether one of `entries` matches. An empty list matches. `failed` returns the name of
    /// the first field of an entry that does not match.
    pub(super) fn check<E>(
        entries: &[E],
        failed: impl Fn(&E) -> Option<&'static str>,
    ) -> Result<(), Self> {
        let mut first = None;
        for entry in entries {
            match failed(entry) {
                None => return Ok(()),
                Some(field) => first = first.or(Some(field)),
            }
        }
        first.map_or(Ok(()), |field| Err(Self { count: entries.len(), field }))
    }
}

impl std::fmt::Display for Mismatch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (part, Entries { count, field }) = match self {
            Self::From(entries) => ("from", entries),
            Self::To(entries) => ("to", entries),
            Self::Header(name) => return write!(f, "the header {name} does not match"),
            Self::Claim(name) => return write!(f, "the claim {name} does not match"),
            Self::Principal => return f.write_str("the issuer and subject do not match"),
            Self::Outbound => return f.write_str("it is only about traffic to this workload"),
        };
        match count {
            1 => write!(f, "`{part}.{field}` does not match"),
            count => write!(f, "none of the {count} entries of `{part}` matches"),
        }
    }
}
