//! Services that an xDS server, Consul or Kubernetes is expected to have. A rule may name one
//! before the server has sent it, and after the server has removed it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::is_address;
use super::sources::CLUSTER_DOMAIN;
use crate::model::{Action, Endpoints, Item, Kubernetes, Model, Origin, Service};

/// Adds a service without endpoints for each name that a rule or a listener refers to and that does
/// not exist. Requests to it get 503. Does nothing if no xDS server is asked, nor Consul for all
/// services, nor Kubernetes, whose services have names in the domain of the cluster. Returns the
/// names.
pub(super) fn add(model: &mut Arc<Model>) -> Vec<String> {
    let sources = &model.settings.sources;
    let all_of_consul = sources.consul.as_ref().is_some_and(|consul| consul.value.all);
    let all = sources.xds.is_some() || all_of_consul;
    let domain = sources.kubernetes.as_ref().map(|it| cluster_domain(&it.value));
    if !all && domain.is_none() {
        return Vec::new();
    }
    let may_come = |name: &str| all || domain.as_deref().is_some_and(|it| name.ends_with(it));
    let known: HashSet<&str> =
        model.services.iter().map(|service| &*service.value.name.value).collect();
    let mut absent: BTreeMap<&str, &Origin> = BTreeMap::new();
    for reference in references(model) {
        let name = reference.value.as_str();
        let is_name = !name.is_empty() && !name.contains('/') && !is_address(name);
        // The port comes after the host.
        let host = name.split('|').next().unwrap_or_default();
        if is_name && may_come(host) && !known.contains(name) {
            absent.entry(name).or_insert(&reference.origin);
        }
    }
    let service = |(name, origin): (&&str, &&Origin)| {
        let origin = Origin::clone(origin);
        let service = Service {
            name: Item::new((*name).to_owned(), origin.clone()),
            endpoints: Some(match all_of_consul {
                true => Endpoints::Consul(Item::new((*name).to_owned(), origin.clone())),
                false => Endpoints::Awaited,
            }),
            ..Service::default()
        };
        Arc::new(Item::new(service, origin))
    };
    let added: Vec<_> = absent.iter().map(service).collect();
    let names = absent.into_keys().map(str::to_owned).collect();
    if !added.is_empty() {
        Arc::make_mut(model).services.extend(added);
    }
    names
}

/// The end of the names of services of Kubernetes.
fn cluster_domain(kubernetes: &Kubernetes) -> String {
    let domain = kubernetes.cluster_domain.as_ref().map_or(CLUSTER_DOMAIN, |it| &it.value);
    format!(".svc.{domain}")
}

/// The whole name of a service of Kubernetes that is written as `NAME.NAMESPACE` or
/// `NAME.NAMESPACE.svc`. `None` if Kubernetes is not asked, or the name has another form.
pub(super) fn whole_name(model: &Model, name: &str) -> Option<String> {
    let kubernetes = &model.settings.sources.kubernetes.as_ref()?.value;
    let (service, namespace) = name.strip_suffix(".svc").unwrap_or(name).split_once('.')?;
    let is_whole = !service.is_empty() && !namespace.is_empty() && !namespace.contains('.');
    is_whole.then(|| format!("{service}.{namespace}{}", cluster_domain(kubernetes)))
}

/// All references to services.
fn references(model: &Model) -> impl Iterator<Item = &Item<String>> {
    let rules = model.routes.iter().flat_map(|routes| &routes.value.rules);
    let of_rules = rules.flat_map(|rule| {
        let forwarded: &[(Item<String>, u32)] = match &rule.value.action {
            Some(Action::Forward(all)) => all,
            _ => &[],
        };
        let mirror = rule.value.mirror.as_ref().and_then(|mirror| mirror.value.to.as_ref());
        forwarded.iter().map(|(to, _)| to).chain(mirror)
    });
    let listeners = model.listeners.iter().filter_map(|listener| listener.value.service.as_ref());
    of_rules.chain(listeners)
}
