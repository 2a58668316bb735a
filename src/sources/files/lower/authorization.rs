//! Lowers `authorization:` to the model.

use super::super::grammar::authorization::{
    AuthorizationAction, AuthorizationRule, Operation, Source, When,
};
use super::super::grammar::route::ValueMatch;
use super::super::values::{AtLeastOne, Entries, Placed};
use super::route::value_match;
use super::{Lower, list, origin};
use crate::matching;
use crate::model::{
    Choices, Item, Policy, PolicyAction, PolicyCondition, PolicyOperation, PolicySource,
};

pub(super) fn policy(lower: &mut Lower<'_>, written: Placed<AuthorizationRule>) -> Item<Policy> {
    let value = written.value;
    let policy = Policy {
        name: value.name.map(Into::into),
        action: match value.action {
            AuthorizationAction::Allow => PolicyAction::Allow,
            AuthorizationAction::Deny => PolicyAction::Deny,
            AuthorizationAction::Audit => PolicyAction::Audit,
        },
        dry_run: value.dry_run.into(),
        inbound_only: false,
        from: each(value.from, source),
        to: each(value.to, operation),
        when: each(value.when, |when| condition(lower, when)),
    };
    Item::new(policy, origin(written.place))
}

fn each<T, M>(written: AtLeastOne<Placed<T>>, mut value: impl FnMut(T) -> M) -> Vec<Item<M>> {
    let item = |it: Placed<T>| Item::new(value(it.value), origin(it.place));
    written.0.into_iter().map(item).collect()
}

fn choices<T>(wanted: AtLeastOne<Placed<T>>, unwanted: AtLeastOne<Placed<T>>) -> Choices<T> {
    Choices { wanted: list(wanted.0), unwanted: list(unwanted.0) }
}

fn source(written: Source) -> PolicySource {
    PolicySource {
        identities: choices(written.identities, written.not_identities),
        namespaces: choices(written.namespaces, written.not_namespaces),
        trust_domains: choices(written.trust_domains, written.not_trust_domains),
        ips: choices(written.ips, written.not_ips),
        forwarded_ips: choices(written.forwarded_ips, written.not_forwarded_ips),
        remote_ips: Choices::default(),
    }
}

fn operation(written: Operation) -> PolicyOperation {
    PolicyOperation {
        services: list(written.service.0),
        ports: choices(written.ports, written.not_ports),
        ips: choices(written.ips, written.not_ips),
        hosts: choices(written.hosts, written.not_hosts),
        methods: choices(written.methods, written.not_methods),
        paths: choices(written.paths, written.not_paths),
    }
}

fn condition(lower: &mut Lower<'_>, written: When) -> PolicyCondition {
    PolicyCondition {
        headers: values(lower, written.headers),
        claims: values(lower, written.claims),
        ..PolicyCondition::default()
    }
}

fn values(
    lower: &mut Lower<'_>,
    written: Entries<Placed<ValueMatch>>,
) -> Vec<(Item<String>, matching::ValueMatch)> {
    let mut values = Vec::with_capacity(written.0.len());
    for (name, value) in written.0 {
        match value_match(&value.value) {
            Ok(parsed) => values.push((name.into(), parsed)),
            Err(error) => lower.mistake_with_help(value.place, error.message, error.help),
        }
    }
    values
}
