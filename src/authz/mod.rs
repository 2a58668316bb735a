//! Who may do what: the rules of `authorization:`, and what they say of a request or an L4
//! connection. Dry.
//!
//! The model is Istio's AuthorizationPolicy (sources, operations, conditions; deny before allow).
//! Where a value can be read in two ways, or is not known at all, the doubt is decided against the
//! request: a rule that allows takes only what surely fits, a rule that denies takes everything
//! that possibly fits ([`Certainty`]).

mod cells;
mod condition;
mod decision;
mod facts;
mod identity;
mod operation;
pub mod path;
mod path_pattern;
mod pattern;
mod policies;
mod source;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

pub use cells::RuleCells;
pub use condition::When;
pub use decision::{Decision, Outcome, Report, Verdict};
pub use identity::identity_pattern;
pub use operation::{Operation, host_pattern};
pub use path::{EscapedSlashes, Normal};
pub use path_pattern::PathPattern;
pub use pattern::{Certainty, Choice};
pub use policies::Policies;
pub use source::Source;

use crate::cells::PerWorker;
use crate::jwt::Claims;
use crate::message::HeadView;
use facts::Facts;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets it pass, unless a rule denies it; what no allow rule of its service matches is denied.
    Allow,
    /// Refuses it.
    Deny,
    /// Lets it pass and reports it. It takes what a deny rule with the same conditions would take.
    Audit,
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name; without one in the configuration `authorization#N`, N counting from 1.
    pub name: Box<str>,
    /// `file:line` of its definition.
    pub place: Box<str>,
    /// What it does.
    pub action: Action,
    /// It only reports what it would have done.
    pub dry_run: bool,
    /// Peers, of which one must fit; empty for anyone.
    pub from: Vec<Source>,
    /// Operations, of which one must fit; empty for anything.
    pub to: Vec<Operation>,
    /// What must hold besides.
    pub when: When,
    /// Its counters; the same ones across reloads as long as the name stays.
    pub stats: Arc<PerWorker<RuleCells>>,
}

impl Rule {
    /// Whether it is about this service at all: only then does an allow rule deny what it does
    /// not match.
    fn concerns(&self, service: &str) -> bool {
        self.to.is_empty() || self.to.iter().any(|operation| operation.concerns(service))
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        let certainty = match self.action {
            Action::Allow => Certainty::Sure,
            Action::Deny | Action::Audit => Certainty::Possible,
        };
        (self.to.is_empty() || self.to.iter().any(|to| to.holds(facts, certainty)))
            && (self.from.is_empty() || self.from.iter().any(|from| from.holds(facts, certainty)))
            && self.when.holds(facts, certainty)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// The SPIFFE ID (`spiffe://...`) that its certificate has proven; `None` without one.
    pub identity: Option<&'a str>,
    /// The other end of its connection; `None` for a Unix-domain socket.
    pub ip: Option<IpAddr>,
    /// The client behind it, where a trusted hop has named one.
    pub forwarded_ip: Option<IpAddr>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The service that it would go to; empty when the proxy answers itself.
    pub service: &'a str,
    /// The local port that the connection came to, or was meant for; 0 where there is none.
    pub port: u16,
    /// The address that a captured connection was meant for; `None` for others.
    pub ip: Option<IpAddr>,
    /// The request; `None` for an L4 connection.
    pub request: Option<Request<'a>>,
}

/// An HTTP request, of whatever version.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// Host and optional port, which is ignored.
    pub host: &'a [u8],
    /// Its path as it would be sent on: without query, and [normalised](path::normalise).
    pub path: &'a [u8],
    /// Its fields.
    pub head: HeadView<'a>,
    /// What its token says, if it had one that was accepted.
    pub claims: Option<&'a Claims>,
}
