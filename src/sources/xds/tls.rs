//! TLS of Envoy's API. A data source of a file or a variable is refused, so that a control plane
//! cannot read those of this machine.

use super::proto::{Message, Reason};
use super::schemas::{
    COMBINED, COMMON_TLS, DATA_SOURCE, DOWNSTREAM_TLS, SDS_SECRET, TLS_CERTIFICATE, TLS_PARAMS,
    UPSTREAM_TLS, VALIDATION,
};
use super::secrets::{Part, Wanted, absent, secret_name};
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
pub(super) fn trusted_ca(mut validation: Message<'_>) -> Result<Vec<u8>, Reason> {
    let Some(source) = validation.message(1, &DATA_SOURCE)? else {
        return Err(validation.about(1, "is missing, so any certificate would be accepted"));
    };
    let bytes = inline(source)?;
    validation.finish()?;
    Ok(bytes)
}

/// A certificate chain and its private key.
type Pair = (Vec<u8>, Vec<u8>);

/// A part of TLS settings: it is here, or a secret of this name has it.
enum Given<T> {
    Here(T),
    Secret(String),
}

/// The own certificate in a `CommonTlsContext`.
fn own(common: &mut Message<'_>) -> Result<Option<Given<Pair>>, Reason> {
    let mut here = common.messages(2, &TLS_CERTIFICATE)?;
    let mut named = common.messages(6, &SDS_SECRET)?;
    if here.len() + named.len() > 1 {
        return Err(common.about(2, "has more than one certificate"));
    }
    Ok(match (here.pop(), named.pop()) {
        (Some(here), _) => Some(Given::Here(certificate(here)?)),
        (None, Some(named)) => Some(Given::Secret(secret_name(named)?)),
        (None, None) => None,
    })
}

/// The CAs of peers in a `CommonTlsContext`.
fn roots(common: &mut Message<'_>) -> Result<Option<Given<Vec<u8>>>, Reason> {
    if let Some(validation) = common.message(3, &VALIDATION)? {
        return trusted_ca(validation).map(|roots| Some(Given::Here(roots)));
    }
    if let Some(named) = common.message(7, &SDS_SECRET)? {
        return secret_name(named).map(|name| Some(Given::Secret(name)));
    }
    let Some(mut combined) = common.message(8, &COMBINED)? else { return Ok(None) };
    if let Some(validation) = combined.message(1, &VALIDATION)? {
        // The secret replaces nothing of it, so it may not say anything else.
        validation.finish()?;
    }
    let named = combined.message(2, &SDS_SECRET)?;
    let named = named.ok_or_else(|| combined.about(2, "is missing"))?;
    combined.finish()?;
    secret_name(named).map(|name| Some(Given::Secret(name)))
}

/// Notes the secrets that settings need.
struct Noting<'a> {
    origin: &'a Origin,
    index: usize,
    secrets: &'a mut Vec<Wanted>,
}

impl Noting<'_> {
    fn item(&self, material: Material) -> Item<Material> {
        Item::new(material, self.origin.clone())
    }

    fn want(&mut self, name: String, part: Part) -> Item<Material> {
        self.secrets.push(Wanted { name, part, index: self.index });
        self.item(absent())
    }

    fn pair(&mut self, given: Given<Pair>) -> (Item<Material>, Item<Material>) {
        match given {
            Given::Here((chain, key)) => {
                (self.item(Material::new(chain)), self.item(Material::new(key)))
            }
            Given::Secret(name) => (self.want(name, Part::Certificate), self.item(absent())),
        }
    }

    fn roots(&mut self, given: Given<Vec<u8>>) -> Item<Material> {
        match given {
            Given::Here(roots) => self.item(Material::new(roots)),
            Given::Secret(name) => self.want(name, Part::Roots),
        }
    }
}

/// TLS to the endpoints of a cluster. Adds the secrets that it needs to `secrets`.
pub(super) fn upstream(
    bytes: &[u8],
    origin: &Origin,
    secrets: &mut Vec<Wanted>,
) -> Result<ClientTls, Reason> {
    let mut context = Message::read(bytes, &UPSTREAM_TLS)?;
    let sni = context.text(2)?.to_owned();
    let mut files = ClientFiles::default();
    if !sni.is_empty() {
        files.sni = Some(Item::new(sni, origin.clone()));
    }
    context.off(&[3])?; // allow_renegotiation
    context.ignore(&[4, 5]); // max_session_keys, enforce_rsa_key_usage
    let Some(mut common) = context.message(1, &COMMON_TLS)? else {
        return Err(context.about(1, "is missing, so any certificate would be accepted"));
    };
    let mut noting = Noting { origin, index: 0, secrets };
    let Some(trusted) = roots(&mut common)? else {
        let number = [10, 12].into_iter().find(|number| common.has(*number));
        return Err(match number {
            Some(number) => common.unsupported(number),
            None => common.about(3, "is missing, so any certificate would be accepted"),
        });
    };
    files.ca = Some(noting.roots(trusted));
    if let Some(given) = own(&mut common)? {
        let (cert, key) = noting.pair(given);
        (files.cert, files.key) = (Some(cert), Some(key));
    }
    common.ignore(&[4]); // alpn_protocols: those of the service
    common.finish()?;
    context.finish()?;
    Ok(ClientTls::Files(Box::new(files)))
}

/// The certificate chain and the private key of a `TlsCertificate`.
pub(super) fn certificate(mut message: Message<'_>) -> Result<Pair, Reason> {
    let (chain, key) = (message.message(1, &DATA_SOURCE)?, message.message(2, &DATA_SOURCE)?);
    let chain = chain.ok_or_else(|| message.about(1, "is missing"))?;
    let key = key.ok_or_else(|| message.about(2, "is missing"))?;
    let pair = (inline(chain)?, inline(key)?);
    message.finish()?;
    Ok(pair)
}

/// TLS to the clients of a listener, for the SNI names `names`. It is the certificate number
/// `index` of the listener. Adds the secrets that it needs to `secrets`.
pub(super) fn downstream(
    bytes: &[u8],
    names: Vec<String>,
    origin: &Origin,
    (index, secrets): (usize, &mut Vec<Wanted>),
) -> Result<ServerTls, Reason> {
    let mut context = Message::read(bytes, &DOWNSTREAM_TLS)?;
    let requires = context.wrapped(2)? == Some(1);
    context.off(&[3])?; // require_sni
    context.ignore(&[6, 7, 9, 10, 11]); // sessions, the order of ciphers
    let Some(mut common) = context.message(1, &COMMON_TLS)? else {
        return Err(context.about(1, "is missing"));
    };
    let mut noting = Noting { origin, index, secrets };
    let Some(given) = own(&mut common)? else {
        return Err(common.about(2, "does not have exactly one certificate"));
    };
    let (cert, key) = noting.pair(given);
    let client_ca = roots(&mut common)?.map(|trusted| noting.roots(trusted));
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
        cert,
        key,
        names,
        ocsp: None,
        client_auth: client_ca.is_some().then(|| Item::new(auth, origin.clone())),
        client_ca,
        crl: None,
        min_version,
        send_ca_names: None,
    })))
}
