//! Which rule a request falls under, and what that rule changes. Dry.

mod action;
mod cells;
mod host;
mod matcher;
mod rewrite;
mod rules;
mod split;
mod table;

use std::sync::Arc;
use std::time::Duration;

pub use action::{Action, Redirect, Respond};
pub use cells::RuleCells;
pub use host::HostPattern;
pub use matcher::{Matcher, Mismatch};
pub use rewrite::Rewrite;
pub use split::Split;
pub use table::{Looked, Table};

use crate::cells::PerWorker;
use crate::jwt::Requirement;
use crate::message::HeaderEdits;

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// Its place among all rules of the snapshot.
    pub index: u32,
    /// Its name; without one in the configuration `HOST#N`, N counting from 1.
    pub name: Box<str>,
    /// The host pattern under which it stands.
    pub host: Box<str>,
    /// `file:line` of its definition.
    pub place: Box<str>,
    /// Which requests it takes.
    pub matcher: Matcher,
    /// What it does with them.
    pub action: Action,
    /// From the request head to the end of the response; overrides the service's.
    pub timeout: Option<Duration>,
    /// The token that requests must carry; overrides the service's.
    pub jwt: Option<Arc<Requirement>>,
    /// What it changes in host and path.
    pub rewrite: Option<Rewrite>,
    /// What it changes in the fields of the request.
    pub request_headers: HeaderEdits,
    /// What it changes in the fields of the response.
    pub response_headers: HeaderEdits,
    /// Its counters; the same ones across reloads as long as host and name stay.
    pub stats: Arc<PerWorker<RuleCells>>,
}
