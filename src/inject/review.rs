//! The webhook's question and answer: AdmissionReview (admission.k8s.io/v1).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::edit;
use super::settings::Settings;
use super::workload::{Work, is_on_host};
use crate::sources::yaml::diagnostic::{Diagnostic, Place, Severity};
use crate::sources::yaml::node::{Key, Kind, Node};

/// The maximum number of characters of a warning that Kubernetes shows whole.
const WARNING_CHARS_MAX: usize = 256;

/// The maximum number of characters of a line of the log.
const TOLD_CHARS_MAX: usize = 2048;

/// The answer to a review, and its outcome in the log.
#[derive(Debug)]
pub struct Answer {
    /// The AdmissionReview.
    pub body: Value,
    /// The pod, and what happened to it.
    pub told: String,
}

/// Answers the AdmissionReview in `body`: a patch adds the sidecar to a new pod. A pod that cannot
/// have one is refused with the reason. Anything but a new pod passes.
///
/// # Errors
/// If `body` is not an AdmissionReview with a request.
pub fn review(body: &[u8], settings: &Settings) -> Result<Answer, String> {
    let review: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let version = review["apiVersion"].as_str().unwrap_or_default();
    if version != "admission.k8s.io/v1" || review["kind"] != "AdmissionReview" {
        return Err("this is not an AdmissionReview of admission.k8s.io/v1".to_owned());
    }
    let request = &review["request"];
    let Some(uid) = request["uid"].as_str() else {
        return Err("the request has no uid".to_owned());
    };
    let (mut response, told) = answer(request, settings);
    let told = visible(&told);
    response["uid"] = uid.into();
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    });
    Ok(Answer { body, told })
}

fn answer(request: &Value, settings: &Settings) -> (Value, String) {
    let title = title(request);
    let is_pod = request["kind"]["kind"] == "Pod" && request["kind"]["group"] == "";
    let is_new = request["operation"] == "CREATE" && request["subResource"].is_null();
    if !is_pod || !is_new {
        return (json!({"allowed": true}), format!("unchanged: {title}: it is no new pod"));
    }
    let pod = node(&request["object"]);
    if is_on_host(&pod) {
        let told = format!("{title} has the network of its node, so it gets no sidecar");
        return (json!({"allowed": true, "warnings": [told]}), told);
    }
    let mut work = Work::new(settings);
    work.pod(&pod, &[], title.clone());
    let (errors, warnings): (Vec<_>, Vec<_>) =
        work.mistakes.iter().partition(|it| it.severity == Severity::Error);
    if !errors.is_empty() {
        let message = errors.into_iter().map(sentence).collect::<Vec<_>>().join("; ");
        let told = format!("refused: {title}: {message}");
        let status = json!({"code": 422, "reason": "Invalid", "message": message});
        return (json!({"allowed": false, "status": status}), told);
    }
    let warnings: Vec<String> = warnings.into_iter().map(warning).collect();
    let mut response = json!({"allowed": true, "warnings": warnings});
    if !work.edits.is_empty() {
        let patch = edit::patch(&work.edits).to_string();
        response["patchType"] = "JSONPatch".into();
        response["patch"] = BASE64_STANDARD.encode(patch).into();
    }
    (response, super::summary(&work.reports).trim_end().to_owned())
}

/// The pod in messages. A new one may have no name and no namespace of its own.
fn title(request: &Value) -> String {
    let metadata = &request["object"]["metadata"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let name = text(&metadata["name"])
        .or_else(|| text(&metadata["generateName"]).map(|name| name + "*"))
        .unwrap_or_default();
    let namespace = request["namespace"].as_str().unwrap_or_default();
    let kind = request["kind"]["kind"].as_str().unwrap_or_default();
    format!("{kind} {namespace}/{name}")
}

/// A text as one line of the log. Its parts come from a client, and nothing has checked them.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(TOLD_CHARS_MAX));
    for c in text.chars().take(TOLD_CHARS_MAX) {
        match c.is_control() || c == '\u{2028}' || c == '\u{2029}' {
            true => shown.extend(c.escape_default()),
            false => shown.push(c),
        }
    }
    shown
}

fn sentence(mistake: &Diagnostic) -> String {
    let help = mistake.help.as_ref().map_or_else(String::new, |help| format!(": {help}"));
    format!("{}{help}", mistake.message)
}

fn warning(mistake: &Diagnostic) -> String {
    sentence(mistake).chars().take(WARNING_CHARS_MAX).collect()
}

/// A JSON value as a tree without places.
pub(super) fn node(value: &Value) -> Node {
    let place = Place::default();
    let plain = |text: String| Kind::Scalar { text, plain: true };
    let kind = match value {
        Value::Null => Kind::Null,
        Value::Bool(value) => plain(value.to_string()),
        Value::Number(number) => plain(number.to_string()),
        Value::String(text) => Kind::Scalar { text: text.clone(), plain: false },
        Value::Array(items) => Kind::List(items.iter().map(node).collect()),
        Value::Object(map) => Kind::Map(
            map.iter()
                .map(|(text, value)| (Key { place, text: text.clone() }, node(value)))
                .collect(),
        ),
    };
    Node { place, kind }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(object: Value) -> Value {
        json!({
            "uid": "u-1", "operation": "CREATE", "namespace": "shop",
            "kind": {"group": "", "version": "v1", "kind": "Pod"}, "object": object,
        })
    }

    fn reviewed(request: Value) -> Value {
        let version = "admission.k8s.io/v1";
        let review = json!({"apiVersion": version, "kind": "AdmissionReview", "request": request});
        let answer = review_of(&review).unwrap();
        assert_eq!(answer["response"]["uid"], "u-1");
        answer["response"].clone()
    }

    fn review_of(review: &Value) -> Result<Value, String> {
        review_bytes(review.to_string().as_bytes())
    }

    fn review_bytes(bytes: &[u8]) -> Result<Value, String> {
        review(bytes, &Settings::default()).map(|answer| answer.body)
    }

    fn pod(annotations: Value) -> Value {
        json!({
            "metadata": {"generateName": "web-", "annotations": annotations},
            "spec": {"containers": [{"name": "web", "image": "web:1"}]},
        })
    }

    /// The document with a patch (RFC 6902) of additions only.
    fn patched(mut document: Value, response: &Value) -> Value {
        let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: Vec<Value> = serde_json::from_slice(&patch).unwrap();
        for operation in patch {
            assert_eq!(operation["op"], "add");
            let path = operation["path"].as_str().unwrap();
            let (parent, last) = path.rsplit_once('/').unwrap();
            let last = last.replace("~1", "/").replace("~0", "~");
            match document.pointer_mut(parent).unwrap() {
                Value::Array(items) => {
                    items.insert(last.parse().unwrap(), operation["value"].clone());
                }
                map => map[&last] = operation["value"].clone(),
            }
        }
        document
    }

    #[test]
    fn a_new_pod_gets_the_sidecar_of_the_command() {
        let with_lists = json!({
            "metadata": {"name": "web", "annotations": {"a/b": "c"}},
            "spec": {
                "containers": [{"name": "web", "image": "web:1"}],
                "initContainers": [{"name": "first", "image": "web:1"}],
                "volumes": [{"name": "data", "emptyDir": {}}],
            },
        });
        let no_annotations = json!({"metadata": {}, "spec": with_lists["spec"].clone()});
        for object in [pod(json!({})), pod(Value::Null), with_lists, no_annotations] {
            let response = reviewed(request(object.clone()));
            assert_eq!(response["allowed"], true);
            let patched = patched(object.clone(), &response);
            let mut whole = object.clone();
            whole["apiVersion"] = "v1".into();
            whole["kind"] = "Pod".into();
            let done =
                super::super::inject("it", &whole.to_string(), &Settings::default()).unwrap();
            let mut wanted: Value = serde_json::from_str(&done.text).unwrap();
            let fields = wanted.as_object_mut().unwrap();
            fields.remove("apiVersion");
            fields.remove("kind");
            assert_eq!(patched, wanted);
            let again = reviewed(request(patched));
            assert_eq!((&again["allowed"], &again["patch"]), (&json!(true), &Value::Null));
        }
    }

    #[test]
    fn a_pod_that_cannot_have_one_passes_or_is_refused() {
        let off = reviewed(request(pod(json!({"ringway.io/inject": "false"}))));
        assert_eq!((&off["allowed"], &off["patch"]), (&json!(true), &Value::Null));
        let mut host = pod(json!({}));
        host["spec"]["hostNetwork"] = true.into();
        let host = reviewed(request(host));
        assert_eq!((&host["allowed"], &host["patch"]), (&json!(true), &Value::Null));
        let warning = host["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("Pod shop/web-* has the network of its node"), "{warning}");
        let wrong = reviewed(request(pod(json!({"ringway.io/cpu": "much"}))));
        assert_eq!(wrong["allowed"], false);
        let message = wrong["status"]["message"].as_str().unwrap();
        assert!(message.contains("cannot be \"much\": write a quantity"), "{message}");
        let mut changed = request(pod(json!({})));
        changed["operation"] = "UPDATE".into();
        assert_eq!(reviewed(changed)["patch"], Value::Null);
        let mut service = request(json!({"spec": {}}));
        service["kind"]["kind"] = "Service".into();
        assert_eq!(reviewed(service), json!({"uid": "u-1", "allowed": true}));
    }

    #[test]
    fn a_name_cannot_forge_a_line_of_the_log() {
        let mut object = pod(json!({"ringway.io/cpu": "much\nINFO injected: Pod shop/b"}));
        object["metadata"]["generateName"] = "web-\nINFO injected: Pod shop/a\u{1b}[2K".into();
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": request(object),
        });
        let told = super::review(review.to_string().as_bytes(), &Settings::default()).unwrap().told;
        assert!(told.starts_with("refused: Pod shop/web-\\nINFO"), "{told}");
        assert!(!told.contains(char::is_control), "{told}");
        assert!(visible(&"a".repeat(100_000)).len() <= TOLD_CHARS_MAX);
    }

    #[test]
    fn a_body_that_is_no_review_is_an_error() {
        let deep = "[".repeat(100_000);
        for body in ["", "{}", "null", "[1]", &deep, "{\"kind\": \"AdmissionReview\"}"] {
            assert!(review_bytes(body.as_bytes()).is_err());
        }
        let no_request = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"});
        assert_eq!(review_of(&no_request).unwrap_err(), "the request has no uid");
        let empty = request(Value::Null);
        assert_eq!(reviewed(empty)["allowed"], false);
    }
}
