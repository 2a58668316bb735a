//! The text in the place of an AuthorizationPolicy that is refused.

use serde_json::{Value, json};

/// A text that denies what the refused AuthorizationPolicy `text` selects. `None` for other
/// objects, and for a policy that denies nothing.
pub(crate) fn in_place_of_refused(text: &str) -> Option<String> {
    let object: Value = serde_json::from_str(text).ok()?;
    if object["kind"] != "AuthorizationPolicy" {
        return None;
    }
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let is_dry = metadata["annotations"][super::DRY_RUN] == "true";
    let selector = spec.get("selector").filter(|selector| !selector.is_null());
    let mut closed = match spec["action"].as_str() {
        _ if is_dry || spec.get("targetRefs").is_some() || spec.get("targetRef").is_some() => {
            return None;
        }
        Some("AUDIT") => return None,
        // One that allows nothing leaves the requests that other policies allow.
        None | Some("ALLOW") => json!({"action": "ALLOW"}),
        Some(_) => json!({"action": "DENY", "rules": [{}]}),
    };
    if let Some(selector) = selector {
        closed["selector"] = selector.clone();
    }
    let object = json!({
        "apiVersion": object["apiVersion"],
        "kind": object["kind"],
        "metadata": metadata,
        "spec": closed,
    });
    Some(format!("{object:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_policy_denies_what_it_selects() {
        let selector = json!({"matchLabels": {"app": "a"}});
        for (spec, expected) in [
            (json!({"rules": [{"x": 1}]}), Some(json!({"action": "ALLOW"}))),
            (
                json!({"action": "DENY", "selector": selector, "rules": [{"x": 1}]}),
                Some(json!({"action": "DENY", "selector": selector, "rules": [{}]})),
            ),
            (json!({"action": "CUSTOM"}), Some(json!({"action": "DENY", "rules": [{}]}))),
            (json!({"action": "AUDIT"}), None),
            (json!({"targetRefs": []}), None),
        ] {
            let text = json!({"kind": "AuthorizationPolicy", "metadata": {}, "spec": spec});
            let found = in_place_of_refused(&text.to_string());
            let found = found.map(|text| serde_json::from_str::<Value>(&text).unwrap());
            assert_eq!(found.map(|found| found["spec"].clone()), expected, "{text}");
        }
        assert_eq!(in_place_of_refused(r#"{"kind": "Gateway", "spec": {}}"#), None);
        assert_eq!(in_place_of_refused("kind: x"), None);
    }
}
