//! The identity from a SPIFFE Workload API. The control thread asks for it, so the compiler gets it
//! among the resolutions.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::roots::of_files;
use super::{Accepts, MeshIdentity};
use crate::compile::{Compiler, Validity};
use crate::identity::SpiffeId;
use crate::model::{Identity, Item};
use crate::tls::{CertificateInfo, Trust, WorkloadIdentity, unknown_key};

/// A SPIFFE Workload API, and the identity that is wanted from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadApi {
    /// The path of the socket.
    pub socket: PathBuf,
    /// The SPIFFE ID to choose. `None` means the only one.
    pub id: Option<SpiffeId>,
}

impl WorkloadApi {
    /// The name of the API, for the operator.
    pub fn name(&self) -> String {
        format!("the SPIFFE Workload API at unix:{}", self.socket.display())
    }
}

/// An identity, and the API that has issued it.
pub type IssuedBy = (WorkloadApi, Arc<WorkloadIdentity>);

/// The API in `mesh.identity`. `None` if the identity comes from elsewhere, or after an error.
fn api(compiler: &mut Compiler<'_>) -> Option<WorkloadApi> {
    let Identity::Workload { socket, id } = &compiler.model.mesh.identity.as_ref()?.value else {
        return None;
    };
    let path = path(&socket.value);
    if path.is_none() {
        let message = format!("{:?} is not the socket of a SPIFFE Workload API", socket.value);
        let help = match socket.value.strip_prefix('/') {
            Some(path) => format!("write \"unix:/{path}\""),
            None => "write \"unix:/run/spire/agent.sock\"; only Unix sockets are asked".to_owned(),
        };
        compiler.fault_with_help(&socket.origin, message, help);
    }
    let parsed = id.as_ref().map(|id| SpiffeId::parse(&id.value));
    if let (Some(Err(why)), Some(id)) = (&parsed, id) {
        compiler.fault(&id.origin, format!("{:?} is not a SPIFFE ID: {why}", id.value));
    }
    Some(WorkloadApi { socket: path?, id: parsed.transpose().ok()? })
}

/// The path in `unix:PATH` and in `unix:///PATH`.
fn path(text: &str) -> Option<PathBuf> {
    let path = text.strip_prefix("unix:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    Path::new(path).is_absolute().then(|| path.into())
}

/// The identity that the API has issued. Without one, a stand-in with which no handshake succeeds,
/// so that `check` needs no API.
pub(super) fn identity<'a>(
    compiler: &mut Compiler<'a>,
    item: &'a Item<Identity>,
) -> Option<MeshIdentity> {
    let api = api(compiler)?;
    compiler.workload_api = Some(api.clone());
    let resolutions = compiler.resolutions;
    let Some(known) = resolutions.identities.get(&api) else {
        compiler.awaits_identity = true;
        let (own, trust) = (unknown_key(), Arc::default());
        return Some(MeshIdentity { own, trust, accepts: Accepts::default() });
    };
    let domain = known.id.trust_domain();
    if let Some(wanted) = &compiler.model.mesh.trust_domain
        && wanted.value != domain
    {
        let message =
            format!("{} has issued {}, which is not in {}", api.name(), known.id, wanted.value);
        let help = format!("write `trust_domain: {domain}`, or leave it out");
        compiler.fault_with_help(&wanted.origin, message, help);
    }
    let (mut bundles, mut accepts) = (Vec::new(), Accepts::default());
    let mut crls = of_files(compiler, &mut bundles, &mut accepts)?;
    // A file about a trust domain comes before the API.
    bundles.extend(known.bundles());
    crls.extend(known.crls());
    accepts.trusted.extend(known.trusted());
    accepts.revoked.extend(known.revoked());
    let info = CertificateInfo::read("mesh identity", &known.own.cert);
    let validity = info.as_ref().map(|info| (info.not_before_unix_s, info.not_after_unix_s));
    let each = validity.into_iter().collect();
    compiler.validity.push(Validity { origin: item.origin.clone(), each, roots: false });
    compiler.certificates.extend(info);
    let trust = Arc::new(Trust { bundles, crls });
    Some(MeshIdentity { own: Arc::clone(&known.own), trust, accepts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_written_in_two_ways() {
        for (text, found) in [
            ("unix:/run/spire/agent.sock", Some("/run/spire/agent.sock")),
            ("unix:///run/spire/agent.sock", Some("/run/spire/agent.sock")),
            ("unix:run/agent.sock", None),
            ("unix://run/agent.sock", None),
            ("/run/agent.sock", None),
            ("tcp://127.0.0.1:8000", None),
            ("unix:", None),
        ] {
            assert_eq!(path(text), found.map(PathBuf::from), "{text}");
        }
    }
}
