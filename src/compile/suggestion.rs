//! Suggestions for misspelt names.

/// The text `did you mean ...?`, or a list of all known names.
pub fn suggestion(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match near {
        Some((_, candidate)) => format!("did you mean {candidate:?}?"),
        None if known.is_empty() => "there is nothing to choose from".to_owned(),
        None => format!("expected one of: {}", known.join(", ")),
    }
}
