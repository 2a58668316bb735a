//! Compiles the model into the snapshot of the workers: names become indices, and patterns are
//! compiled. This module does not depend on sources and reads no files.

mod authorization;
mod endpoints;
mod health;
mod http2;
mod jwt;
mod listeners;
mod mesh;
pub mod registry;
mod routes;
mod services;
mod settings;
mod suggestion;
mod tls;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::endpoints::found_at;
pub use self::jwt::KeySource;
use self::registry::Registry;
pub use self::suggestion::suggestion;
use self::tls::MeshIdentity;
use crate::cluster::{Destination, Service};
use crate::dns::DnsPlan;
use crate::jwt::{KeySet, Provider};
use crate::mesh::{EndpointAddresses, MARK};
use crate::model::{Driver, Fault, Item, Material, Merged, Model, Origin, Refusal};
use crate::net::{Bind, Egress};
use crate::route::Rule;
use crate::snapshot::Snapshot;
use crate::tls::CertificateInfo;

/// Results of the control thread that the snapshot needs.
#[derive(Clone, Debug, Default)]
pub struct Resolutions {
    /// The addresses of services in DNS: `HOST:PORT` to addresses.
    pub names: HashMap<String, Vec<SocketAddr>>,
    /// The keys of token issuers, by URL.
    pub key_sets: HashMap<String, Arc<KeySet>>,
}

impl Resolutions {
    /// Creates an empty set of results.
    pub fn new() -> Self {
        Self::default()
    }
}

/// A configuration that is ready to be applied.
pub struct Compiled {
    /// The configuration of the workers.
    pub snapshot: Snapshot,
    /// Where the admin interface listens.
    pub admin: Option<SocketAddr>,
    /// Where the resolver for the workload listens, and its names.
    pub dns: DnsPlan,
    /// Number of workers. `None` means one per CPU.
    pub workers: Option<usize>,
    /// Whether workers are pinned to CPUs. `None` means that the start decides.
    pub pin: Option<bool>,
    /// The kernel interface.
    pub driver: Driver,
    /// The `HOST:PORT` of services in DNS.
    pub names: Vec<String>,
    /// The keys to fetch.
    pub key_sources: Vec<KeySource>,
    /// The origin of each bind, for errors of its socket.
    pub bind_places: HashMap<Bind, String>,
    /// Resources that were left out, for their sources.
    pub refusals: Vec<Refusal>,
}

/// The shared state of the steps.
struct Compiler<'a> {
    model: &'a Model,
    registry: &'a mut Registry,
    resolutions: &'a Resolutions,
    faults: Vec<Fault>,
    /// Virtual addresses of services, and their origins.
    virtual_addresses: HashMap<SocketAddr, &'a Origin>,
    /// The identity of this workload.
    mesh: Option<MeshIdentity>,
    /// All rules compiled so far. The position of a rule is its index.
    rules: Vec<Arc<Rule>>,
    /// Certificates in use.
    certificates: Vec<CertificateInfo>,
    /// Issuers of tokens.
    providers: Vec<Arc<Provider>>,
    /// The keys to fetch.
    key_sources: Vec<KeySource>,
    /// The mark and the source address of connections to endpoints.
    egress: Egress,
    /// The origin of each bind.
    bind_places: HashMap<Bind, String>,
}

/// Compiles `merged` into the snapshot number `version`. Resources with errors are left out;
/// [`Compiled::refusals`] lists them.
///
/// # Errors
/// All errors of items that belong to no resource. The configuration is refused as a whole then.
pub fn compile(
    merged: &Merged,
    version: u64,
    registry: &mut Registry,
    resolutions: &Resolutions,
) -> Result<Compiled, Vec<Fault>> {
    let mut model = Arc::clone(&merged.model);
    let mut refused = merged.conflicts.clone();
    loop {
        let faults = match compile_all(&model, version, registry, resolutions) {
            Ok(compiled) => return Ok(Compiled { refusals: refusals(&refused), ..compiled }),
            Err(faults) => faults,
        };
        let of_resources: Vec<Fault> =
            faults.iter().filter(|fault| fault.origin.resource().is_some()).cloned().collect();
        if of_resources.is_empty() {
            return Err(faults);
        }
        // Other items may refer to these resources, so everything is compiled again.
        let ids: HashSet<_> =
            of_resources.iter().filter_map(|fault| fault.origin.resource().cloned()).collect();
        Arc::make_mut(&mut model).leave_out(&ids);
        refused.extend(of_resources);
    }
}

/// The errors, by resource.
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
    let mut compiler = Compiler {
        model,
        registry,
        resolutions,
        faults: Vec::new(),
        virtual_addresses: HashMap::new(),
        mesh: None,
        rules: Vec::new(),
        certificates: Vec::new(),
        providers: Vec::new(),
        key_sources: Vec::new(),
        egress: Egress { mark: if model.mesh.captures() { mark(model) } else { 0 }, source: None },
        bind_places: HashMap::new(),
    };
    compiler.mesh = tls::mesh(&mut compiler);
    compiler.providers = jwt::providers(&mut compiler);
    let services = services::services(&mut compiler);
    let hosts = routes::hosts(&mut compiler, &services);
    let endpoint_addresses =
        model.mesh.captures().then(|| Arc::new(EndpointAddresses::new(&services)));
    let mut listeners = listeners::listeners(&mut compiler, &services, &hosts);
    listeners.extend(mesh::listeners(
        &mut compiler,
        &services,
        &hosts,
        endpoint_addresses.as_ref(),
    ));
    listeners.sort_by(|one, other| one.name.cmp(&other.name));
    let snapshot = Snapshot {
        version,
        listeners,
        rules: std::mem::take(&mut compiler.rules),
        limits: settings::limits(&mut compiler),
        authorization: authorization::policies(&mut compiler),
        drain: settings::drain(model),
        access_log: settings::access_log(model),
        certificates: std::mem::take(&mut compiler.certificates),
        jwt_providers: std::mem::take(&mut compiler.providers),
        services,
        endpoint_addresses,
    };
    let Compiler { faults, key_sources, bind_places, .. } = compiler;
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Compiled {
        dns: mesh::dns(model, &snapshot.services),
        snapshot,
        admin: settings::admin(model),
        workers: model.settings.workers,
        pin: model.settings.pin,
        driver: model.settings.driver,
        names: services::names(model),
        key_sources,
        bind_places,
        refusals: Vec::new(),
    })
}

/// The mark of packets that the proxy sends where traffic is captured.
fn mark(model: &Model) -> u32 {
    model.mesh.intercept.mark.as_ref().map_or(MARK, |mark| mark.value)
}

impl<'a> Compiler<'a> {
    fn fault(&mut self, origin: &Origin, message: impl Into<String>) {
        self.faults.push(Fault::new(origin, message));
    }

    fn fault_with_help(
        &mut self,
        origin: &Origin,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.faults.push(Fault::new(origin, message).help(help));
    }

    /// Reports a missing part. If the source could not read an item, that error is shown instead.
    fn missing(&mut self, origin: &Origin, message: &str, help: &str) {
        let fault = Fault { secondary: true, ..Fault::new(origin, message).help(help) };
        self.faults.push(fault);
    }

    /// The index of the next rule.
    fn rule_index(&self) -> u32 {
        self.rules.len() as u32
    }

    /// Adds a rule that was compiled with [`Compiler::rule_index`].
    fn rule(&mut self, rule: Rule) -> Arc<Rule> {
        let rule = Arc::new(rule);
        self.rules.push(Arc::clone(&rule));
        rule
    }

    /// The content of `material`.
    fn material(&mut self, material: &'a Item<Material>) -> Option<&'a [u8]> {
        match material.value.bytes() {
            Ok(bytes) => Some(bytes),
            Err(reason) => {
                self.fault(&material.origin, reason);
                None
            }
        }
    }

    /// The destination that `SERVICE` or `SERVICE/VERSION` names.
    fn destination(
        &mut self,
        services: &[Arc<Service>],
        reference: &Item<String>,
    ) -> Option<Destination> {
        let text = reference.value.as_str();
        let (name, version) = text.split_once('/').unwrap_or((text, ""));
        let Ok(service) = services.binary_search_by(|service| (*service.name).cmp(name)) else {
            let known: Vec<&str> = services.iter().map(|service| &*service.name).collect();
            let help = suggestion(name, &known);
            self.fault_with_help(&reference.origin, format!("there is no service {name:?}"), help);
            return None;
        };
        let endpoints = services[service].endpoints.load();
        let subsets = &endpoints.subsets;
        let Some(subset) = subsets.iter().position(|subset| *subset.version == *version) else {
            let known: Vec<&str> = subsets[1..].iter().map(|subset| &*subset.version).collect();
            let help = suggestion(version, &known);
            let message = format!("the service {name:?} has no version {version:?}");
            self.fault_with_help(&reference.origin, message, help);
            return None;
        };
        Some(Destination { service: service as u32, subset: subset as u32 })
    }
}

/// Whether `text` is a token (RFC 9110 5.6.2), like names of fields and methods.
fn is_token(text: &str) -> bool {
    crate::message::is_token(text.as_bytes())
}
