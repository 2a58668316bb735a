//! Connection ids that name the worker of their connection, so that the kernel can give each
//! datagram to the right worker (`runtime::udp`).

use std::time::Duration;

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

/// The length of our connection ids.
const ID_BYTES: usize = 8;

/// A worker among all workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The index of the worker, from 0.
    pub worker: usize,
    /// The number of workers.
    pub workers: usize,
}

impl Place {
    /// Whether datagrams with this first byte of the connection id belong to the worker.
    fn owns(self, first: u8) -> bool {
        usize::from(first) % self.workers.max(1) == self.worker
    }

    /// Turns a random byte into one that belongs to the worker.
    fn first_byte(self, random: u8) -> u8 {
        let workers = self.workers.clamp(1, 256);
        let groups = 256 / workers;
        let group = usize::from(random) % groups;
        (group * workers + self.worker) as u8
    }
}

/// Makes random ids whose first byte names the worker.
pub(super) struct Ids {
    place: Place,
    random: fastrand::Rng,
}

impl Ids {
    pub(super) const fn new(place: Place, random: fastrand::Rng) -> Self {
        Self { place, random }
    }
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        self.random.fill(&mut id);
        id[0] = self.place.first_byte(id[0]);
        ConnectionId::new(&id)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), quinn_proto::InvalidCid> {
        match id.first() {
            Some(first) if self.place.owns(*first) => Ok(()),
            _ => Err(quinn_proto::InvalidCid),
        }
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_its_worker_alone() {
        for workers in [1, 2, 3, 7, 64, 200, 256] {
            for worker in [0, workers / 2, workers - 1] {
                let place = Place { worker, workers };
                let mut ids = Ids::new(place, fastrand::Rng::with_seed(7));
                for _ in 0..100 {
                    let id = ids.generate_cid();
                    assert_eq!(id.len(), ID_BYTES);
                    assert_eq!(usize::from(id[0]) % workers, worker);
                    assert!(ids.validate(&id).is_ok());
                    let other = Place { worker: (worker + 1) % workers, workers };
                    let others = Ids::new(other, fastrand::Rng::with_seed(7));
                    assert_eq!(others.validate(&id).is_ok(), workers == 1);
                }
            }
        }
    }
}
