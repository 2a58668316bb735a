//! Compiles global rate limits.

use std::sync::Arc;

use super::rate_limits::{Owner, fields};
use super::registry::{LimitId, Unit};
use super::{Compiler, is_address, is_token, suggestion};
use crate::model::{self, EntryFact, Item, Origin, ServiceProtocol};
use crate::resilience::{
    DESCRIPTORS_MAX, Descriptor, Entry, Fact, GLOBAL_TIMEOUT, GlobalLimit, OnFailure, quoted,
};

/// Compiles a global limit, which asks the service called `asked`. `None` after an error.
pub(super) fn limit(
    compiler: &mut Compiler<'_>,
    owner: &Owner<'_>,
    written: &Item<model::RateLimit>,
    asked: &Item<String>,
) -> Option<Arc<GlobalLimit>> {
    let value = &written.value;
    if let Some((origin, key)) = local_key(written) {
        let message =
            format!("`{key}` is for a limit that this proxy counts, and this has `service`");
        let help = "write a list: rate_limit: [{requests: 100, per: 1s}, {service: NAME, ...}]";
        compiler.fault_with_help(origin, message, help);
    }
    if let Some(reason) = owner.not_http {
        let message = format!("a global limit counts requests, and {reason}");
        compiler.fault_with_help(&written.origin, message, "write a limit without `service`");
    }
    let service = service(compiler, asked);
    let domain = value.domain.as_ref().filter(|domain| !domain.value.is_empty());
    if domain.is_none() {
        let origin = value.domain.as_ref().map_or(&written.origin, |domain| &domain.origin);
        let help = "write `domain: NAME`, as in the configuration of the rate limit service";
        compiler.missing(origin, "a global limit needs a `domain`", help);
    }
    if value.descriptors.is_empty() {
        let help = "write `descriptors: [source]`, or `descriptors: [[{header: x-user}, path]]`";
        compiler.missing(&written.origin, "a global limit needs `descriptors`", help);
    }
    if let Some(first) = value.descriptors.get(DESCRIPTORS_MAX) {
        let message = format!("these are more than {DESCRIPTORS_MAX} descriptors");
        compiler.fault_with_help(&first.origin, message, "write fewer: a request has each of them");
    }
    let descriptors = value.descriptors.iter().map(|item| descriptor(compiler, item)).collect();
    let &Owner { scope, host, name, nth, .. } = owner;
    let (limit, unit) = (0, Unit::Requests);
    let id =
        LimitId { scope, host: host.into(), name: name.into(), nth, limit, which: "".into(), unit };
    let limit = Arc::new(GlobalLimit {
        scope,
        host: host.into(),
        name: name.into(),
        place: compiler.model.files.line_of(&written.origin).into(),
        service: service?,
        service_name: asked.value.as_str().into(),
        domain: domain?.value.as_str().into(),
        descriptors,
        timeout: value.timeout.as_ref().map_or(GLOBAL_TIMEOUT, |timeout| timeout.value),
        on_failure: match value.on_failure.as_ref().map(|decision| decision.value) {
            None | Some(model::OnFailure::Allow) => OnFailure::Allow,
            Some(model::OnFailure::Deny) => OnFailure::Deny,
        },
        label: quoted(value.name.as_deref().unwrap_or(name)),
        fields: fields(value.headers),
        stats: compiler.registry.global_limit(&id),
    });
    compiler.rate_limits.global.push(Arc::clone(&limit));
    Some(limit)
}

/// A key that only a local limit has.
fn local_key(written: &Item<model::RateLimit>) -> Option<(&Origin, &'static str)> {
    let value = &written.value;
    let keys = [
        (value.requests.as_ref().map(|item| &item.origin), "requests"),
        (value.bytes.as_ref().map(|item| &item.origin), "bytes"),
        (value.per.as_ref().map(|item| &item.origin), "per"),
        (value.burst.as_ref().map(|item| &item.origin), "burst"),
        (value.by.as_ref().map(|_| &written.origin), "by"),
    ];
    keys.into_iter().find_map(|(origin, key)| Some((origin?, key)))
}

/// A key that only a global limit has.
pub(super) fn global_key(value: &model::RateLimit) -> Option<(&Origin, &'static str)> {
    let keys = [
        (value.domain.as_ref().map(|item| &item.origin), "domain"),
        (value.descriptors.first().map(|item| &item.origin), "descriptors"),
        (value.timeout.as_ref().map(|item| &item.origin), "timeout"),
        (value.on_failure.as_ref().map(|item| &item.origin), "on_failure"),
    ];
    keys.into_iter().find_map(|(origin, key)| Some((origin?, key)))
}

/// The index of the rate limit service, which may not be compiled yet.
fn service(compiler: &mut Compiler<'_>, asked: &Item<String>) -> Option<u32> {
    let (model, name) = (compiler.model, asked.value.as_str());
    if is_address(name) {
        let message = format!("{name:?} is an address; a service is named here");
        let help = format!(
            "write `service: limits`, and \
             `services: {{limits: {{protocol: grpc, endpoints: [\"{name}\"]}}}}`"
        );
        compiler.fault_with_help(&asked.origin, message, help);
        return None;
    }
    let found = model.services.iter().find(|item| item.value.name.value == name);
    let Some(found) = found else {
        let known: Vec<&str> =
            model.services.iter().map(|item| item.value.name.value.as_str()).collect();
        let message = format!("there is no service {name:?}");
        let help = suggestion(name, &known);
        compiler.unknown(&asked.origin, ("services", name), message, help);
        return None;
    };
    if !matches!(found.value.protocol, ServiceProtocol::Grpc | ServiceProtocol::Http2) {
        let message = format!(
            "{name:?} does not have `protocol: grpc`, and a rate limit service \
                               speaks gRPC"
        );
        compiler.fault_with_help(&asked.origin, message, speaks_grpc(model));
    }
    let before = model.services.iter().filter(|item| *item.value.name.value < *name).count();
    u32::try_from(before).ok()
}

/// The advice to name a service that speaks gRPC.
fn speaks_grpc(model: &model::Model) -> String {
    let all = model.services.iter().map(|item| &item.value);
    let mut grpc = all.filter(|service| service.protocol == ServiceProtocol::Grpc);
    match (grpc.next(), grpc.next()) {
        (Some(only), None) => format!("write `service: {}`, which has it", only.name.value),
        _ => "name the rate limit service, and add `protocol: grpc` to it".to_owned(),
    }
}

fn descriptor(
    compiler: &mut Compiler<'_>,
    written: &Item<Vec<Item<model::DescriptorEntry>>>,
) -> Descriptor {
    let entries = &written.value;
    if entries.is_empty() {
        let help = "write its entries: [source], or [{header: x-user}, path]";
        compiler.fault_with_help(&written.origin, "this descriptor has no entry", help);
    }
    if let Some(first) = entries.get(DESCRIPTORS_MAX) {
        let message = format!("these are more than {DESCRIPTORS_MAX} entries");
        compiler.fault_with_help(&first.origin, message, "write fewer");
    }
    Descriptor(entries.iter().map(|item| entry(compiler, item)).collect())
}

fn entry(compiler: &mut Compiler<'_>, written: &Item<model::DescriptorEntry>) -> Entry {
    let model::DescriptorEntry { key, fact } = &written.value;
    if let Some(key) = key.as_ref().filter(|key| key.value.is_empty()) {
        compiler.fault(&key.origin, "an entry needs a key that is not empty");
    }
    let Some(fact) = fact else {
        let message = "an entry of a descriptor has exactly one value";
        let help = "write one of {header: NAME}, {value: TEXT}, `source`, `identity`, `method`, \
                    `path`, `rule` and `service`, with `key` if need be; for several together, \
                    write a list with an entry for each: `descriptors: [[{header: NAME}, path]]`";
        compiler.fault_with_help(&written.origin, message, help);
        return Entry { key: "".into(), value: Fact::Source };
    };
    let value = match fact {
        EntryFact::Header(name, default) => {
            if !is_token(&name.value) {
                let message = format!("{:?} is not the name of a field", name.value);
                compiler.fault(&name.origin, message);
            }
            Fact::Header(name.value.as_str().into(), default.as_deref().map(Into::into))
        }
        EntryFact::Text(text) => {
            if text.value.is_empty() {
                compiler.fault(&text.origin, "an entry needs a value that is not empty");
            }
            Fact::Text(text.value.as_str().into())
        }
        EntryFact::Source => Fact::Source,
        EntryFact::Identity => Fact::Identity,
        EntryFact::Method => Fact::Method,
        EntryFact::Path => Fact::Path,
        EntryFact::Rule => Fact::Rule,
        EntryFact::Service => Fact::Service,
    };
    let key = key.as_ref().map_or_else(|| value.key().to_owned(), |key| key.value.clone());
    Entry { key: key.into(), value }
}
