//! Load balancing: chooses the endpoint of the next request. Pure: the caller passes loads, time
//! and random numbers.

mod balancer;
mod key;
mod load;
mod maglev;

pub use balancer::{Balancer, Candidates};
pub use key::{HashKey, hash_key};
pub use load::{DEFAULT_RTT, EWMA_DECAY, Load};
pub use maglev::{Maglev, Member};

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
