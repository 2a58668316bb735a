//! TLS of Envoy's API. A data source of a file or a variable is refused, so that a control plane
//! cannot read those of this machine.

use super::proto::{Message, Reason};
use super::schemas::{COMMON_TLS, DATA_SOURCE, UPSTREAM_TLS, VALIDATION};
use crate::model::{ClientFiles, ClientTls, Item, Material, Origin};

/// The type of the TLS settings of a cluster.
pub(super) const UPSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// The bytes of a `DataSource` that has them itself.
pub(super) fn inline(mut source: Message<'_>) -> Result<Vec<u8>, Reason> {
    for (number, which) in [(1, "file"), (4, "variable")] {
        if source.has(number) {
            let why = format!("would read a {which} of this machine; send inline_bytes");
            return Err(source.about(number, &why));
        }
    }
    let bytes = match source.bytes(2)? {
        Some(bytes) => Some(bytes),
        None => source.bytes(3)?,
    };
    let bytes = bytes.ok_or_else(|| source.about(2, "is missing"))?.to_vec();
    source.finish()?;
    Ok(bytes)
}

/// The CAs of a `CertificateValidationContext`.
fn trusted_ca(mut validation: Message<'_>) -> Result<Vec<u8>, Reason> {
    let Some(source) = validation.message(1, &DATA_SOURCE)? else {
        return Err(validation.about(1, "is missing, so any certificate would be accepted"));
    };
    let bytes = inline(source)?;
    validation.finish()?;
    Ok(bytes)
}

/// TLS to the endpoints of a cluster.
pub(super) fn upstream(bytes: &[u8], origin: &Origin) -> Result<ClientTls, Reason> {
    let mut context = Message::read(bytes, &UPSTREAM_TLS)?;
    let sni = context.text(2)?.to_owned();
    let item = |bytes| Item::new(Material::new(bytes), origin.clone());
    let mut files = ClientFiles::default();
    if !sni.is_empty() {
        files.sni = Some(Item::new(sni, origin.clone()));
    }
    context.off(&[3])?; // allow_renegotiation
    context.ignore(&[4, 5]); // max_session_keys, enforce_rsa_key_usage
    let Some(mut common) = context.message(1, &COMMON_TLS)? else {
        return Err(context.about(1, "is missing, so any certificate would be accepted"));
    };
    let Some(validation) = common.message(3, &VALIDATION)? else {
        let number = [7, 8, 10, 12].into_iter().find(|number| common.has(*number));
        return Err(match number {
            Some(number) => common.unsupported(number),
            None => common.about(3, "is missing, so any certificate would be accepted"),
        });
    };
    files.ca = Some(item(trusted_ca(validation)?));
    common.ignore(&[4]); // alpn_protocols: those of the service
    common.finish()?;
    context.finish()?;
    Ok(ClientTls::Files(Box::new(files)))
}
