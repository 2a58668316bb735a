//! Global rate limits: a rate limit service counts the requests of many proxies, by Envoy's
//! protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::log_budget::LogBudget;
use super::rate_limit::{LimitFields, RateLimit, Scope};
use crate::cells::{Count, Histogram, PerWorker};
use crate::error::{Flag, Refusal};
use crate::grpc::rate_limit::Question;

/// The default time limit of a question to the service, as in Envoy.
pub const GLOBAL_TIMEOUT: Duration = Duration::from_millis(20);

/// How many descriptors a global limit may have, and how many entries a descriptor.
pub const DESCRIPTORS_MAX: usize = 64;

/// A global rate limit.
#[derive(Debug)]
pub struct GlobalLimit {
    /// The part of the configuration that it belongs to.
    pub scope: Scope,
    /// The host of the rule. Empty for other scopes.
    pub host: Box<str>,
    /// The name of the listener, rule or service.
    pub name: Box<str>,
    /// `file:line` of the definition.
    pub place: Box<str>,
    /// The index of the rate limit service among the services of the snapshot.
    pub service: u32,
    /// Its name.
    pub service_name: Box<str>,
    /// The domain: the set of limits of the service.
    pub domain: Box<str>,
    /// The descriptors. Each may have a limit of its own.
    pub descriptors: Vec<Descriptor>,
    /// The time limit of a question.
    pub timeout: Duration,
    /// The decision when there is no answer.
    pub on_failure: OnFailure,
    /// The name of limits without one: a string of structured fields, with its quotes.
    pub label: Box<str>,
    /// The header fields of responses.
    pub fields: LimitFields,
    /// The counters. They survive reloads while the name stays the same.
    pub stats: Arc<PerWorker<GlobalLimitCells>>,
}

/// The rate limits of a configuration.
#[derive(Debug, Default)]
pub struct RateLimits {
    /// Those that the proxy counts.
    pub local: Vec<Arc<RateLimit>>,
    /// Those that a rate limit service counts.
    pub global: Vec<Arc<GlobalLimit>>,
}

/// The decision when the rate limit service is slow or away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The request passes.
    #[default]
    Allow,
    /// The request is refused.
    Deny,
}

/// A list of entries that the service compares with its limits.
#[derive(Debug, PartialEq, Eq)]
pub struct Descriptor(pub Vec<Entry>);

/// An entry of a descriptor.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Box<str>,
    /// The source of the value.
    pub value: Fact,
}

/// The source of the value of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The first header field with this name. Without the field, the value is the other text, or
    /// else the request has no such descriptor.
    Header(Box<str>, Option<Box<str>>),
    /// The address of the client.
    Source,
    /// The SPIFFE ID of the client.
    Identity,
    /// The method.
    Method,
    /// The path, without the query.
    Path,
    /// The name of the rule.
    Rule,
    /// The name of the service.
    Service,
    /// This text.
    Text(Box<str>),
}

/// The facts about a request from which the values of descriptor entries are taken.
pub trait Facts {
    /// The value of the first header field called `name`.
    fn header(&self, name: &str) -> Option<&[u8]>;
    /// The address of the client, as text.
    fn source(&self) -> Option<&str>;
    /// The SPIFFE ID of the client.
    fn identity(&self) -> Option<&str>;
    /// The method.
    fn method(&self) -> &[u8];
    /// The path, without the query.
    fn path(&self) -> &[u8];
    /// The name of the rule.
    fn rule(&self) -> &str;
    /// The name of the service.
    fn service(&self) -> &str;
}

impl GlobalLimit {
    /// Writes the question about a request to `out`. Returns false if there is nothing to ask,
    /// because the request has none of the descriptors.
    pub fn ask(&self, facts: &impl Facts, out: &mut Vec<u8>) -> bool {
        let mut question = Question::begin(out, &self.domain);
        for Descriptor(entries) in &self.descriptors {
            if entries.iter().any(|entry| entry.value.of(facts).is_none()) {
                continue;
            }
            question.descriptor(|descriptor| {
                for Entry { key, value } in entries {
                    descriptor.entry(key, value.of(facts).unwrap_or_default());
                }
            });
        }
        let asks = !question.is_empty();
        question.end(1);
        asks
    }

    /// The refusal of a request over a limit.
    pub fn over_limit(&self) -> Refusal {
        let detail = match self.scope {
            Scope::Listener => "too many requests for the global rate limit of the listener",
            Scope::Route => "too many requests for the global rate limit of the route",
            Scope::Service => "too many requests for the global rate limit of the service",
        };
        Refusal { status: 429, flag: Flag::RateLimited, detail }
    }

    /// The refusal of a request without an answer. `None`: the request passes.
    pub fn failed(&self) -> Option<Refusal> {
        (self.on_failure == OnFailure::Deny).then_some(NO_ANSWER)
    }
}

const NO_ANSWER: Refusal = Refusal {
    status: 503,
    flag: Flag::RateLimitService,
    detail: "the rate limit service did not answer",
};

impl Fact {
    fn of<'f>(&'f self, facts: &'f impl Facts) -> Option<&'f [u8]> {
        match self {
            Self::Header(name, other) => {
                facts.header(name).or_else(|| other.as_deref().map(str::as_bytes))
            }
            Self::Source => facts.source().map(str::as_bytes),
            Self::Identity => facts.identity().map(str::as_bytes),
            Self::Method => Some(facts.method()),
            Self::Path => Some(facts.path()),
            Self::Rule => Some(facts.rule().as_bytes()),
            Self::Service => Some(facts.service().as_bytes()),
            Self::Text(text) => Some(text.as_bytes()),
        }
    }

    /// The key of an entry that is written without one: as in Envoy, where Envoy has one.
    pub fn key(&self) -> &str {
        match self {
            Self::Header(name, _) => name,
            Self::Source => "remote_address",
            Self::Identity => "identity",
            Self::Method => "method",
            Self::Path => "path",
            Self::Rule => "rule",
            Self::Service => "destination_cluster",
            Self::Text(_) => "generic_key",
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name, None) => write!(f, "header {name}"),
            Self::Header(name, Some(other)) => write!(f, "header {name}, or else {other:?}"),
            Self::Source => f.write_str("source"),
            Self::Identity => f.write_str("identity"),
            Self::Method => f.write_str("method"),
            Self::Path => f.write_str("path"),
            Self::Rule => f.write_str("rule"),
            Self::Service => f.write_str("service"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl fmt::Display for GlobalLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service_name, domain, timeout, .. } = self;
        let otherwise = match self.on_failure {
            OnFailure::Allow => "passes",
            OnFailure::Deny => "is refused",
        };
        write!(f, "asks {service_name}, domain {domain}, for each of")?;
        for (at, Descriptor(entries)) in self.descriptors.iter().enumerate() {
            f.write_str(if at == 0 { " (" } else { ", (" })?;
            for (at, Entry { key, value }) in entries.iter().enumerate() {
                write!(f, "{}{key}: {value}", if at == 0 { "" } else { ", " })?;
            }
            f.write_str(")")?;
        }
        write!(f, "; a request without an answer in {timeout:?} {otherwise}")
    }
}

/// The counters of a global rate limit, for one worker.
#[derive(Debug, Default)]
pub struct GlobalLimitCells {
    /// Requests that the service let pass.
    pub ok: Count,
    /// Requests over a limit.
    pub over_limit: Count,
    /// Questions without an answer.
    pub errors: Count,
    /// Requests that passed without an answer.
    pub failure_mode_allowed: Count,
    /// The lines of refused requests.
    pub lines: LogBudget,
    /// The time to the answer, or to the error.
    pub duration: Histogram,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resilience::quoted;

    struct Request(Option<&'static str>);

    impl Facts for Request {
        fn header(&self, name: &str) -> Option<&[u8]> {
            self.0.filter(|_| name == "x-user").map(str::as_bytes)
        }
        fn source(&self) -> Option<&str> {
            Some("10.0.0.1")
        }
        fn identity(&self) -> Option<&str> {
            None
        }
        fn method(&self) -> &[u8] {
            b"GET"
        }
        fn path(&self) -> &[u8] {
            b"/a"
        }
        fn rule(&self) -> &str {
            "*#1"
        }
        fn service(&self) -> &str {
            "app"
        }
    }

    fn limit(descriptors: Vec<Vec<Fact>>) -> GlobalLimit {
        let entry = |value: Fact| Entry { key: value.key().into(), value };
        let descriptor =
            |facts: Vec<Fact>| Descriptor(facts.into_iter().map(entry).collect::<Vec<_>>());
        GlobalLimit {
            scope: Scope::Route,
            host: "*".into(),
            name: "*#1".into(),
            place: "a.yaml:1".into(),
            service: 0,
            service_name: "limits".into(),
            domain: "shop".into(),
            descriptors: descriptors.into_iter().map(descriptor).collect(),
            timeout: GLOBAL_TIMEOUT,
            on_failure: OnFailure::Deny,
            label: quoted("*#1"),
            fields: LimitFields::default(),
            stats: Arc::new(PerWorker::new(1)),
        }
    }

    #[test]
    fn a_request_has_the_descriptors_whose_facts_it_has() {
        let user = || Fact::Header("x-user".into(), None);
        let or_else = Fact::Header("x-user".into(), Some("nobody".into()));
        let all = limit(vec![
            vec![Fact::Source, Fact::Method, Fact::Path],
            vec![user(), Fact::Rule],
            vec![Fact::Identity],
            vec![Fact::Text("login".into()), Fact::Service, or_else],
        ]);
        let mut out = Vec::new();
        for (request, present, absent) in [
            (Request(Some("ada")), &["ada", "10.0.0.1", "/a", "app", "login"][..], "nobody"),
            (Request(None), &["nobody", "GET", "generic_key"], "*#1"),
        ] {
            assert!(all.ask(&request, &mut out));
            let text = String::from_utf8_lossy(&out);
            assert!(present.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains(absent) && !text.contains("identity"), "{text}");
        }
        for (facts, request, asks) in [
            (vec![user()], Request(None), false),
            (vec![user()], Request(Some("")), true),
            (vec![Fact::Source, Fact::Identity], Request(Some("ada")), false),
        ] {
            assert_eq!(limit(vec![facts]).ask(&request, &mut out), asks);
        }
    }

    #[test]
    fn a_limit_tells_what_it_asks() {
        let limit = limit(vec![vec![Fact::Source], vec![Fact::Text("a".into()), Fact::Path]]);
        assert_eq!(
            limit.to_string(),
            "asks limits, domain shop, for each of (remote_address: source), \
             (generic_key: \"a\", path: path); a request without an answer in 20ms is refused"
        );
        assert_eq!(limit.failed().unwrap().status, 503);
        assert_eq!(limit.over_limit().status, 429);
    }
}
