//! Routing: finds the rule of a request, and applies the changes that the rule makes. Pure: no I/O,
//! no clock.

mod action;
mod cells;
mod fault;
mod host;
mod matcher;
mod mirror;
mod rewrite;
mod rules;
mod shift;
mod split;
mod sticky;
mod table;

use std::sync::Arc;
use std::time::Duration;

pub use action::{Action, Redirect, Respond};
pub use cells::RuleCells;
pub use fault::Fault;
pub use host::HostPattern;
pub use matcher::{CONNECT, Matcher, Mismatch, RareMatch};
pub use mirror::Mirror;
pub use rewrite::{RegexRewrite, Rewrite};
pub use shift::Shift;
pub use split::{Split, Turns};
pub use sticky::{Sticky, StickyCookie};
pub use table::{HTTP_PORT, HTTPS_PORT, Looked, Table};

use crate::cells::PerWorker;
use crate::jwt::Requirement;
use crate::message::HeaderEdits;
use crate::resilience::{GlobalLimit, LimitList, Priority, RetryPolicy};

/// A compiled route rule.
#[derive(Debug)]
pub struct Rule {
    /// The index of the rule among all rules of the snapshot.
    pub index: u32,
    /// The name. Without a name in the configuration it is `HOST#N`; N counts from 1.
    pub name: Box<str>,
    /// The host pattern that contains the rule.
    pub host: Box<str>,
    /// `file:line` of the definition.
    pub place: Box<str>,
    /// The conditions on requests.
    pub matcher: Matcher,
    /// The action for matching requests.
    pub action: Action,
    /// The value of a request that keeps it on its version. `None` means that requests are split by
    /// weight alone.
    pub sticky: Option<Box<Sticky>>,
    /// The time limit from the head of the request to the end of the response. It overrides the
    /// timeout of the service.
    pub timeout: Option<Duration>,
    /// When and how often requests are retried. It overrides the policy of the service.
    pub retries: Option<Arc<RetryPolicy>>,
    /// The faults that are injected into requests.
    pub fault: Option<Box<Fault>>,
    /// Where copies of requests are sent. `None` means nowhere.
    pub mirror: Option<Box<Mirror>>,
    /// The rate limit of the rule.
    pub rate_limits: LimitList,
    /// The limit that a rate limit service counts.
    pub global_limit: Option<Arc<GlobalLimit>>,
    /// How important its requests are when the process is overloaded.
    pub priority: Option<Priority>,
    /// The maximum pause within the body of a request, until the response begins. It overrides the
    /// time of the listener.
    pub request_body_timeout: Option<Duration>,
    /// The maximum time in which no byte of an exchange passes, in either direction. It overrides
    /// the times of the service and of the listener.
    pub stream_idle_timeout: Option<Duration>,
    /// The token that requests must have. It overrides the token of the service.
    pub jwt: Option<Arc<Requirement>>,
    /// Changes to host and path before a request is forwarded.
    pub rewrite: Option<Rewrite>,
    /// Changes to the request's header fields.
    pub request_headers: HeaderEdits,
    /// Changes to the response's header fields.
    pub response_headers: HeaderEdits,
    /// The counters of the rule. They are kept over reloads while host and name stay the same.
    pub stats: Arc<PerWorker<RuleCells>>,
}

impl Rule {
    /// The shift of the rule.
    pub fn shift(&self) -> Option<&Arc<Shift>> {
        match &self.action {
            Action::Forward(split) => split.shift(),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }
}
