//! Compiles the circuit breaker of a service.

use super::Compiler;
use crate::model::{self, Item};
use crate::resilience::{
    CircuitBreaker, Limit, MAX_CONNECTIONS, MAX_PENDING_REQUESTS, MAX_REQUESTS, MAX_RETRIES,
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
