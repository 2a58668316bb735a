//! Lowers TLS of listeners and services, and the identity of this workload, to the model.

use super::super::diagnostic::Diagnostic;
use super::super::grammar::tls::{self, ListenerTls, ServerFiles, ServiceTls, Verify};
use super::super::materials::path_of;
use super::super::values::Placed;
use super::{Lower, origin};
use crate::ca;
use crate::compile::habits;
use crate::model::{
    ClientAuth, ClientFiles, ClientTls, Identity, Item, Material, ServerCertificate, ServerTls,
    TlsVersion,
};

pub(super) fn server(
    lower: &mut Lower<'_>,
    written: Placed<ListenerTls>,
) -> Option<Item<ServerTls>> {
    let place = written.place;
    let tls = match written.value {
        ListenerTls::Word(word) if word == "mesh" => ServerTls::Mesh,
        ListenerTls::Word(word) => {
            let help = habits::of_shape("ListenerTls", &word, &|_| None).unwrap_or_default();
            lower.mistake_with_help(place, format!("{word:?} names no certificate"), help);
            return None;
        }
        ListenerTls::Files(files) => ServerTls::Certificate(Box::new(certificate(lower, *files))),
    };
    Some(Item::new(tls, origin(place)))
}

fn certificate(lower: &mut Lower<'_>, files: ServerFiles) -> ServerCertificate {
    ServerCertificate {
        cert: lower.material(&files.cert),
        key: lower.key(&files.key),
        names: files.names.0.into_iter().map(|name| name.value).collect(),
        ocsp: lower.materials(&files.ocsp),
        client_ca: lower.materials(&files.client_ca),
        client_auth: files.client_auth.map(|auth| {
            let value = match auth.value {
                tls::ClientAuth::Optional => ClientAuth::Optional,
                tls::ClientAuth::Require => ClientAuth::Require,
            };
            Item::new(value, origin(auth.place))
        }),
        crl: lower.materials(&files.crl),
        send_ca_names: files.send_ca_names.map(|told| Item::new(told.value, origin(told.place))),
        min_version: files.min_version.and_then(|version| min_version(lower, &version)),
    }
}

fn min_version(lower: &mut Lower<'_>, written: &Placed<String>) -> Option<Item<TlsVersion>> {
    let version = match written.value.as_str() {
        "1.2" => TlsVersion::Tls12,
        "1.3" => TlsVersion::Tls13,
        other => {
            let message = format!("Ringway speaks TLS 1.2 and 1.3, and not {other:?}");
            lower.mistake_with_help(written.place, message, "write \"1.2\" or \"1.3\"");
            return None;
        }
    };
    Some(Item::new(version, origin(written.place)))
}

pub(super) fn client(
    lower: &mut Lower<'_>,
    written: Placed<ServiceTls>,
) -> Option<Item<ClientTls>> {
    let place = written.place;
    let tls = match written.value {
        ServiceTls::Word(word) if word == "mesh" => ClientTls::Mesh,
        ServiceTls::Word(word) => {
            let help = habits::of_shape("ServiceTls", &word, &|_| None).unwrap_or_default();
            lower.mistake_with_help(place, format!("{word:?} names no CA"), help);
            return None;
        }
        ServiceTls::Files(files) => ClientTls::Files(Box::new(ClientFiles {
            ca: lower.materials(&files.ca),
            cert: lower.materials(&files.cert),
            key: lower.keys(&files.key),
            sni: files.sni.map(Into::into),
            crl: lower.materials(&files.crl),
            unverified: files.verify == Verify::None,
        })),
    };
    Some(Item::new(tls, origin(place)))
}

pub(super) fn identity(lower: &mut Lower<'_>, written: Placed<tls::Identity>) -> Item<Identity> {
    let value = written.value;
    let identity = match (&value.cert, &value.key, &value.roots) {
        (Some(cert), Some(key), Some(roots)) if value.ca.is_none() && value.spiffe.is_none() => {
            Identity::Given {
                cert: lower.material(cert),
                key: lower.key(key),
                roots: lower.material(roots),
            }
        }
        (None, None, None) if value.ca.is_none() && value.spiffe.is_some() => {
            let id = value.id.map(Into::into);
            let workload =
                |socket: Placed<String>| Identity::Workload { socket: socket.into(), id };
            value.spiffe.map_or(Identity::Incomplete, workload)
        }
        (None, None, None) if value.id.is_some() && value.spiffe.is_none() => {
            value.ca.map_or(Identity::Incomplete, |directory| issued(lower, &directory))
        }
        _ => Identity::Incomplete,
    };
    Item::new(identity, origin(written.place))
}

/// The certificate that the CA in `directory` has issued to this workload.
fn issued(lower: &mut Lower<'_>, directory: &Placed<String>) -> Identity {
    if lower.materials.is_open_in(lower.sources, directory, ca::INTERMEDIATE_KEY) {
        let message = "every user of this host can read the intermediate key of this CA";
        let key = path_of(lower.sources, directory).join(ca::INTERMEDIATE_KEY);
        let help = format!("chmod o-r {}", key.display());
        lower.mistakes.push(Diagnostic::at(directory.place, message).help(help).warning());
    }
    let at = |material| Item::new(material, origin(directory.place));
    let (cert, key) = match lower.materials.issued() {
        Some(Ok(issued)) => (
            Material::new(issued.chain_pem.clone().into_bytes()),
            Material::new(issued.key_pem.as_bytes().to_vec()),
        ),
        Some(Err(why)) => (Material::unreadable(why), Material::unreadable(why)),
        None => return Identity::Incomplete,
    };
    let roots = lower.materials.in_directory(lower.sources, directory, ca::ROOTS);
    Identity::Issued { cert: at(cert), key: at(key), roots: at(roots) }
}
