//! Advice for objects of Kubernetes that a source does not read.

/// A kind, the end of its API group, and the advice. `*` stands for any other kind of the group.
type Kind = (&'static str, &'static str, &'static str);

const ENVOY: &str = "Ringway has no filters of Envoy: take it out. Most uses of them have keys \
    in rules and services of Ringway's own files: `rate_limit`, `headers`, `retries`, `timeout`";
const PROCESS: &str = "take it out: settings of the process are in the files of Ringway";
const SIDECAR: &str = "take it out: a proxy knows all hosts of its files; for REGISTRY_ONLY, write \
    `mesh: {outbound: {unknown: deny}}` in Ringway's own files";
const TLS_ROUTE: &str = "Ringway has no TLSRoute: write a listener with `protocol: tls`, and its \
    rules in `routes`, in Ringway's own files";
const TCP_ROUTE: &str = "Ringway has no TCPRoute: write a listener with `protocol: tcp` and \
    `service: NAME` in Ringway's own files";
const UDP_ROUTE: &str = "Ringway has no UDPRoute, and no listener for UDP but those for \
    QUIC: take it out";
const BACKEND_TLS: &str = "Ringway has no BackendTLSPolicy: write `tls: {ca: FILE}` in the \
    service, in Ringway's own files";
const PROFILE: &str = "Ringway reads no objects of Linkerd: write its routes as rules of \
    `routes`, with their `retries` and `timeout`, in Ringway's own files";
const POLICY: &str = "Ringway reads no objects of Linkerd: write `authorization: \
    [{action: allow, from: {identities: [spiffe://...]}, to: {ports: [PORT]}}]` in Ringway's \
    own files";
const RATE: &str = "Ringway reads no objects of Linkerd: write `rate_limit: {requests: N, per: \
    1s}` in the service, in Ringway's own files";
const LINKERD: &str = "Ringway reads no objects of Linkerd: take it out";
const GATEWAYS: &str = "the Gateway API has a source of its own: name the file in \
    `sources: {gateway_api: {files: FILE}}`";
const GATEWAY_ROUTE: &str = "write `apiVersion: gateway.networking.k8s.io/v1`, and name the file \
    in `sources: {gateway_api: {files: FILE}}`";
const ISTIO: &str = "objects of Istio have a source of their own: name the file in \
    `sources: {istio: {files: FILE}}`";

const ISTIO_IO: &str = "istio.io";
const LINKERD_IO: &str = "linkerd.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

#[rustfmt::skip] // one line for each kind
const KINDS: &[Kind] = &[
    ("EnvoyFilter", ISTIO_IO, ENVOY),
    ("WasmPlugin", ISTIO_IO, ENVOY),
    ("ProxyConfig", ISTIO_IO, PROCESS),
    ("Sidecar", ISTIO_IO, SIDECAR),
    ("TLSRoute", GATEWAY_API, TLS_ROUTE),
    ("TCPRoute", GATEWAY_API, TCP_ROUTE),
    ("UDPRoute", GATEWAY_API, UDP_ROUTE),
    ("BackendTLSPolicy", GATEWAY_API, BACKEND_TLS),
    ("ServiceProfile", LINKERD_IO, PROFILE),
    ("Server", LINKERD_IO, POLICY),
    ("ServerAuthorization", LINKERD_IO, POLICY),
    ("AuthorizationPolicy", LINKERD_IO, POLICY),
    ("MeshTLSAuthentication", LINKERD_IO, POLICY),
    ("NetworkAuthentication", LINKERD_IO, POLICY),
    ("HTTPLocalRateLimitPolicy", LINKERD_IO, RATE),
    ("HTTPRoute", LINKERD_IO, GATEWAY_ROUTE),
    ("GRPCRoute", LINKERD_IO, GATEWAY_ROUTE),
    ("*", LINKERD_IO, LINKERD),
];

/// The advice for an object of this kind and group, which a source does not read. `known` are the
/// groups that it reads.
pub fn of_kind(kind: &str, group: &str, known: &[&str]) -> Option<&'static str> {
    let fits = |(word, of, _): &&Kind| (*word == kind || *word == "*") && is_of(group, of);
    if let Some((.., advice)) = KINDS.iter().find(fits) {
        return Some(advice);
    }
    let reads = |of: &str| known.iter().any(|known| is_of(known, of));
    match () {
        () if is_of(group, GATEWAY_API) && !reads(GATEWAY_API) => Some(GATEWAYS),
        () if is_of(group, ISTIO_IO) && !reads(ISTIO_IO) => Some(ISTIO),
        () => None,
    }
}

/// Whether `group` is the group `of`, or ends with it.
fn is_of(group: &str, of: &str) -> bool {
    group.strip_suffix(of).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// The `apiVersion` of a kind that a source reads.
pub fn version_of(kind: &str, group: &str) -> String {
    match (kind, group) {
        (_, "") => "v1".to_owned(),
        ("ReferenceGrant", _) => format!("{group}/v1beta1"),
        ("TrafficTarget", _) => format!("{group}/v1alpha3"),
        _ if group.ends_with("smi-spec.io") => format!("{group}/v1alpha4"),
        _ => format!("{group}/v1"),
    }
}
