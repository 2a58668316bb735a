//! Secrets: certificates with their keys, and roots, which listeners and clusters name.

use super::cluster::check_config_source;
use super::proto::{Message, Reason};
use super::schemas::{CONFIG_SOURCE, SECRET, TLS_CERTIFICATE, VALIDATION};
use super::state::check_name;
use super::tls::{certificate, trusted_ca};
use crate::compile::{check_certificate, check_roots};
use crate::model::{ClientTls, Item, Listener, Material, ServerTls, Service};

/// A secret of the server. `Debug` does not print the content.
#[derive(Clone, Debug)]
pub(super) enum Secret {
    /// A certificate chain and its private key.
    Certificate(Material, Material),
    /// The CAs that verify the peer.
    Roots(Material),
}

/// A secret that a listener or a cluster needs.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) part: Part,
    /// Which of the certificates of a listener needs it.
    pub(super) index: usize,
}

/// The part of TLS settings that a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Certificate,
    Roots,
}

impl Secret {
    /// Reads a secret and its name.
    pub(super) fn read(bytes: &[u8]) -> Result<(String, Self), Reason> {
        let mut message = Message::read(bytes, &SECRET)?;
        let name = message.required_text(1)?.to_owned();
        let pair = message.message(2, &TLS_CERTIFICATE)?;
        let roots = message.message(4, &VALIDATION)?;
        let secret = match (pair, roots) {
            (Some(pair), None) => {
                let (chain, key) = certificate(pair)?;
                check_certificate(&chain, &key)?;
                Self::Certificate(Material::new(chain), Material::new(key))
            }
            (None, Some(roots)) => {
                let roots = trusted_ca(roots)?;
                check_roots(&roots)?;
                Self::Roots(Material::new(roots))
            }
            _ => {
                let number = [3, 5].into_iter().find(|number| message.has(*number));
                return Err(match number {
                    Some(number) => message.unsupported(number),
                    None => message.about(2, "is missing"),
                });
            }
        };
        message.finish()?;
        Ok((name, secret))
    }
}

/// The name of the secret in an `SdsSecretConfig`. It comes over the same stream.
pub(super) fn secret_name(mut config: Message<'_>) -> Result<String, Reason> {
    let name = config.required_text(1)?.to_owned();
    check_name(&name)?;
    let Some(source) = config.message(2, &CONFIG_SOURCE)? else {
        return Err(config.about(2, "is missing; use `ads: {}`"));
    };
    check_config_source(source)?;
    config.finish()?;
    Ok(name)
}

/// The content of a secret before it has come.
pub(super) fn absent() -> Material {
    Material::unreadable("the secret has not come")
}

/// Puts the secrets into a listener.
pub(super) fn fill_listener<'a>(
    listener: &mut Listener,
    wanted: &[Wanted],
    find: impl Fn(&str) -> Option<&'a Secret>,
) -> Result<(), Reason> {
    for Wanted { name, part, index } in wanted {
        let Some(tls) = listener.tls.get_mut(*index) else { continue };
        let ServerTls::Certificate(files) = &mut tls.value else { continue };
        match (part, find(name)) {
            (Part::Certificate, Some(Secret::Certificate(chain, key))) => {
                (files.cert.value, files.key.value) = (chain.clone(), key.clone());
            }
            (Part::Roots, Some(Secret::Roots(roots))) => put(&mut files.client_ca, roots),
            (part, _) => return Err(part.wrong(name)),
        }
    }
    Ok(())
}

/// Puts the secrets into a service.
pub(super) fn fill_service<'a>(
    service: &mut Service,
    wanted: &[Wanted],
    find: impl Fn(&str) -> Option<&'a Secret>,
) -> Result<(), Reason> {
    for Wanted { name, part, .. } in wanted {
        let Some(tls) = &mut service.tls else { continue };
        let ClientTls::Files(files) = &mut tls.value else { continue };
        match (part, find(name)) {
            (Part::Certificate, Some(Secret::Certificate(chain, key))) => {
                put(&mut files.cert, chain);
                put(&mut files.key, key);
            }
            (Part::Roots, Some(Secret::Roots(roots))) => put(&mut files.ca, roots),
            (part, _) => return Err(part.wrong(name)),
        }
    }
    Ok(())
}

fn put(place: &mut Option<Item<Material>>, content: &Material) {
    if let Some(place) = place {
        place.value = content.clone();
    }
}

impl Part {
    fn wrong(self, name: &str) -> Reason {
        let wanted = match self {
            Self::Certificate => "no tls_certificate",
            Self::Roots => "no validation_context",
        };
        format!("the secret {name} has {wanted}")
    }
}
