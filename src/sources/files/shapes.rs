//! Tests that a text in the place of a map or a list gives an error with the correct form.

use std::collections::HashMap;

use serde_json::Value;

use super::*;
use crate::compile::registry::Registry;

/// A step from a value of the configuration to a value within it.
#[derive(Clone)]
enum Step {
    Key(String),
    Item,
}

/// Adds the paths of all maps and lists that the schema allows.
fn paths(root: &Value, schema: &Value, path: &[Step], found: &mut Vec<Vec<Step>>) {
    if path.len() > 8 {
        return;
    }
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return paths(root, &root["$defs"][name], path, found);
    }
    for variant in schema["anyOf"].as_array().into_iter().flatten() {
        paths(root, variant, path, found);
    }
    let then = |step: Step| [path, &[step]].concat();
    if let Some(properties) = schema["properties"].as_object() {
        found.push(path.to_vec());
        for (name, property) in properties {
            paths(root, property, &then(Step::Key(name.clone())), found);
        }
    }
    if schema["additionalProperties"].is_object() {
        found.push(path.to_vec());
        // The keys of some maps are ports, so use a port as the example.
        let step = Step::Key("8080".to_owned());
        paths(root, &schema["additionalProperties"], &then(step), found);
    }
    if schema["items"].is_object() {
        found.push(path.to_vec());
        paths(root, &schema["items"], &then(Step::Item), found);
    }
}

fn is_shape(message: &str) -> bool {
    ["expected a map", "expected a list"].iter().any(|shape| message.starts_with(shape))
}

#[test]
fn where_a_map_is_expected_one_is_shown() {
    let schema = schema();
    let mut found = Vec::new();
    paths(&schema, &schema, &[], &mut found);
    assert!(found.len() > 100, "{}", found.len());
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("a.yaml");
    let mut without = std::collections::BTreeSet::new();
    for path in found.iter().filter(|path| !path.is_empty()) {
        let wrong = path.iter().rev().fold("nonsense".to_owned(), |inner, step| match step {
            Step::Key(key) => format!("{{{key}: {inner}}}"),
            Step::Item => format!("[{inner}]"),
        });
        std::fs::write(&file, &wrong).unwrap();
        let loaded = load(std::slice::from_ref(&file), &HashMap::new());
        let result = compile(&loaded, 1, &mut Registry::new(1), &Resolutions::new());
        let Err(errors) = result else { continue };
        let bare = |it: &&Diagnostic| is_shape(&it.message) && it.help.is_none();
        for mistake in errors.list.iter().filter(bare) {
            without.insert(format!("{wrong}: {}", mistake.message));
        }
    }
    assert!(without.is_empty(), "{without:#?}");
}
