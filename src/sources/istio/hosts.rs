//! The hosts of the mesh: services of objects, and services of Ringway's own files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::destination_rule::{Subset, Traffic, apply};
use super::{Context, Settings};
use crate::compile::is_slip;
use crate::model::{
    self, Action, ClientTls, Endpoints, Item, Items, Match, Origin, Routes, Rule, Service,
    ServiceProtocol,
};
use crate::net::DnsName;
use crate::sources::objects::listed;

/// A port of a service.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) protocol: PortProtocol,
    /// The endpoints, each with its labels.
    pub(super) endpoints: Reached,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortProtocol {
    Http,
    Http2,
    Grpc,
    Tcp,
}

impl PortProtocol {
    pub(super) fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

/// An endpoint with its labels.
pub(super) type Labelled = (Item<model::Endpoint>, Vec<(String, String)>);

/// The endpoints of a port.
#[derive(Clone, Debug)]
pub(super) enum Reached {
    List(Vec<Labelled>),
    Name(Item<DnsName>),
    /// The endpoints of a port of a service of Kubernetes.
    Slices(Item<String>),
}

/// A service of an object.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) origin: Origin,
    /// The object, for messages.
    pub(super) title: String,
    pub(super) ports: Vec<Port>,
    /// The addresses that captured connections go to.
    pub(super) addresses: Vec<Item<std::net::IpAddr>>,
    pub(super) identities: Vec<Item<String>>,
    pub(super) accounts: Accounts,
}

impl Host {
    /// Whether it is a Service of Kubernetes with EndpointSlices.
    fn is_of_slices(&self) -> bool {
        self.ports.iter().any(|port| matches!(port.endpoints, Reached::Slices(_)))
    }
}

/// The SPIFFE IDs of the service accounts of endpoints.
#[derive(Clone, Debug)]
pub(super) enum Accounts {
    /// No endpoint has one.
    None,
    /// Some endpoints have one, and the first of them is here.
    OfSome(Origin),
    /// All endpoints have one of these.
    OfAll(Vec<Item<String>>),
}

/// The rule for a host.
#[derive(Clone, Debug)]
pub(super) struct RuleOfHost {
    pub(super) title: String,
    pub(super) traffic: Traffic,
    pub(super) subsets: Vec<Subset>,
}

/// All hosts, and the rules for them.
pub(super) struct Hosts {
    namespace: String,
    domain: String,
    /// The services of Ringway's own files, by name.
    own: HashMap<String, Arc<Item<Service>>>,
    hosts: BTreeMap<String, Host>,
    rules: BTreeMap<String, RuleOfHost>,
    /// Services without endpoints, for destinations that do not exist: requests to them get 503.
    missing: BTreeMap<String, Origin>,
}

/// A destination of a route.
pub(super) struct Destination<'a> {
    pub(super) host: &'a Item<String>,
    pub(super) subset: Option<&'a Item<String>>,
    pub(super) port: Option<&'a Item<u16>>,
    /// The namespace of the object that has the route.
    pub(super) namespace: &'a str,
    /// The port of the requests of the route, if only one.
    pub(super) of_requests: Option<u16>,
}

impl Hosts {
    pub(super) fn new(settings: &Settings, own: &Items<Service>) -> Self {
        Self {
            namespace: settings.namespace.clone(),
            domain: settings.domain.clone(),
            own: own.iter().map(|it| (it.value.name.value.clone(), Arc::clone(it))).collect(),
            hosts: BTreeMap::new(),
            rules: BTreeMap::new(),
            missing: BTreeMap::new(),
        }
    }

    /// The full name of a host in an object of `namespace`. A name with a dot is full already.
    pub(super) fn full(&self, host: &str, namespace: &str) -> String {
        match host.contains('.') || host == "*" {
            true => host.to_ascii_lowercase(),
            false => format!("{host}.{namespace}.svc.{}", self.domain).to_ascii_lowercase(),
        }
    }

    /// The shorter names of a service of Kubernetes.
    pub(super) fn aliases(&self, full: &str) -> Vec<String> {
        let rest = full.strip_suffix(&format!(".svc.{}", self.domain));
        let Some((name, namespace)) = rest.and_then(|rest| rest.split_once('.')) else {
            return Vec::new();
        };
        if namespace.contains('.') || name == "*" {
            return Vec::new();
        }
        let mut names = vec![format!("{name}.{namespace}.svc"), format!("{name}.{namespace}")];
        if namespace == self.namespace {
            names.push(name.to_owned());
        }
        names
    }

    /// Whether an object has this host already.
    pub(super) fn has(&self, full: &str) -> bool {
        self.hosts.contains_key(full)
    }

    /// The Service of Kubernetes that has `name` as a shorter name.
    fn shortened(&self, name: &str) -> Option<&Host> {
        let Self { namespace, domain, .. } = self;
        let full = match (name.ends_with(".svc"), name.contains('.')) {
            (true, _) => format!("{name}.{domain}"),
            (false, true) => format!("{name}.svc.{domain}"),
            (false, false) => format!("{name}.{namespace}.svc.{domain}"),
        };
        self.hosts.get(&full).filter(|host| host.is_of_slices())
    }

    /// Adds a host of an object.
    pub(super) fn add(&mut self, cx: &mut Context<'_>, name: &Item<String>, host: Host) {
        if let Some(first) = self.hosts.get(&name.value).or_else(|| self.shortened(&name.value)) {
            let message = format!("{} has the host {:?}, too", first.title, name.value);
            let help = match first.is_of_slices() {
                true => "a Service of Kubernetes comes first: write another host",
                false => "take it out of one of them",
            };
            cx.reader.item(name, message, help);
            return;
        }
        self.hosts.insert(name.value.clone(), host);
    }

    /// Adds the rule for a host.
    pub(super) fn add_rule(&mut self, cx: &mut Context<'_>, host: &Item<String>, rule: RuleOfHost) {
        if let Some(first) = self.rules.get(&host.value) {
            let message = format!("{} is for the host {:?}, too", first.title, host.value);
            cx.reader.item(host, message, "join them, or keep one");
            return;
        }
        if let Some(own) = self.own_service(&host.value, true)
            && let Some(place) = rule
                .traffic
                .place
                .or_else(|| rule.subsets.iter().find_map(|subset| subset.traffic.place))
        {
            let name = &own.value.name.value;
            let message = format!("{name:?} is a service of Ringway's own files");
            cx.reader.at(
                place,
                message,
                format!("write its settings there: services: {{{name}: ...}}"),
            );
            return;
        }
        self.rules.insert(host.value.clone(), rule);
    }

    /// Whether a service has this host, or one that this wildcard matches.
    pub(super) fn knows(&self, full: &str) -> bool {
        match full.strip_prefix('*') {
            Some(suffix) => self.hosts.keys().any(|host| host.ends_with(suffix)),
            None => self.hosts.contains_key(full) || self.own_service(full, true).is_some(),
        }
    }

    /// The advice for a host that no service has: one that is alike, or one of this name in another
    /// namespace.
    pub(super) fn advice(&self, full: &str) -> String {
        let parts = |host: &str| {
            let (name, rest) = host.split_once('.').unwrap_or((host, ""));
            [name, rest].map(str::to_owned)
        };
        let [name, rest] = parts(full);
        let is_slip = |host: &&String| {
            let [other, below] = parts(host);
            below == rest && is_slip(&name, &other)
        };
        // Only services of Kubernetes have namespaces.
        let cluster = format!(".svc.{}", self.domain);
        let is_elsewhere = |host: &&String| {
            full.ends_with(&cluster) && host.ends_with(&cluster) && parts(host)[0] == name
        };
        let known = || self.hosts.keys();
        match known().find(is_slip).or_else(|| known().find(is_elsewhere)) {
            Some(host) => format!("did you mean {host:?}?"),
            None => "write a ServiceEntry, or a service of this name in `services`".to_owned(),
        }
    }

    /// The rule for a host: its own one, or the one of the longest wildcard.
    fn rule(&self, full: &str) -> Option<&RuleOfHost> {
        if let Some(rule) = self.rules.get(full) {
            return Some(rule);
        }
        let fits = |wildcard: &str| {
            wildcard.strip_prefix('*').is_some_and(|suffix| full.ends_with(suffix))
        };
        // In ASCII, `+` is next to `*`, so these are all names that begin with `*`.
        let wildcards = self.rules.range("*".to_owned().."+".to_owned());
        let wildcards = wildcards.filter(|(host, _)| fits(host));
        wildcards.max_by_key(|(host, _)| host.len()).map(|(_, rule)| rule)
    }

    /// The service of Ringway's own files for a host.
    fn own_service(&self, full: &str, in_own_namespace: bool) -> Option<&Arc<Item<Service>>> {
        let mut names = vec![full.to_owned()];
        names.extend(self.aliases(full));
        if in_own_namespace && let Some(short) = full.split('.').next() {
            let ours = format!("{short}.{}.svc.{}", self.namespace, self.domain);
            if ours == full {
                names.push(short.to_owned());
            }
        }
        names.iter().find_map(|name| self.own.get(name))
    }

    /// The service that `to` names, as a rule of the model refers to it. A destination that does
    /// not exist is a service without endpoints: its requests get 503, as in Istio.
    pub(super) fn destination(
        &mut self,
        cx: &mut Context<'_>,
        to: &Destination<'_>,
    ) -> Item<String> {
        let full = self.full(&to.host.value, to.namespace);
        let origin = &to.host.origin;
        if let Some(host) = self.hosts.get(&full) {
            let ports = &host.ports;
            let single = ports.len() == 1;
            let wanted = to.port.map(|port| port.value);
            let number = wanted.or(if single { None } else { to.of_requests });
            let port = match number {
                Some(number) => ports.iter().find(|port| port.number == number),
                None => ports.iter().find(|port| port.number == 80).or_else(|| ports.first()),
            };
            let Some(port) = port else {
                let known: Vec<String> = ports.iter().map(|it| it.number.to_string()).collect();
                let message = format!("{full} has no port {}", number.unwrap_or_default());
                let help = format!("requests to it get 503; write one of {}", known.join(", "));
                let place = to.port.map_or(origin, |port| &port.origin);
                return self.absent(
                    cx,
                    format!("{full}|{}", number.unwrap_or_default()),
                    place,
                    message,
                    help,
                );
            };
            let base = service_name(&full, port, single);
            return self.subset(cx, to, &full, base);
        }
        if let Some(own) = self.own_service(&full, true) {
            let own = Arc::clone(own);
            return self.own_subset(cx, to, &full, &own.value);
        }
        let message = format!("no service has the host {full}");
        let help = format!("requests to it get 503, as in Istio; {}", self.advice(&full));
        self.absent(cx, full, origin, message, help)
    }

    fn subset(
        &mut self,
        cx: &mut Context<'_>,
        to: &Destination<'_>,
        full: &str,
        base: String,
    ) -> Item<String> {
        let Some(subset) = to.subset else { return Item::new(base, to.host.origin.clone()) };
        let known = self.rule(full).map(|rule| {
            rule.subsets.iter().map(|subset| subset.name.value.as_str()).collect::<Vec<_>>()
        });
        let name = format!("{base}|{}", subset.value);
        if known.as_ref().is_some_and(|known| known.contains(&subset.value.as_str())) {
            return Item::new(name, subset.origin.clone());
        }
        let message = format!("no DestinationRule of {full} has the subset {:?}", subset.value);
        let help = match known {
            Some(known) if !known.is_empty() => {
                format!(
                    "requests to this subset get 503, as in Istio; {full} has {}",
                    listed("subset", &known)
                )
            }
            _ => "requests to this subset get 503, as in Istio; write a DestinationRule with it"
                .to_owned(),
        };
        self.absent(cx, name, &subset.origin, message, help)
    }

    /// The version of a service of Ringway's own files. A subset of a DestinationRule selects a
    /// version by the label `version`; without one, the subset has the name of a version.
    fn own_subset(
        &mut self,
        cx: &mut Context<'_>,
        to: &Destination<'_>,
        full: &str,
        own: &Service,
    ) -> Item<String> {
        let name = &own.name.value;
        let Some(subset) = to.subset else {
            return Item::new(name.clone(), to.host.origin.clone());
        };
        let versions: Vec<&str> = match &own.endpoints {
            Some(Endpoints::Versions(versions)) => {
                versions.iter().map(|(version, _)| version.value.as_str()).collect()
            }
            _ => Vec::new(),
        };
        let rule = self.rule(full);
        let labels = rule.map(|rule| {
            let subset = rule.subsets.iter().find(|it| it.name.value == subset.value);
            subset.map(|subset| match &subset.labels[..] {
                [(label, value)] if label.value == "version" => value.value.clone(),
                _ => String::new(),
            })
        });
        let version = labels.unwrap_or_else(|| Some(subset.value.clone()));
        if let Some(version) = version.filter(|version| versions.contains(&version.as_str())) {
            return Item::new(format!("{name}/{version}"), subset.origin.clone());
        }
        let message =
            format!("the service {name:?} has no version for the subset {:?}", subset.value);
        let help = match versions.is_empty() {
            true => format!(
                "requests to this subset get 503; write services: {{{name}: {{versions: \
                 {{{}: [IP:PORT]}}}}}}",
                subset.value
            ),
            false => format!(
                "requests to this subset get 503; {name} has {}",
                listed("version", &versions)
            ),
        };
        self.absent(cx, format!("{full}|{}", subset.value), &subset.origin, message, help)
    }

    fn absent(
        &mut self,
        cx: &mut Context<'_>,
        name: String,
        origin: &Origin,
        message: String,
        help: String,
    ) -> Item<String> {
        if let Origin::File(place) = origin {
            cx.reader.warn(*place, message, help);
        }
        self.missing.entry(name.clone()).or_insert_with(|| origin.clone());
        Item::new(name, origin.clone())
    }

    /// The services without endpoints.
    pub(super) fn missing(&mut self) -> Vec<Item<Service>> {
        let service = |(name, origin): (String, Origin)| {
            let service = Service {
                name: Item::new(name, origin.clone()),
                endpoints: Some(Endpoints::List(Vec::new())),
                ..Service::default()
            };
            Item::new(service, origin)
        };
        std::mem::take(&mut self.missing).into_iter().map(service).collect()
    }

    /// The ports of a host, if it has several that carry HTTP.
    pub(super) fn several_ports(&self, full: &str) -> Vec<u16> {
        let ports = self.hosts.get(full).map_or(&[][..], |host| &host.ports);
        match ports.len() {
            0 | 1 => Vec::new(),
            _ => ports.iter().filter(|it| it.protocol.is_http()).map(|it| it.number).collect(),
        }
    }

    /// The services of all hosts, with a service for each subset.
    pub(super) fn services(&self, cx: &mut Context<'_>) -> Vec<Item<Service>> {
        let mut services = Vec::new();
        let mut refused = HashSet::new();
        for (full, host) in &self.hosts {
            let rule = self.rule(full);
            let single = host.ports.len() == 1;
            if let Some(rule) = rule.filter(|_| host.is_of_slices()) {
                refuse_labels(cx, host, rule, &mut refused);
            }
            for port in &host.ports {
                let base = service_name(full, port, single);
                let whole = service(host, port, base.clone());
                let subsets = rule.map_or(&[][..], |rule| &rule.subsets);
                for subset in subsets {
                    let name = format!("{base}|{}", subset.name.value);
                    let mut its = Service {
                        name: Item::new(name, subset.name.origin.clone()),
                        addresses: Vec::new(),
                        endpoints: Some(chosen(&port.endpoints, Some(&subset.labels))),
                        ..whole.clone()
                    };
                    let above = rule.map(|rule| &rule.traffic);
                    let traffic: Vec<&Traffic> =
                        above.into_iter().chain([&subset.traffic]).collect();
                    apply(&mut its, &traffic, port.number);
                    with_accounts(cx, host, &mut its);
                    services.push(Item::new(its, subset.name.origin.clone()));
                }
                let mut whole = whole;
                if let Some(rule) = rule {
                    apply(&mut whole, &[&rule.traffic], port.number);
                }
                with_accounts(cx, host, &mut whole);
                services.push(Item::new(whole, host.origin.clone()));
            }
        }
        services
    }

    /// Routes for the hosts that no other routes name: all requests go to the service.
    pub(super) fn default_routes(&self, taken: &HashSet<String>) -> Vec<Item<Routes>> {
        let is_taken = |name: &str| taken.contains(name);
        let mut all = Vec::new();
        for (full, host) in &self.hosts {
            let single = host.ports.len() == 1;
            for (index, port) in host.ports.iter().filter(|it| it.protocol.is_http()).enumerate() {
                let suffix = |name: String| match single {
                    true => name,
                    false => format!("{name}:{}", port.number),
                };
                let mut names: Vec<String> =
                    std::iter::once(full.clone()).chain(self.aliases(full)).map(suffix).collect();
                // A host without a port means the first port that carries HTTP.
                if !single && index == 0 {
                    names.extend(std::iter::once(full.clone()).chain(self.aliases(full)));
                }
                // Another host may have a shorter name of this one.
                let is_other = |name: &String| name != full && self.hosts.contains_key(name);
                names.retain(|name| !is_taken(name) && !is_taken(full) && !is_other(name));
                let mut names = names.into_iter().map(|name| Item::new(name, host.origin.clone()));
                let Some(first) = names.next() else { continue };
                let to = Item::new(service_name(full, port, single), host.origin.clone());
                let rule = Rule {
                    name: Some(Item::new(host.title.clone(), host.origin.clone())),
                    matches: Match::default(),
                    action: Some(Action::Forward(vec![(to, 1)])),
                    retries: Some(Box::new(super::http_route::default_retries(&host.origin))),
                    ..Rule::default()
                };
                let routes = Routes {
                    host: first,
                    aliases: names.collect(),
                    scope: None,
                    tolerant: true,
                    rules: vec![Item::new(rule, host.origin.clone())],
                };
                all.push(Item::new(routes, host.origin.clone()));
            }
        }
        all
    }
}

/// The name of the service of a port: the host, and the port if there are several.
fn service_name(full: &str, port: &Port, single: bool) -> String {
    match single {
        true => full.to_owned(),
        false => format!("{full}|{}", port.number),
    }
}

fn service(host: &Host, port: &Port, name: String) -> Service {
    let address = |address: &Item<std::net::IpAddr>| {
        let full = std::net::SocketAddr::new(address.value, port.number);
        Item::new(full, address.origin.clone())
    };
    Service {
        name: Item::new(name, host.origin.clone()),
        protocol: match port.protocol {
            PortProtocol::Http => ServiceProtocol::Http1,
            PortProtocol::Http2 => ServiceProtocol::Http2,
            PortProtocol::Grpc => ServiceProtocol::Grpc,
            PortProtocol::Tcp => ServiceProtocol::Tcp,
        },
        addresses: host.addresses.iter().map(address).collect(),
        endpoints: Some(chosen(&port.endpoints, None)),
        identities: host.identities.clone(),
        ..Service::default()
    }
}

/// With mutual TLS of the mesh, endpoints must have the service accounts that their entries name.
fn with_accounts(cx: &mut Context<'_>, host: &Host, service: &mut Service) {
    let is_mesh = service.tls.as_ref().is_some_and(|tls| matches!(tls.value, ClientTls::Mesh));
    if !is_mesh || !service.identities.is_empty() {
        return;
    }
    match &host.accounts {
        Accounts::None => {}
        Accounts::OfAll(ids) => service.identities.clone_from(ids),
        Accounts::OfSome(origin) => {
            cx.reader.object.clone_from(&host.title);
            if let Origin::File(place) = origin {
                let message = "only some endpoints have a `serviceAccount`, so none is checked";
                let help = "write it for all endpoints, or `subjectAltNames` in the ServiceEntry";
                cx.reader.warn(*place, message, help);
            }
        }
    }
}

/// Refuses subsets with labels of a Service, because EndpointSlices do not have the labels of pods.
/// Without this, requests to a subset would go to all versions. A rule for a wildcard may be here
/// for several hosts; `refused` has its title then.
fn refuse_labels(
    cx: &mut Context<'_>,
    host: &Host,
    rule: &RuleOfHost,
    refused: &mut HashSet<String>,
) {
    let Some(subset) = rule.subsets.iter().find(|subset| !subset.labels.is_empty()) else { return };
    if !refused.insert(rule.title.clone()) {
        return;
    }
    let name = &subset.name.value;
    let labels =
        subset.labels.iter().map(|(name, value)| format!("{}: {}", name.value, value.value));
    let labels = labels.collect::<Vec<_>>().join(", ");
    cx.reader.object.clone_from(&rule.title);
    let message = format!(
        "the subset {name:?} has labels, but the EndpointSlices of {} do not have those of pods",
        host.title
    );
    let help = format!(
        "make a Service with `selector: {{{labels}}}`, send requests to it, and take the subset out"
    );
    cx.reader.item(&subset.name, message, help);
}

/// The endpoints that have the `labels` of a subset. `None` means all.
fn chosen(endpoints: &Reached, labels: Option<&[(Item<String>, Item<String>)]>) -> Endpoints {
    match endpoints {
        Reached::Name(name) => Endpoints::Name(name.clone()),
        Reached::Slices(port) => Endpoints::Slices(port.clone()),
        Reached::List(list) => {
            let fits = |its: &[(String, String)]| {
                labels.is_none_or(|wanted| super::has_labels(its, wanted))
            };
            let chosen = list.iter().filter(|(_, its)| fits(its));
            Endpoints::List(chosen.map(|(endpoint, _)| endpoint.clone()).collect())
        }
    }
}
