//! The target of captured traffic that no route leads elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Capture, Direction, Leads, Unknown};
use crate::cluster::Destination;
use crate::route::Rule;

/// The target of an original destination. Indices are into `Snapshot::services`.
#[derive(Debug)]
pub enum OriginalTarget<'c> {
    /// Any endpoint of a service with this virtual address, by this rule (outbound).
    Service(Destination, &'c Arc<Rule>),
    /// The endpoint with this address, with the settings of its service (outbound).
    Endpoint(u32),
    /// The workload (inbound). See [`Capture::workload`].
    Workload,
    /// The original destination itself. No service has it, and that is allowed (outbound).
    Unknown,
    /// Nothing. No service has the original destination, and that is not allowed (outbound).
    Denied,
}

impl Capture {
    /// The target of traffic to `original` that no route leads elsewhere.
    pub fn target(&self, original: SocketAddr) -> OriginalTarget<'_> {
        if self.direction == Direction::Inbound {
            return OriginalTarget::Workload;
        }
        match self.addresses.find(original) {
            Some(Leads::Service(destination, rule)) => OriginalTarget::Service(destination, rule),
            Some(Leads::Endpoint { service }) => OriginalTarget::Endpoint(service),
            None => self.unknown_target(),
        }
    }

    /// The target of traffic to a destination that no service has.
    pub fn unknown_target(&self) -> OriginalTarget<'_> {
        match self.unknown {
            Unknown::Allow => OriginalTarget::Unknown,
            Unknown::Deny => OriginalTarget::Denied,
        }
    }

    /// The index of the service that the workload is at `original` (inbound). It has the original
    /// destination or the address of the workload. `None` means that no service has them.
    pub fn workload(&self, original: SocketAddr) -> Option<u32> {
        let find = |address| self.addresses.find(address);
        let leads = find(original).or_else(|| find(self.application(original)))?;
        match leads {
            Leads::Service(Destination { service, .. }, _) | Leads::Endpoint { service } => {
                Some(service)
            }
        }
    }
}
