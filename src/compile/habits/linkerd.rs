//! The words of Linkerd, and Istio's words for captured traffic, with the advice for each.

use super::Word;
use super::words::{LISTENER, SERVICE, TOP};

const MESH: &str = "trust_bundles";
const INBOUND: &str = "application";
const OUTBOUND: &str = "unknown";

const BUDGET: &str = "write `retries: {budget: {{budget=percent: N%, min: N}}}`; `min` is the \
    number that is always allowed in ten seconds";
const OPAQUE: &str = "write `mesh: {inbound: {protocols: {{tcpports=PORT: tcp}}}}`, or `outbound: \
    {ports: {{tcpports=PORT: tcp}}}` for ports of others";
const OPAQUE_LISTENER: &str = "write a listener for this port alone, with `protocol: tcp` and \
    `service: NAME`";
const OPAQUE_SERVICE: &str = "write `protocol: tcp`, and `mesh: {outbound: {ports: \
    {{tcpports=PORT: tcp}}}}` at the top of the file";
const SKIP_OUT: &str =
    "write `mesh: {intercept: {exclude: {outbound: {ports: [{*=PORT}]}}}}` at the top of the file";
const SKIP_IN: &str =
    "write `mesh: {intercept: {exclude: {inbound: {ports: [{*=PORT}]}}}}` at the top of the file";
const EXCLUDE_OUT: &str = "write `intercept: {exclude: {outbound: {ports: [{*=PORT}]}}}`";
const EXCLUDE_IN: &str = "write `intercept: {exclude: {inbound: {ports: [{*=PORT}]}}}`";
const FAILURES: &str = "write `outlier_detection: {consecutive_5xx: {max_failures=N}}`";
const REGISTRY: &str =
    "{registry=write `unknown: deny` for REGISTRY_ONLY; ALLOW_ANY is the default}";
const REGISTRY_OF_MESH: &str = "write `outbound: {unknown: deny}` for REGISTRY_ONLY; ALLOW_ANY is \
    the default";
const REGISTRY_OF_FILE: &str = "write `mesh: {outbound: {unknown: deny}}` for REGISTRY_ONLY; \
    ALLOW_ANY is the default";

#[rustfmt::skip] // one line for each word
/// Each key, the map in which it is written, and the advice.
pub(super) const WORDS: &[Word] = &[
    ("retry_budget", SERVICE, BUDGET),
    ("opaque_ports", TOP, OPAQUE),
    ("opaque_ports", LISTENER, OPAQUE_LISTENER),
    ("opaque_ports", SERVICE, OPAQUE_SERVICE),
    ("opaque_ports", MESH, "write `inbound: {protocols: {{tcpports=PORT: tcp}}}`"),
    ("opaque_ports", INBOUND, "write `protocols: {{tcpports=PORT: tcp}}`"),
    ("opaque_ports", OUTBOUND, "write `ports: {{tcpports=PORT: tcp}}`"),
    ("skip_outbound_ports", TOP, SKIP_OUT),
    ("skip_outbound_ports", MESH, EXCLUDE_OUT),
    ("skip_outbound_ports", OUTBOUND, SKIP_OUT),
    ("exclude_outbound_ports", MESH, EXCLUDE_OUT),
    ("exclude_outbound_ports", OUTBOUND, SKIP_OUT),
    ("skip_inbound_ports", TOP, SKIP_IN),
    ("skip_inbound_ports", MESH, EXCLUDE_IN),
    ("skip_inbound_ports", INBOUND, SKIP_IN),
    ("exclude_inbound_ports", MESH, EXCLUDE_IN),
    ("exclude_inbound_ports", INBOUND, SKIP_IN),
    ("failure_accrual", SERVICE, FAILURES),
    ("outbound_traffic_policy", OUTBOUND, REGISTRY),
    ("outbound_traffic_policy", MESH, REGISTRY_OF_MESH),
    ("outbound_traffic_policy", TOP, REGISTRY_OF_FILE),
    ("mode", OUTBOUND, REGISTRY),
    ("mtls", MESH, "write `inbound: {mtls: {*=strict}}`"),
    ("mtls", TOP, "write `mesh: {inbound: {mtls: {*=strict}}}`"),
    ("mode", INBOUND, "write `mtls: strict`, permissive or disable"),
];
