//! The compiled health check of a service.

use std::fmt;
use std::time::Duration;

use super::Thresholds;

/// The compiled health check of a service.
#[derive(Debug)]
pub struct Check {
    /// The request or connection of each check.
    pub ask: Ask,
    /// The time from the end of a check to the start of the next, with a jitter of one tenth.
    pub interval: Duration,
    /// The time limit of one check. A check that takes longer fails.
    pub timeout: Duration,
    /// How many consecutive results change the state of an endpoint.
    pub thresholds: Thresholds,
}

/// The request or connection with which a health check asks an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Open a connection, with a TLS handshake if the service uses TLS.
    Tcp,
    /// Request an HTTP resource.
    Http {
        /// The request method: GET or HEAD.
        method: Box<str>,
        /// The path with its query.
        path: Box<str>,
        /// The value of the Host field.
        host: Box<str>,
        /// The response statuses that count as success.
        statuses: Statuses,
    },
    /// Call the gRPC method `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service name in the request. Empty means the whole server.
        service: Box<str>,
        /// The value of the `:authority` field.
        authority: Box<str>,
    },
}

/// Ranges of status codes, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Vec<(u16, u16)>);

impl Statuses {
    /// Whether a range contains `status`.
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
    /// Whether both checks send the same request at the same times, so that a reload need not
    /// restart them.
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
