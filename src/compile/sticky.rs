//! Compiles the value of a request that keeps it on its version.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Compiler, is_token};
use crate::balance::HashKey;
use crate::cluster::{Destination, Service};
use crate::model::{self, Item, Origin};
use crate::route::{Split, Sticky, StickyCookie};

/// Compiles `sticky` of a rule. `split` has its versions, unless they have errors.
pub(super) fn sticky(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    item: &Item<model::Sticky>,
    (rule, split): (&model::Rule, Option<&Split>),
) -> Sticky {
    let splits = match &rule.action {
        Some(model::Action::Forward(to)) => to.len() > 1,
        Some(_) => false,
        // The missing action is an error of its own.
        None => true,
    };
    if !splits {
        let message = "this rule has one destination, so requests stay there without `sticky`";
        let help = "write the versions: `to: {SERVICE/VERSION: N, SERVICE/VERSION: N}`; for one \
            endpoint for each user, write `balance: {hash: ...}` in the service";
        compiler.fault_with_help(&item.origin, message, help);
    }
    let mut name_of = |name: &Item<String>, is_cookie: bool| -> Box<str> {
        match is_cookie {
            true if !is_token(&name.value) => {
                let message = format!("{:?} is not the name of a cookie", name.value);
                let help = "a name has letters, digits, `-` and `_`";
                compiler.fault_with_help(&name.origin, message, help);
            }
            true => {}
            false => compiler.field_name(name),
        }
        name.value.as_str().into()
    };
    match &item.value {
        model::Sticky::Header(name) => Sticky::Key(HashKey::Header(name_of(name, false))),
        model::Sticky::Cookie(name) => Sticky::Key(HashKey::Cookie(name_of(name, true))),
        model::Sticky::Identity => Sticky::Identity,
        model::Sticky::SourceIp => Sticky::Key(HashKey::SourceIp),
        model::Sticky::Set(written) => {
            Sticky::Set(Box::new(cookie(compiler, services, (&item.origin, written), split)))
        }
    }
}

fn cookie(
    compiler: &mut Compiler<'_>,
    services: &[Arc<Service>],
    (origin, written): (&Origin, &model::StickyCookie),
    split: Option<&Split>,
) -> StickyCookie {
    let model::StickyCookie { name, ttl, path } = written;
    if name.is_none() {
        let help = "add `name: NAME`; a name of your own does not meet the cookies of services";
        compiler.missing(origin, "a cookie needs a `name`", help);
    }
    if let Some(name) = name.as_ref().filter(|name| !is_token(&name.value)) {
        let message = format!("{:?} is not the name of a cookie", name.value);
        let help = "a name has letters, digits, `-` and `_`";
        compiler.fault_with_help(&name.origin, message, help);
    }
    if let Some(ttl) = ttl.as_ref().filter(|ttl| ttl.value.subsec_nanos() > 0) {
        let help = format!("write `ttl: {}s`", ttl.value.as_secs() + 1);
        compiler.fault_with_help(&ttl.origin, "a cookie lives for whole seconds", help);
    }
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if let Some(path) = path.as_ref().filter(|path| !path.value.starts_with('/')) {
        let message =
            format!("the path of a cookie begins with `/`, and {:?} does not", path.value);
        let help = format!("write `path: /{}`", path.value);
        compiler.fault_with_help(&path.origin, message, help);
    } else if let Some(path) = path.as_ref().filter(|path| !path.value.bytes().all(is_plain)) {
        let message =
            format!("{:?} has a character that the path of a cookie cannot have", path.value);
        let help = "write the path as it is in URLs, without `;`";
        compiler.fault_with_help(&path.origin, message, help);
    }
    let path = path.as_ref().map_or("/", |path| &path.value);
    let ttl = ttl.as_ref().map(|ttl| ttl.value);
    let versions = split.iter().flat_map(|split| split.destinations());
    let versions = versions.map(|to| (to, version(services, to)));
    let name = name.as_ref().map_or("", |name| &name.value);
    StickyCookie::new(name, ttl, path, versions)
}

/// The name of a destination, as in `to`.
fn version(services: &[Arc<Service>], to: Destination) -> String {
    let Some(service) = services.get(to.service as usize) else { return String::new() };
    let endpoints = service.endpoints.load();
    let subset = endpoints.subsets.get(to.subset as usize);
    match subset.map_or("", |subset| &*subset.version) {
        "" => service.name.to_string(),
        version => format!("{}/{version}", service.name),
    }
}

/// Checks the rules of a host for cookies that overwrite each other: they have the same name and
/// path, but their rules have different versions.
pub(super) fn clashes(compiler: &mut Compiler<'_>, rules: &[Item<model::Rule>]) {
    let mut seen: Vec<(&Item<String>, &str, BTreeSet<&str>)> = Vec::new();
    for rule in rules {
        let model::Rule { sticky, action, .. } = &rule.value;
        let Some(model::Sticky::Set(cookie)) = sticky.as_deref().map(|sticky| &sticky.value) else {
            continue;
        };
        let model::StickyCookie { name, path, .. } = cookie;
        let (Some(name), Some(model::Action::Forward(to))) = (name, action) else { continue };
        let versions: BTreeSet<&str> = to.iter().map(|(to, _)| to.value.as_str()).collect();
        let path = path.as_ref().map_or("/", |path| &path.value);
        let overwritten = seen.iter().find(|(other, of_path, of_versions)| {
            other.value == name.value && *of_path == path && *of_versions != versions
        });
        if let Some((other, ..)) = overwritten {
            let place = compiler.model.files.line_of(&other.origin);
            let message =
                format!("this cookie overwrites that of {place}, whose rule has other versions");
            let help = "give one of them another `name`, or another `path`";
            compiler.fault_with_help(&name.origin, message, help);
        }
        seen.push((name, path, versions));
    }
}
