//! Finds the target of captured traffic that no route matches.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Capture, Direction, Leads, Unknown};
use crate::cluster::Destination;
use crate::route::Rule;

/// The target of captured traffic. Indices are into `Snapshot::services`.
#[derive(Debug)]
pub enum OriginalTarget<'c> {
    /// Any endpoint of the service with this virtual address. This rule applies (outbound).
    Service(Destination, &'c Arc<Rule>),
    /// The endpoint with this address, with the settings of its service (outbound).
    Endpoint(u32),
    /// The workload (inbound). [`Capture::workload`] finds its service.
    Workload,
    /// The original destination itself. No service has it, but `unknown` allows it (outbound).
    Unknown,
    /// No target. No service has the original destination, and `unknown` denies it (outbound).
    Denied,
}

impl Capture {
    /// Returns the target of traffic to `original` that no route matches.
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

    /// Returns the target of traffic to a destination that no service has.
    pub fn unknown_target(&self) -> OriginalTarget<'_> {
        match self.unknown {
            Unknown::Allow => OriginalTarget::Unknown,
            Unknown::Deny => OriginalTarget::Denied,
        }
    }

    /// Returns the index of the service that the workload provides at `original` (inbound): the
    /// service that has the original destination, or the address of the workload. `None` means that
    /// no service has these addresses.
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
