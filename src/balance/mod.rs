//! Load balancing: chooses the endpoint of the next request. Pure: the caller passes loads, time
//! and random numbers.

mod balancer;
mod key;
mod levels;
mod load;
mod locality;
mod maglev;
mod position;
mod takers;

pub use balancer::{Balancer, Candidates};
pub use key::{HashKey, cookies, hash_key, hash_point, key_point};
pub use load::{DEFAULT_RTT, EWMA_DECAY, Load};
pub use locality::{Level, LevelHealth, LevelShare, Locality, OVERPROVISIONING_FACTOR};
pub use maglev::{Maglev, Member};
pub use position::{Position, is_within};

/// The load balancing policy.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// The endpoint with fewer active requests of two random ones (P2C), by weight.
    #[default]
    LeastRequest,
    /// Smooth weighted round robin.
    RoundRobin,
    /// Random, by weight.
    Random,
    /// The better of two random endpoints, by recent latency and number of active requests.
    PeakEwma,
    /// The same endpoint for the same key while the endpoints stay the same (Maglev).
    Hash(HashKey),
}

impl Policy {
    /// Whether requests with the same key go to the same endpoint.
    pub fn is_hash(&self) -> bool {
        matches!(self, Self::Hash(_))
    }
}
