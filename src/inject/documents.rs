//! The documents of a text, each for itself.

use super::edit;
use super::print;
use super::review;
use super::settings::Settings;
use super::workload::{Outcome, Report, Work, child, is_known};
use crate::sources::yaml::diagnostic::{Diagnostic, Diagnostics, Severity, SourceMap};
use crate::sources::yaml::node::{Node, parse};

/// The result of an injection.
#[derive(Debug)]
pub struct Injected {
    /// The documents with their sidecars.
    pub text: String,
    /// The objects, in their order.
    pub reports: Vec<Report>,
    /// Warnings.
    pub warnings: Diagnostics,
}

/// Adds the sidecar to the workloads in `text`, which is called `name` in messages: documents of
/// YAML, or one of JSON.
///
/// # Errors
/// All mistakes of all documents, if there is one. Then no document is changed.
pub fn inject(name: &str, text: &str, settings: &Settings) -> Result<Injected, Diagnostics> {
    let mut sources = SourceMap::default();
    sources.add(name, text.to_owned());
    let (mut out, mut reports) = (String::with_capacity(text.len()), Vec::new());
    let mut mistakes = Vec::new();
    let mut line = 0;
    for chunk in split(text) {
        let (done, work) = document(chunk, settings);
        out.push_str(&done);
        reports.extend(work.reports);
        mistakes.extend(work.mistakes.into_iter().map(|mut mistake| {
            if let Some(place) = &mut mistake.place {
                place.line += line;
            }
            mistake
        }));
        line += chunk.lines().count() as u32;
    }
    let has_error = mistakes.iter().any(|it| it.severity == Severity::Error);
    let list = Diagnostics::new(mistakes, sources);
    if has_error { Err(list) } else { Ok(Injected { text: out, reports, warnings: list }) }
}

/// The documents of a text. Each but the first begins with its line `---`.
fn split(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let rest = line.strip_prefix("---");
        if at > 0
            && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
        {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &text[start..end]).collect()
}

/// A document with its sidecars.
fn document<'s>(text: &str, settings: &'s Settings) -> (String, Work<'s>) {
    let mut work = Work::new(settings);
    let unchanged = text.to_owned();
    let Some(root) = read(text, &mut work.mistakes) else { return (unchanged, work) };
    work.object(&root, &[]);
    let done = match work.edits.is_empty() {
        true => unchanged,
        false => match edit::splice(text, &root, &work.edits) {
            Some(done) => done,
            None => {
                let place = root.place;
                let (done, is_json) = rewritten(text, root, &work.edits);
                if !is_json {
                    let message = "this document is printed again, without its comments";
                    let help = "write it in blocks, without braces, and each line stays";
                    let warning = Diagnostic::at(place, message).help(help).warning();
                    work.mistakes.push(warning);
                }
                done
            }
        },
    };
    (done, work)
}

/// The tree of a document. Returns `None` if it has no pods, or has a mistake.
fn read(text: &str, mistakes: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut found = Vec::new();
    let root = parse(0, text, &mut found);
    if found.is_empty() {
        return root;
    }
    // JSON has a few texts that YAML reads otherwise, such as a character in two escapes.
    if let Ok(json) = serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        return Some(review::node(&json));
    }
    // A document that another program reads is its business.
    if may_have_pods(text, root.as_ref()) {
        mistakes.extend(found.into_iter().map(|it| match it.message.contains("aliases") {
            true => it.help("write the value out, in each place"),
            false => it,
        }));
    }
    None
}

fn may_have_pods(text: &str, root: Option<&Node>) -> bool {
    if let Some(kind) = root.and_then(|root| child(root, "kind")) {
        return is_known(kind.text());
    }
    let kind = text.lines().find_map(|line| line.strip_prefix("kind:"));
    let word = kind.map(|rest| rest.split('#').next().unwrap_or_default());
    word.is_none_or(|word| is_known(word.trim().trim_matches(['"', '\''])))
}

/// The document, written again in its format, and whether it is JSON.
fn rewritten(text: &str, mut root: Node, edits: &[edit::Edit]) -> (String, bool) {
    edit::apply(&mut root, edits);
    let begin = text.trim_start_matches('\u{feff}').trim_start();
    if begin.starts_with('{') && serde_json::from_str::<serde_json::Value>(begin).is_ok() {
        let second = text.lines().nth(1).unwrap_or_default();
        let step = second.len() - second.trim_start_matches(' ').len();
        let printed = print::json(&root, if step == 0 { 2 } else { step });
        return (format!("{printed}\n"), true);
    }
    let mark = if begin.starts_with("---") { "---\n" } else { "" };
    (format!("{mark}{}", print::yaml(&root, 0)), false)
}

/// One line for each object, for people.
pub fn summary(reports: &[Report]) -> String {
    let line = |report: &Report| match &report.outcome {
        Outcome::Injected => format!("injected: {}\n", report.title),
        Outcome::Unchanged(reason) => format!("unchanged: {}: {reason}\n", report.title),
    };
    reports.iter().map(line).collect()
}
