//! Configured issuers of tokens, and the token requirements of routes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ProviderCells;
use super::claims::Claims;
use super::keys::KeySet;
use super::token::{self, Rejection};
use crate::cells::PerWorker;
use crate::message::HeadView;

/// A configured issuer of tokens.
#[derive(Debug)]
pub struct Provider {
    /// The name of the issuer in the configuration.
    pub name: Box<str>,
    /// The required value of the claim `iss`.
    pub issuer: Box<str>,
    /// The accepted values of the claim `aud`. Empty means any.
    pub audiences: Vec<Box<str>>,
    /// The accepted difference between the clocks of issuer and proxy, in seconds.
    pub leeway_s: i64,
    /// The header field that holds the token, in lower case. In `authorization` the token follows
    /// `Bearer`.
    pub field: Box<str>,
    /// Whether the token is forwarded to the service.
    pub forward: bool,
    /// The public keys of the issuer.
    pub keys: Arc<KeySet>,
    /// The signal to the key fetcher that a token names an unknown key.
    pub wanted: KeysWanted,
    /// The counters. They are kept over reloads while the name stays the same.
    pub stats: Arc<PerWorker<ProviderCells>>,
}

impl Provider {
    /// Returns the name of the header field to remove before forwarding. `None`: keep the field.
    pub fn field_to_drop(&self) -> Option<&str> {
        (!self.forward).then_some(&*self.field)
    }
}

/// The signal to the key fetcher that newer keys may be needed.
#[derive(Clone, Debug, Default)]
pub struct KeysWanted(Arc<AtomicBool>);

impl KeysWanted {
    /// Signals that a token names an unknown key.
    pub fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether there was a signal since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// The token requirement of a route or service.
#[derive(Debug)]
pub struct Requirement {
    /// The accepted issuers; at least one.
    pub providers: Vec<Arc<Provider>>,
    /// Whether a request without a token is accepted. A request with an invalid token never is.
    pub optional: bool,
}

/// A token of a request, and the place where it was found.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'r> {
    /// The token.
    pub token: &'r [u8],
    /// The name of its header field, in lower case.
    pub field: &'r str,
}

/// A token that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// The issuer of the token.
    pub provider: Arc<Provider>,
    /// The claims of the token.
    pub claims: Claims,
}

impl Accepted {
    /// Checks again that the token is valid at this time.
    ///
    /// # Errors
    /// When the token has expired since the first check.
    pub fn still_holds(&self, now_unix_s: i64) -> Result<(), Rejection> {
        token::check_time(&self.claims, &self.provider, now_unix_s)
    }
}

impl Requirement {
    /// Finds the token of a request. Returns `None` if there is no token and none is required.
    ///
    /// # Errors
    /// When there is more than one token, or none although one is required.
    pub fn token<'r>(&'r self, request: HeadView<'r>) -> Result<Option<Presented<'r>>, Rejection> {
        let mut found: Option<Presented<'r>> = None;
        for (index, provider) in self.providers.iter().enumerate() {
            // Several providers often use the same field. Read each field once.
            if self.providers[..index].iter().any(|other| other.field == provider.field) {
                continue;
            }
            for value in request.values(provider.field.as_bytes()) {
                let Some(token) = bearer(&provider.field, value) else { continue };
                if found.replace(Presented { token, field: &provider.field }).is_some() {
                    return Err(Rejection::Ambiguous);
                }
            }
        }
        match found {
            None if !self.optional => Err(Rejection::Missing),
            found => Ok(found),
        }
    }

    /// Checks that a trusted issuer issued a token and that it is valid at `now_unix_s`. It counts
    /// only for the issuers of the header field that has it, because this field is the one that is
    /// dropped before forwarding.
    ///
    /// # Errors
    /// The reason for the rejection.
    pub fn check(&self, found: Presented<'_>, now_unix_s: i64) -> Result<Accepted, Rejection> {
        let Presented { token, field } = found;
        let issuer = token::issuer(token)?;
        let mut rejection = Rejection::Issuer;
        // Several providers may have the same issuer and different audiences.
        let is_asked = |it: &&Arc<Provider>| *it.issuer == *issuer && *it.field == *field;
        for provider in self.providers.iter().filter(is_asked) {
            match token::check(token, provider, now_unix_s) {
                Ok(claims) => return Ok(Accepted { provider: Arc::clone(provider), claims }),
                Err(because) => rejection = because,
            }
        }
        Err(rejection)
    }

    /// Counts a rejected request. The counter is that of the first provider, because the issuer may
    /// be unknown.
    pub fn count(&self, rejection: Rejection, worker: usize) {
        if let Some(provider) = self.providers.first() {
            provider.stats.worker(worker).rejected[rejection.index()].increment();
        }
    }
}

/// Extracts the token from the value of a field. Other schemes in `authorization` are ignored.
fn bearer<'v>(field: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    const SCHEME: &[u8] = b"bearer ";
    if field != "authorization" {
        return Some(value);
    }
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}
