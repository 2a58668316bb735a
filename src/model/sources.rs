//! The servers that are asked for more of the configuration.

use std::path::PathBuf;

use super::{Item, Material, Service};

/// The servers that are asked for more of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Documents in etcd.
    pub etcd: Option<Item<Etcd>>,
    /// Resources of an xDS server.
    pub xds: Option<Item<Xds>>,
    /// Services in Consul.
    pub consul: Option<Item<Consul>>,
    /// Objects of Kubernetes.
    pub kubernetes: Option<Item<Kubernetes>>,
    /// The directory for the last configuration of the servers.
    pub cache: Option<Item<PathBuf>>,
}

/// Services in Consul. `None` means the default value.
#[derive(Clone, Debug)]
pub struct Consul {
    /// The agent: `HOST:PORT`.
    pub address: Item<String>,
    /// Whether all services of the catalog are wanted.
    pub all: bool,
    /// The name of the datacenter.
    pub datacenter: Option<Item<String>>,
    /// The ACL token.
    pub token: Option<Item<Material>>,
    /// The agent as a service, for the settings of TLS.
    pub service: Service,
    /// Whether instances with warnings get nothing.
    pub only_passing: bool,
}

/// Objects of Kubernetes. `None` means the default value.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    /// The file that says how the API server is reached. `None` means that it is looked for.
    pub kubeconfig: Option<Item<PathBuf>>,
    /// The context of the kubeconfig.
    pub context: Option<Item<String>>,
    /// The namespaces. Empty means all.
    pub namespaces: Vec<Item<String>>,
    /// The domain of the names of services.
    pub cluster_domain: Option<Item<String>>,
    /// Whether Secrets are the certificates of gateways.
    pub secrets: bool,
}

/// Documents in etcd. `None` means the default value.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// The members of the cluster, each as `HOST:PORT`.
    pub endpoints: Vec<Item<String>>,
    /// The beginning of the keys.
    pub prefix: Option<Item<String>>,
    /// The name of the user.
    pub user: Option<Item<String>>,
    /// The password of the user.
    pub password: Option<Item<Material>>,
    /// The members as a service, for the settings of TLS.
    pub service: Service,
    /// The maximum size of all documents together.
    pub max_bytes: Option<Item<usize>>,
}

/// Resources of an xDS server. `None` means the default value.
#[derive(Clone, Debug)]
pub struct Xds {
    /// The server, as `HOST:PORT`.
    pub address: Item<String>,
    /// The types of the resources.
    pub types: Option<Item<String>>,
    /// The id of this proxy.
    pub node: Option<Item<String>>,
    /// The cluster of this proxy.
    pub cluster: Option<Item<String>>,
    /// Whether the server sends changes alone.
    pub delta: Option<bool>,
    /// The server as a service, for the settings of TLS.
    pub service: Service,
    /// The maximum number of resources.
    pub max_resources: Option<Item<u32>>,
    /// The maximum size of all resources together.
    pub max_bytes: Option<Item<usize>>,
}
