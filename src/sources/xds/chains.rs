//! Filter chains of a listener of Envoy's API. They may differ in their certificates.

use std::collections::HashSet;

use super::proto::{Message, Reason};
use super::route_schemas::{CHAIN_MATCH, FILTER_CHAIN};
use super::schemas::TRANSPORT_SOCKET;
use super::secrets::{Part, Wanted};
use super::tls;
use crate::model::{Item, Listener, ServerTls};

/// A filter chain, and its condition.
struct Chain<'a> {
    message: Message<'a>,
    /// The server names that select it. Without any, it is for all others.
    names: Vec<String>,
    is_tls: bool,
}

/// Reads the filter chains of the listener `m`. Returns the filter of all.
pub(super) fn read<'a>(
    m: &mut Message<'a>,
    listener: &mut Listener,
    secrets: &mut Vec<Wanted>,
) -> Result<&'a [u8], Reason> {
    let mut chains = Vec::new();
    for message in m.messages(3, &FILTER_CHAIN)? {
        chains.push(Chain::read(message)?);
    }
    if let Some(mut message) = m.message(25, &FILTER_CHAIN)? {
        message.ignore(&[1]); // its condition does not count
        chains.push(Chain::read(message)?);
    }
    // The first certificate is for all other names.
    chains.sort_by_key(|chain| !chain.names.is_empty());
    let (count, nameless) = (chains.len(), chains.iter().filter(|it| it.names.is_empty()).count());
    if nameless > 1 {
        return Err(m.about(3, "are several without server_names; keep one"));
    }
    let mut seen = HashSet::new();
    for name in chains.iter().flat_map(|chain| &chain.names) {
        if !seen.insert(name.clone()) {
            return Err(m.about(3, &format!("have the server name {name} twice")));
        }
    }
    let mut common: Option<&[u8]> = None;
    for chain in chains {
        let only = chain.add(count, listener, secrets)?;
        if common.is_some_and(|first| first != only) {
            return Err(m.about(3, "have different filters; use a listener for each"));
        }
        common = Some(only);
    }
    if !listener.tls.is_empty() && listener.tls.len() != count {
        return Err(m.about(3, "are partly without TLS; use a listener for each"));
    }
    listener.known_names_only = nameless == 0 && !listener.tls.is_empty();
    unite_terms(m, listener, secrets)?;
    common.ok_or_else(|| m.about(3, "is missing"))
}

impl<'a> Chain<'a> {
    fn read(mut message: Message<'a>) -> Result<Self, Reason> {
        let (mut names, mut is_tls) = (Vec::new(), false);
        if let Some(mut condition) = message.message(1, &CHAIN_MATCH)? {
            for name in condition.texts(11)? {
                if name.strip_prefix("*.").unwrap_or(name).contains('*') || name.is_empty() {
                    return Err(condition.about(11, &format!("has {name:?}; use *.DOMAIN")));
                }
                names.push(name.to_ascii_lowercase());
            }
            is_tls = match condition.text(9)? {
                "" => false,
                "tls" => true,
                _ => return Err(condition.about(9, "is not tls")),
            };
            condition.finish()?;
        }
        Ok(Self { message, names, is_tls })
    }

    /// Adds the certificate of this chain, one of `count`, to the listener. Returns its filter.
    fn add(
        self,
        count: usize,
        listener: &mut Listener,
        secrets: &mut Vec<Wanted>,
    ) -> Result<&'a [u8], Reason> {
        let Self { message: mut chain, mut names, is_tls } = self;
        let origin = listener.name.origin.clone();
        let filters = chain.all(3)?;
        let [only] = filters[..] else {
            return Err(chain.about(3, "does not have exactly one filter"));
        };
        let needs_tls = is_tls || !names.is_empty();
        if names.is_empty() && count > 1 {
            // No name at all, so that those in the certificate take nothing from other chains.
            names.push(String::new());
        }
        let before = listener.tls.len();
        if let Some(mut socket) = chain.message(6, &TRANSPORT_SOCKET)? {
            socket.ignore(&[1]);
            match socket.any(3)? {
                Some((tls::DOWNSTREAM, bytes)) => {
                    let tls = tls::downstream(bytes, names, &origin, (before, &mut *secrets))?;
                    listener.tls.push(Item::new(tls, origin));
                }
                Some((url, _)) if url.ends_with(".RawBuffer") => {}
                _ => return Err(chain.about(6, "is not supported; use DownstreamTlsContext")),
            }
            socket.finish()?;
        }
        if needs_tls && listener.tls.len() == before {
            return Err(chain.about(6, "is missing, though filter_chain_match asks for TLS"));
        }
        chain.off(&[4])?; // use_proxy_proto
        chain.ignore(&[5, 7, 9]); // metadata, name, transport_socket_connect_timeout
        chain.finish()?;
        Ok(only)
    }
}

/// The terms for clients apply before a certificate is selected: they must be the same for all, and
/// the first certificate has them.
fn unite_terms(
    m: &Message<'_>,
    listener: &mut Listener,
    secrets: &mut Vec<Wanted>,
) -> Result<(), Reason> {
    let is_roots = |it: &&Wanted| it.part == Part::Roots;
    let named = |index| {
        let mut roots = secrets.iter().filter(is_roots).filter(|it| it.index == index);
        roots.next().map(|it| it.name.clone())
    };
    let mut first = None;
    for (index, tls) in listener.tls.iter_mut().enumerate() {
        let ServerTls::Certificate(files) = &mut tls.value else { continue };
        let roots = files.client_ca.as_ref().map(|ca| ca.value.bytes().ok().map(<[u8]>::to_vec));
        let auth = files.client_auth.as_ref().map(|auth| auth.value);
        let version = files.min_version.as_ref().map(|version| version.value);
        let terms = (named(index), roots, auth, version);
        match &first {
            None => first = Some(terms),
            Some(first) if *first == terms => {
                (files.client_ca, files.client_auth, files.min_version) = (None, None, None);
            }
            Some(_) => {
                let why = "differ in client certificates or TLS versions; use a listener for each";
                return Err(m.about(3, why));
            }
        }
    }
    secrets.retain(|it| it.index == 0 || it.part != Part::Roots);
    Ok(())
}
