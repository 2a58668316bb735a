//! Issuers of tokens as configured, and what a route demands of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::ProviderCells;
use super::claims::Claims;
use super::keys::KeySet;
use super::token::{self, Rejection};
use crate::cells::PerWorker;
use crate::message::HeadView;

/// An issuer of tokens.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// What the claim `iss` must be.
    pub issuer: Box<str>,
    /// What the claim `aud` must name one of; empty for anything.
    pub audiences: Vec<Box<str>>,
    /// How far the clocks of issuer and proxy may be apart, in seconds.
    pub leeway_s: i64,
    /// The field that holds the token, in lower case. In `authorization` it follows `Bearer`.
    pub field: Box<str>,
    /// Whether the service gets to see the token.
    pub forward: bool,
    /// Its public keys.
    pub keys: Arc<KeySet>,
    /// Rung when a token names a key that is not among them.
    pub wanted: KeysWanted,
    /// Its counters; the same ones across reloads as long as the name stays.
    pub stats: Arc<PerWorker<ProviderCells>>,
}

impl Provider {
    /// The name of the field that is not passed on.
    pub fn field_to_drop(&self) -> Option<&str> {
        (!self.forward).then_some(&*self.field)
    }
}

/// Tells whoever fetches keys that newer ones may be needed.
#[derive(Clone, Debug, Default)]
pub struct KeysWanted(Arc<AtomicBool>);

impl KeysWanted {
    /// A token names a key that is not known.
    pub fn ring(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it rang since this was asked last.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// What a route or service demands.
#[derive(Debug)]
pub struct Requirement {
    /// A token of one of these; at least one.
    pub providers: Vec<Arc<Provider>>,
    /// No token at all will do, too; a bad one will not.
    pub optional: bool,
}

/// A token that was accepted.
#[derive(Debug)]
pub struct Accepted {
    /// Who has issued it.
    pub provider: Arc<Provider>,
    /// What it says.
    pub claims: Claims,
}

impl Accepted {
    /// Looks at the time again.
    ///
    /// # Errors
    /// When it has expired since it was accepted.
    pub fn still_holds(&self, now_unix_s: i64) -> Result<(), Rejection> {
        token::check_time(&self.claims, &self.provider, now_unix_s)
    }
}

impl Requirement {
    /// The token of a request; `None` without one.
    ///
    /// # Errors
    /// When there is more than one, or what should be one is something else.
    pub fn token<'r>(&self, request: HeadView<'r>) -> Result<Option<&'r [u8]>, Rejection> {
        let mut found: Option<&[u8]> = None;
        for (index, provider) in self.providers.iter().enumerate() {
            // Providers mostly look into the same field: each field is read once.
            if self.providers[..index].iter().any(|other| other.field == provider.field) {
                continue;
            }
            for value in request.values(provider.field.as_bytes()) {
                let Some(token) = bearer(&provider.field, value) else { continue };
                if found.replace(token).is_some() {
                    return Err(Rejection::Ambiguous);
                }
            }
        }
        match found {
            None if !self.optional => Err(Rejection::Missing),
            found => Ok(found),
        }
    }

    /// Checks a token at `now_unix_s`.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn check(&self, token: &[u8], now_unix_s: i64) -> Result<Accepted, Rejection> {
        let issuer = token::issuer(token)?;
        let mut rejection = Rejection::Issuer;
        // Several may have the same issuer and differ in their audiences.
        for provider in self.providers.iter().filter(|provider| *provider.issuer == *issuer) {
            match token::check(token, provider, now_unix_s) {
                Ok(claims) => return Ok(Accepted { provider: Arc::clone(provider), claims }),
                Err(because) => rejection = because,
            }
        }
        Err(rejection)
    }

    /// Counts a request that was turned away, with the first of the providers.
    pub fn count(&self, rejection: Rejection, worker: usize) {
        if let Some(provider) = self.providers.first() {
            provider.stats.worker(worker).rejected[rejection.index()].increment();
        }
    }
}

/// The token in the value of a field. In `authorization` other schemes are none of ours.
fn bearer<'v>(field: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    const SCHEME: &[u8] = b"bearer ";
    if field != "authorization" {
        return Some(value);
    }
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| token.trim_ascii())
}
