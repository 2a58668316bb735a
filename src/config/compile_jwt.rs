//! Issuers of tokens, and what routes and services demand of them.

use std::sync::Arc;
use std::time::Duration;

use super::compile::{Compiler, is_token};
use super::decode::suggestion;
use super::file_jwt::{Jwks, JwtDemand, JwtProvider};
use super::values::Placed;
use crate::jwt::{KeySet, KeysWanted, Provider, Requirement};

/// How far clocks may be apart unless it is told otherwise (Envoy's default).
const LEEWAY: Duration = Duration::from_secs(60);

/// How often keys are fetched unless it is told otherwise (Istio's default).
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// The shortest time between two fetches.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// Where the keys of an issuer are to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// `http://` or `https://`.
    pub url: String,
    /// The CAs of an https URL; `None` for the public ones.
    pub ca_pem: Option<Arc<[u8]>>,
    /// How often.
    pub refresh: Duration,
}

/// The providers, in order of name.
pub(super) fn providers(compiler: &mut Compiler<'_>) -> Vec<Arc<Provider>> {
    let mut providers = Vec::new();
    for (name, written) in &compiler.loaded.config.jwt.0 {
        let value = &written.value;
        let field = value.header.as_ref().map_or("authorization", |header| header.value.as_str());
        if let Some(header) = value.header.as_ref().filter(|header| !is_token(&header.value)) {
            let message = format!("{:?} is not the name of a field", header.value);
            compiler.mistake(header.place, message);
        }
        let Some((keys, wanted)) = keys(compiler, &value.jwks) else { continue };
        let text = |text: &Placed<String>| text.value.as_str().into();
        providers.push(Arc::new(Provider {
            name: name.value.as_str().into(),
            issuer: text(&value.issuer),
            audiences: value.audiences.0.iter().map(text).collect(),
            leeway_s: leeway_s(value),
            field: field.to_ascii_lowercase().into(),
            forward: value.forward,
            keys,
            wanted,
            stats: compiler.registry.jwt(&name.value),
        }));
    }
    providers.sort_by(|one, other| one.name.cmp(&other.name));
    providers
}

fn leeway_s(written: &JwtProvider) -> i64 {
    let leeway = written.leeway.as_ref().map_or(LEEWAY, |time| time.0);
    leeway.as_secs().try_into().unwrap_or(i64::MAX)
}

fn keys(compiler: &mut Compiler<'_>, written: &Placed<Jwks>) -> Option<(Arc<KeySet>, KeysWanted)> {
    match (&written.value.file, &written.value.url) {
        (Some(file), None) => {
            if let Some(ca) = &written.value.ca {
                compiler.mistake(ca.place, "`ca` is for a `url`");
            }
            match KeySet::parse(compiler.material(file)?) {
                Ok(keys) => Some((Arc::new(keys), KeysWanted::default())),
                Err(error) => {
                    compiler.mistake(file.place, error.to_string());
                    None
                }
            }
        }
        (None, Some(url)) => fetched(compiler, &written.value, url),
        _ => {
            let help = "write {file: FILE} or {url: https://...}";
            compiler.mistake_with_help(written.place, "where are the keys?", help);
            None
        }
    }
}

/// What was fetched of `url` until now; nothing at first, and no token is accepted by that.
fn fetched(
    compiler: &mut Compiler<'_>,
    written: &Jwks,
    url: &Placed<String>,
) -> Option<(Arc<KeySet>, KeysWanted)> {
    if !url.value.starts_with("https://") && !url.value.starts_with("http://") {
        compiler.mistake_with_help(url.place, "not a URL", "write https://HOST/PATH");
        return None;
    }
    let ca_pem = match &written.ca {
        Some(ca) => Some(compiler.material(ca)?.into()),
        None => None,
    };
    let refresh = written.refresh.as_ref().map_or(REFRESH, |time| time.0.max(REFRESH_MIN));
    let wanted = compiler.registry.keys_wanted(&url.value);
    compiler.key_sources.push(KeySource { url: url.value.clone(), ca_pem, refresh });
    let keys = compiler.resolutions.key_sets.get(&url.value).cloned().unwrap_or_default();
    Some((keys, wanted))
}

/// What a route or service demands.
pub(super) fn demand(
    compiler: &mut Compiler<'_>,
    written: Option<&Placed<JwtDemand>>,
) -> Option<Arc<Requirement>> {
    let written = written?;
    let mut providers = Vec::new();
    for name in &written.value.providers {
        let place = if name.place == Default::default() { written.place } else { name.place };
        match compiler.providers.iter().find(|provider| *provider.name == *name.value) {
            Some(provider) => providers.push(Arc::clone(provider)),
            None => unknown(compiler, place, &name.value),
        }
    }
    if written.value.providers.is_empty() {
        compiler.mistake(written.place, "whose token? name a provider of `jwt:`");
    }
    Some(Arc::new(Requirement { providers, optional: written.value.optional }))
}

fn unknown(compiler: &mut Compiler<'_>, place: super::diagnostic::Place, name: &str) {
    let loaded = compiler.loaded;
    let known: Vec<&str> = loaded.config.jwt.0.iter().map(|(n, _)| n.value.as_str()).collect();
    if known.contains(&name) {
        return; // its own mistake is shown
    }
    let message = format!("`jwt` has no provider {name:?}");
    compiler.mistake_with_help(place, message, suggestion(name, &known));
}
