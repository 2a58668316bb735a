//! Routes of Envoy's API become the rules of hosts.

use std::sync::Arc;

use super::actions;
use super::proto::{Message, Reason};
use super::route_schemas::{
    ACTION, DIRECT, HEADER_OPTION, HEADER_VALUE, MATCH, REDIRECT, ROUTE, ROUTE_CONFIG, VIRTUAL_HOST,
};
use super::{matches, retries};
use crate::model::{FieldEdits, Item, Kind, Origin, Resource, ResourceId, Routes, Rule};

/// The hosts of a route configuration.
#[derive(Clone, Debug)]
pub(super) struct RouteConfig {
    pub(super) id: Arc<ResourceId>,
    pub(super) hosts: Vec<Arc<Item<Routes>>>,
}

/// The scope of the listeners that use the route configuration `name`.
pub(super) fn scope(name: &str) -> Box<str> {
    format!("xds {name}").into()
}

/// Changes of fields, by level.
#[derive(Default)]
struct Edits {
    request: FieldEdits,
    response: FieldEdits,
}

impl RouteConfig {
    /// The resource of the model.
    pub(super) fn resource(&self) -> Resource {
        Resource::Hosts(Arc::clone(&self.id), self.hosts.clone())
    }

    /// Reads a route configuration. `name` is the name of the resource if it is a part of a
    /// listener, and `None` if it has its own.
    pub(super) fn read(
        bytes: &[u8],
        name: Option<&str>,
        version: &str,
    ) -> Result<(String, Self), Reason> {
        let mut message = Message::read(bytes, &ROUTE_CONFIG)?;
        let own = message.text(1)?;
        let name = match name {
            Some(name) => name.to_owned(),
            None if own.is_empty() => return Err(message.about(1, "is empty")),
            None => own.to_owned(),
        };
        let id = Arc::new(ResourceId {
            source: super::NAME.into(),
            kind: Kind::Routes,
            name: name.as_str().into(),
            version: version.into(),
        });
        let origin = Origin::Resource(Arc::clone(&id));
        let mut edits = Edits::default();
        edits.read(&mut message, (6, 8, 4, 5), &origin)?;
        let mut hosts = Vec::new();
        for host in message.messages(2, &VIRTUAL_HOST)? {
            hosts.extend(virtual_host(host, &edits, &scope(&name), &origin)?);
        }
        // validate_clusters: a cluster may come later. The port of a host is ignored always.
        message.ignore(&[3, 7, 10, 11, 14, 17]);
        message.finish()?;
        Ok((name, Self { id, hosts }))
    }
}

fn virtual_host(
    mut message: Message<'_>,
    outer: &Edits,
    scope: &str,
    origin: &Origin,
) -> Result<Option<Arc<Item<Routes>>>, Reason> {
    let m = &mut message;
    let item = |text: &str| Item::new(text.to_owned(), origin.clone());
    let mut domains = m.texts(2)?.into_iter();
    let name = m.text(1)?.to_owned();
    let Some(first) = domains.next() else { return Err(m.about(2, "is missing")) };
    let mut edits = Edits::default();
    edits.read(m, (7, 13, 10, 11), origin)?;
    edits.add(outer);
    let mut retry = retries::read(m, 16, origin)?;
    let counts = (m.flag(14)?, m.flag(19)?);
    if counts != (false, false) {
        let retry = retry.get_or_insert_with(|| Item::new(retries::none(), origin.clone()));
        retry.value.attempt_count_in_request = counts.0;
        retry.value.attempt_count_in_response = counts.1;
    }
    if m.number(4)? != 0 {
        return Err(m.about(4, "is not supported; use a route with a redirect"));
    }
    let mut rules = Vec::new();
    for (route, number) in m.messages(3, &ROUTE)?.into_iter().zip(1_usize..) {
        let rule = rule(route, &edits, retry.as_ref(), origin);
        let rule = rule.map_err(|why| format!("virtual host {name}, route {number}: {why}"))?;
        rules.push(Item::new(rule, origin.clone()));
    }
    m.ignore(&[5, 18, 24, 25]); // virtual_clusters, buffers, metadata
    message.finish().map_err(|why| format!("virtual host {name}: {why}"))?;
    let routes = Routes {
        host: item(first),
        aliases: domains.map(item).collect(),
        scope: Some(scope.into()),
        tolerant: true,
        rules,
    };
    Ok(Some(Arc::new(Item::new(routes, origin.clone()))))
}

fn rule(
    mut message: Message<'_>,
    outer: &Edits,
    retry: Option<&Item<crate::model::Retries>>,
    origin: &Origin,
) -> Result<Rule, Reason> {
    let m = &mut message;
    let name = m.text(14)?;
    let name = (!name.is_empty()).then(|| Item::new(name.to_owned(), origin.clone()));
    let Some(condition) = m.message(1, &MATCH)? else { return Err(m.about(1, "is missing")) };
    let mut rule = Rule { name, matches: matches::read(condition, origin)?, ..Rule::default() };
    if let Some(action) = m.message(2, &ACTION)? {
        actions::forward(action, &mut rule, origin)?;
        if rule.retries.is_none() {
            rule.retries = retry.cloned().map(Box::new);
        }
    } else if let Some(redirect) = m.message(3, &REDIRECT)? {
        rule.action = Some(actions::redirect(redirect, origin)?);
    } else if let Some(direct) = m.message(7, &DIRECT)? {
        rule.action = Some(actions::respond(direct, origin)?);
    } else {
        let other = [17, 18].into_iter().find(|number| m.has(*number));
        return Err(other.map_or_else(|| m.about(2, "is missing"), |it| m.unsupported(it)));
    }
    let mut edits = Edits::default();
    edits.read(m, (9, 12, 10, 11), origin)?;
    edits.add(outer);
    rule.request_headers = boxed(edits.request);
    rule.response_headers = boxed(edits.response);
    m.ignore(&[4, 5, 15, 16, 19, 20]); // metadata, names of spans and counters, buffers
    message.finish()?;
    Ok(rule)
}

fn boxed(edits: FieldEdits) -> Option<Box<FieldEdits>> {
    let is_empty = edits.set.is_empty() && edits.add.is_empty() && edits.remove.is_empty();
    (!is_empty).then(|| Box::new(edits))
}

impl Edits {
    /// Reads the fields to add to and remove from requests and responses.
    fn read(
        &mut self,
        m: &mut Message<'_>,
        numbers: (u64, u64, u64, u64),
        origin: &Origin,
    ) -> Result<(), Reason> {
        let (request, no_request, response, no_response) = numbers;
        for (edits, added, removed) in
            [(&mut self.request, request, no_request), (&mut self.response, response, no_response)]
        {
            for option in m.messages(added, &HEADER_OPTION)? {
                add_field(option, edits, origin)?;
            }
            for name in m.texts(removed)? {
                edits.remove.push(Item::new(name.to_owned(), origin.clone()));
            }
        }
        Ok(())
    }

    /// Adds the changes of an outer level.
    fn add(&mut self, outer: &Self) {
        for (own, outer) in
            [(&mut self.request, &outer.request), (&mut self.response, &outer.response)]
        {
            // The outer level comes last, so its values replace those of the inner one.
            own.set.retain(|(name, _)| !outer.set.iter().any(|(of, _)| of.value == name.value));
            own.set.extend(outer.set.iter().cloned());
            own.add.extend(outer.add.iter().cloned());
            own.remove.extend(outer.remove.iter().cloned());
        }
    }
}

fn add_field(
    mut option: Message<'_>,
    edits: &mut FieldEdits,
    origin: &Origin,
) -> Result<(), Reason> {
    let Some(mut header) = option.message(1, &HEADER_VALUE)? else {
        return Err(option.about(1, "is missing"));
    };
    let name = header.required_text(1)?.to_owned();
    let value = if header.has(3) { header.text(3)? } else { header.text(2)? };
    header.ignore(&[2]);
    header.finish()?;
    let unescaped = value.replace("%%", "");
    if unescaped.contains('%') {
        return Err(option.about(1, "has an operator in its value, which is not supported"));
    }
    let item = |text: String| Item::new(text, origin.clone());
    let field = (item(name), item(value.replace("%%", "%")));
    let appends = option.wrapped(2)?;
    match (option.number(3)?, appends) {
        (0, None | Some(1..)) => edits.add.push(field),
        (2, _) | (0, Some(0)) => edits.set.push(field),
        _ => {
            return Err(option.about(
                3,
                "is not supported; use APPEND_IF_EXISTS_OR_ADD or OVERWRITE_IF_EXISTS_OR_ADD",
            ));
        }
    }
    option.ignore(&[4]); // keep_empty_value
    option.finish()
}
