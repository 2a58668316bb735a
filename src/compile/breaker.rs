//! Compiles the circuit breaker and the adaptive concurrency limit of a service.

use std::time::Duration;

use super::Compiler;
use crate::model::{self, Item};
use crate::resilience::{
    CONCURRENCY_MAX, CONCURRENCY_MIN, CircuitBreaker, Concurrency, ConcurrencyTerms, Limit,
    MAX_CONNECTIONS, MAX_PENDING_REQUESTS, MAX_REQUESTS, MAX_RETRIES, PERCENTILE, PROBE_INTERVAL,
    PROBE_REQUESTS, UPDATE_INTERVAL,
};

/// Compiles the circuit breaker of the service called `name`.
pub(super) fn breaker(
    compiler: &mut Compiler<'_>,
    name: &str,
    written: &model::CircuitBreaker,
) -> CircuitBreaker {
    let max = Limit::ALL.map(|limit| {
        let (written, default) = match limit {
            Limit::Connections => (&written.max_connections, MAX_CONNECTIONS),
            Limit::Pending => (&written.max_pending_requests, MAX_PENDING_REQUESTS),
            Limit::Requests => (&written.max_requests, MAX_REQUESTS),
            Limit::Retries => return written.max_retries.unwrap_or(MAX_RETRIES),
        };
        at_least_one(compiler, limit, written).unwrap_or(default)
    });
    let workers = compiler.registry.workers();
    CircuitBreaker::new(max, compiler.registry.in_use(name), workers)
}

/// Compiles a limit. Reports 0, because no request could pass.
fn at_least_one(
    compiler: &mut Compiler<'_>,
    limit: Limit,
    written: &Option<Item<u32>>,
) -> Option<u32> {
    let written = written.as_ref()?;
    if written.value == 0 {
        let message = format!("with `{}: 0` no request would be sent", limit.name());
        let help = "write at least 1; for no limits, leave `circuit_breaker` out";
        compiler.fault_with_help(&written.origin, message, help);
    }
    Some(written.value)
}

/// The minimum of `interval`. Each update reads the latencies of all workers, so it has a cost.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// The maximum of `interval`. After a second, a single request is enough for an update.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// The maximum of `probe_interval`.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);

/// Compiles the adaptive concurrency limit of the service called `name`.
pub(super) fn concurrency(
    compiler: &mut Compiler<'_>,
    name: &str,
    service: &model::Service,
) -> Option<Concurrency> {
    let item = service.concurrency.as_ref()?;
    if service.protocol == model::ServiceProtocol::Tcp {
        let message = "a limit by latency is for requests, and this service gets opaque bytes";
        let help = "leave `concurrency` out; `circuit_breaker: {max_connections: N}` is for TCP";
        compiler.fault_with_help(&item.origin, message, help);
    }
    let written = &item.value;
    for (key, number) in [("min", &written.min), ("probe_requests", &written.probe_requests)] {
        if let Some(number) = number.as_ref().filter(|number| number.value == 0) {
            let message = format!("with `{key}: 0` nothing would be measured");
            compiler.fault_with_help(&number.origin, message, "write at least 1");
        }
    }
    let or = |written: &Option<Item<u32>>, default| written.as_ref().map_or(default, |it| it.value);
    let min = or(&written.min, CONCURRENCY_MIN);
    let max = or(&written.max, CONCURRENCY_MAX.max(min));
    if let Some(written) = written.max.as_ref().filter(|max| max.value < min) {
        let message = format!("`max: {max}` is below the smallest limit, `min: {min}`");
        let help = "write a larger `max`, or a smaller `min`";
        compiler.fault_with_help(&written.origin, message, help);
    }
    if let Some(percentile) = &written.percentile
        && !(1..=99).contains(&percentile.value)
    {
        let message = format!("{} is not a percentile from 1 to 99", percentile.value);
        compiler.fault_with_help(
            &percentile.origin,
            message,
            "write a number from 1 to 99; the default is 50",
        );
    }
    let mut time = |written: &Option<Item<Duration>>, default, range: (Duration, Duration)| {
        let Some(item) = written else { return default };
        let (shortest, longest) = range;
        if item.value < shortest || item.value > longest {
            let message = format!("{:?} is not from {shortest:?} to {longest:?}", item.value);
            let help = format!("leave it out for the default, {default:?}");
            compiler.fault_with_help(&item.origin, message, help);
        }
        item.value
    };
    let terms = ConcurrencyTerms {
        min: min.max(1),
        max: max.max(min).max(1),
        percentile: or(&written.percentile, PERCENTILE),
        interval: time(&written.interval, UPDATE_INTERVAL, (INTERVAL_MIN, INTERVAL_MAX)),
        probe_interval: time(
            &written.probe_interval,
            PROBE_INTERVAL,
            (Duration::from_secs(1), PROBE_INTERVAL_MAX),
        ),
        probe_requests: or(&written.probe_requests, PROBE_REQUESTS),
    };
    Some(Concurrency::new(terms, compiler.registry.in_flight(name)))
}
