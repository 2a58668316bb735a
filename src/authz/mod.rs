//! Authorization: evaluates the rules of `authorization:` for a request or an L4 connection. Pure:
//! no I/O, no clock.
//!
//! The model is Istio's AuthorizationPolicy (sources, operations, conditions; deny before allow).
//! If a value is unknown or ambiguous, the decision goes against the request: an allow rule needs a
//! sure match, and a deny rule needs only a possible one ([`Certainty`]).

mod cells;
mod condition;
mod decision;
mod facts;
mod identity;
mod mismatch;
mod operation;
pub mod path;
mod path_pattern;
mod pattern;
mod policies;
mod source;

use std::net::IpAddr;
use std::sync::Arc;

pub use cells::RuleCells;
pub use condition::When;
pub use decision::{Decision, Outcome, Report, Verdict};
pub use identity::identity_pattern;
pub use mismatch::{Entries, Mismatch};
pub use operation::{ANY_METHOD, Operation, host_pattern};
pub use path::{EscapedSlashes, Normal};
pub use path_pattern::PathPattern;
pub use pattern::{Certainty, Choice};
pub use policies::{Looked, Policies};
pub use source::Source;

use crate::cells::PerWorker;
use crate::jwt::Claims;
use crate::message::HeadView;
use facts::Facts;

/// The action of a rule for matching requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allow the request, unless a rule denies it. A request that matches no allow rule of its
    /// service is denied.
    Allow,
    /// Deny the request.
    Deny,
    /// Report the request, without an effect on the decision. An audit rule matches like a deny
    /// rule with the same conditions.
    Audit,
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// The name; the default is `authorization#N`, and N starts at 1.
    pub name: Box<str>,
    /// `file:line` of its definition.
    pub place: Box<str>,
    /// The decision about matching requests.
    pub action: Action,
    /// Whether the rule only reports what it would decide.
    pub dry_run: bool,
    /// Whether the rule is only about traffic of others to this workload, and not about traffic
    /// from this workload.
    pub inbound_only: bool,
    /// The client must match one of these sources. Empty means any client.
    pub from: Vec<Source>,
    /// The request must match one of these operations. Empty means any operation.
    pub to: Vec<Operation>,
    /// Additional conditions, which must all match.
    pub when: When,
    /// The counters of this rule. A reload keeps them if the rule keeps its name.
    pub stats: Arc<PerWorker<RuleCells>>,
}

impl Rule {
    /// Whether the rule applies to this service. Only then can an allow rule deny requests that do
    /// not match.
    fn concerns(&self, facts: &Facts<'_>) -> bool {
        !(self.inbound_only && facts.outbound)
            && (self.to.is_empty() || self.to.iter().any(|to| to.concerns(facts.service)))
    }

    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.check(facts).is_ok()
    }

    /// Checks every condition. The error is the first condition that does not match.
    fn check(&self, facts: &Facts<'_>) -> Result<(), Mismatch<'_>> {
        let certainty = match self.action {
            Action::Allow => Certainty::Sure,
            Action::Deny | Action::Audit => Certainty::Possible,
        };
        if self.inbound_only && facts.outbound {
            return Err(Mismatch::Outbound);
        }
        Entries::check(&self.to, |to| to.mismatch(facts, certainty)).map_err(Mismatch::To)?;
        let from = Entries::check(&self.from, |from| from.mismatch(facts, certainty));
        from.map_err(Mismatch::From)?;
        self.when.check(facts, certainty)
    }
}

/// The client of a request or connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peer<'a> {
    /// The verified SPIFFE ID (`spiffe://...`) of the client certificate. `None` means that the
    /// client has none.
    pub identity: Option<&'a str>,
    /// The peer address of the connection. `None` means a Unix-domain socket.
    pub ip: Option<IpAddr>,
    /// The client address that a trusted proxy reported.
    pub forwarded_ip: Option<IpAddr>,
}

/// The target of a decision: a service, and the request if the traffic is HTTP.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The name of the service of the route. Empty if the proxy itself responds.
    pub service: &'a str,
    /// The local port of the connection, or its original destination port; 0 if there is none.
    pub port: u16,
    /// The original destination address of a captured connection. `None` means not captured.
    pub ip: Option<IpAddr>,
    /// Whether the client is this workload.
    pub outbound: bool,
    /// The request. `None` means an L4 connection.
    pub request: Option<Request<'a>>,
}

/// An HTTP request of any version.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The request method.
    pub method: &'a [u8],
    /// The host with an optional port, which is ignored.
    pub host: &'a [u8],
    /// The path as it is forwarded: without the query, and [normalised](path::normalise).
    pub path: &'a [u8],
    /// The header fields.
    pub head: HeadView<'a>,
    /// The claims of the accepted token. `None` if the request has no token.
    pub claims: Option<&'a Claims>,
}
