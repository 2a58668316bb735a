//! Suggestions for misspelt names.

use super::habits::{self, ANY};

/// The maximum number of names that a suggestion lists.
const SHOWN_MAX: usize = 24;

/// The text `did you mean ...?`, or a list of all known names.
pub fn suggestion(word: &str, known: &[&str]) -> String {
    match near(word, known) {
        Some(candidate) => format!("did you mean {candidate:?}?"),
        None if known.is_empty() => "there is nothing to choose from".to_owned(),
        None if known.len() > SHOWN_MAX => {
            let (shown, more) = (known[..SHOWN_MAX].join(", "), known.len() - SHOWN_MAX);
            format!("expected one of: {shown} and {more} more")
        }
        None => format!("expected one of: {}", known.join(", ")),
    }
}

/// The advice for the unknown key `word`. `known` are the valid keys of its map.
pub fn key_suggestion(word: &str, known: &[&str]) -> String {
    let habit = |word| habits::of_key(word, known).map(str::to_owned);
    let slip = || near(word, known).map(|_| suggestion(word, known));
    let advice = same(word, known).or_else(|| habit(word)).or_else(slip);
    advice.or_else(|| habit(ANY)).unwrap_or_else(|| suggestion(word, known))
}

/// The advice for the wrong value `word`. `known` are the valid values.
pub fn value_suggestion(word: &str, known: &[&str]) -> String {
    let habit = || habits::of_value(word, known).map(str::to_owned);
    same(word, known).or_else(habit).unwrap_or_else(|| suggestion(word, known))
}

/// Whether `word` is `known` with a mistake of spelling.
pub fn is_slip(word: &str, known: &str) -> bool {
    near(word, &[known]).is_some()
}

/// Whether `word` is one of `known` with a mistake of spelling.
pub(super) fn is_near(word: &str, known: &[&str]) -> bool {
    near(word, known).is_some() || same(word, known).is_some()
}

/// The advice if `word` is a known name in another notation, such as `connectTimeout`.
fn same(word: &str, known: &[&str]) -> Option<String> {
    let plain = habits::plain(word);
    let found = known.iter().find(|candidate| habits::plain(candidate) == plain)?;
    Some(format!("write `{found}`"))
}

/// The known name that differs from `word` in only a few letters.
fn near<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let letters = word.chars().count();
    // A name of one or two letters is similar to too many names. Only a letter may be missing, and
    // only one name may fit.
    if letters < 3 {
        let lacks_one = |known: &&&'a str| {
            letters == 2 && strsim::osa_distance(word, known) == 1 && known.chars().count() == 3
        };
        let mut found = known.iter().filter(lacks_one);
        return found.next().copied().filter(|_| found.next().is_none());
    }
    let distance = |candidate: &&'a str| (strsim::osa_distance(word, candidate), *candidate);
    let nearest = known.iter().map(distance).min_by_key(|(distance, _)| *distance)?;
    (nearest.0 <= (letters / 4).max(1)).then_some(nearest.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_alike_is_suggested() {
        for (word, known, near) in [
            ("heder", "header", true),
            ("tiemout", "timeout", true),
            ("shpo", "shop", true),
            ("identites", "identities", true),
            ("clusters", "listeners", false),
            ("max_connections", "max_idle_connections", false),
            ("path", "panic_threshold", false),
            ("ip", "id", false),
            ("ap", "app", true),
            ("a", "app", false),
        ] {
            let found = suggestion(word, &[known]);
            assert_eq!(found.starts_with("did you mean"), near, "{word}: {found}");
        }
    }
}
