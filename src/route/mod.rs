//! Which rule a request falls under. Dry.

use std::sync::Arc;
use std::time::Duration;

use crate::cluster::Destination;
use crate::telemetry::counters::{PerWorker, RouteCells};

/// The compiled routes of a listener.
#[derive(Debug)]
pub struct Table;

/// What a rule does with a request that it matches.
#[derive(Debug)]
pub enum Action {
    /// Sends it to a service.
    Forward(Split),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers itself.
    Respond(Respond),
}

/// A compiled rule.
#[derive(Debug)]
pub struct Rule {
    /// Its name; without one in the configuration `HOST#N`, N counting from 1.
    pub name: Box<str>,
    /// The host pattern under which it stands.
    pub host: Box<str>,
    /// `file:line` of its definition.
    pub place: Box<str>,
    /// What it does.
    pub action: Action,
    /// From the request head to the end of the response; overrides the service's.
    pub timeout: Option<Duration>,
    /// Its counters; the same ones across reloads as long as host and name stay.
    pub stats: Arc<PerWorker<RouteCells>>,
}

/// Destinations with exact shares.
#[derive(Debug)]
pub struct Split {
    /// The order of destinations, repeated for ever.
    pub sequence: Vec<Destination>,
}

/// A redirect.
#[derive(Debug)]
pub struct Redirect;

/// A fixed answer.
#[derive(Debug)]
pub struct Respond;
