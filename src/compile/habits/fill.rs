//! The author's own values in advice. An example in their place changes the configuration of an
//! author who copies it.
//!
//! `{NAMES=EXAMPLE}` in an advice is the first value that one of the names has, or the example. The
//! names are separated by `|`:
//!
//! | name | value |
//! |---|---|
//! | nothing | the text |
//! | `*` | the text, or the texts of a list |
//! | `#` | a number |
//! | `~` | a length of time with its unit |
//! | `@` | the address to listen on; a port alone is on all addresses |
//! | `^` | the addresses to connect to |
//! | `urlscheme`, `urlhost` | a part of a URL |
//! | another one | the text of the entry with this key, at any depth |

/// Fills the placeholders of `advice`. `value` returns the author's value for a name.
pub fn filled(advice: &str, value: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(advice.len());
    let mut rest = advice;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open..];
        match placeholder(rest) {
            Some((names, example, len)) => {
                let own = names.split('|').find_map(value);
                out.push_str(own.as_deref().unwrap_or(example));
                rest = &rest[len..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The names and the example of the placeholder that `text` begins with, and its length.
fn placeholder(text: &str) -> Option<(&str, &str, usize)> {
    let (inner, _) = text.strip_prefix('{')?.split_once('}')?;
    let (names, example) = inner.split_once('=')?;
    let is_name = |c: char| c.is_ascii_lowercase() || "_|*#~@^".contains(c);
    names.chars().all(is_name).then_some((names, example, inner.len() + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_have_the_value_of_the_first_name_that_has_one() {
        let value = |name: &str| (name == "retries").then(|| "3".to_owned());
        for (advice, expected) in [
            ("write `a: {#|retries=2}`", "write `a: 3`"),
            ("write `a: {#=2}` {", "write `a: 2` {"),
            ("{b: {=c}, d: ~.*NAME=VALUE.*}", "{b: c, d: ~.*NAME=VALUE.*}"),
            ("{} {a: b} {{retries=1}}", "{} {a: b} {3}"),
        ] {
            assert_eq!(filled(advice, &value), expected);
        }
    }
}
