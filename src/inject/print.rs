//! Prints nodes as YAML and as JSON.

use crate::sources::yaml::node::{Kind, Node};

/// The words that YAML 1.1, which Kubernetes reads, takes for a boolean or for nothing.
const WORDS: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~"];

/// The entry `key: value` of a block map whose keys begin in the column `indent`, with the end of
/// its last line.
pub(super) fn entry(key: &str, value: &Node, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let key = key_text(key);
    match &value.kind {
        Kind::Map(entries) if !entries.is_empty() => {
            format!("{margin}{key}:\n{}", yaml(value, indent + 2))
        }
        Kind::List(items) if !items.is_empty() => {
            format!("{margin}{key}:\n{}", yaml(value, indent))
        }
        _ => format!("{margin}{key}: {}\n", scalar(value, indent + 2)),
    }
}

/// An item of a block list whose dashes are in the column `indent`, with the end of its last line.
pub(super) fn item(value: &Node, indent: usize) -> String {
    let body = yaml(value, indent + 2);
    format!("{}- {}", " ".repeat(indent), &body[(indent + 2).min(body.len())..])
}

/// A node as block YAML in the column `indent`, with the end of its last line.
pub(super) fn yaml(node: &Node, indent: usize) -> String {
    match &node.kind {
        Kind::Map(entries) if !entries.is_empty() => {
            entries.iter().map(|(key, value)| entry(&key.text, value, indent)).collect()
        }
        Kind::List(items) if !items.is_empty() => {
            items.iter().map(|value| item(value, indent)).collect()
        }
        _ => format!("{}{}\n", " ".repeat(indent), scalar(node, indent)),
    }
}

/// A node in one line, or a literal text whose lines begin in the column `indent`.
fn scalar(node: &Node, indent: usize) -> String {
    match &node.kind {
        Kind::Null => "null".to_owned(),
        Kind::Map(_) => "{}".to_owned(),
        Kind::List(_) => "[]".to_owned(),
        Kind::Scalar { text, plain: true } if !text.contains('\n') => text.clone(),
        Kind::Scalar { text, .. } => literal(text, indent).unwrap_or_else(|| quoted(text)),
    }
}

/// A text of several lines as a literal, if it can be one.
fn literal(text: &str, indent: usize) -> Option<String> {
    let (body, mark) = match text.strip_suffix('\n') {
        Some(body) => (body, "|"),
        None => (text, "|-"),
    };
    let odd = |c: char| c.is_control() && c != '\n' || c == '\u{feff}' || c == '\u{2028}';
    let fits = body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && !body.contains(odd);
    fits.then(|| {
        let margin = " ".repeat(indent);
        let lines = body.lines().map(|line| match line.is_empty() {
            true => "\n".to_owned(),
            false => format!("\n{margin}{line}"),
        });
        format!("{mark}{}", lines.collect::<String>())
    })
}

/// A text in double quotes. JSON and YAML write it alike.
pub(super) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    // JSON permits a few characters that YAML does not.
    let odd = |c: char| c.is_control() || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}');
    if !json.contains(odd) {
        return json;
    }
    let escaped = |c: char| match odd(c) {
        true => format!("\\u{:04x}", c as u32),
        false => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

fn key_text(key: &str) -> String {
    let first = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let rest = key.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let is_word = WORDS.contains(&key.to_ascii_lowercase().as_str());
    if first && rest && !is_word { key.to_owned() } else { quoted(key) }
}

/// A node as a JSON value. Plain texts are numbers and booleans where Kubernetes reads them so.
pub(super) fn value(node: &Node) -> serde_json::Value {
    match &node.kind {
        Kind::Null => serde_json::Value::Null,
        Kind::Scalar { text, plain: true } => literal_value(text),
        Kind::Scalar { text, .. } => text.as_str().into(),
        Kind::List(items) => items.iter().map(value).collect(),
        Kind::Map(entries) => {
            entries.iter().map(|(key, node)| (key.text.clone(), value(node))).collect()
        }
    }
}

fn literal_value(text: &str) -> serde_json::Value {
    let json = serde_json::from_str(text).ok();
    json.filter(|json: &serde_json::Value| json.is_number() || json.is_boolean())
        .unwrap_or_else(|| text.into())
}

/// A node as JSON with `step` spaces for each level, in the order of the file.
pub(super) fn json(node: &Node, step: usize) -> String {
    let mut out = String::new();
    json_to(&mut out, node, step, step);
    out
}

fn json_to(out: &mut String, node: &Node, step: usize, indent: usize) {
    let separate = |out: &mut String, index: usize, indent: usize| {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.push_str(&" ".repeat(indent));
    };
    match &node.kind {
        Kind::Map(entries) if !entries.is_empty() => {
            out.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                separate(out, index, indent);
                out.push_str(&quoted(&key.text));
                out.push_str(": ");
                json_to(out, value, step, indent + step);
            }
            out.push('\n');
            out.push_str(&" ".repeat(indent - step));
            out.push('}');
        }
        Kind::List(items) if !items.is_empty() => {
            out.push('[');
            for (index, value) in items.iter().enumerate() {
                separate(out, index, indent);
                json_to(out, value, step, indent + step);
            }
            out.push('\n');
            out.push_str(&" ".repeat(indent - step));
            out.push(']');
        }
        Kind::Map(_) => out.push_str("{}"),
        Kind::List(_) => out.push_str("[]"),
        Kind::Null | Kind::Scalar { .. } => out.push_str(&json_scalar(node)),
    }
}

/// A number keeps its digits.
fn json_scalar(node: &Node) -> String {
    match (&node.kind, value(node)) {
        (Kind::Scalar { text, .. }, serde_json::Value::Number(_)) => text.clone(),
        (_, value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::yaml::node::parse;

    fn read(text: &str) -> Node {
        let mut mistakes = Vec::new();
        let node = parse(0, text, &mut mistakes).unwrap();
        assert!(mistakes.is_empty(), "{mistakes:?}");
        node
    }

    #[test]
    fn printed_yaml_reads_as_the_same_tree() {
        let texts = [
            "a: 1\nb: \"1\"\nc: [x, {y: z}, [1, [2]], []]\nd: {}\ne: null\n",
            "\"on\": off\n\"8080\": '8080'\n? a b\n: c\n",
            "text: |\n  one\n    two\n\n  three\nother: |-\n  one\n  two\nkeep: |+\n  one\n\n",
            "folded: >\n  one\n  two\nspaced: \"  one\\n two\"\nempty: \"\"\ntab: \"a\\tb\\n c\"\n",
            "- - - deep\n- a: b\n  c:\n  - d\n",
        ];
        for text in texts {
            let tree = read(text);
            let printed = yaml(&tree, 0);
            assert_eq!(value(&read(&printed)), value(&tree), "{printed}");
            assert_eq!(yaml(&read(&printed), 0), printed);
            let json = json(&tree, 4);
            assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), value(&tree));
        }
    }

    #[test]
    fn json_keeps_the_digits_of_numbers() {
        assert_eq!(
            json(&read("{\"a\": 1.50, \"b\": \"1.50\"}"), 2),
            "{\n  \"a\": 1.50,\n  \"b\": \"1.50\"\n}"
        );
    }
}
