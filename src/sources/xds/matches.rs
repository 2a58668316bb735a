//! The conditions of routes in Envoy's API.

use regex::bytes::RegexBuilder;

use super::proto::{Message, Reason};
use super::route_schemas::{FRACTION, HEADER_MATCH, QUERY_MATCH, REGEX, STRING_MATCH};
use crate::compile::check_field;
use crate::matching::{PathMatch, ValueMatch, whole};
use crate::model::{Item, Match, Origin, SHARE_PARTS};

/// The limit on a compiled regex, as for those of files.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// Reads the conditions of a route.
pub(super) fn read(mut message: Message<'_>, origin: &Origin) -> Result<Match, Reason> {
    let m = &mut message;
    let any_case = m.wrapped(4)? == Some(0);
    let path = path(m, any_case)?;
    let mut matches = Match { path: Some(Item::new(path, origin.clone())), ..Match::default() };
    for header in m.messages(6, &HEADER_MATCH)? {
        add_header(header, &mut matches, origin)?;
    }
    for mut query in m.messages(7, &QUERY_MATCH)? {
        let name = Item::new(query.required_text(1)?.to_owned(), origin.clone());
        let condition = match query.message(5, &STRING_MATCH)? {
            Some(text) => text_match(text)?,
            None if query.has(6) && !query.flag(6)? => {
                return Err(query.about(6, "is false, which is not supported"));
            }
            None => ValueMatch::Present,
        };
        query.ignore(&[6]); // present_match
        query.finish()?;
        matches.query.push((name, condition));
    }
    if m.bytes(8)?.is_some() {
        let name = Item::new("content-type".to_owned(), origin.clone());
        matches.headers.push((name, regex("application/grpc(\\+.*)?")?));
    }
    if let Some(share) = share(m, 9)?
        && share != SHARE_PARTS
    {
        return Err(m.about(9, "is a share of the requests; only all of them are supported"));
    }
    message.finish()?;
    Ok(matches)
}

fn path(m: &mut Message<'_>, any_case: bool) -> Result<PathMatch, Reason> {
    let bytes = |text: &str| text.as_bytes().into();
    if m.has(1) {
        let prefix = m.text(1)?;
        if !prefix.is_empty() {
            absolute(m, 1, prefix)?;
        }
        return Ok(match prefix {
            "" | "/" => PathMatch::Any,
            prefix if any_case => PathMatch::StartsAnyCase(bytes(prefix)),
            prefix => PathMatch::Starts(bytes(prefix)),
        });
    }
    if m.has(2) {
        let path = m.text(2)?;
        absolute(m, 2, path)?;
        return Ok(match any_case {
            true => PathMatch::ExactAnyCase(bytes(path)),
            false => PathMatch::Exact(bytes(path)),
        });
    }
    if let Some(written) = m.message(10, &REGEX)? {
        return Ok(PathMatch::Regex(whole_regex(&pattern(written)?)?));
    }
    if m.has(14) {
        let prefix = m.required_text(14)?;
        absolute(m, 14, prefix)?;
        let prefix = prefix.trim_end_matches('/');
        if any_case {
            return Err(m.about(4, "is not supported beside path_separated_prefix"));
        }
        return Ok(match prefix {
            "" => PathMatch::Any,
            prefix => PathMatch::Prefix(format!("{prefix}/").into_bytes().into()),
        });
    }
    // Without a condition on the path, the message says so.
    Err(match [12, 15].into_iter().find(|number| m.has(*number)) {
        Some(number) => m.unsupported(number),
        None => m.about(1, "is missing"),
    })
}

/// Refuses a path that no request has.
fn absolute(m: &Message<'_>, number: u64, path: &str) -> Result<(), Reason> {
    match path.starts_with('/') {
        true => Ok(()),
        false => Err(m.about(number, "does not begin with /")),
    }
}

fn add_header(
    mut message: Message<'_>,
    matches: &mut Match,
    origin: &Origin,
) -> Result<(), Reason> {
    let m = &mut message;
    let name = m.required_text(1)?.to_owned();
    let pseudo = name.starts_with(':');
    if !pseudo {
        check_field(&name)?;
    }
    let mut inverted = m.flag(8)?;
    m.off(&[14])?; // treat_missing_header_as_empty
    let exact = |text: &str| ValueMatch::Exact(text.as_bytes().into());
    let condition = if m.has(4) {
        exact(m.text(4)?)
    } else if let Some(written) = m.message(11, &REGEX)? {
        ValueMatch::Regex(whole_regex(&pattern(written)?)?)
    } else if m.has(7) {
        inverted ^= !m.flag(7)?;
        ValueMatch::Present
    } else if m.has(9) {
        ValueMatch::Prefix(m.required_text(9)?.as_bytes().into())
    } else if m.has(10) {
        ValueMatch::Suffix(m.required_text(10)?.as_bytes().into())
    } else if m.has(12) {
        containing(m.required_text(12)?, false)?
    } else if let Some(text) = m.message(13, &STRING_MATCH)? {
        text_match(text)?
    } else {
        ValueMatch::Present
    };
    let own = match &*name {
        ":method" => Some(&mut matches.method),
        ":authority" => Some(&mut matches.authority),
        _ => None,
    };
    let field = Item::new(name.clone(), origin.clone());
    match (own, inverted) {
        (Some(own), false) if own.is_none() => *own = Some(condition),
        (Some(_), false) => return Err(m.about(1, &format!("is {name} twice; keep one"))),
        _ if pseudo => return Err(m.about(1, &format!("is {name}, which is not supported so"))),
        (_, false) => matches.headers.push((field, condition)),
        (_, true) => {
            if !matches!(condition, ValueMatch::Present) {
                // A field that is not there has no value that could differ.
                matches.headers.push((field.clone(), ValueMatch::Present));
            }
            matches.without_headers.push((field, condition));
        }
    }
    message.finish()
}

/// Reads a `StringMatcher`.
fn text_match(mut message: Message<'_>) -> Result<ValueMatch, Reason> {
    let m = &mut message;
    let any_case = m.flag(6)?;
    let begin = if any_case { "(?i)" } else { "" };
    let quoted = |text: &str, before: &str, after: &str| {
        regex(&format!("{begin}{before}{}{after}", regex::escape(text)))
    };
    let condition = if m.has(1) {
        let text = m.text(1)?;
        if any_case { quoted(text, "", "")? } else { ValueMatch::Exact(text.as_bytes().into()) }
    } else if m.has(2) {
        let text = m.required_text(2)?;
        match any_case {
            true => quoted(text, "", "(?s:.*)")?,
            false => ValueMatch::Prefix(text.as_bytes().into()),
        }
    } else if m.has(3) {
        let text = m.required_text(3)?;
        match any_case {
            true => quoted(text, "(?s:.*)", "")?,
            false => ValueMatch::Suffix(text.as_bytes().into()),
        }
    } else if let Some(written) = m.message(5, &REGEX)? {
        regex(&pattern(written)?)?
    } else if m.has(7) {
        containing(m.required_text(7)?, any_case)?
    } else {
        return Err(m.about(1, "is missing"));
    };
    message.finish()?;
    Ok(condition)
}

fn containing(text: &str, any_case: bool) -> Result<ValueMatch, Reason> {
    let begin = if any_case { "(?i)" } else { "" };
    regex(&format!("{begin}(?s:.*){}(?s:.*)", regex::escape(text)))
}

fn regex(pattern: &str) -> Result<ValueMatch, Reason> {
    whole_regex(pattern).map(ValueMatch::Regex)
}

fn whole_regex(pattern: &str) -> Result<regex::bytes::Regex, Reason> {
    let all = whole(pattern).map_err(|error| format!("{pattern:?}: {}", error.message))?;
    // On its own, too, so that no bracket of it closes one that `whole` adds, and it is not large.
    part_regex(pattern)?;
    Ok(all)
}

/// The text of a `RegexMatcher`.
pub(super) fn pattern(mut message: Message<'_>) -> Result<String, Reason> {
    let text = message.required_text(2)?.to_owned();
    message.ignore(&[1]); // google_re2
    message.finish()?;
    Ok(text)
}

/// A regex that may match a part of a text.
pub(super) fn part_regex(pattern: &str) -> Result<regex::bytes::Regex, Reason> {
    let built = RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build();
    built.map_err(|error| format!("{pattern:?}: {}", crate::error::plain(&error)))
}

/// The share of a `RuntimeFractionalPercent`, in millionths.
pub(super) fn share(m: &mut Message<'_>, number: u64) -> Result<Option<u32>, Reason> {
    const PERCENT: super::proto::Schema =
        super::proto::Schema("default_value", "1 numerator 2 denominator");
    let Some(mut fraction) = m.message(number, &FRACTION)? else { return Ok(None) };
    let (mut numerator, mut denominator) = (0, 0);
    if let Some(mut percent) = fraction.message(1, &PERCENT)? {
        (numerator, denominator) = (percent.number(1)?, percent.number(2)?);
    }
    let parts = match denominator {
        0 => numerator.saturating_mul(10_000),
        1 => numerator.saturating_mul(100),
        _ => numerator,
    };
    Ok(Some(parts.min(u64::from(SHARE_PARTS)) as u32))
}
