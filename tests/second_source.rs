//! A source other than files: its resources are merged with the model of the files, and each
//! resource is refused on its own.

use std::sync::Arc;

use ringway::compile::registry::Registry;
use ringway::compile::{Compiled, Resolutions};
use ringway::matching::PathMatch;
use ringway::message::Head;
use ringway::model::{
    Action, Change, Endpoint, Endpoints, Item, Kind, Match, Origin, Patch, Precedence, Resource,
    ResourceId, Resources, Routes, Rule, Service,
};
use ringway::net::Address;
use ringway::snapshot::Snapshot;
use ringway::sources::files::{self, Loaded};

/// A source that only knows services: a list of names with addresses.
struct Phonebook {
    version: u32,
}

impl Phonebook {
    fn patch(&self, changes: Vec<Change>) -> Patch {
        Patch { source: "phonebook".into(), precedence: Precedence::default(), changes }
    }

    fn origin(&self, kind: Kind, name: &str) -> Origin {
        Origin::Resource(Arc::new(ResourceId {
            source: "phonebook".into(),
            kind,
            name: name.into(),
            version: self.version.to_string().into(),
        }))
    }

    /// A service with one endpoint.
    fn service(&self, name: &str, address: &str) -> Change {
        let origin = self.origin(Kind::Service, name);
        let address = Address::Tcp(address.parse().unwrap());
        let endpoint = Endpoint { address, weight: 1, zone: None, priority: 0 };
        let service = Service {
            name: Item::new(name.to_owned(), origin.clone()),
            endpoints: Some(Endpoints::List(vec![Item::new(endpoint, origin.clone())])),
            ..Service::default()
        };
        Change::Set(Resource::Service(Arc::new(Item::new(service, origin))))
    }

    /// One route of `host` that forwards all paths to `service`.
    fn route(&self, host: &str, service: &str) -> Change {
        let origin = self.origin(Kind::Routes, host);
        let path = Item::new(PathMatch::Prefix((*b"/").into()), origin.clone());
        let to = Item::new(service.to_owned(), origin.clone());
        let rule = Rule {
            matches: Match { path: Some(path), ..Match::default() },
            action: Some(Action::Forward(vec![(to, 1)])),
            ..Rule::default()
        };
        let rules = vec![Item::new(rule, origin.clone())];
        let host = Item::new(host.to_owned(), origin.clone());
        let routes = Routes { host, rules, ..Routes::default() };
        Change::Set(Resource::Routes(Arc::new(Item::new(routes, origin))))
    }
}

const FILES: &str = "\
listeners: {web: {bind: 127.0.0.1:1}}
services: {shop: {endpoints: [10.0.0.1:80]}}
routes: {shop.example.com: [{to: shop}]}
";

fn load(text: &str) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, text).unwrap();
    files::load(&[file], &std::collections::HashMap::new())
}

fn compiled(files: &Loaded, resources: &Resources) -> Result<Compiled, String> {
    let (registry, resolutions) = (&mut Registry::new(1), &Resolutions::new());
    let result = files::compile_with(files, resources, 1, registry, resolutions);
    result.map_err(|errors| errors.to_string())
}

/// The service for requests to `host`, and its first endpoint.
fn reached(snapshot: &Snapshot, host: &str) -> Option<String> {
    let text = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let (mut head, whole) = (Head::default(), 0..text.len());
    ringway::http1::parse::request(text.as_bytes(), whole, &snapshot.limits.message, &mut head)
        .unwrap();
    let rule = snapshot.listeners[0].routes()?.find(head.view(text.as_bytes()), 80)?;
    let ringway::route::Action::Forward(split) = &rule.action else { return None };
    let service = &snapshot.services[split.shares()[0].0.service as usize];
    Some(format!("{} {}", service.name, service.endpoints.load().list[0].address))
}

#[test]
fn a_second_source_adds_a_service_and_a_route() {
    let (files, book) = (load(FILES), Phonebook { version: 1 });
    let mut resources = Resources::default();
    resources.apply(book.patch(vec![
        book.service("cart", "10.0.0.2:80"),
        book.route("cart.example.com", "cart"),
        book.route("more.example.com", "shop"),
    ]));
    let both = compiled(&files, &resources).unwrap();
    assert!(both.refusals.is_empty(), "{:?}", both.refusals);
    let reached = |host| reached(&both.snapshot, host).unwrap();
    assert_eq!(reached("cart.example.com"), "cart 10.0.0.2:80");
    assert_eq!(reached("shop.example.com"), "shop 10.0.0.1:80");
    assert_eq!(reached("more.example.com"), "shop 10.0.0.1:80", "a service of the files");
}

#[test]
fn a_resource_is_replaced_and_removed_by_its_name() {
    let (files, book) = (load(FILES), Phonebook { version: 1 });
    let mut resources = Resources::default();
    resources.apply(
        book.patch(vec![
            book.service("cart", "10.0.0.2:80"),
            book.route("cart.example.com", "cart"),
        ]),
    );
    resources.apply(book.patch(vec![book.service("cart", "10.0.0.3:80")]));
    let first = compiled(&files, &resources).unwrap();
    assert_eq!(reached(&first.snapshot, "cart.example.com").unwrap(), "cart 10.0.0.3:80");
    let gone = |kind, name: &str| Change::Remove(kind, name.into());
    resources.apply(
        book.patch(vec![gone(Kind::Routes, "cart.example.com"), gone(Kind::Service, "cart")]),
    );
    let then = compiled(&files, &resources).unwrap();
    assert_eq!(then.snapshot.services.len(), 1);
    assert_eq!(reached(&then.snapshot, "cart.example.com"), None);
}

#[test]
fn a_bad_resource_is_refused_alone_with_its_reason() {
    let (files, book) = (load(FILES), Phonebook { version: 7 });
    let mut resources = Resources::default();
    resources.apply(book.patch(vec![
        book.service("cart", "10.0.0.2:80"),
        book.route("cart.example.com", "cart"),
        book.service("a/b", "10.0.0.4:80"),
        book.route("lost.example.com", "lost"),
        book.service("own", "127.0.0.1:9900"),
    ]));
    let result = compiled(&files, &resources).unwrap();
    assert_eq!(reached(&result.snapshot, "cart.example.com").unwrap(), "cart 10.0.0.2:80");
    assert_eq!(reached(&result.snapshot, "lost.example.com"), None);
    let refusals: Vec<String> = result.refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        refusals,
        [
            "phonebook: routes of lost.example.com (version 7): there is no service \"lost\"; \
             expected one of: a/b, cart, own, shop",
            "phonebook: service a/b (version 7): a service's name is not empty and has no slash",
            "phonebook: service own (version 7): 127.0.0.1:9900 is the admin interface of this \
             process; phonebook cannot have it as an endpoint",
        ]
    );
}

#[test]
fn a_resource_that_needs_a_refused_one_is_refused_too() {
    let (files, book) = (load(FILES), Phonebook { version: 1 });
    let mut resources = Resources::default();
    resources.apply(book.patch(vec![book.service("", "10.0.0.4:80"), book.route("x", "")]));
    let result = compiled(&files, &resources).unwrap();
    assert_eq!(result.refusals.len(), 2, "{:?}", result.refusals);
    assert_eq!(reached(&result.snapshot, "shop.example.com").unwrap(), "shop 10.0.0.1:80");
}

#[test]
fn of_two_items_with_one_name_the_files_win_and_both_are_named() {
    let (files, book) = (load(FILES), Phonebook { version: 2 });
    let mut resources = Resources::default();
    resources.apply(book.patch(vec![
        book.service("shop", "10.0.0.9:80"),
        book.route("shop.example.com", "shop"),
        book.service("cart", "10.0.0.2:80"),
    ]));
    let result = compiled(&files, &resources).unwrap();
    assert_eq!(reached(&result.snapshot, "shop.example.com").unwrap(), "shop 10.0.0.1:80");
    assert_eq!(result.snapshot.services.len(), 2, "the rest is applied");
    let refusals: Vec<String> = result.refusals.iter().map(ToString::to_string).collect();
    let service = refusals.iter().find(|text| text.contains("service")).unwrap();
    assert!(service.contains("phonebook: service shop (version 2)"), "{service}");
    assert!(service.contains("a.yaml:2:18"), "{service}");
    assert_eq!(refusals.len(), 2, "{refusals:?}");
}

#[test]
fn a_source_that_is_told_to_wins_over_the_files() {
    let (files, book) = (load(FILES), Phonebook { version: 3 });
    let mut resources = Resources::default();
    let patch = book.patch(vec![book.service("shop", "10.0.0.9:80")]);
    resources.apply(Patch { precedence: Precedence::OverFiles, ..patch });
    let result = compiled(&files, &resources).unwrap();
    assert_eq!(reached(&result.snapshot, "shop.example.com").unwrap(), "shop 10.0.0.9:80");
    let refusal = result.refusals[0].to_string();
    assert!(refusal.contains("a.yaml:2:18"), "{refusal}");
    assert!(refusal.contains("phonebook: service shop (version 3)"), "{refusal}");
}

#[test]
fn files_are_refused_whole_whatever_other_sources_want() {
    let files = load("listeners: {web: {bind: 127.0.0.1:1}}\nroutes: {a: [{to: b}, {to: c}]}\n");
    let book = Phonebook { version: 1 };
    let mut resources = Resources::default();
    resources.apply(
        book.patch(vec![
            book.service("cart", "10.0.0.2:80"),
            book.route("lost.example.com", "lost"),
        ]),
    );
    let errors = compiled(&files, &resources).map(|_| ()).unwrap_err();
    assert_eq!(errors.matches("error: ").count(), 2, "{errors}");
    assert!(!errors.contains("lost"), "{errors}");
}
