//! The grammar of `sources:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::{ListenerTls, ServiceTls};
use crate::sources::files::values::{AtLeastOne, Entries, OneOrMany, Placed, Size};

/// Sources of configuration beside the files of Ringway's own grammar.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Istio's own objects: VirtualService, DestinationRule, ServiceEntry and others.
    pub istio: Option<Placed<Istio>>,
    /// Objects of the Gateway API: Gateway, HTTPRoute, GRPCRoute, ReferenceGrant and others.
    pub gateway_api: Option<Placed<GatewayApi>>,
    /// Objects of the Service Mesh Interface, which is archived: TrafficSplit, TrafficTarget and
    /// HTTPRouteGroup.
    pub smi: Option<Placed<Smi>>,
    /// Documents of this grammar in etcd. Default: none.
    pub etcd: Option<Placed<Etcd>>,
    /// Resources of a server that speaks xDS. Default: none.
    pub xds: Option<Placed<Xds>>,
    /// Services in Consul, as services of this configuration. Default: none.
    pub consul: Option<Placed<Consul>>,
    /// Services, EndpointSlices and objects of Istio and the Gateway API in Kubernetes. Default:
    /// none.
    pub kubernetes: Option<Placed<Kubernetes>>,
    /// The directory for the last configuration of the servers. The proxy starts with it if no
    /// server answers. Default: none.
    pub cache: Option<Placed<String>>,
}

impl Sources {
    /// The certificates for the gateways of all sources, by name.
    pub fn certificates(&self) -> impl Iterator<Item = &(Placed<String>, Placed<ListenerTls>)> {
        let istio = self.istio.iter().flat_map(|istio| &istio.value.certificates.0);
        let gateway_api = self.gateway_api.iter().flat_map(|it| &it.value.certificates.0);
        istio.chain(gateway_api)
    }
}

/// Objects of the Gateway API, from files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayApi {
    /// The files: paths or patterns such as `gw/*.yaml`. A relative one begins at the directory of
    /// this file.
    pub files: OneOrMany<Placed<String>>,
    /// The namespace of objects without one. Default `default`.
    pub namespace: Option<Placed<String>>,
    /// The domain of the names of services: `NAME.NAMESPACE.svc.DOMAIN`. Default `cluster.local`.
    pub domain: Option<Placed<String>>,
    /// The address at which gateways listen. Default `0.0.0.0`.
    pub address: Option<Placed<String>>,
    /// The classes of the gateways that this proxy serves. Default: all.
    pub classes: OneOrMany<Placed<String>>,
    /// The certificates that gateways name, `NAME` or `NAMESPACE/NAME`.
    pub certificates: Entries<Placed<ListenerTls>>,
}

/// Objects of the Service Mesh Interface, from files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Smi {
    /// The files: paths or patterns such as `smi/*.yaml`. A relative one begins at the directory of
    /// this file.
    pub files: OneOrMany<Placed<String>>,
    /// The namespace of objects without one. Default `default`.
    pub namespace: Option<Placed<String>>,
    /// The service account of this workload. TrafficTargets for other destinations do not concern
    /// it. Default: all concern it.
    pub account: Option<Placed<String>>,
}

/// Services in Consul: their healthy instances are endpoints.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consul {
    /// The agent: `HOST:PORT`.
    pub address: Placed<String>,
    /// The names of the services, one or a list; `all` for all services of the catalog.
    pub services: AtLeastOne<Placed<String>>,
    /// The name of the datacenter. Default: that of the agent.
    #[serde(default)]
    pub datacenter: Option<Placed<String>>,
    /// A file with the ACL token, or `env:NAME` for a variable of the environment. Default: no
    /// token.
    #[serde(default)]
    pub token: Option<Placed<String>>,
    /// TLS to the agent. Default: none.
    #[serde(default)]
    pub tls: Option<Placed<ServiceTls>>,
    /// Whether instances with a `warning` get nothing. Default `false`: they get their own weight.
    #[serde(default)]
    pub only_passing: bool,
}

/// Services, EndpointSlices and objects of Istio and the Gateway API, from an API server of
/// Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Kubernetes {
    /// The file that says how the API server is reached, or `auto`: the file in `$KUBECONFIG`, the
    /// service account of this pod, or `~/.kube/config`. Default `auto`.
    pub kubeconfig: Option<Placed<String>>,
    /// The context of the kubeconfig. Default: its current one.
    pub context: Option<Placed<String>>,
    /// The namespaces, one or a list. Default: all.
    pub namespaces: OneOrMany<Placed<String>>,
    /// The domain of the names of services: `NAME.NAMESPACE.svc.DOMAIN`. Default `cluster.local`.
    pub cluster_domain: Option<Placed<String>>,
    /// Whether Secrets of the type `kubernetes.io/tls` are the certificates of gateways. Default
    /// false.
    pub secrets: bool,
}

/// Documents of this grammar in etcd.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Etcd {
    /// The members of the cluster, one or a list of `HOST:PORT`.
    pub endpoints: AtLeastOne<Placed<String>>,
    /// The beginning of the keys. The value of each such key is a document. Default `/ringway/`.
    #[serde(default)]
    pub prefix: Option<Placed<String>>,
    /// The name of the user. Default: no user.
    #[serde(default)]
    pub user: Option<Placed<String>>,
    /// A file with the password of the user.
    #[serde(default)]
    pub password: Option<Placed<String>>,
    /// TLS to the members. Default: none.
    #[serde(default)]
    pub tls: Option<Placed<ServiceTls>>,
    /// The maximum size of all documents together. Default 32MiB.
    #[serde(default)]
    pub max_bytes: Option<Placed<Size>>,
}

/// Resources of a server that speaks xDS: clusters, endpoints, listeners and routes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Xds {
    /// The server, `HOST:PORT`.
    pub address: Placed<String>,
    /// The types of the resources: `envoy`. Default `envoy`.
    #[serde(default)]
    pub types: Option<Placed<String>>,
    /// The id of this proxy, by which the server chooses the resources. Default `ringway`.
    #[serde(default)]
    pub node: Option<Placed<String>>,
    /// The cluster of this proxy, by which the server may choose the resources. Default: none.
    #[serde(default)]
    pub cluster: Option<Placed<String>>,
    /// Whether the server sends changes alone, and not always all clusters. Default false.
    #[serde(default)]
    pub delta: Option<bool>,
    /// TLS to the server. Default: none.
    #[serde(default)]
    pub tls: Option<Placed<ServiceTls>>,
    /// The maximum number of resources. Default 100000.
    #[serde(default)]
    pub max_resources: Option<Placed<u32>>,
    /// The maximum size of all resources together. Default 64MiB.
    #[serde(default)]
    pub max_bytes: Option<Placed<Size>>,
}

/// Istio's objects, from files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Istio {
    /// The files: paths or patterns such as `istio/*.yaml`. A relative one begins at the directory
    /// of this file.
    pub files: OneOrMany<Placed<String>>,
    /// The namespace of this workload, and of objects without one. Default `default`.
    pub namespace: Option<Placed<String>>,
    /// The namespace whose policies apply to all namespaces. Default `istio-system`.
    pub root_namespace: Option<Placed<String>>,
    /// The domain of the names of services: `NAME.NAMESPACE.svc.DOMAIN`. Default `cluster.local`.
    pub domain: Option<Placed<String>>,
    /// The address at which gateways listen. Default `0.0.0.0`.
    pub address: Option<Placed<String>>,
    /// The certificates that gateways name in `credentialName`.
    pub certificates: Entries<Placed<ListenerTls>>,
    /// The labels of this workload, which selectors of objects compare.
    pub labels: Entries<Placed<String>>,
}
