//! Warns of texts that other proxies interpret and Ringway does not: variables in values, and
//! patterns in conditions.

use super::Compiler;
use super::habits::variable;
use crate::matching::{PathMatch, ValueMatch};
use crate::model::{self, Action, FieldEdits, Item, Origin};

/// The signs of a regex in a path. A path in a URL hardly has them.
const REGEX_SIGNS: [&str; 6] = ["[0-9", "[a-z", "\\d", "\\w", "\\.", "(."];

const NO_VARIABLES: &str =
    "write the value itself, or leave it out: there are no variables of requests";
const HOST: &str = "leave it out: the host of the request stays";
const REDIRECT: &str = "leave it out: the parts of the URL that are not written stay";
const PATH: &str = "write `rewrite: {prefix: PATH/}` with match {path: PREFIX/*}: the rest of the \
    path stays; there are no variables and groups";

/// Warns of the rules in Ringway's own files.
pub(super) fn find(compiler: &mut Compiler<'_>) {
    let model = compiler.model;
    for routes in model.routes.iter().filter(|routes| !routes.value.tolerant) {
        let host = &routes.value.host;
        if host.value == "_" {
            let message = "\"_\" is the name of a host here";
            compiler.warn(&host.origin, message, "write \"*\" for all hosts without rules");
        }
        for rule in &routes.value.rules {
            of_rule(compiler, &rule.value);
        }
    }
    let tags = model.settings.tracing.iter().flat_map(|tracing| &tracing.tags);
    for (_, tag) in tags {
        // Operators between percent signs have a meaning in tags.
        if let Some(found) = variable(&tag.value).filter(|found| !found.starts_with('%')) {
            literal(compiler, &tag.origin, found, "write an operator, such as '%REQ(X-TENANT)%'");
        }
    }
}

fn of_rule(compiler: &mut Compiler<'_>, rule: &model::Rule) {
    if let Some(path) = &rule.matches.path {
        of_path(compiler, path);
    }
    for method in rule.matches.methods.iter().filter(|method| method.value == "*") {
        let help = "leave `method` out: without it, the rule takes all but CONNECT";
        compiler.warn(&method.origin, "\"*\" is the name of a method here", help);
    }
    for (name, value) in rule.matches.headers.iter().chain(&rule.matches.query) {
        of_condition(compiler, name, value);
    }
    for edits in [&rule.request_headers, &rule.response_headers].into_iter().flatten() {
        of_edits(compiler, edits);
    }
    if let Some(Item { value: rewrite, .. }) = rule.rewrite.as_deref() {
        let paths = [&rewrite.prefix, &rewrite.path];
        paths.into_iter().flatten().for_each(|part| of_url(compiler, part, PATH));
        rewrite.host.iter().for_each(|part| of_host(compiler, part, HOST));
    }
    if let Some(Action::Redirect(redirect)) = &rule.action {
        redirect.value.host.iter().for_each(|part| of_host(compiler, part, REDIRECT));
        redirect.value.path.iter().for_each(|part| of_url(compiler, part, REDIRECT));
    }
}

/// Warns of a URL in the place of a host.
fn of_host(compiler: &mut Compiler<'_>, host: &Item<String>, help: &str) {
    let (scheme, rest) = host.value.split_once("://").unwrap_or(("", &host.value));
    match rest.split_once('/') {
        None if scheme.is_empty() => of_url(compiler, host, help),
        parts => {
            let name = parts.map_or(rest, |(name, _)| name);
            let message = format!("{:?} is sent as the host", host.value);
            let help = format!("write `host: {name}`; a redirect also has `scheme` and `path`");
            compiler.warn(&host.origin, message, help);
        }
    }
}

fn of_edits(compiler: &mut Compiler<'_>, edits: &FieldEdits) {
    for (name, value) in edits.set.iter().chain(&edits.add) {
        if let Some(found) = variable(&value.value) {
            let help = match name.value.to_ascii_lowercase().as_str() {
                "x-forwarded-for" | "x-real-ip" | "forwarded" => {
                    "leave it out: the proxy adds the address of the client to `x-forwarded-for`"
                }
                "x-forwarded-proto" | "x-request-id" => "leave it out: the proxy writes this field",
                _ => NO_VARIABLES,
            };
            literal(compiler, &value.origin, found, help);
        }
    }
}

/// Warns of a variable, or of a group of a regex, in a part of a URL.
fn of_url(compiler: &mut Compiler<'_>, part: &Item<String>, help: &str) {
    let group = ["$1", "$2", "\\1", "\\2"].into_iter().find(|group| part.value.contains(group));
    if let Some(found) = variable(&part.value).or(group) {
        literal(compiler, &part.origin, found, help);
    }
}

fn literal(compiler: &mut Compiler<'_>, origin: &Origin, found: &str, help: &str) {
    let message = format!("{found} is sent as it is: it is no variable here");
    compiler.warn(origin, message, help);
}

/// Warns of a path such as `/a/{id}`, and of a regex without its `~`.
fn of_path(compiler: &mut Compiler<'_>, path: &Item<PathMatch>) {
    let (bytes, below) = match &path.value {
        PathMatch::Exact(bytes) => (bytes, false),
        PathMatch::Prefix(bytes) => (bytes, true),
        _ => return,
    };
    let text = String::from_utf8_lossy(bytes);
    let end = if below { "(/.*)?" } else { "" };
    let segment = |part: &str| {
        let in_braces = part.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        let name = in_braces.or_else(|| part.strip_prefix(':'));
        match name.is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) {
            true => "[^/]+".to_owned(),
            false => regex::escape(part),
        }
    };
    let whole = text.trim_end_matches('/');
    let parts: Vec<_> = whole.split('/').map(segment).collect();
    let parts = parts.join("/");
    let help = if parts.contains("[^/]+") {
        format!("write '~{parts}{end}' for any text in this place")
    } else if REGEX_SIGNS.iter().any(|sign| text.contains(sign)) || text.ends_with('$') {
        format!("write '~{}{end}' for a regex", whole.trim_end_matches('$'))
    } else {
        return;
    };
    let star = if below { "*" } else { "" };
    let message = format!("{text}{star} matches only these very characters");
    compiler.warn(&path.origin, message, help);
}

/// Warns of a value such as `b*`.
fn of_condition(compiler: &mut Compiler<'_>, name: &Item<String>, value: &ValueMatch) {
    let ValueMatch::Exact(bytes) = value else { return };
    let text = String::from_utf8_lossy(bytes);
    let Some(begin) = text.strip_suffix('*').filter(|begin| !begin.is_empty()) else { return };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if begin.bytes().all(plain) {
        let message = format!("only the value {text} itself matches, with the star");
        let help = format!(
            "write '~{}.*' for all that begin with {begin}; '~{}' if the star is meant",
            regex::escape(begin),
            regex::escape(&text)
        );
        compiler.warn(&name.origin, message, help);
    }
}
