//! Which endpoint takes the next request. Dry: the caller brings loads, time and randomness.

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// The less loaded of two chosen at random (P2C), weights respected.
    #[default]
    LeastRequest,
    /// In turn, smooth weighted.
    RoundRobin,
    /// At random by weight.
    Random,
    /// The better of two by exponentially weighted latency and load.
    PeakEwma,
    /// Always the same for the same key, as long as endpoints stay (Maglev).
    Hash(HashKey),
}

/// What the hash policy hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The value of a request header.
    Header(Box<str>),
    /// The value of a cookie.
    Cookie(Box<str>),
    /// The client's IP address.
    SourceIp,
}

/// The lookup table of Maglev hashing.
#[derive(Debug)]
pub struct Maglev;
