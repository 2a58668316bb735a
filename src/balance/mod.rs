//! Which endpoint takes the next request. Dry: the caller brings loads, time and randomness.

mod balancer;
mod key;
mod load;
mod maglev;

pub use balancer::{Balancer, Candidates};
pub use key::{HashKey, hash_key};
pub use load::{DEFAULT_RTT, EWMA_DECAY, Load};
pub use maglev::{Maglev, Member};

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
    /// The better of two by recent latency and load.
    PeakEwma,
    /// Always the same for the same key, as long as endpoints stay (Maglev).
    Hash(HashKey),
}
