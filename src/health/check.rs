//! What endpoints of a service are asked, as compiled.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{Changes, Thresholds};

/// The health check of a service.
#[derive(Debug)]
pub struct Check {
    /// What is asked.
    pub ask: Ask,
    /// From the end of a check to the beginning of the next, give or take a tenth.
    pub interval: Duration,
    /// How long a check may take in all.
    pub timeout: Duration,
    /// How many answers in a row change an endpoint's state.
    pub thresholds: Thresholds,
    /// With fewer healthy endpoints than this, in percent, all of them take requests.
    pub panic_percent: u8,
    /// Counts changes of state; the same one across reloads as long as the name stays.
    pub changes: Arc<Changes>,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whether it takes a connection (and a TLS handshake where the service has TLS).
    Tcp,
    /// For a resource.
    Http {
        /// GET or HEAD.
        method: Box<str>,
        /// The path, with its query.
        path: Box<str>,
        /// The Host field.
        host: Box<str>,
        /// The answers that are good.
        statuses: Statuses,
    },
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked after; empty for the server as a whole.
        service: Box<str>,
        /// The `:authority` field.
        authority: Box<str>,
    },
}

/// Status codes, as ranges that include both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    /// Whether `status` is one of them.
    pub fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|&(first, last)| (first..=last).contains(&status))
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, &(first, last)) in self.0.iter().enumerate() {
            let before = if index == 0 { "" } else { ", " };
            match first == last {
                true => write!(f, "{before}{first}")?,
                false => write!(f, "{before}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl Check {
    /// Whether endpoints are asked the same, as often.
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.ask, self.interval, self.timeout) == (&other.ask, other.interval, other.timeout)
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ask {
            Ask::Tcp => f.write_str("tcp")?,
            Ask::Http { method, path, host, statuses } => {
                write!(f, "{method} {path} of {host}, good is {statuses}")?;
            }
            Ask::Grpc { service, .. } if service.is_empty() => f.write_str("grpc")?,
            Ask::Grpc { service, .. } => write!(f, "grpc {service}")?,
        }
        let Thresholds { healthy, unhealthy } = self.thresholds;
        write!(f, "; every {:?} within {:?}", self.interval, self.timeout)?;
        write!(f, "; healthy after {healthy}, unhealthy after {unhealthy}")
    }
}
