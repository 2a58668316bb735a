//! The grammar of `sources:`. Its comments are the descriptions in the JSON Schema.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::sources::files::values::{Entries, OneOrMany, Placed};

/// Sources of configuration beside the files of Ringway's own grammar.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sources {
    /// Istio's own objects: VirtualService, DestinationRule, ServiceEntry and others.
    pub istio: Option<Placed<Istio>>,
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
    /// The labels of this workload, which selectors of objects compare.
    pub labels: Entries<Placed<String>>,
}
