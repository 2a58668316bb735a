//! The kinds of objects that are read, and their texts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

/// A kind of objects.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    /// The path of its API group and version.
    pub(super) path: &'static str,
    /// The name in paths and in messages.
    pub(super) plural: &'static str,
    /// The kind in objects.
    pub(super) name: &'static str,
    /// Whether the API server may lack it: a custom resource.
    pub(super) is_custom: bool,
    /// Whether its objects belong to a namespace.
    pub(super) is_namespaced: bool,
    /// The part of a query that chooses objects. Empty for all.
    pub(super) selector: &'static str,
}

const fn core(path: &'static str, plural: &'static str, name: &'static str) -> Kind {
    Kind { path, plural, name, is_custom: false, is_namespaced: true, selector: "" }
}

const fn custom(path: &'static str, plural: &'static str, name: &'static str) -> Kind {
    Kind { is_custom: true, ..core(path, plural, name) }
}

const NETWORKING: &str = "/apis/networking.istio.io/v1";
const SECURITY: &str = "/apis/security.istio.io/v1";
const TELEMETRY: &str = "/apis/telemetry.istio.io/v1";
const GATEWAY: &str = "/apis/gateway.networking.k8s.io/v1";

/// The endpoints of services.
pub(super) static SLICES: Kind =
    core("/apis/discovery.k8s.io/v1", "endpointslices", "EndpointSlice");

/// The services.
pub(super) static SERVICES: Kind = core("/api/v1", "services", "Service");

/// The certificates.
pub(super) static SECRETS: Kind = Kind {
    selector: "&fieldSelector=type%3Dkubernetes.io%2Ftls",
    ..core("/api/v1", "secrets", "Secret")
};

/// All other kinds.
pub(super) static OBJECTS: [Kind; 14] = [
    custom(NETWORKING, "destinationrules", "DestinationRule"),
    custom(NETWORKING, "gateways", "Gateway"),
    custom(NETWORKING, "serviceentries", "ServiceEntry"),
    custom(NETWORKING, "virtualservices", "VirtualService"),
    custom(NETWORKING, "workloadentries", "WorkloadEntry"),
    custom(SECURITY, "authorizationpolicies", "AuthorizationPolicy"),
    custom(SECURITY, "peerauthentications", "PeerAuthentication"),
    custom(SECURITY, "requestauthentications", "RequestAuthentication"),
    custom(TELEMETRY, "telemetries", "Telemetry"),
    Kind { is_namespaced: false, ..custom(GATEWAY, "gatewayclasses", "GatewayClass") },
    custom(GATEWAY, "gateways", "Gateway"),
    custom(GATEWAY, "grpcroutes", "GRPCRoute"),
    custom(GATEWAY, "httproutes", "HTTPRoute"),
    custom("/apis/gateway.networking.k8s.io/v1beta1", "referencegrants", "ReferenceGrant"),
];

impl Kind {
    /// The API group and version: `networking.istio.io/v1`, or `v1` for the core group.
    fn version(&self) -> &'static str {
        self.path.trim_start_matches("/apis/").trim_start_matches("/api/")
    }

    /// The API group. Empty for the core group.
    pub(super) fn group(&self) -> &'static str {
        self.version().rsplit_once('/').map_or("", |(group, _)| group)
    }

    /// Whether its objects restrict who may do what. Nothing is served without them.
    pub(super) fn is_policy(&self) -> bool {
        self.path == SECURITY
    }

    /// The name for the operator, as `kubectl` takes it: `virtualservices.networking.istio.io`.
    pub(super) fn title(&self) -> String {
        match self.group() {
            "" => self.plural.to_owned(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// An annotation in which `kubectl` keeps the whole object once more.
const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The fields of `metadata` that are kept.
const METADATA: [&str; 6] =
    ["name", "namespace", "labels", "annotations", "creationTimestamp", "generation"];

/// The text of an object: the parts that its author writes. What the API server and controllers
/// add changes often, and would be a new configuration each time.
pub(super) fn text(kind: &Kind, mut object: Value) -> String {
    let mut metadata = Map::new();
    if let Some(all) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in METADATA {
            if let Some(value) = all.remove(name) {
                metadata.insert(name.to_owned(), value);
            }
        }
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(APPLIED);
    }
    if *kind == SECRETS {
        return certificate(object.get("data"));
    }
    let spec = object.get_mut("spec").map(Value::take).unwrap_or_default();
    let spec = if *kind == SERVICES { service(&spec) } else { spec };
    if *kind == SERVICES {
        metadata.retain(|name, _| name == "name" || name == "namespace");
    }
    let text = json!({
        "apiVersion": kind.version(),
        "kind": kind.name,
        "metadata": metadata,
        "spec": spec,
    });
    match *kind == SERVICES {
        true => text.to_string(),
        false => format!("{text:#}"),
    }
}

/// The certificate and the key of a Secret. Each is on a line of its own, which the admin interface
/// hides if a private key is on it.
fn certificate(data: Option<&Value>) -> String {
    let part = |name: &str| {
        let text = data?.get(name)?.as_str()?;
        String::from_utf8(STANDARD.decode(text).ok()?).ok()
    };
    let (cert, key) = (part("tls.crt"), part("tls.key"));
    format!("{:#}", json!({ "cert": cert.unwrap_or_default(), "key": key.unwrap_or_default() }))
}

/// The fields of the `spec` of a Service that matter here.
fn service(spec: &Value) -> Value {
    let ports = spec.get("ports").and_then(Value::as_array);
    let port = |port: &Value| {
        let mut kept = Map::new();
        for name in ["name", "port", "protocol", "appProtocol"] {
            if let Some(value) = port.get(name) {
                kept.insert(name.to_owned(), value.clone());
            }
        }
        Value::Object(kept)
    };
    let ports: Vec<Value> = ports.into_iter().flatten().map(port).collect();
    let field = |name: &str| spec.get(name).cloned().unwrap_or_default();
    let (address, name) = (field("clusterIP"), field("externalName"));
    json!({ "clusterIP": address, "externalName": name, "ports": ports })
}

/// Whether this can be the name of an object or a namespace. Other names would change paths.
pub(super) fn is_name(name: &str) -> bool {
    let is_usual = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let is_hidden = name.starts_with('.');
    !name.is_empty() && !is_hidden && name.len() <= 253 && name.chars().all(is_usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_only_the_words_of_the_author() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "shop", "resourceVersion": "7", "uid": "u",
                "managedFields": [1], "annotations": {APPLIED: "{}", "b": "c"}},
            "spec": {"hosts": ["a"]},
            "status": {"x": 1},
        });
        let found: Value = serde_json::from_str(&text(&OBJECTS[3], object)).unwrap();
        let wanted = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "a", "namespace": "shop", "annotations": {"b": "c"}},
            "spec": {"hosts": ["a"]},
        });
        assert_eq!(found, wanted);
        assert_eq!(OBJECTS[3].title(), "virtualservices.networking.istio.io");
        assert_eq!(SERVICES.title(), "services");
    }

    #[test]
    fn a_service_keeps_its_ports_and_its_address() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"x": "y"}},
            "spec": {"clusterIP": "10.0.0.1", "selector": {"app": "a"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30000}]},
        });
        let found: Value = serde_json::from_str(&text(&SERVICES, object)).unwrap();
        let port = json!({"name": "http", "port": 80});
        let spec = json!({"clusterIP": "10.0.0.1", "externalName": null, "ports": [port]});
        assert_eq!(found["spec"], spec);
        assert_eq!(found["metadata"], json!({"name": "a", "namespace": "shop"}));
    }

    #[test]
    fn a_secret_is_its_certificate_and_its_key() {
        let data = json!({"tls.crt": STANDARD.encode("a\nb"), "tls.key": STANDARD.encode("c")});
        let object = json!({"metadata": {"name": "a", "namespace": "b"}, "data": data});
        let found: Value = serde_json::from_str(&text(&SECRETS, object)).unwrap();
        assert_eq!(found, json!({"cert": "a\nb", "key": "c"}));
        let empty = json!({"cert": "", "key": ""});
        for data in [json!(null), json!({"tls.crt": "%", "tls.key": 7})] {
            let found = text(&SECRETS, json!({ "data": data }));
            assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), empty);
        }
    }

    #[test]
    fn names_cannot_change_paths() {
        for name in ["", "a/b", "a b", "..", "a?b", "a|b"] {
            assert!(!is_name(name), "{name}");
        }
        assert!(is_name("reviews-v1.2"));
    }
}
