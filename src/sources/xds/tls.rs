//! TLS of Envoy's API. A data source of a file or a variable is refused, so that a control plane
//! cannot read those of this machine.

use super::proto::{Message, Reason};
use super::schemas::{
    COMMON_TLS, DATA_SOURCE, DOWNSTREAM_TLS, TLS_CERTIFICATE, TLS_PARAMS, UPSTREAM_TLS, VALIDATION,
};
use crate::model::{
    ClientAuth, ClientFiles, ClientTls, Item, Material, Origin, ServerCertificate, ServerTls,
    TlsVersion,
};

/// The type of the TLS settings of a cluster.
pub(super) const UPSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

/// The type of the TLS settings of a listener.
pub(super) const DOWNSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

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

/// The certificate chain and the private key of a `TlsCertificate`.
fn certificate(mut message: Message<'_>) -> Result<(Vec<u8>, Vec<u8>), Reason> {
    let (chain, key) = (message.message(1, &DATA_SOURCE)?, message.message(2, &DATA_SOURCE)?);
    let chain = chain.ok_or_else(|| message.about(1, "is missing"))?;
    let key = key.ok_or_else(|| message.about(2, "is missing"))?;
    let pair = (inline(chain)?, inline(key)?);
    message.finish()?;
    Ok(pair)
}

/// TLS to the clients of a listener, for the SNI names `names`.
pub(super) fn downstream(
    bytes: &[u8],
    names: Vec<String>,
    origin: &Origin,
) -> Result<ServerTls, Reason> {
    let mut context = Message::read(bytes, &DOWNSTREAM_TLS)?;
    let requires = context.wrapped(2)? == Some(1);
    context.off(&[3])?; // require_sni
    context.ignore(&[6, 7, 9, 10, 11]); // sessions, the order of ciphers
    let Some(mut common) = context.message(1, &COMMON_TLS)? else {
        return Err(context.about(1, "is missing"));
    };
    let item = |bytes| Item::new(Material::new(bytes), origin.clone());
    let mut all = common.messages(2, &TLS_CERTIFICATE)?;
    let (Some(only), true) = (all.pop(), all.is_empty()) else {
        return Err(match common.has(6) {
            true => common.unsupported(6),
            false => common.about(2, "does not have exactly one certificate"),
        });
    };
    let (cert, key) = certificate(only)?;
    let client_ca = match common.message(3, &VALIDATION)? {
        Some(validation) => Some(trusted_ca(validation)?),
        None => None,
    };
    if requires && client_ca.is_none() {
        return Err(common.about(3, "is missing, though client certificates are required"));
    }
    let min_version = match common.message(1, &TLS_PARAMS)? {
        Some(mut params) => {
            let min = params.number(1)?;
            // The ciphers and groups are those of this proxy.
            params.ignore(&[2, 3, 4, 5]);
            params.finish()?;
            (min == 4).then(|| Item::new(TlsVersion::Tls13, origin.clone()))
        }
        None => None,
    };
    common.ignore(&[4]); // alpn_protocols: those of the listener
    common.finish()?;
    context.finish()?;
    let auth = if requires { ClientAuth::Require } else { ClientAuth::Optional };
    Ok(ServerTls::Certificate(Box::new(ServerCertificate {
        cert: item(cert),
        key: item(key),
        names,
        ocsp: None,
        client_auth: client_ca.is_some().then(|| Item::new(auth, origin.clone())),
        client_ca: client_ca.map(item),
        crl: None,
        min_version,
        send_ca_names: None,
    })))
}
