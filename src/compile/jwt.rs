//! Compiles token issuers, and the token requirements of routes and services.

use std::sync::Arc;
use std::time::Duration;

use super::{Compiler, suggestion};
use crate::jwt::{KeySet, KeysWanted, Provider, Requirement};
use crate::model::{Item, Material, Origin, TokenDemand, TokenKeys, TokenProvider};

/// The default of `leeway`, which is also Envoy's.
const LEEWAY: Duration = Duration::from_secs(60);

/// The default interval of key fetches, which is also Istio's.
const REFRESH: Duration = Duration::from_secs(20 * 60);

/// The minimum interval of key fetches.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// The URL of an issuer's keys, and how to fetch them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The URL, with the scheme `http` or `https`.
    pub url: String,
    /// PEM with the CAs of an https URL. `None` means the public CAs.
    pub ca_pem: Option<Arc<[u8]>>,
    /// The interval of fetches.
    pub refresh: Duration,
}

/// Compiles all token issuers. The result is sorted by name.
pub(super) fn providers(compiler: &mut Compiler<'_>) -> Vec<Arc<Provider>> {
    let model = compiler.model;
    let mut providers = Vec::new();
    for item in &model.providers {
        let written = &item.value;
        let field = written.header.as_ref().map_or("authorization", |it| it.value.as_str());
        if let Some(header) = &written.header {
            compiler.field_name(header);
        }
        let Some((keys, wanted)) = keys(compiler, &written.keys) else { continue };
        let text = |text: &String| text.as_str().into();
        let name = written.name.value.as_str();
        providers.push(Arc::new(Provider {
            name: name.into(),
            issuer: text(&written.issuer),
            audiences: written.audiences.iter().map(text).collect(),
            leeway_s: leeway_s(written),
            field: field.to_ascii_lowercase().into(),
            forward: written.forward,
            keys,
            wanted,
            stats: compiler.registry.jwt(name),
        }));
    }
    providers.sort_by(|one, other| one.name.cmp(&other.name));
    providers
}

fn leeway_s(written: &TokenProvider) -> i64 {
    written.leeway.unwrap_or(LEEWAY).as_secs().try_into().unwrap_or(i64::MAX)
}

fn keys<'a>(
    compiler: &mut Compiler<'a>,
    written: &'a Item<Option<TokenKeys>>,
) -> Option<(Arc<KeySet>, KeysWanted)> {
    match &written.value {
        Some(TokenKeys::Set { set, ca }) => {
            if let Some(ca) = ca {
                compiler.fault(&ca.origin, "`ca` is for a `url`");
            }
            match KeySet::parse(compiler.material(set)?) {
                Ok(keys) => Some((Arc::new(keys), KeysWanted::default())),
                Err(error) => {
                    compiler.fault(&set.origin, error.to_string());
                    None
                }
            }
        }
        Some(TokenKeys::Url { url, ca, refresh }) => fetched(compiler, url, ca.as_ref(), *refresh),
        None => {
            let help = "write {file: FILE} or {url: https://...}";
            compiler.fault_with_help(&written.origin, "this provider has no keys", help);
            None
        }
    }
}

/// The keys of an issuer that are fetched from `url`. Before the first fetch there are none, and no
/// token is accepted.
fn fetched<'a>(
    compiler: &mut Compiler<'a>,
    url: &Item<String>,
    ca: Option<&'a Item<Material>>,
    refresh: Option<Duration>,
) -> Option<(Arc<KeySet>, KeysWanted)> {
    let address = url.value.as_str();
    if !address.starts_with("https://") && !address.starts_with("http://") {
        compiler.fault_with_help(&url.origin, "not a URL", "write https://HOST/PATH");
        return None;
    }
    let ca_pem = match ca {
        Some(ca) => Some(compiler.material(ca)?.into()),
        None => None,
    };
    let refresh = refresh.unwrap_or(REFRESH).max(REFRESH_MIN);
    let wanted = compiler.registry.keys_wanted(address);
    compiler.key_sources.push(KeySource { url: address.to_owned(), ca_pem, refresh });
    let keys = compiler.resolutions.key_sets.get(address).cloned().unwrap_or_default();
    Some((keys, wanted))
}

/// The token requirement of a route or service.
pub(super) fn demand(
    compiler: &mut Compiler<'_>,
    written: Option<&Item<TokenDemand>>,
) -> Option<Arc<Requirement>> {
    let written = written?;
    let mut providers = Vec::new();
    for name in &written.value.providers {
        match compiler.providers.iter().find(|provider| *provider.name == *name.value) {
            Some(provider) => providers.push(Arc::clone(provider)),
            None => unknown(compiler, &name.origin, &name.value),
        }
    }
    if written.value.providers.is_empty() {
        compiler.fault(&written.origin, "whose token? name a provider of `jwt:`");
    }
    Some(Arc::new(Requirement { providers, optional: written.value.optional }))
}

fn unknown(compiler: &mut Compiler<'_>, origin: &Origin, name: &str) {
    let providers = &compiler.model.providers;
    let known: Vec<&str> = providers.iter().map(|it| it.value.name.value.as_str()).collect();
    if known.contains(&name) {
        return; // the error of its own section is already reported
    }
    let message = format!("`jwt` has no provider {name:?}");
    let help = match known.is_empty() {
        true => format!(
            "write at the top of the file `jwt: {{{name}: {{issuer: URL, jwks: {{url: URL}}}}}}`; \
             `jwt: {name}` here stays"
        ),
        false => suggestion(name, &known),
    };
    compiler.unknown(origin, ("jwt", name), message, help);
}
