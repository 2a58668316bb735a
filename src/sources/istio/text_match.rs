//! StringMatch: `exact`, `prefix` or `regex`.

use super::Context;
use crate::matching::{PathMatch, ValueMatch, whole};
use crate::model::{Item, Origin};
use crate::sources::objects::Fields;
use crate::sources::yaml::node::Node;

/// A condition on a text.
#[derive(Clone, Debug)]
pub(super) enum TextMatch {
    Exact(String),
    Prefix(String),
    Regex(regex::bytes::Regex),
    /// No condition: the text is present.
    Present,
}

impl TextMatch {
    /// The condition on the value of a field or parameter.
    pub(super) fn value(self) -> ValueMatch {
        match self {
            Self::Exact(text) => ValueMatch::Exact(text.into_bytes().into()),
            Self::Prefix(text) => ValueMatch::Prefix(text.into_bytes().into()),
            Self::Regex(regex) => ValueMatch::Regex(regex),
            Self::Present => ValueMatch::Present,
        }
    }

    /// The condition on a path. A prefix is one of bytes: `/foo` matches `/foobar`, too.
    pub(super) fn path(self, any_case: bool) -> PathMatch {
        let bytes = |text: String| text.into_bytes().into();
        match self {
            Self::Prefix(text) if text == "/" => PathMatch::Any,
            Self::Exact(text) if any_case => PathMatch::ExactAnyCase(bytes(text)),
            Self::Exact(text) => PathMatch::Exact(bytes(text)),
            Self::Prefix(text) if any_case => PathMatch::StartsAnyCase(bytes(text)),
            Self::Prefix(text) => PathMatch::Starts(bytes(text)),
            Self::Regex(regex) => PathMatch::Regex(regex),
            Self::Present => PathMatch::Any,
        }
    }
}

/// Reads the StringMatch in the field `name`.
pub(super) fn field(
    cx: &mut Context<'_>,
    fields: &mut Fields<'_>,
    name: &'static str,
) -> Option<Item<TextMatch>> {
    let node = fields.get(name)?;
    text_match(cx, node, name)
}

/// Reads a StringMatch.
pub(super) fn text_match(cx: &mut Context<'_>, node: &Node, name: &str) -> Option<Item<TextMatch>> {
    let r = &mut cx.reader;
    let mut fields = Fields::of(r, node, &format!("`{name}`"))?;
    let exact = fields.string(r, "exact");
    let prefix = fields.string(r, "prefix");
    let regex = fields.string(r, "regex");
    fields.finish(r);
    if [&exact, &prefix, &regex].into_iter().flatten().count() > 1 {
        r.at(
            node.place,
            "this has several conditions",
            "keep one of `exact`, `prefix` and `regex`",
        );
        return None;
    }
    if let Some(exact) = exact {
        return Some(Item::new(TextMatch::Exact(exact.value), exact.origin));
    }
    if let Some(prefix) = prefix {
        return Some(Item::new(TextMatch::Prefix(prefix.value), prefix.origin));
    }
    let Some(regex) = regex else {
        return Some(Item::new(TextMatch::Present, Origin::File(node.place)));
    };
    match whole(&regex.value) {
        Ok(compiled) => Some(Item::new(TextMatch::Regex(compiled), regex.origin)),
        Err(error) => {
            r.item(&regex, &error.message, error.help);
            None
        }
    }
}
