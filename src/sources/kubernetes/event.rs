//! The JSON of lists and watches. No I/O.

use serde::Deserialize;
use serde_json::Value;

use super::kinds::{self, Kind, SLICES};
use super::slices::{self, Slice};
use super::store::Kept;

/// The annotation of the bookmark at the end of the first objects of a watch.
const FIRST_END: &str = "k8s.io/initial-events-end";

/// The code of a version that the API server has forgotten.
const TOO_OLD: i64 = 410;

/// A line of a watch.
#[derive(Debug, PartialEq)]
pub(super) enum Event {
    /// An object is new or has changed. The reason stands for one that cannot be used.
    Put(Box<str>, Box<Result<Kept, String>>),
    /// An object is gone, or is none that is read.
    Remove(Box<str>),
    /// The version up to which everything was told.
    Bookmark {
        /// Whether the first objects are complete.
        is_end: bool,
    },
    /// The version is too old: everything must be read again.
    TooOld,
    /// Another failure.
    Error(String),
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// Reads a line of a watch. Returns the event and the version.
///
/// # Errors
/// If it is no such line.
pub(super) fn line(kind: &Kind, bytes: &[u8]) -> Result<(Event, Option<String>), String> {
    let line: Line =
        serde_json::from_slice(bytes).map_err(|error| format!("not an event: {error}"))?;
    let mut object = line.object;
    let version = object.metadata.resource_version.take().filter(|version| is_version(version));
    let event = match line.kind.as_str() {
        "ADDED" | "MODIFIED" => put(kind, object)?,
        "DELETED" => Event::Remove(key(kind, &object)?),
        "BOOKMARK" => {
            let annotations = object.metadata.rest.get("annotations");
            let end = annotations.and_then(|all| all.get(FIRST_END)).and_then(Value::as_str);
            Event::Bookmark { is_end: end == Some("true") }
        }
        "ERROR" => {
            let code = object.rest.get("code").and_then(Value::as_i64).unwrap_or_default();
            match code {
                TOO_OLD => Event::TooOld,
                _ => Event::Error(status(&Value::Object(object.rest), code)),
            }
        }
        other => return Err(format!("not an event: the type {other:?} is not known")),
    };
    Ok((event, version))
}

/// A version is compared with nothing; it only must not change the path of a request.
fn is_version(text: &str) -> bool {
    !text.is_empty() && text.len() < 100 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

fn key(kind: &Kind, object: &Object) -> Result<Box<str>, String> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    if !kinds::is_name(name) || (kind.is_namespaced && !kinds::is_name(namespace)) {
        return Err(format!("not an event: an object with the name {name:?} in {namespace:?}"));
    }
    Ok(match kind.is_namespaced {
        true => format!("{namespace}/{name}").into(),
        false => name.into(),
    })
}

fn put(kind: &Kind, object: Object) -> Result<Event, String> {
    let key = key(kind, &object)?;
    let Object { metadata, rest } = object;
    if *kind == SLICES {
        let labels = metadata.rest.get("labels");
        let service = labels.and_then(|labels| labels.get(slices::SERVICE)).and_then(Value::as_str);
        // A slice without a service belongs to somebody else.
        let Some(service) = service.filter(|service| kinds::is_name(service)) else {
            return Ok(Event::Remove(key));
        };
        let kept = serde_json::from_value(Value::Object(rest))
            .map(|written| Kept::Slice(Slice::new(service, written)))
            .map_err(|error| error.to_string());
        return Ok(Event::Put(key, Box::new(kept)));
    }
    let mut all = metadata.rest;
    let texts = [("name", metadata.name), ("namespace", metadata.namespace)];
    all.extend(texts.into_iter().filter_map(|(name, text)| Some((name.into(), text?.into()))));
    let mut object = rest;
    object.insert("metadata".to_owned(), Value::Object(all));
    let text = kinds::text(kind, Value::Object(object));
    Ok(Event::Put(key, Box::new(Ok(Kept::Text(text.into())))))
}

/// The message of a Status.
pub(super) fn status(status: &Value, code: i64) -> String {
    let message = status.get("message").and_then(Value::as_str).unwrap_or_default();
    let message: String = message.chars().filter(|c| !c.is_control()).take(300).collect();
    format!("status {code}: {message}")
}

/// A page of a list.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The objects, each as [`Event::Put`] or [`Event::Remove`].
    pub(super) events: Vec<Event>,
    /// The version of the whole list.
    pub(super) version: Option<String>,
    /// The word for the next page. `None` on the last one.
    pub(super) next: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMetadata,
    items: Option<Vec<Object>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Reads a page of a list.
///
/// # Errors
/// If it is no list.
pub(super) fn page(kind: &Kind, bytes: &[u8]) -> Result<Page, String> {
    let list: List =
        serde_json::from_slice(bytes).map_err(|error| format!("not a list: {error}"))?;
    let events: Result<_, String> =
        list.items.into_iter().flatten().map(|object| put(kind, object)).collect();
    Ok(Page {
        events: events?,
        version: list.metadata.resource_version.filter(|version| is_version(version)),
        next: list.metadata.next.filter(|next| !next.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::kinds::SERVICES;
    use super::*;

    fn event(kind: &Kind, text: &str) -> Event {
        line(kind, text.as_bytes()).unwrap().0
    }

    #[test]
    fn events_of_a_watch() {
        let (found, version) = line(
            &SLICES,
            br#"{"type":"ADDED","object":{"metadata":{"name":"web-1","namespace":"shop",
                "resourceVersion":"7","labels":{"kubernetes.io/service-name":"web"}},
                "endpoints":null,"ports":null}}"#,
        )
        .unwrap();
        assert_eq!(version.as_deref(), Some("7"));
        assert!(matches!(found, Event::Put(key, _) if &*key == "shop/web-1"));
        let text = r#"{"type":"MODIFIED","object":{"metadata":{"name":"a","namespace":"b"}}}"#;
        assert_eq!(event(&SLICES, text), Event::Remove("b/a".into()), "a slice of no service");
        let text = r#"{"type":"DELETED","object":{"metadata":{"name":"a","namespace":"b"}}}"#;
        assert_eq!(event(&SERVICES, text), Event::Remove("b/a".into()));
        let text = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
        assert_eq!(event(&SERVICES, text), Event::Bookmark { is_end: false });
        let text = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9",
            "annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        assert_eq!(event(&SERVICES, text), Event::Bookmark { is_end: true });
        let text = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
        assert_eq!(event(&SERVICES, text), Event::TooOld);
        let text = r#"{"type":"ERROR","object":{"code":500,"message":"no\n"}}"#;
        assert_eq!(event(&SERVICES, text), Event::Error("status 500: no".to_owned()));
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for text in [
            "",
            "{]",
            "[]",
            "17",
            "{}",
            r#"{"type":"ADDED"}"#,
            r#"{"type":"ADDED","object":{}}"#,
            r#"{"type":"ADDED","object":{"metadata":{"name":"a/b","namespace":"c"}}}"#,
            r#"{"type":"ADDED","object":{"metadata":{"name":"a"}}}"#,
            r#"{"type":"NEW","object":{"metadata":{"name":"a","namespace":"c"}}}"#,
        ] {
            assert!(line(&SERVICES, text.as_bytes()).is_err(), "{text}");
        }
        for text in ["", "[]", "{\"items\":1}", "{\"items\":[{}]}"] {
            assert!(page(&SERVICES, text.as_bytes()).is_err(), "{text}");
        }
        let slice = r#"{"type":"ADDED","object":{"metadata":{"name":"a","namespace":"c",
            "labels":{"kubernetes.io/service-name":"web"}},"endpoints":17}}"#;
        let Event::Put(_, kept) = event(&SLICES, slice) else { panic!("a slice") };
        assert!(kept.is_err(), "only this object is left out");
    }

    #[test]
    fn pages_of_a_list() {
        let text = br#"{"metadata":{"resourceVersion":"8","continue":"x"},
            "items":[{"metadata":{"name":"a","namespace":"b"},"spec":{}}]}"#;
        let found = page(&SERVICES, text).unwrap();
        assert_eq!((found.version.as_deref(), found.next.as_deref()), (Some("8"), Some("x")));
        assert_eq!(found.events.len(), 1);
        let last = page(&SERVICES, br#"{"metadata":{"continue":""},"items":null}"#).unwrap();
        assert!(last.next.is_none() && last.events.is_empty());
    }
}
