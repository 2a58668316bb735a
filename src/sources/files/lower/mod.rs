//! Lowers the grammar to the model, one topic per file. Texts become values: addresses, ports,
//! ranges. `compile` finds errors that involve several items.

mod authorization;
mod health;
mod http2;
mod jwt;
mod listener;
mod mesh;
mod route;
mod service;
mod settings;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, SourceMap};
use super::grammar::Config;
use super::materials::Materials;
use super::values::{Entries, Placed, Time};
use crate::model::{Item, Items, Material, Model, Origin, Place};

/// Lowers `config`. Adds a mistake for each invalid text.
pub(super) fn lower(
    config: Config,
    sources: &SourceMap,
    materials: &Materials,
    mistakes: &mut Vec<Diagnostic>,
) -> Model {
    let mut lower = Lower { sources, materials, mistakes };
    Model {
        files: sources.names(),
        settings: settings::settings(
            &mut lower,
            config.runtime,
            config.admin,
            config.drain,
            config.limits,
            config.telemetry,
        ),
        mesh: mesh::mesh(&mut lower, config.mesh),
        listeners: items(config.listeners, |name, it| listener::listener(&mut lower, name, it)),
        routes: route::routes(&mut lower, config.routes),
        services: items(config.services, |name, it| service::service(&mut lower, name, it)),
        providers: items(config.jwt, |name, it| jwt::provider(&lower, name, it)),
        policies: config
            .authorization
            .into_iter()
            .flatten()
            .map(|rule| Arc::new(authorization::policy(&mut lower, rule)))
            .collect(),
    }
}

/// Lowers the entries of a section.
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

/// The context of lowering.
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

    /// The content of the file `name`.
    fn material(&self, name: &Placed<String>) -> Item<Material> {
        Item::new(self.materials.get(self.sources, name), origin(name.place))
    }

    fn materials(&self, name: &Option<Placed<String>>) -> Option<Item<Material>> {
        name.as_ref().map(|name| self.material(name))
    }

    /// Parses an `IP:PORT`. `help` names other possible forms.
    fn address(&mut self, text: &Placed<String>, help: &str) -> Option<SocketAddr> {
        let parsed = text.value.parse().ok();
        if parsed.is_none() {
            let message = format!("{:?} is not an address to listen on", text.value);
            self.mistake_with_help(text.place, message, help);
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

/// Values with their names.
fn pairs<T>(entries: Entries<Placed<T>>) -> Vec<(Item<String>, Item<T>)> {
    entries.0.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn list<T>(placed: Vec<Placed<T>>) -> Vec<Item<T>> {
    placed.into_iter().map(Into::into).collect()
}

fn time(time: Option<Time>) -> Option<std::time::Duration> {
    time.map(|time| time.0)
}

/// The place of a value that may stand for a map. A value alone has no place of its own.
fn place_or(place: Place, around: Place) -> Place {
    if place == Place::default() { around } else { place }
}
