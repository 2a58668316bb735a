//! The copy of the resources on the disk.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::kinds::Type;
use super::state::State;
use super::{Copied, NAME};
use crate::compile::XdsSource;
use crate::grpc::xds::{Resource, Response};
use crate::sources::documents::{Cache, Documents};

/// The place of the copy of the resources of `source`.
pub(super) fn cache(source: &XdsSource, directory: &Path) -> Cache {
    let (host, port) = &source.server;
    let owner = format!("{host}:{port} {}", source.node.id);
    Cache::new(directory, NAME, owner)
}

/// All accepted resources of `state`.
pub(super) fn resources(state: &State) -> Vec<Copied> {
    let mut all = Vec::new();
    for kind in Type::ALL {
        for (name, entry) in state.entries(kind) {
            let title = format!("{}\t{}\t{name}", kind.url(), entry.version);
            all.push((title.into(), Arc::clone(&entry.bytes)));
        }
    }
    all
}

/// Writes a copy.
pub(super) fn write(cache: &Cache, resources: &[Copied]) -> Result<(), String> {
    let encoded = |(title, bytes): &Copied| (Arc::clone(title), STANDARD.encode(bytes).into());
    let texts = resources.iter().map(encoded).collect();
    cache.write(&Documents { revision: 1, texts, fault: None })
}

/// Reads the copy into `state`. Returns the time at which it was written. `None` if there is none.
pub(super) fn read(cache: &Cache, state: &mut State) -> Result<Option<SystemTime>, String> {
    let Some((documents, copied)) = cache.read()? else { return Ok(None) };
    for kind in Type::ALL {
        let mut decoded = Vec::new();
        for (title, text) in &documents.texts {
            let mut parts = title.splitn(3, '\t');
            if parts.next() != Some(kind.url()) {
                continue;
            }
            let version = parts.next().unwrap_or_default();
            let bytes = STANDARD.decode(&**text).map_err(|_| "the copy is damaged")?;
            decoded.push((version, bytes));
        }
        let resource =
            |(version, bytes)| Resource { version, type_url: kind.url(), bytes, name: "" };
        let resources = decoded.iter().map(|(version, bytes)| resource((*version, &**bytes)));
        let response = Response { resources: resources.collect(), ..Response::default() };
        state.take(kind, &response, true)?;
    }
    Ok(Some(copied))
}
