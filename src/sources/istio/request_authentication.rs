//! RequestAuthentication: the issuers of tokens.

use std::time::Duration;

use super::selector::reach;
use super::{Context, at};
use crate::model::{Item, Material, Model, TokenDemand, TokenKeys, TokenProvider};
use crate::sources::objects::{Fields, Object};
use crate::sources::yaml::node::Node;

/// Reads all RequestAuthentications. Requests with an invalid token are refused; requests without a
/// token pass.
pub(super) fn request_authentications<'o>(
    cx: &mut Context<'_>,
    objects: impl Iterator<Item = &'o Object>,
    model: &mut Model,
) {
    let mut names = Vec::new();
    for object in objects {
        let Some(mut spec) = cx.reader.spec(object) else { continue };
        let reach = reach(cx, object, &mut spec);
        let rules = spec.list(&mut cx.reader, "jwtRules");
        spec.finish(&mut cx.reader);
        let mut providers = Vec::new();
        for (number, node) in (1..).zip(rules) {
            providers.extend(provider(cx, object, number, node));
        }
        if reach.is_none() {
            continue;
        }
        for provider in providers {
            names.push(provider.name.clone());
            let origin = provider.name.origin.clone();
            model.providers.push(Item::new(provider, origin).into());
        }
    }
    if let Some(first) = names.first() {
        let origin = first.origin.clone();
        model.token = Some(Item::new(TokenDemand { providers: names, optional: true }, origin));
    }
}

/// Reads one rule. A rule with several header fields becomes several providers.
fn provider(
    cx: &mut Context<'_>,
    object: &Object,
    number: usize,
    node: &Node,
) -> Vec<TokenProvider> {
    let r = &mut cx.reader;
    let Some(mut rule) = Fields::of(r, node, "an element of `jwtRules`") else {
        return Vec::new();
    };
    let issuer = rule.string(r, "issuer");
    let audiences = rule.strings(r, "audiences");
    let url = rule.string(r, "jwksUri").or_else(|| rule.string(r, "jwks_uri"));
    let set = rule.string(r, "jwks");
    let forward = rule.boolean(r, "forwardOriginalToken").is_some_and(|it| it.value);
    let mut fields = header_fields(cx, &mut rule);
    let r = &mut cx.reader;
    for name in ["fromParams", "fromCookies"] {
        rule.refuse(r, name, "write `fromHeaders`");
    }
    for name in ["outputPayloadToHeader", "outputClaimToHeaders", "timeout", "spaceDelimitedClaims"]
    {
        rule.refuse(r, name, "leave it out");
    }
    rule.finish(r);
    let Some(issuer) = issuer else {
        r.at(node.place, "this rule has no issuer", "write `issuer: URL`");
        return Vec::new();
    };
    let origin = at(node.place);
    let keys = match (set, url) {
        (Some(set), _) => {
            let material = Item::new(Material::new(set.value.into_bytes()), set.origin);
            Some(TokenKeys::Set { set: material, ca: None })
        }
        (None, Some(url)) => Some(TokenKeys::Url { url, ca: None, refresh: None }),
        (None, None) => {
            let help = "write `jwksUri: URL`, or `jwks` with the keys themselves";
            r.at(
                node.place,
                "this rule has no keys; discovery by the issuer is not supported",
                help,
            );
            return Vec::new();
        }
    };
    if fields.is_empty() {
        fields.push(None);
    }
    let several = fields.len() > 1;
    let provider = |(index, header): (usize, Option<Item<String>>)| {
        let mut name = format!("{} #{number}", object.title());
        if several {
            name = format!("{name}.{}", index + 1);
        }
        TokenProvider {
            name: Item::new(name, origin.clone()),
            issuer: issuer.value.clone(),
            audiences: audiences.iter().map(|it| it.value.clone()).collect(),
            keys: Item::new(keys.clone(), origin.clone()),
            header,
            forward,
            leeway: Some(Duration::from_secs(60)),
        }
    };
    fields.into_iter().enumerate().map(provider).collect()
}

/// The header fields that may have the token.
fn header_fields(cx: &mut Context<'_>, rule: &mut Fields<'_>) -> Vec<Option<Item<String>>> {
    let r = &mut cx.reader;
    let mut fields = Vec::new();
    for node in rule.list(r, "fromHeaders") {
        let Some(mut header) = Fields::of(r, node, "an element of `fromHeaders`") else { continue };
        let name = header.string(r, "name");
        let prefix = header.string(r, "prefix");
        header.finish(r);
        if let Some(prefix) = prefix {
            let bearer =
                name.as_ref().is_some_and(|it| it.value.eq_ignore_ascii_case("authorization"));
            if !(bearer && prefix.value == "Bearer ") {
                let help = "leave it out; `Bearer ` is the prefix in `authorization`";
                r.item(&prefix, "another prefix is not supported", help);
            }
        }
        fields.extend(name.map(Some));
    }
    fields
}
