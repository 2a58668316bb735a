//! Lowers the grammar to the model, one topic per file. Texts become values: addresses, ports,
//! ranges. `compile` finds the errors that involve several items.

mod addresses;
mod admin;
mod authorization;
mod breaker;
mod fault;
mod health;
mod http2;
mod http3;
mod jwt;
mod listener;
mod locality;
mod mesh;
mod metrics;
mod mirror;
mod outlier;
mod overload;
mod rate_limit;
mod retry;
mod route;
mod service;
mod settings;
mod shift;
mod sources;
mod tcp;
mod tls;
mod tracing;

use std::net::SocketAddr;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, SourceMap};
use super::grammar::Config;
use super::grammar::tls::ListenerTls;
use super::materials::{Materials, path_of};
use super::values::{Entries, Placed, Time, TimeOrNone};
use crate::matching::PatternError;
use crate::model::{Item, Items, Material, Model, Origin, Place, ServerTls};
use crate::time::NO_LIMIT;

/// Lowers `config`. Adds a mistake for each invalid text.
pub(super) fn lower(
    config: Config,
    sources: &SourceMap,
    materials: &Materials,
    mistakes: &mut Vec<Diagnostic>,
) -> Model {
    let mut lower = Lower { sources, materials, mistakes };
    let consul = config.sources.consul.iter();
    let listed: Vec<_> = consul.flat_map(|it| it.value.services.0.iter().cloned()).collect();
    let zone = config.zone.and_then(|zone| locality::zone(&mut lower, zone));
    let mut model = Model {
        files: sources.names(),
        settings: settings::settings(
            &mut lower,
            settings::Written {
                runtime: config.runtime,
                admin: config.admin,
                drain: config.drain,
                tcp: config.tcp,
                dns: config.dns,
                limits: config.limits,
                overload: config.overload,
                telemetry: config.telemetry,
                sources: config.sources,
                zone,
            },
        ),
        mesh: mesh::mesh(&mut lower, config.mesh),
        listeners: items(config.listeners, |name, it| listener::listener(&mut lower, name, it)),
        routes: route::routes(&mut lower, config.routes),
        services: items(config.services, |name, it| service::service(&mut lower, name, it)),
        providers: items(config.jwt, |name, it| jwt::provider(&lower, name, it)),
        token: None,
        policies: config
            .authorization
            .into_iter()
            .flatten()
            .map(|rule| Arc::new(authorization::policy(&mut lower, rule)))
            .collect(),
    };
    sources::add_consul_services(&mut lower, listed, &mut model.services);
    model
}

/// Lowers the certificates for gateways of other sources, by name.
pub(super) fn certificates(
    written: &Entries<Placed<ListenerTls>>,
    sources: &SourceMap,
    materials: &Materials,
    mistakes: &mut Vec<Diagnostic>,
) -> Vec<(String, Item<ServerTls>)> {
    let mut lower = Lower { sources, materials, mistakes };
    let mut all = Vec::new();
    for (name, certificate) in &written.0 {
        let tls = tls::server(&mut lower, certificate.clone());
        all.extend(tls.map(|tls| (name.value.clone(), tls)));
    }
    all
}

/// Lowers the entries of a section. The key of each entry becomes the name of the item.
fn items<T, M>(
    entries: Entries<Placed<T>>,
    mut lower: impl FnMut(Item<String>, Placed<T>) -> M,
) -> Items<M> {
    let item = |(name, it): (Placed<String>, Placed<T>)| {
        let origin = origin(it.place);
        Arc::new(Item::new(lower(name.into(), it), origin))
    };
    entries.0.into_iter().map(item).collect()
}

/// The files that lowering needs, and the mistakes that it finds.
struct Lower<'a> {
    sources: &'a SourceMap,
    materials: &'a Materials,
    mistakes: &'a mut Vec<Diagnostic>,
}

impl Lower<'_> {
    fn mistake(&mut self, place: Place, message: impl Into<String>) {
        self.mistakes.push(Diagnostic::at(place, message));
    }

    fn mistake_with_help(
        &mut self,
        place: Place,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.mistakes.push(Diagnostic::at(place, message).help(help));
    }

    /// Reports a mistake if more than one of `parts` is written. `what` is their owner, for the
    /// message.
    fn only_one(&mut self, what: &str, parts: &[Option<(&str, Place)>]) {
        let mut written = parts.iter().flatten();
        if let (Some((first, _)), Some((second, place))) = (written.next(), written.next()) {
            let message = format!("{what} has either `{first}` or `{second}`, and not both");
            let help = match (*first, *second) {
                ("to", "redirect") => {
                    "keep one of them; `redirect_https: true` in a listener sends HTTP to HTTPS"
                }
                _ => "keep one of them",
            };
            self.mistake_with_help(*place, message, help);
        }
    }

    /// Whether a document of a server names a socket of this machine. Reports it.
    fn is_local_for_a_server(&mut self, place: Place, address: &str) -> bool {
        let is_local = ["unix:", "systemd:"].iter().any(|kind| address.starts_with(kind));
        let refused = is_local && self.sources.is_remote(place.file);
        if refused {
            let message = format!(
                "a document of a server cannot name sockets of this machine, such as {address:?}"
            );
            self.mistake_with_help(place, message, "write IP:PORT");
        }
        refused
    }

    fn pattern(&mut self, place: Place, error: PatternError) {
        self.mistake_with_help(place, error.message, error.help);
    }

    fn no_port(&mut self, text: &Placed<String>) {
        let message = format!("{:?} has the port 0, which nobody can connect to", text.value);
        self.mistake_with_help(text.place, message, "write a port from 1 to 65535");
    }

    /// The content of the private key in the file `name`. Warns if every user of this host can read
    /// it.
    fn key(&mut self, name: &Placed<String>) -> Item<Material> {
        self.secret(name, "key")
    }

    /// The same for another secret, which is called `what`.
    fn secret(&mut self, name: &Placed<String>, what: &str) -> Item<Material> {
        if self.materials.is_open(self.sources, name) {
            let message = format!("every user of this host can read this {what}");
            let help = format!("chmod o-r {}", path_of(self.sources, name).display());
            self.mistakes.push(Diagnostic::at(name.place, message).help(help).warning());
        }
        self.material(name)
    }

    fn keys(&mut self, name: &Option<Placed<String>>) -> Option<Item<Material>> {
        name.as_ref().map(|name| self.key(name))
    }

    /// The content of the file `name`.
    fn material(&self, name: &Placed<String>) -> Item<Material> {
        Item::new(self.materials.get(self.sources, name), origin(name.place))
    }

    fn materials(&self, name: &Option<Placed<String>>) -> Option<Item<Material>> {
        name.as_ref().map(|name| self.material(name))
    }

    /// Parses an `IP:PORT`. `help` names other possible forms.
    fn address(&mut self, text: &Placed<String>, help: &str) -> Option<SocketAddr> {
        let parsed: Option<SocketAddr> = text.value.parse().ok();
        if parsed.is_some_and(|address| address.port() == 0) {
            self.no_port(text);
            return None;
        }
        if parsed.is_none() {
            let message = format!("{:?} is not an address to listen on", text.value);
            self.mistake_with_help(
                text.place,
                message,
                addresses::help_for_bind(&text.value, help),
            );
        }
        parsed
    }
}

fn origin(place: Place) -> Origin {
    Origin::File(place)
}

impl<T> From<Placed<T>> for Item<T> {
    fn from(placed: Placed<T>) -> Self {
        Self { value: placed.value, origin: Origin::File(placed.place) }
    }
}

/// The entries of a map, each as its name and its value.
fn pairs<T>(entries: Entries<Placed<T>>) -> Vec<(Item<String>, Item<T>)> {
    entries.0.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn list<T>(placed: Vec<Placed<T>>) -> Vec<Item<T>> {
    placed.into_iter().map(Into::into).collect()
}

fn time(time: Option<Time>) -> Option<std::time::Duration> {
    time.map(|time| time.0)
}

/// A time limit. `none` becomes [`NO_LIMIT`].
fn time_or_none(time: Option<TimeOrNone>) -> Option<std::time::Duration> {
    time.map(|time| time.0.unwrap_or(NO_LIMIT))
}

/// The place of a value. A value in its short form has no place of its own; `around` is the place
/// of the value that contains it.
fn place_or(place: Place, around: Place) -> Place {
    if place == Place::default() { around } else { place }
}
