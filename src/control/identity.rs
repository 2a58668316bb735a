//! Waits at the start for the identity of this workload.

use std::time::Duration;

use super::run::RunError;
use super::signals::{Signals, Told};
use crate::compile::{IssuedBy, SourcePlan};
use crate::sources::Identities;
use crate::telemetry::status::Status;

/// How long the process waits at its start for an identity. Without one, it does not start. SPIRE
/// needs up to 6 s for a new entry.
pub const FIRST_IDENTITY: Duration = Duration::from_secs(30);

/// The source of identities, and the first one if `plan` has an API.
type Begun = (Identities, Option<IssuedBy>);

/// Asks the API in `plan`, and waits for the first identity. `None` if the process is told to end
/// meanwhile.
///
/// # Errors
/// If there is no identity in time.
pub async fn begin(
    status: &Status,
    plan: &SourcePlan,
    signals: &mut Signals,
) -> Result<Option<Begun>, RunError> {
    let mut identities = Identities::new(status.clone());
    let Some(api) = &plan.identity else { return Ok(Some((identities, None))) };
    identities.follow(Some(api), None);
    tracing::info!(limit = ?FIRST_IDENTITY, "waiting for an identity from {}", api.name());
    let waiting = tokio::time::sleep(FIRST_IDENTITY);
    tokio::pin!(waiting);
    loop {
        tokio::select! {
            issued = identities.changed() => {
                tracing::info!(id = issued.1.id.as_str(), "this workload has an identity");
                return Ok(Some((identities, Some(issued))));
            }
            told = signals.next() => if told == Told::End { return Ok(None) },
            () = &mut waiting => {
                return Err(RunError::Config(format!(
                    "error: {} has issued no identity within {FIRST_IDENTITY:?}: {}\n",
                    api.name(),
                    identities.error()
                )));
            }
        }
    }
}
