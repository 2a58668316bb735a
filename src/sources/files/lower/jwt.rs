//! Lowers `jwt:`, and the token requirements of routes and services, to the model.

use super::super::grammar::jwt::{JwtDemand, JwtProvider};
use super::super::values::Placed;
use super::{Lower, origin, place_or, time};
use crate::model::{Item, TokenDemand, TokenKeys, TokenProvider};

pub(super) fn provider(
    lower: &Lower<'_>,
    name: Item<String>,
    written: Placed<JwtProvider>,
) -> TokenProvider {
    let value = written.value;
    let jwks = value.jwks.value;
    let ca = lower.materials(&jwks.ca);
    let keys = match (jwks.file, jwks.url) {
        (Some(file), None) => Some(TokenKeys::Set { set: lower.material(&file), ca }),
        (None, Some(url)) => {
            Some(TokenKeys::Url { url: url.into(), ca, refresh: time(jwks.refresh) })
        }
        _ => None,
    };
    TokenProvider {
        name,
        issuer: value.issuer.value,
        audiences: value.audiences.0.into_iter().map(|audience| audience.value).collect(),
        keys: Item::new(keys, origin(value.jwks.place)),
        header: value.header.map(Into::into),
        forward: value.forward,
        leeway: time(value.leeway),
    }
}

pub(super) fn demand(written: Placed<JwtDemand>) -> Item<TokenDemand> {
    let around = written.place;
    let provider =
        |name: Placed<String>| Item::new(name.value, origin(place_or(name.place, around)));
    let providers = written.value.providers.into_iter().map(provider).collect();
    let optional = written.value.optional;
    Item::new(TokenDemand { providers, optional }, origin(around))
}
