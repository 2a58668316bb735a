//! The types of resources.

use super::cluster::{Cluster, Targets};
use super::endpoints::Assignment;
use super::listener::{Listening, RouteSource};
use super::proto::Reason;
use super::routes::RouteConfig;
use super::secrets::{Secret, Wanted};

/// The URLs of the types.
pub(super) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(super) const ENDPOINTS: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

pub(super) const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
pub(super) const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
pub(super) const SECRET: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// A type of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Type {
    Cluster,
    Endpoints,
    Listener,
    Routes,
    Secret,
}

impl Type {
    /// All types, in the order in which they are asked for.
    pub(super) const ALL: [Self; 5] =
        [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes, Self::Secret];

    /// The URL of the type.
    pub(super) fn url(self) -> &'static str {
        match self {
            Self::Cluster => CLUSTER,
            Self::Endpoints => ENDPOINTS,
            Self::Listener => LISTENER,
            Self::Routes => ROUTES,
            Self::Secret => SECRET,
        }
    }

    /// The type with this URL.
    pub(super) fn of(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.url() == url)
    }

    /// The name for operators.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Endpoints => "endpoints",
            Self::Listener => "listener",
            Self::Routes => "routes",
            Self::Secret => "secret",
        }
    }

    /// Whether all resources are asked for, and not some by their names.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }

    /// Reads a resource. Returns its name and its content.
    pub(super) fn read(self, bytes: &[u8], version: &str) -> Result<(String, Content), Reason> {
        match self {
            Self::Cluster => {
                let (name, cluster) = Cluster::read(bytes, super::NAME, version)?;
                Ok((name, Content::Cluster(Box::new(cluster))))
            }
            Self::Endpoints => {
                let (name, assignment) = Assignment::read(bytes)?;
                assignment.list(false)?;
                Ok((name, Content::Endpoints(assignment)))
            }
            Self::Listener => {
                let (name, listener) = Listening::read(bytes, version)?;
                Ok((name, Content::Listener(Box::new(listener))))
            }
            Self::Routes => {
                let (name, routes) = RouteConfig::read(bytes, None, version)?;
                Ok((name, Content::Routes(routes)))
            }
            Self::Secret => {
                let (name, secret) = Secret::read(bytes)?;
                Ok((name, Content::Secret(secret)))
            }
        }
    }
}

/// The content of a resource.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Cluster(Box<Cluster>),
    Endpoints(Assignment),
    Listener(Box<Listening>),
    Routes(RouteConfig),
    Secret(Secret),
}

impl Content {
    /// The resources that this one needs, each as its type and name: the endpoints of a cluster,
    /// the routes of a listener, and the secrets of both.
    pub(super) fn needs(&self) -> impl Iterator<Item = (Type, &str)> {
        let (first, secrets): (_, &[Wanted]) = match self {
            Self::Cluster(cluster) => {
                let first = match &cluster.targets {
                    Targets::Eds(name) => Some((Type::Endpoints, &**name)),
                    Targets::Own(_) => None,
                };
                (first, &cluster.secrets)
            }
            Self::Listener(listener) => {
                let first = match &listener.routes {
                    RouteSource::Rds(name) => Some((Type::Routes, &**name)),
                    RouteSource::Own(_) | RouteSource::None => None,
                };
                (first, &listener.secrets)
            }
            Self::Endpoints(_) | Self::Routes(_) | Self::Secret(_) => (None, &[]),
        };
        let secrets = secrets.iter().map(|wanted| (Type::Secret, &*wanted.name));
        first.into_iter().chain(secrets)
    }
}

/// The longest name, version or nonce.
pub(super) const NAME_BYTES_MAX: usize = 1024;

/// A text of the server as it is shown: not longer than `bytes`, and on one line.
pub(super) fn short(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut shown = String::new();
    for char in text[..end].chars() {
        match char.is_control() {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    if end < text.len() {
        shown.push_str("...");
    }
    shown
}

/// The first text field of a resource: its name. Also of one that is refused.
pub(super) fn name_of(bytes: &[u8]) -> Option<&str> {
    use crate::grpc::protobuf::{Fields, Value};
    for field in Fields::of(bytes) {
        if let Ok((1, Value::Bytes(name))) = field {
            return std::str::from_utf8(name).ok().filter(|name| !name.is_empty());
        }
    }
    None
}
