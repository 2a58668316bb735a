//! Compiles the model into the snapshot that the workers use: names become indices, and patterns
//! are compiled. This module does not depend on sources, and reads no files.

mod absent;
mod access_log;
mod admin;
mod authorization;
mod breaker;
mod collector;
mod endpoints;
mod faults;
mod global_limits;
pub mod habits;
mod health;
mod http2;
mod http3;
mod jwt;
mod listeners;
mod literals;
mod locality;
mod mesh;
mod mirrors;
mod outlier;
mod overload;
mod pem;
mod rate_limits;
pub mod registry;
mod reserved;
mod retries;
mod routes;
mod services;
mod settings;
mod shifts;
mod slips;
mod sources;
mod standard;
mod sticky;
mod suggestion;
mod tcp;
mod tls;
mod traces;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::admin::{AdminPeer, AdminPlan, AdminTls, address as admin_address};
pub use self::endpoints::{found_at, found_in_consul, found_in_resource, found_in_slices};
pub use self::jwt::KeySource;
use self::registry::Registry;
pub use self::reserved::{admin_endpoints, reaches};
pub use self::retries::check_condition;
pub use self::routes::{check_field, check_host, check_substitution};
pub use self::slips::Validity;
pub use self::sources::{
    CLUSTER_DOMAIN, ConsulSource, EtcdSource, KubernetesSource, SourcePlan, XdsSource,
};
pub use self::suggestion::{is_slip, key_suggestion, suggestion, value_suggestion};
use self::tls::MeshIdentity;
pub use self::tls::workload::{IssuedBy, WorkloadApi};
pub use self::tls::{check_certificate, check_roots};
use crate::cluster::{Destination, Service};
use crate::dns::DnsPlan;
use crate::jwt::{KeySet, Provider};
use crate::mesh::{EndpointAddresses, MARK};
use crate::message::HeaderEdits;
use crate::model::{
    Driver, Endpoint, Fault, Item, Material, Merged, Model, Origin, Refusal, Severity,
};
use crate::net::{Bind, DnsName, Egress};
use crate::resilience::RateLimits;
use crate::route::{Action, Matcher, Rule, Shift};
use crate::snapshot::Snapshot;
use crate::tls::{CertificateInfo, WorkloadIdentity};

/// Results of DNS lookups and key fetches that the snapshot needs. The control thread provides
/// them.
#[derive(Clone, Debug, Default)]
pub struct Resolutions {
    /// The addresses of the services in DNS.
    pub names: HashMap<DnsName, Vec<SocketAddr>>,
    /// The keys of token issuers, by URL.
    pub key_sets: HashMap<String, Arc<KeySet>>,
    /// The endpoints of the services in Consul.
    pub consul: HashMap<String, Arc<[Endpoint]>>,
    /// The endpoints of the ports of services of Kubernetes: `NAMESPACE/NAME/PORT`.
    pub slices: HashMap<Arc<str>, Arc<[Endpoint]>>,
    /// The identity of this workload from each SPIFFE Workload API: that of the configuration in
    /// use, and that of one which waits for its identity.
    pub identities: HashMap<WorkloadApi, Arc<WorkloadIdentity>>,
}

impl Resolutions {
    /// Creates an empty set of results.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the first identity, and the first endpoints of services in Consul.
    pub fn with(self, issued: Option<IssuedBy>, consul: HashMap<String, Arc<[Endpoint]>>) -> Self {
        Self { identities: issued.into_iter().collect(), consul, ..self }
    }
}

/// A configuration that is ready to be applied.
pub struct Compiled {
    /// The configuration of the workers.
    pub snapshot: Snapshot,
    /// The admin interface.
    pub admin: AdminPlan,
    /// The address of the resolver for the workload, and its names.
    pub dns: DnsPlan,
    /// The number of workers. `None` means one for each CPU.
    pub workers: Option<usize>,
    /// Whether each worker is pinned to its own CPU. `None` means that the process decides at its
    /// start.
    pub pin: Option<bool>,
    /// The kernel interface.
    pub driver: Driver,
    /// The directory for state that survives restarts.
    pub state_dir: Option<PathBuf>,
    /// The DNS names to resolve.
    pub names: Vec<DnsName>,
    /// How long the last addresses of a DNS name stay in use after the name has lost all its
    /// addresses.
    pub gone_after: Duration,
    /// The URLs of token keys to fetch.
    pub key_sources: Vec<KeySource>,
    /// The servers that are asked for more of the configuration.
    pub sources: SourcePlan,
    /// Whether the identity is a stand-in, because the Workload API has not issued one yet. Then
    /// no handshake of the mesh succeeds.
    pub awaits_identity: bool,
    /// The origin of each bind, for the message if its socket cannot be opened.
    pub bind_places: HashMap<Bind, String>,
    /// The resources that were left out, each with its reason.
    pub refusals: Vec<Refusal>,
    /// The services that do not exist although a rule names them. An xDS server may send them.
    pub absent: Vec<String>,
    /// The warnings about probable mistakes.
    pub warnings: Vec<Fault>,
    /// The validity periods of the certificates, for warnings.
    pub validity: Vec<Validity>,
}

/// The state that all steps of a compilation share.
struct Compiler<'a> {
    model: &'a Model,
    registry: &'a mut Registry,
    resolutions: &'a Resolutions,
    faults: Vec<Fault>,
    /// Virtual addresses of services, and their origins.
    virtual_addresses: HashMap<SocketAddr, &'a Origin>,
    /// The identity of this workload, and the roots that it trusts.
    mesh: Option<MeshIdentity>,
    /// The rules that are compiled so far. The index of a rule is its position in this list.
    rules: Vec<Arc<Rule>>,
    /// The certificates in use, for the admin page.
    certificates: Vec<CertificateInfo>,
    /// Whether the identity of this workload is not known yet.
    awaits_identity: bool,
    /// The API that issues the identity of this workload.
    workload_api: Option<WorkloadApi>,
    /// The compiled token issuers.
    providers: Vec<Arc<Provider>>,
    /// The URLs of token keys to fetch.
    key_sources: Vec<KeySource>,
    /// The SO_MARK and the source address of connections to endpoints.
    egress: Egress,
    /// The origin of each bind, to detect conflicts.
    bind_places: HashMap<Bind, String>,
    /// The names of the services to which a rule with a retry policy forwards requests.
    retried: HashSet<&'a str>,
    /// The compiled rate limits.
    rate_limits: RateLimits,
    /// All shifts.
    shifts: Vec<Arc<Shift>>,
    /// The validity periods of the certificates, for warnings.
    validity: Vec<Validity>,
}

/// Compiles `merged` into the snapshot number `version`. Resources with errors are left out; they
/// are in [`Compiled::refusals`].
///
/// # Errors
/// All errors of items that do not belong to a resource. In this case, the whole configuration is
/// refused.
pub fn compile(
    merged: &Merged,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Vec<Fault>> {
    let mut model = Arc::clone(&merged.model);
    let mut refused = merged.conflicts.clone();
    loop {
        let absent = absent::add(&mut model);
        let faults = match compile_all(&model, version, registry, resolutions) {
            Ok(compiled) => {
                return Ok(Compiled { refusals: refusals(&refused), absent, ..compiled });
            }
            Err(faults) => faults,
        };
        let of_resource = |fault: &&Fault| is_error(fault) && fault.origin.resource().is_some();
        let of_resources: Vec<Fault> = faults.iter().filter(of_resource).cloned().collect();
        if of_resources.is_empty() {
            return Err(faults);
        }
        // Other items may refer to the refused resources, so compile everything again without them.
        let ids: HashSet<_> =
            of_resources.iter().filter_map(|fault| fault.origin.resource().cloned()).collect();
        Arc::make_mut(&mut model).leave_out(&ids);
        refused.extend(of_resources);
    }
}

fn is_error(fault: &Fault) -> bool {
    fault.severity == Severity::Error
}

/// The refused resources, each with its errors.
fn refusals(faults: &[Fault]) -> Vec<Refusal> {
    let mut by_origin: BTreeMap<&Origin, Vec<String>> = BTreeMap::new();
    for fault in faults {
        let reason = match &fault.help {
            Some(help) => format!("{}; {help}", fault.message),
            None => fault.message.clone(),
        };
        by_origin.entry(&fault.origin).or_default().push(reason);
    }
    by_origin
        .into_iter()
        .map(|(origin, reasons)| Refusal { origin: origin.clone(), reasons })
        .collect()
}

fn compile_all(
    model: &Model,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Vec<Fault>> {
    let mut compiler = Compiler::new(model, registry, resolutions);
    compiler.egress = Egress {
        mark: if model.mesh.captures() { mark(model) } else { 0 },
        source: None,
        liveness: tcp::liveness(&mut compiler, &model.settings.tcp, tcp::DEFAULT),
    };
    compiler.mesh = tls::mesh(&mut compiler);
    compiler.providers = jwt::providers(&mut compiler);
    let services = services::services(&mut compiler);
    let hosts = routes::hosts(&mut compiler, &services);
    let endpoint_addresses =
        model.mesh.captures().then(|| Arc::new(EndpointAddresses::new(&services)));
    let mut listeners = listeners::listeners(&mut compiler, &services, &hosts);
    let addresses = endpoint_addresses.as_ref();
    listeners.extend(mesh::listeners(&mut compiler, &services, &hosts, addresses));
    listeners.sort_by(|one, other| one.name.cmp(&other.name));
    reserved::check(&mut compiler);
    slips::find(&mut compiler);
    literals::find(&mut compiler);
    let admin = admin::plan(&mut compiler);
    let snapshot = Snapshot {
        version,
        listeners,
        rules: std::mem::take(&mut compiler.rules),
        rate_limits: std::mem::take(&mut compiler.rate_limits),
        shifts: std::mem::take(&mut compiler.shifts),
        limits: settings::limits(&mut compiler),
        overload: overload::terms(&mut compiler),
        priority: overload::priority_by(&mut compiler),
        authorization: authorization::policies(&mut compiler),
        drain: settings::drain(model),
        standard: standard::standard(&mut compiler),
        exponential_buckets: model.settings.metrics.exponential_buckets,
        access_log: access_log::access_log(&mut compiler),
        tracing: traces::tracing(&mut compiler),
        certificates: std::mem::take(&mut compiler.certificates),
        jwt_providers: std::mem::take(&mut compiler.providers),
        services,
        reserved: admin::tcp(model).into_iter().chain(model.mesh.dns).collect(),
        endpoint_addresses,
    };
    let sources = sources::sources(&mut compiler);
    let Compiler { faults, key_sources, bind_places, validity, awaits_identity, .. } = compiler;
    if faults.iter().any(is_error) {
        return Err(faults);
    }
    Ok(Compiled {
        dns: mesh::dns(model, &snapshot.services),
        snapshot,
        admin,
        workers: model.settings.workers,
        pin: model.settings.pin,
        driver: model.settings.driver,
        state_dir: model.settings.state_dir.clone(),
        names: services::names(model),
        gone_after: settings::gone_after(model),
        key_sources,
        sources,
        awaits_identity,
        bind_places,
        refusals: Vec::new(),
        absent: Vec::new(),
        warnings: faults,
        validity,
    })
}

/// The SO_MARK of the packets that the proxy sends, for a configuration that captures traffic.
fn mark(model: &Model) -> u32 {
    model.mesh.intercept.mark.as_ref().map_or(MARK, |mark| mark.value)
}

impl<'a> Compiler<'a> {
    fn new(model: &'a Model, registry: &'a mut Registry, resolutions: &'a Resolutions) -> Self {
        Self {
            model,
            registry,
            resolutions,
            faults: Vec::new(),
            virtual_addresses: HashMap::new(),
            mesh: None,
            awaits_identity: false,
            workload_api: None,
            rules: Vec::new(),
            certificates: Vec::new(),
            providers: Vec::new(),
            key_sources: Vec::new(),
            egress: Egress::default(),
            bind_places: HashMap::new(),
            retried: retries::retried(model),
            rate_limits: RateLimits::default(),
            shifts: Vec::new(),
            validity: Vec::new(),
        }
    }

    fn fault(&mut self, origin: &Origin, message: impl Into<String>) {
        self.faults.push(Fault::new(origin, message));
    }

    fn warn(&mut self, origin: &Origin, message: impl Into<String>, help: impl Into<String>) {
        self.faults.push(Fault::warning(origin, message).help(help));
    }

    fn fault_with_help(
        &mut self,
        origin: &Origin,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.faults.push(Fault::new(origin, message).help(help));
    }

    /// Reports a missing part. If a source could not read some item, only that error is shown.
    fn missing(&mut self, origin: &Origin, message: &str, help: &str) {
        let fault = Fault { secondary: true, ..Fault::new(origin, message).help(help) };
        self.faults.push(fault);
    }

    /// Reports a reference to an item that does not exist. `section` and `name` are those of the
    /// item.
    fn unknown(
        &mut self,
        origin: &Origin,
        (section, name): (&'static str, &str),
        message: String,
        help: String,
    ) {
        let fault = Fault::new(origin, message).help(help);
        self.faults.push(Fault { missing: Some((section, name.into())), ..fault });
    }

    /// The index that the next rule will have.
    fn rule_index(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Adds a rule that has only an action: no conditions, no timeouts and no changes of fields.
    fn plain_rule(&mut self, origin: &Origin, host: &str, name: &str, action: Action) -> Arc<Rule> {
        let index = self.rule_index();
        let stats = self.registry.route(host, name);
        self.rule(Rule {
            index,
            stats,
            name: name.into(),
            host: host.into(),
            place: self.model.files.line_of(origin).into(),
            matcher: Matcher::default(),
            action,
            sticky: None,
            timeout: None,
            retries: None,
            fault: None,
            mirror: None,
            rate_limits: Default::default(),
            global_limit: None,
            priority: None,
            request_body_timeout: None,
            stream_idle_timeout: None,
            jwt: None,
            rewrite: None,
            request_headers: HeaderEdits::none(),
            response_headers: HeaderEdits::none(),
        })
    }

    /// Adds a rule. Its index must be [`Compiler::rule_index`].
    fn rule(&mut self, rule: Rule) -> Arc<Rule> {
        let rule = Arc::new(rule);
        self.rules.push(Arc::clone(&rule));
        rule
    }

    /// The content of the file in `material`. Reports an error if it could not be read.
    fn material(&mut self, material: &'a Item<Material>) -> Option<&'a [u8]> {
        match material.value.bytes() {
            Ok(bytes) => Some(bytes),
            Err(reason) => {
                let help = match reason {
                    _ if reason.contains("No such file") => {
                        "a relative path begins at the directory of this file"
                    }
                    _ if reason.ends_with(" is not set") => {
                        "set it for this process, or write the name of a file here"
                    }
                    _ => "",
                };
                match help {
                    "" => self.fault(&material.origin, reason),
                    help => self.fault_with_help(&material.origin, reason, help),
                }
                None
            }
        }
    }

    /// Checks the name of a header field.
    fn field_name(&mut self, name: &Item<String>) {
        if is_token(&name.value) {
            return;
        }
        let kept: String =
            name.value.trim().chars().map(|c| if c == ' ' { '-' } else { c }).collect();
        let help = match is_token(&kept) {
            true => format!("a name has no spaces; write {kept}"),
            false => {
                "a name has letters, digits, and - or _; no spaces, colons or brackets".to_owned()
            }
        };
        let message = format!("{:?} is not the name of a header field", name.value);
        self.fault_with_help(&name.origin, message, help);
    }

    /// The destination that a reference of the form `SERVICE` or `SERVICE/VERSION` names.
    fn destination(
        &mut self,
        services: &[Arc<Service>],
        reference: &Item<String>,
    ) -> Option<Destination> {
        let text = reference.value.as_str();
        if is_address(text) {
            let message = format!("{text:?} is an address; a service is named here");
            let to = habits::address::service(text);
            let to = to.as_deref().unwrap_or("endpoints: [IP:PORT]");
            let help = format!("write `to: app`, and `services: {{app: {{{to}}}}}`");
            self.fault_with_help(&reference.origin, message, help);
            return None;
        }
        let (name, version) = text.split_once('/').unwrap_or((text, ""));
        let Ok(service) = services.binary_search_by(|service| (*service.name).cmp(name)) else {
            let known: Vec<&str> = services.iter().map(|service| &*service.name).collect();
            let from_xds = self.model.settings.sources.xds.is_some();
            let whole = absent::whole_name(self.model, name);
            let whole = whole.map(|whole| format!("write the whole name: `to: {whole}`"));
            let help = whole.unwrap_or_else(|| match known.is_empty() {
                _ if from_xds && !version.is_empty() => format!(
                    "a cluster of xDS has no versions: write `to: {name}`, or \
                     `to: {name}|{version}` if the server calls it {text}"
                ),
                true => format!("write `services: {{{name}: {{endpoints: [IP:PORT]}}}}`"),
                false => other_name(text, services).unwrap_or_else(|| suggestion(name, &known)),
            });
            let message = format!("there is no service {name:?}");
            self.unknown(&reference.origin, ("services", name), message, help);
            return None;
        };
        let endpoints = services[service].endpoints.load();
        let subsets = &endpoints.subsets;
        let Some(subset) = subsets.iter().position(|subset| *subset.version == *version) else {
            let known: Vec<&str> = subsets[1..].iter().map(|subset| &*subset.version).collect();
            let help = match known.is_empty() {
                true => format!(
                    "write `to: {name}`, or give the service `versions` in place of `endpoints`"
                ),
                false => suggestion(version, &known),
            };
            let message = format!("the service {name:?} has no version {version:?}");
            self.unknown(&reference.origin, ("services", name), message, help);
            return None;
        };
        Some(Destination { service: service as u32, subset: subset as u32 })
    }
}

/// The advice for a destination whose service is not there: the first label of a name of
/// Kubernetes, or a service that has the same version.
fn other_name(text: &str, services: &[Arc<Service>]) -> Option<String> {
    if let Some((label, _)) = text.split_once('.')
        && services.iter().any(|service| &*service.name == label)
    {
        return Some(format!("write `{label}`"));
    }
    let (_, version) = text.split_once('/')?;
    let has = |service: &&Arc<Service>| {
        service.endpoints.load().subsets.iter().any(|subset| &*subset.version == version)
    };
    let all: Vec<_> = services.iter().filter(has).collect();
    let all: Vec<_> = all.iter().map(|service| format!("{}/{version}", service.name)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    Some(suggestion(text, &all)).filter(|text| text.starts_with("did you mean"))
}

/// Whether `text` is a URL or an address with a port, where the name of a service is expected.
fn is_address(text: &str) -> bool {
    let port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    text.contains("://") || text.rsplit_once(':').is_some_and(|(_, last)| port(last))
}

/// Compiles the names of methods. Reports a name that is not a method.
fn methods(compiler: &mut Compiler<'_>, written: &[Item<String>]) -> Vec<Box<str>> {
    for method in written {
        if !is_token(&method.value) || method.value.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let help = format!("write the method in capitals: {}", method.value.to_uppercase());
            let message = format!("{:?} is not a method", method.value);
            compiler.fault_with_help(&method.origin, message, help);
        }
    }
    written.iter().map(|method| method.value.as_str().into()).collect()
}

/// Whether `text` is a token (RFC 9110 5.6.2), as the name of a field or method must be.
fn is_token(text: &str) -> bool {
    crate::message::is_token(text.as_bytes())
}
