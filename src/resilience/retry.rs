//! The retry policy: the conditions for a retry, the wait before it, and the limits.

use std::fmt;
use std::time::Duration;

use super::hedge::HedgeAfter;
use crate::grpc::Code;

/// The default maximum number of retries of one request.
pub const ATTEMPTS: u32 = 2;

/// The default limit on the random wait before the first retry. The limit doubles with each retry.
pub const BACKOFF_BASE: Duration = Duration::from_millis(25);

/// The default maximum of that limit, as a multiple of the limit for the first retry.
pub const BACKOFF_MAX_FACTOR: u32 = 10;

/// The default retry budget, in percent of the requests in the last [`super::BUDGET_WINDOW_S`]
/// seconds.
pub const BUDGET_PERCENT: u32 = 20;

/// The default number of retries in [`super::BUDGET_WINDOW_S`] seconds that are always allowed.
pub const BUDGET_MIN: u32 = 3;

/// The default maximum size of a request body that is buffered for a retry.
pub const REPLAY_BYTES: usize = 64 * 1024;

/// A condition for a retry. Its name is that in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No connection could be opened, so the request was not sent.
    ConnectFailure,
    /// The endpoint reported that it did not process the request (RFC 9113 8.7).
    RefusedStream,
    /// There was no response: the connection ended, the stream was reset, or a timeout passed.
    Reset,
    /// The connection ended before the whole request was sent.
    ResetBeforeRequest,
    /// A status of 500 or more, or no response.
    ServerError,
    /// Status 502, 503 or 504, or no response.
    GatewayError,
    /// Status 409.
    Retriable4xx,
    /// The response has the field `x-envoy-ratelimited`.
    EnvoyRatelimited,
    /// The response has this status.
    Status(u16),
    /// The gRPC call has ended with this code.
    Grpc(Code),
}

/// The names of the conditions that are neither a status nor a gRPC code.
const NAMES: [(&str, Condition); 8] = [
    ("connect-failure", Condition::ConnectFailure),
    ("refused-stream", Condition::RefusedStream),
    ("reset", Condition::Reset),
    ("reset-before-request", Condition::ResetBeforeRequest),
    ("5xx", Condition::ServerError),
    ("gateway-error", Condition::GatewayError),
    ("retriable-4xx", Condition::Retriable4xx),
    ("envoy-ratelimited", Condition::EnvoyRatelimited),
];

/// The names of the conditions that are gRPC codes.
const GRPC_NAMES: [(&str, Code); 5] = [
    ("cancelled", Code::CANCELLED),
    ("deadline-exceeded", Code::DEADLINE_EXCEEDED),
    ("internal", Code::INTERNAL),
    ("resource-exhausted", Code::RESOURCE_EXHAUSTED),
    ("unavailable", Code::UNAVAILABLE),
];

impl Condition {
    /// Parses the name of a condition, or a status from 400 to 599.
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((_, condition)) = NAMES.iter().find(|(name, _)| *name == text) {
            return Some(*condition);
        }
        if let Some((_, code)) = GRPC_NAMES.iter().find(|(name, _)| *name == text) {
            return Some(Self::Grpc(*code));
        }
        let status = text.parse().ok().filter(|status| (400..=599).contains(status));
        status.map(Self::Status)
    }

    /// The names of all conditions, for messages and suggestions.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let plain = NAMES.iter().map(|(name, _)| *name);
        plain.chain(GRPC_NAMES.iter().map(|(name, _)| *name))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Status(status) = self {
            return write!(f, "{status}");
        }
        let plain = NAMES.iter().find(|(_, condition)| condition == self).map(|(name, _)| *name);
        let code = GRPC_NAMES.iter().find(|(_, code)| Self::Grpc(*code) == *self);
        f.write_str(plain.or_else(|| code.map(|(name, _)| *name)).unwrap_or_default())
    }
}

/// The result of an attempt, for the verdict and for the retry policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// No connection could be opened.
    Connect,
    /// The endpoint did not process the request.
    Unprocessed,
    /// There was no complete head of a response.
    Reset {
        /// Whether the whole request was sent.
        sent: bool,
    },
    /// The endpoint did not begin its response within `per_try_timeout`.
    Timeout,
    /// The head of a response, which may be successful.
    Response(Response),
}

/// The parts of a response that the retry policy needs. It does not say anything about those that
/// no condition of the policy is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status of the response.
    pub status: u16,
    /// The gRPC code. `None` unless the response consists of only this code.
    pub code: Option<Code>,
    /// Whether the response has the field `x-envoy-ratelimited`.
    pub ratelimited: bool,
}

impl Failed {
    /// Whether the endpoint certainly did not process the request.
    pub fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::Unprocessed)
    }

    fn is_under(self, condition: Condition) -> bool {
        let Self::Response(Response { status, code, ratelimited }) = self else {
            return match condition {
                Condition::ConnectFailure => matches!(self, Self::Connect),
                Condition::RefusedStream => matches!(self, Self::Unprocessed),
                Condition::Reset => matches!(self, Self::Reset { .. } | Self::Timeout),
                Condition::ResetBeforeRequest => matches!(self, Self::Reset { sent: false }),
                Condition::ServerError | Condition::GatewayError => true,
                _ => false,
            };
        };
        match condition {
            Condition::ServerError => status >= 500,
            Condition::GatewayError => matches!(status, 502..=504),
            Condition::Retriable4xx => status == 409,
            Condition::EnvoyRatelimited => ratelimited,
            Condition::Status(wanted) => status == wanted,
            Condition::Grpc(wanted) => code == Some(wanted),
            _ => false,
        }
    }
}

/// When and how often requests are retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The maximum number of retries of one request.
    pub attempts: u32,
    /// The conditions. A request is retried if one of them holds.
    pub on: Vec<Condition>,
    /// The time limit of one attempt, from the open connection to the head of its response.
    pub per_try_timeout: Option<Duration>,
    /// The limit on the random wait before the first retry. The limit doubles with each retry.
    pub backoff_base: Duration,
    /// The maximum of that limit.
    pub backoff_max: Duration,
    /// The retry budget, in percent of the requests of the service.
    pub budget_percent: u32,
    /// The number of retries that is always allowed in the window of the budget.
    pub budget_min: u32,
    /// The methods of requests that may be retried after they were sent. `None` means the
    /// idempotent methods.
    pub methods: Option<Vec<Box<str>>>,
    /// The maximum size of a request body that is buffered for a retry.
    pub replay_bytes: usize,
    /// The messages that get the number of their attempt.
    pub attempt_count: AttemptCount,
    /// The time after which a slow request is also sent to a second endpoint. `None` means no
    /// hedging.
    pub hedge: Option<HedgeAfter>,
}

/// The messages that get the number of their attempt, in `x-envoy-attempt-count`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptCount {
    /// Whether requests to endpoints get the number.
    pub in_request: bool,
    /// Whether responses to clients get the number.
    pub in_response: bool,
}

/// The parts of a request that the retry policy needs.
#[derive(Clone, Copy, Debug)]
pub struct Repeatable<'a> {
    /// The HTTP method of the request.
    pub method: &'a [u8],
    /// Whether the method is idempotent (RFC 9110 9.2.2).
    pub idempotent: bool,
    /// Whether the request is a gRPC call.
    pub grpc: bool,
}

impl fmt::Display for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {}", self.attempts)?;
        for (index, condition) in self.on.iter().enumerate() {
            write!(f, "{} {condition}", if index == 0 { ", on" } else { "," })?;
        }
        match self.hedge {
            Some(after) => write!(f, "; hedged after {after}"),
            None => Ok(()),
        }
    }
}

impl RetryPolicy {
    /// Whether `failed` meets a condition of the policy.
    pub fn is_met(&self, failed: Failed) -> bool {
        self.on.iter().any(|&condition| failed.is_under(condition))
    }

    /// Whether a condition of the policy is about a gRPC code.
    pub fn reads_codes(&self) -> bool {
        self.on.iter().any(|condition| matches!(condition, Condition::Grpc(_)))
    }

    /// Whether a condition of the policy is about the field `x-envoy-ratelimited`.
    pub fn reads_ratelimited(&self) -> bool {
        self.on.contains(&Condition::EnvoyRatelimited)
    }

    /// Whether the policy allows a retry of the request after `failed`.
    pub fn covers(&self, failed: Failed, request: Repeatable<'_>) -> bool {
        self.on.iter().any(|&condition| {
            // A gRPC call is always a POST, so its method does not show whether a retry is safe. An
            // operator who lists a gRPC code in `on` allows the retry.
            let by_code = request.grpc && matches!(condition, Condition::Grpc(_));
            failed.is_under(condition) && (by_code || failed.is_unsent() || self.allows(request))
        })
    }

    /// Whether the request may be sent twice: its method is in `methods`, or the request is
    /// idempotent if `methods` is `None`.
    pub fn allows(&self, request: Repeatable<'_>) -> bool {
        match &self.methods {
            Some(methods) => methods.iter().any(|method| method.as_bytes() == request.method),
            None => request.idempotent,
        }
    }

    /// The wait before retry number `retry`, which counts from 0. `jitter` is a random number from
    /// 0 to 1. If the endpoint has requested a wait, this wait is used without jitter. Returns
    /// `None` if the endpoint has requested no retry, or a longer wait than the policy allows.
    pub fn wait(&self, retry: u32, asked: Option<Asked>, jitter: f64) -> Option<Duration> {
        match asked {
            Some(Asked::Never) => None,
            Some(Asked::After(wait)) => (wait <= self.wait_max()).then_some(wait),
            None => {
                let doubled = self.backoff_base.saturating_mul(1 << retry.min(16));
                Some(doubled.min(self.backoff_max).mul_f64(jitter))
            }
        }
    }

    /// The maximum wait that the endpoint may request. `retry-after` is in whole seconds, but
    /// `backoff_max` is usually shorter than one second.
    fn wait_max(&self) -> Duration {
        self.backoff_max.max(ASKED_WAIT_MAX)
    }
}

/// The maximum wait that an endpoint may request, unless `backoff_max` is longer.
pub const ASKED_WAIT_MAX: Duration = Duration::from_secs(5);

/// The wait that the endpoint has requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The wait in `retry-after` or in `grpc-retry-pushback-ms`.
    After(Duration),
    /// No retry: `grpc-retry-pushback-ms` is negative or not a number (gRFC A6).
    Never,
}

impl Asked {
    /// Parses `retry-after` (RFC 9110 10.2.3). A date is ignored, because the clocks of the two
    /// hosts may differ.
    pub fn from_retry_after(value: &[u8]) -> Option<Self> {
        let seconds = std::str::from_utf8(value).ok()?.trim().parse().ok()?;
        Some(Self::After(Duration::from_secs(seconds)))
    }

    /// Parses `grpc-retry-pushback-ms`, which is in milliseconds.
    pub fn from_pushback(value: &[u8]) -> Self {
        let ms = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
        ms.map_or(Self::Never, |ms| Self::After(Duration::from_millis(ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(on: &[&str]) -> RetryPolicy {
        RetryPolicy {
            attempts: ATTEMPTS,
            on: on.iter().map(|name| Condition::parse(name).unwrap()).collect(),
            per_try_timeout: None,
            backoff_base: BACKOFF_BASE,
            backoff_max: BACKOFF_BASE * BACKOFF_MAX_FACTOR,
            budget_percent: BUDGET_PERCENT,
            budget_min: BUDGET_MIN,
            methods: None,
            replay_bytes: REPLAY_BYTES,
            attempt_count: AttemptCount::default(),
            hedge: None,
        }
    }

    const GET: Repeatable<'_> = Repeatable { method: b"GET", idempotent: true, grpc: false };
    const POST: Repeatable<'_> = Repeatable { method: b"POST", idempotent: false, grpc: false };
    const CALL: Repeatable<'_> = Repeatable { grpc: true, ..POST };

    fn status(status: u16) -> Failed {
        Failed::Response(Response { status, ..Response::default() })
    }

    #[test]
    fn each_condition_covers_its_failures() {
        let limited = Response { status: 429, ratelimited: true, ..Response::default() };
        let all = [
            Failed::Connect,
            Failed::Unprocessed,
            Failed::Reset { sent: true },
            Failed::Reset { sent: false },
            Failed::Timeout,
            status(500),
            status(503),
            status(409),
            status(404),
            status(200),
            Failed::Response(limited),
        ];
        for (condition, covered) in [
            ("connect-failure", &[0][..]),
            ("refused-stream", &[1]),
            ("reset", &[2, 3, 4]),
            ("reset-before-request", &[3]),
            ("5xx", &[0, 1, 2, 3, 4, 5, 6]),
            ("gateway-error", &[0, 1, 2, 3, 4, 6]),
            ("retriable-4xx", &[7]),
            ("envoy-ratelimited", &[10]),
            ("503", &[6]),
            ("429", &[10]),
        ] {
            let policy = policy(&[condition]);
            let covers = (0..all.len()).filter(|&index| policy.covers(all[index], GET));
            assert_eq!(covers.collect::<Vec<_>>(), covered, "{condition}");
        }
    }

    #[test]
    fn a_request_is_sent_twice_only_if_that_is_harmless() {
        let careful = policy(&["5xx"]);
        let named = RetryPolicy { methods: Some(vec!["POST".into()]), ..policy(&["5xx"]) };
        for (policy, failed, request, expected) in [
            (&careful, status(503), GET, true),
            (&careful, status(503), POST, false),
            (&careful, Failed::Reset { sent: false }, POST, false),
            (&careful, Failed::Timeout, POST, false),
            (&careful, Failed::Connect, POST, true),
            (&careful, Failed::Unprocessed, POST, true),
            (&named, status(503), POST, true),
            (&named, status(503), GET, false),
        ] {
            assert_eq!(policy.covers(failed, request), expected, "{failed:?} {request:?}");
        }
    }

    #[test]
    fn a_grpc_code_covers_a_call_but_no_other_request() {
        let policy = policy(&["unavailable"]);
        let code = |code| {
            Failed::Response(Response { status: 200, code: Some(code), ..Response::default() })
        };
        assert!(policy.covers(code(Code::UNAVAILABLE), CALL));
        assert!(!policy.covers(code(Code::UNAVAILABLE), POST));
        assert!(!policy.covers(code(Code::INTERNAL), CALL));
        assert!(!policy.covers(status(503), CALL));
    }

    #[test]
    fn a_policy_tells_when_it_retries_and_hedges() {
        let plain = policy(&["5xx", "unavailable"]);
        let with = |after| RetryPolicy { hedge: Some(after), ..plain.clone() };
        for (policy, text) in [
            (plain.clone(), "at most 2, on 5xx, unavailable"),
            (with(HedgeAfter::Percentile(950)), "at most 2, on 5xx, unavailable; hedged after p95"),
            (
                with(HedgeAfter::Percentile(999)),
                "at most 2, on 5xx, unavailable; hedged after p99.9",
            ),
            (
                with(HedgeAfter::Time(Duration::from_millis(50))),
                "at most 2, on 5xx, unavailable; hedged after 50ms",
            ),
        ] {
            assert_eq!(policy.to_string(), text);
        }
    }

    #[test]
    fn conditions_have_the_names_of_envoy() {
        for name in Condition::names() {
            assert_eq!(Condition::parse(name).unwrap().to_string(), name);
        }
        assert_eq!(Condition::parse("503"), Some(Condition::Status(503)));
        for wrong in ["", "5XX", "200", "600", "503 ", "retriable", "unknown"] {
            assert_eq!(Condition::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_wait_doubles_to_its_maximum_and_obeys_the_endpoint() {
        let policy = policy(&[]);
        let ms = Duration::from_millis;
        for (retry, asked, jitter, expected) in [
            (0, None, 1.0, Some(ms(25))),
            (0, None, 0.0, Some(ms(0))),
            (1, None, 1.0, Some(ms(50))),
            (3, None, 0.5, Some(ms(100))),
            (4, None, 1.0, Some(ms(250))),
            (u32::MAX, None, 1.0, Some(ms(250))),
            (0, Some(Asked::After(ms(5000))), 0.0, Some(ms(5000))),
            (0, Some(Asked::After(ms(5001))), 0.0, None),
            (0, Some(Asked::Never), 0.0, None),
        ] {
            assert_eq!(policy.wait(retry, asked, jitter), expected, "{retry} {asked:?} {jitter}");
        }
        let long = RetryPolicy { backoff_max: ms(60_000), ..policy };
        let minute = Asked::After(ms(60_000));
        assert_eq!(long.wait(0, Some(minute), 0.0), Some(ms(60_000)));
    }

    #[test]
    fn waits_are_read_as_their_specifications_say() {
        let seconds = |n| Some(Asked::After(Duration::from_secs(n)));
        for (value, expected) in [
            ("3", seconds(3)),
            (" 0 ", seconds(0)),
            ("-1", None),
            ("1.5", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            assert_eq!(Asked::from_retry_after(value.as_bytes()), expected, "{value}");
        }
        for (value, expected) in [
            ("250", Asked::After(Duration::from_millis(250))),
            ("-1", Asked::Never),
            ("soon", Asked::Never),
        ] {
            assert_eq!(Asked::from_pushback(value.as_bytes()), expected, "{value}");
        }
    }
}
