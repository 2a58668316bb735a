//! Additions to a document: in its tree, in its text, and as a JSON Patch.

use serde_json::{Value, json};

use super::print;
use crate::sources::yaml::node::{Key, Kind, Node, parse};

/// An addition to a document.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// The map or the list that gets it: keys, and indices of lists.
    pub(super) path: Vec<String>,
    /// The addition.
    pub(super) added: Added,
}

/// The content of an [`Edit`].
#[derive(Clone, Debug)]
pub(super) enum Added {
    /// An entry of a map. It replaces an entry without a value.
    Entry(String, Node),
    /// The first items of a list.
    Items(Vec<Node>),
}

/// The node at `path`.
pub(super) fn find<'n>(node: &'n Node, path: &[String]) -> Option<&'n Node> {
    path.iter().try_fold(node, |node, step| match &node.kind {
        Kind::Map(entries) => entries.iter().find(|(key, _)| key.text == *step).map(|it| &it.1),
        Kind::List(items) => items.get(step.parse::<usize>().ok()?),
        Kind::Null | Kind::Scalar { .. } => None,
    })
}

fn find_mut<'n>(node: &'n mut Node, path: &[String]) -> Option<&'n mut Node> {
    path.iter().try_fold(node, |node, step| match &mut node.kind {
        Kind::Map(entries) => {
            entries.iter_mut().find(|(key, _)| key.text == *step).map(|it| &mut it.1)
        }
        Kind::List(items) => items.get_mut(step.parse::<usize>().ok()?),
        Kind::Null | Kind::Scalar { .. } => None,
    })
}

/// Makes the additions in the tree.
pub(super) fn apply(root: &mut Node, edits: &[Edit]) {
    for edit in edits {
        let Some(node) = find_mut(root, &edit.path) else { continue };
        match (&mut node.kind, &edit.added) {
            (Kind::Map(entries), Added::Entry(name, value)) => {
                match entries.iter_mut().find(|(key, _)| key.text == *name) {
                    Some((_, old)) => *old = value.clone(),
                    None => {
                        let key = Key { place: value.place, text: name.clone() };
                        entries.insert(0, (key, value.clone()));
                    }
                }
            }
            (Kind::List(items), Added::Items(added)) => {
                items.splice(0..0, added.iter().cloned());
            }
            _ => {}
        }
    }
}

/// Makes the additions in the text of the document `root`, and changes nothing else. Returns `None`
/// if the text is not written in blocks, where lines can be added.
pub(super) fn splice(text: &str, root: &Node, edits: &[Edit]) -> Option<String> {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    // The index of a line, the new lines before it, and whether they replace it.
    let mut added: Vec<(usize, String, bool)> = Vec::new();
    for edit in edits {
        let node = find(root, &edit.path)?;
        let (line, text, replaces) = match (&node.kind, &edit.added) {
            (Kind::Map(entries), Added::Entry(name, value)) => {
                let old = entries.iter().find(|(key, _)| key.text == *name);
                let (key, _) = old.or_else(|| entries.first())?;
                let (line, indent) = start(&lines, key.place.line, key.place.column, "")?;
                let comment = match old {
                    Some(_) => comment_of_nothing(lines.get(line)?, indent)?,
                    None => String::new(),
                };
                (line, comment + &print::entry(name, value, indent), old.is_some())
            }
            (Kind::List(items), Added::Items(new)) => {
                let place = items.first()?.place;
                let (line, indent) = start(&lines, place.line, place.column, "-")?;
                (line, new.iter().map(|item| print::item(item, indent)).collect(), false)
            }
            _ => return None,
        };
        added.push((line, text, replaces));
    }
    // Several edits may begin at one line. The one that replaces it is the last.
    added.sort_by_key(|(line, _, replaces)| (*line, *replaces));
    let ends = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut out = String::with_capacity(text.len() + 4096);
    let mut added = added.into_iter().peekable();
    for (number, line) in lines.iter().enumerate() {
        let mut stays = true;
        while let Some((_, text, replaces)) = added.next_if(|(at, ..)| *at == number) {
            out.push_str(&text.replace('\n', ends));
            stays &= !replaces;
        }
        if stays {
            out.push_str(line);
        }
    }
    // The safest proof that the lines are in the right places is to read them.
    let mut mistakes = Vec::new();
    let read = parse(0, &out, &mut mistakes)?;
    let mut wanted = root.clone();
    apply(&mut wanted, edits);
    (mistakes.is_empty() && same(&read, &wanted)).then_some(out)
}

/// The index of the line of a place, and the column where the block begins there: only `mark` and
/// spaces may be before it.
fn start(lines: &[&str], line: u32, column: u32, mark: &str) -> Option<(usize, usize)> {
    let index = (line as usize).checked_sub(1)?;
    let text = lines.get(index)?;
    let end = text.char_indices().nth((column as usize).checked_sub(1)?)?.0;
    let before = &text[..end];
    let indent = before.len() - before.trim_start_matches(' ').len();
    (before.trim_matches(' ') == mark).then_some((index, indent))
}

/// The comment of a line that has a key without content, as a line of its own.
fn comment_of_nothing(line: &str, indent: usize) -> Option<String> {
    let line = line.trim_end();
    let (line, comment) = match line.find(" #") {
        Some(at) => (&line[..at], line[at..].trim_start()),
        None => (line, ""),
    };
    let (_, value) = line.split_once(':')?;
    if !["", "{}", "[]", "~", "null"].contains(&value.trim()) {
        return None;
    }
    let margin = " ".repeat(indent);
    Some(if comment.is_empty() { String::new() } else { format!("{margin}{comment}\n") })
}

/// Whether two trees have the same values, wherever they are.
fn same(a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Map(a), Kind::Map(b)) => {
            let find = |name: &str| b.iter().find(|(key, _)| key.text == name);
            a.len() == b.len()
                && a.iter().all(|(key, value)| {
                    find(&key.text).is_some_and(|(_, other)| same(value, other))
                })
        }
        (Kind::List(a), Kind::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (a, b) => a == b,
    }
}

/// The additions as a JSON Patch (RFC 6902).
pub(super) fn patch(edits: &[Edit]) -> Value {
    let mut operations = Vec::new();
    for edit in edits {
        let path = edit.path.iter().fold(String::new(), |path, step| path + &pointer(step));
        match &edit.added {
            Added::Entry(name, value) => {
                let path = path + &pointer(name);
                operations.push(json!({"op": "add", "path": path, "value": print::value(value)}));
            }
            Added::Items(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}/{index}");
                    let value = print::value(item);
                    operations.push(json!({"op": "add", "path": path, "value": value}));
                }
            }
        }
    }
    Value::from(operations)
}

/// One step of a JSON Pointer (RFC 6901).
fn pointer(step: &str) -> String {
    format!("/{}", step.replace('~', "~0").replace('/', "~1"))
}
