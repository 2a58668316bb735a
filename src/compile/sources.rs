//! Compiles the servers that are asked for more of the configuration.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Compiler, WorkloadApi, admin, services, tls};
use crate::grpc::xds::Node;
use crate::model::{self, Item};
use crate::tls::ClientTls;

/// The default of `prefix`.
const PREFIX: &str = "/ringway/";

/// The default of `max_bytes`.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// The port of Consul's agent for HTTP.
const CONSUL_PORT: u16 = 8500;

/// The port of etcd for clients.
const PORT: u16 = 2379;

/// How the documents in etcd are found.
#[derive(Clone, Debug)]
pub struct EtcdSource {
    /// The members of the cluster: hosts and ports.
    pub members: Vec<(String, u16)>,
    /// The beginning of the keys.
    pub prefix: String,
    /// The user and the password.
    pub user: Option<(String, Zeroizing<String>)>,
    /// TLS to the members.
    pub tls: Option<Arc<ClientTls>>,
    /// The maximum size of all documents together.
    pub bytes_max: usize,
}

impl PartialEq for EtcdSource {
    /// TLS settings that are made of the same files are the same.
    fn eq(&self, other: &Self) -> bool {
        let inputs = |source: &Self| source.tls.as_ref().map(|tls| tls.inputs);
        inputs(self) == inputs(other)
            && self.members == other.members
            && self.prefix == other.prefix
            && self.user == other.user
            && self.bytes_max == other.bytes_max
    }
}

/// The default of `max_resources`.
const RESOURCES_MAX: u32 = 100_000;

/// The default of `xds.max_bytes`.
const XDS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The default id of the proxy.
const NODE: &str = "ringway";

/// How the resources of an xDS server are found.
#[derive(Clone, Debug)]
pub struct XdsSource {
    /// The host and the port.
    pub server: (String, u16),
    /// This proxy, as the server knows it.
    pub node: Node,
    /// Whether the server sends changes alone.
    pub is_delta: bool,
    /// TLS to the server.
    pub tls: Option<Arc<ClientTls>>,
    /// The maximum number of resources.
    pub resources_max: usize,
    /// The maximum size of all resources together.
    pub bytes_max: usize,
}

impl PartialEq for XdsSource {
    /// TLS settings that are made of the same files are the same.
    fn eq(&self, other: &Self) -> bool {
        let inputs = |source: &Self| source.tls.as_ref().map(|tls| tls.inputs);
        inputs(self) == inputs(other)
            && self.server == other.server
            && self.node == other.node
            && self.is_delta == other.is_delta
            && self.resources_max == other.resources_max
            && self.bytes_max == other.bytes_max
    }
}

/// The services that are wanted from Consul.
#[derive(Clone, Debug)]
pub struct ConsulSource {
    /// The host and the port of the agent.
    pub server: (String, u16),
    /// The names of the services, sorted.
    pub names: Vec<String>,
    /// Whether all services of the catalog are wanted.
    pub all: bool,
    /// The name of the datacenter.
    pub datacenter: Option<String>,
    /// The ACL token.
    pub token: Option<Zeroizing<String>>,
    /// TLS to the agent.
    pub tls: Option<Arc<ClientTls>>,
    /// Whether instances with warnings get nothing.
    pub only_passing: bool,
    /// The address of the admin interface. No instance may have it.
    pub admin: Option<SocketAddr>,
}

impl ConsulSource {
    /// Whether `other` is asked in the same way, perhaps for other services.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let inputs = |source: &Self| source.tls.as_ref().map(|tls| tls.inputs);
        inputs(self) == inputs(other)
            && self.server == other.server
            && self.datacenter == other.datacenter
            && self.token == other.token
            && self.only_passing == other.only_passing
            && self.admin == other.admin
    }
}

impl PartialEq for ConsulSource {
    fn eq(&self, other: &Self) -> bool {
        self.is_same_server(other) && self.names == other.names && self.all == other.all
    }
}

/// The default of `cluster_domain`.
pub const CLUSTER_DOMAIN: &str = "cluster.local";

/// The objects that are wanted from Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct KubernetesSource {
    /// The kubeconfig. `None` means that it is looked for.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. `None` means its current one.
    pub context: Option<String>,
    /// The namespaces, sorted. Empty means all.
    pub namespaces: Vec<String>,
    /// Whether Secrets are read.
    pub secrets: bool,
    /// The address of the admin interface. No endpoint may have it.
    pub admin: Option<SocketAddr>,
}

/// The servers that are asked for more of the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourcePlan {
    /// The documents in etcd.
    pub etcd: Option<EtcdSource>,
    /// The resources of an xDS server.
    pub xds: Option<XdsSource>,
    /// The services in Consul.
    pub consul: Option<Box<ConsulSource>>,
    /// The objects of Kubernetes.
    pub kubernetes: Option<Box<KubernetesSource>>,
    /// The directory for the last configuration of the servers.
    pub cache: Option<PathBuf>,
    /// The API that issues the identity of this workload.
    pub identity: Option<WorkloadApi>,
}

impl SourcePlan {
    /// A name of each server, for the operator.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let etcd = self.etcd.iter().map(|etcd| {
            let members = etcd.members.iter().map(|(host, port)| format!("{host}:{port}"));
            let members: Vec<String> = members.collect();
            format!("etcd at {}, keys below {}", members.join(" "), etcd.prefix)
        });
        let xds = self.xds.iter().map(|xds| {
            let (host, port) = &xds.server;
            format!("the xDS server at {host}:{port}, for the node {}", xds.node.id)
        });
        let consul = self.consul.iter().map(|consul| {
            let (host, port) = &consul.server;
            format!("Consul at {host}:{port}")
        });
        let kubernetes = self.kubernetes.iter().map(|kubernetes| kubernetes.name());
        let servers = etcd.chain(xds).chain(consul).chain(kubernetes);
        servers.chain(self.identity.iter().map(WorkloadApi::name))
    }
}

pub(super) fn sources(compiler: &mut Compiler<'_>) -> SourcePlan {
    let written = &compiler.model.settings.sources;
    let is_alone = written.etcd.is_none()
        && written.xds.is_none()
        && written.consul.is_none()
        && written.kubernetes.is_none();
    if let Some(cache) = written.cache.as_ref().filter(|_| is_alone) {
        let help = "add `etcd: {endpoints: [HOST:PORT]}`, or leave `cache` out";
        compiler.fault_with_help(&cache.origin, "there is no server to cache", help);
    }
    SourcePlan {
        etcd: written.etcd.as_ref().and_then(|etcd| etcd_source(compiler, etcd)),
        xds: written.xds.as_ref().and_then(|xds| xds_source(compiler, xds)),
        consul: written
            .consul
            .as_ref()
            .and_then(|consul| consul_source(compiler, consul).map(Box::new)),
        kubernetes: written
            .kubernetes
            .as_ref()
            .map(|kubernetes| Box::new(kubernetes_source(compiler, kubernetes))),
        cache: written.cache.as_ref().map(|cache| cache.value.clone()),
        identity: compiler.workload_api.clone(),
    }
}

impl KubernetesSource {
    /// Whether the objects come from the same server.
    pub fn is_same_server(&self, other: &Self) -> bool {
        self.kubeconfig == other.kubeconfig && self.context == other.context
    }

    /// A name for the operator.
    pub fn name(&self) -> String {
        match &self.kubeconfig {
            Some(file) => format!("Kubernetes, as {} says", file.display()),
            None => "Kubernetes".to_owned(),
        }
    }
}

fn kubernetes_source(
    compiler: &mut Compiler<'_>,
    written: &Item<model::Kubernetes>,
) -> KubernetesSource {
    let kubernetes = &written.value;
    for namespace in &kubernetes.namespaces {
        let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if namespace.value.is_empty() || !namespace.value.chars().all(is_letter) {
            let message = format!("{:?} is not the name of a namespace", namespace.value);
            let help = "a name has small letters, digits and dashes; no list means all namespaces";
            compiler.fault_with_help(&namespace.origin, message, help);
        }
    }
    let text = |item: &Item<String>| item.value.clone();
    let mut namespaces: Vec<String> = kubernetes.namespaces.iter().map(text).collect();
    namespaces.sort();
    namespaces.dedup();
    KubernetesSource {
        kubeconfig: kubernetes.kubeconfig.as_ref().map(|file| file.value.clone()),
        context: kubernetes.context.as_ref().map(text),
        namespaces,
        secrets: kubernetes.secrets,
        admin: admin::tcp(compiler.model),
    }
}

fn consul_source<'a>(
    compiler: &mut Compiler<'a>,
    written: &'a Item<model::Consul>,
) -> Option<ConsulSource> {
    let consul = &written.value;
    let token = match &consul.token {
        Some(token) => {
            let bytes = compiler.material(token)?;
            let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
            if text.is_empty() || text.contains(|c: char| !c.is_ascii_graphic()) {
                let help = "a token is one line of letters, digits and signs";
                compiler.fault_with_help(&token.origin, "there is no ACL token in it", help);
            }
            Some(Zeroizing::new(text.to_owned()))
        }
        None => None,
    };
    Some(ConsulSource {
        server: member(compiler, &consul.address, Some(CONSUL_PORT))?,
        names: services::consul_names(compiler.model),
        all: consul.all,
        datacenter: consul.datacenter.as_ref().map(|name| name.value.clone()),
        token,
        tls: tls::service(compiler, &consul.service),
        only_passing: consul.only_passing,
        admin: admin::tcp(compiler.model),
    })
}

fn etcd_source<'a>(
    compiler: &mut Compiler<'a>,
    written: &'a Item<model::Etcd>,
) -> Option<EtcdSource> {
    let model::Etcd { endpoints, prefix, user, password, service, max_bytes } = &written.value;
    let members =
        endpoints.iter().filter_map(|endpoint| member(compiler, endpoint, Some(PORT))).collect();
    if let Some(prefix) = prefix.as_ref().filter(|prefix| prefix.value.is_empty()) {
        let help = format!("write `prefix: {PREFIX}`, or leave it out");
        compiler.fault_with_help(&prefix.origin, "an empty prefix means all keys of etcd", help);
    }
    if let Some(max) = max_bytes.as_ref().filter(|max| max.value == 0) {
        compiler.fault_with_help(&max.origin, "no document fits into 0 bytes", "write 32MiB");
    }
    let user = match (user, password) {
        (Some(user), Some(password)) => {
            let bytes = compiler.material(password)?;
            let text = std::str::from_utf8(bytes).unwrap_or_default().trim_end();
            Some((user.value.clone(), Zeroizing::new(text.to_owned())))
        }
        (Some(user), None) => {
            let message = format!("the user {:?} has no password", user.value);
            compiler.fault_with_help(&user.origin, message, "add `password: FILE`");
            None
        }
        (None, Some(password)) => {
            let help = "add `user: NAME`, or leave it out";
            compiler.fault_with_help(&password.origin, "this password belongs to no user", help);
            None
        }
        (None, None) => None,
    };
    Some(EtcdSource {
        members,
        prefix: prefix.as_ref().map_or(PREFIX, |prefix| &prefix.value).to_owned(),
        user,
        tls: tls::service(compiler, service),
        bytes_max: max_bytes.as_ref().map_or(BYTES_MAX, |max| max.value),
    })
}

fn xds_source<'a>(compiler: &mut Compiler<'a>, written: &'a Item<model::Xds>) -> Option<XdsSource> {
    let xds = &written.value;
    if let Some(types) = xds.types.as_ref().filter(|types| types.value != "envoy") {
        let message = format!("the types {:?} are not known", types.value);
        compiler.fault_with_help(&types.origin, message, "write `types: envoy`");
    }
    if let Some(node) = xds.node.as_ref().filter(|node| node.value.is_empty()) {
        let help = format!("write `node: {NODE}`, or leave it out");
        compiler.fault_with_help(&node.origin, "the id of the proxy is empty", help);
    }
    if let Some(max) = xds.max_resources.as_ref().filter(|max| max.value == 0) {
        let help = format!("write {RESOURCES_MAX}, or leave it out");
        compiler.fault_with_help(&max.origin, "0 allows no resource", help);
    }
    if let Some(max) = xds.max_bytes.as_ref().filter(|max| max.value == 0) {
        compiler.fault_with_help(&max.origin, "no resource fits into 0 bytes", "write 64MiB");
    }
    let zone = compiler.model.settings.zone.as_ref().map_or("", |zone| &zone.value);
    let mut parts = zone.split('/').map(str::to_owned);
    let locality = [(); 3].map(|()| parts.next().unwrap_or_default());
    let text = |item: &Option<Item<String>>| item.as_ref().map(|item| item.value.clone());
    let server = member(compiler, &xds.address, None);
    let tls = tls::service(compiler, &xds.service);
    Some(XdsSource {
        server: server?,
        node: Node {
            id: text(&xds.node).unwrap_or_else(|| NODE.to_owned()),
            cluster: text(&xds.cluster).unwrap_or_default(),
            locality,
            version: env!("CARGO_PKG_VERSION"),
        },
        is_delta: xds.delta.unwrap_or_default(),
        tls,
        resources_max: xds.max_resources.as_ref().map_or(RESOURCES_MAX, |max| max.value) as usize,
        bytes_max: xds.max_bytes.as_ref().map_or(XDS_BYTES_MAX, |max| max.value),
    })
}

/// The host and the port of a member. `usual` is the port that such a server often has.
pub(super) fn member(
    compiler: &mut Compiler<'_>,
    written: &Item<String>,
    usual: Option<u16>,
) -> Option<(String, u16)> {
    let text = &written.value;
    if let Some((scheme, rest)) = text.split_once("://") {
        let message = format!("{text:?} is a URL");
        let tls = if scheme == "https" { ", and `tls: {ca: FILE}`" } else { "" };
        let help = format!("write {}{tls}", rest.split('/').next().unwrap_or_default());
        compiler.fault_with_help(&written.origin, message, help);
        return None;
    }
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let host = host.trim_matches(['[', ']']);
        (!host.is_empty() && !host.contains('/')).then(|| (host.to_owned(), port))
    });
    if parts.is_none() {
        let message = format!("{text:?} is not HOST:PORT");
        let host = text.split([':', '/']).next().filter(|host| !host.is_empty());
        let host = host.unwrap_or("HOST");
        let help = match usual {
            Some(port) => format!("write {host}:{port}"),
            None => format!("write the port, too: {host}:PORT"),
        };
        compiler.fault_with_help(&written.origin, message, help);
    }
    parts
}
