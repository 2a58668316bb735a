//! The types of resources.

use super::cluster::Cluster;
use super::endpoints::Assignment;
use super::proto::Reason;

/// The URLs of the types.
pub(super) const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
pub(super) const ENDPOINTS: &str =
    "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// A type of resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Type {
    Cluster,
    Endpoints,
}

impl Type {
    /// All types, in the order in which they are asked for.
    pub(super) const ALL: [Self; 2] = [Self::Cluster, Self::Endpoints];

    /// The URL of the type.
    pub(super) fn url(self) -> &'static str {
        match self {
            Self::Cluster => CLUSTER,
            Self::Endpoints => ENDPOINTS,
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
        }
    }

    /// Whether all resources are asked for, and not some by their names.
    pub(super) fn is_whole(self) -> bool {
        matches!(self, Self::Cluster)
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
        }
    }
}

/// The content of a resource.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Cluster(Box<Cluster>),
    Endpoints(Assignment),
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
