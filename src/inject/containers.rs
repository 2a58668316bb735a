//! The containers and the volume that a pod gets.

use super::print::quoted;
use super::settings::{Resources, Settings};
use crate::sources::yaml::node::{Node, parse};

/// The name of the proxy's container.
pub(super) const PROXY: &str = "ringway-proxy";

/// The name of the container that installs the rules.
pub(super) const INIT: &str = "ringway-init";

/// The name of the volume with the configuration.
pub(super) const VOLUME: &str = "ringway-config";

/// The directory of the configuration in both containers.
const DIRECTORY: &str = "/etc/ringway";

/// The mode of the files, 0440: a key that others can read is refused.
const MODE: u32 = 0o440;

/// The variables for the configuration, each with its field of the pod.
const VARIABLES: [(&str, &str); 5] = [
    ("POD_NAME", "metadata.name"),
    ("POD_NAMESPACE", "metadata.namespace"),
    ("POD_IP", "status.podIP"),
    ("NODE_NAME", "spec.nodeName"),
    ("SERVICE_ACCOUNT", "spec.serviceAccountName"),
];

/// The first two init containers: the rules, then the proxy. `restartPolicy: Always` makes the
/// second one a sidecar, which runs as long as the pod (Kubernetes 1.29).
pub(super) fn init_containers(settings: &Settings) -> Vec<Node> {
    [init(settings), proxy(settings)].iter().filter_map(|text| node(text)).collect()
}

/// The volume: the configuration from a ConfigMap, and keys and tokens from a Secret if it exists.
pub(super) fn volume(settings: &Settings) -> Option<Node> {
    let (config_map, secret) = (quoted(&settings.config_map), quoted(&settings.secret));
    node(&format!(
        "name: {VOLUME}\n\
         projected:\n  \
           defaultMode: {MODE}\n  \
           sources:\n  \
           - configMap:\n      name: {config_map}\n  \
           - secret:\n      name: {secret}\n      optional: true\n"
    ))
}

/// A text of this module as a tree.
pub(super) fn node(text: &str) -> Option<Node> {
    parse(0, text, &mut Vec::new())
}

fn init(settings: &Settings) -> String {
    let mut args = format!("- intercept\n- up\n- --config\n- {DIRECTORY}\n- --user\n");
    args += &format!("- {}\n", quoted(&settings.user.to_string()));
    let excluded = [
        ("--exclude-inbound-ports", &settings.exclude_inbound_ports),
        ("--exclude-outbound-ports", &settings.exclude_outbound_ports),
        ("--exclude-inbound-cidrs", &settings.exclude_inbound_cidrs),
        ("--exclude-outbound-cidrs", &settings.exclude_outbound_cidrs),
    ];
    for (option, values) in excluded {
        if !values.is_empty() {
            args += &format!("- {option}\n- {}\n", quoted(&values.join(",")));
        }
    }
    // Only root gets a capability that a container adds.
    let security = "runAsUser: 0\nrunAsGroup: 0\nrunAsNonRoot: false\nprivileged: false\n\
         allowPrivilegeEscalation: false\nreadOnlyRootFilesystem: true\n\
         capabilities:\n  add:\n  - NET_ADMIN\n  - NET_RAW\n  drop:\n  - ALL\n";
    format!(
        "name: {INIT}\n{}args:\n{args}{}securityContext:\n{}",
        image(settings),
        shared(settings),
        indented(security)
    )
}

fn proxy(settings: &Settings) -> String {
    let port = settings.admin_port;
    // A volume's files belong to root and its group. With that group, the proxy can read them
    // without an `fsGroup`, which would change the volumes of the whole pod.
    let security = format!(
        "runAsUser: {}\nrunAsGroup: 0\nrunAsNonRoot: true\nprivileged: false\n\
         allowPrivilegeEscalation: false\nreadOnlyRootFilesystem: true\n\
         capabilities:\n  drop:\n  - ALL\n",
        settings.user
    );
    let probe = |name: &str, path: &str, numbers: &str| {
        format!("{name}:\n  httpGet:\n    path: {path}\n    port: {port}\n{}", indented(numbers))
    };
    format!(
        "name: {PROXY}\n{}restartPolicy: Always\nargs:\n- run\n- --config\n- {DIRECTORY}\n\
         ports:\n- name: ringway-admin\n  containerPort: {port}\n  protocol: TCP\n\
         {}{}{}{}securityContext:\n{}",
        image(settings),
        probe("startupProbe", "/ready", "periodSeconds: 1\nfailureThreshold: 60\n"),
        probe("readinessProbe", "/ready", "periodSeconds: 5\ntimeoutSeconds: 3\n"),
        probe("livenessProbe", "/live", "periodSeconds: 10\ntimeoutSeconds: 5\n"),
        shared(settings),
        indented(&security)
    )
}

fn image(settings: &Settings) -> String {
    let policy = settings.image_pull_policy.as_ref();
    let policy = policy.map_or_else(String::new, |it| format!("imagePullPolicy: {it}\n"));
    format!("image: {}\n{policy}", quoted(&settings.image))
}

/// The fields that both containers have.
fn shared(settings: &Settings) -> String {
    let mut env = String::new();
    for (name, field) in VARIABLES {
        env += &format!("- name: {name}\n  valueFrom:\n    fieldRef:\n      fieldPath: {field}\n");
    }
    let Resources { cpu, memory, cpu_limit, memory_limit } = &settings.resources;
    let amounts = |cpu: &str, memory: &str| {
        format!("    cpu: {}\n    memory: {}\n", quoted(cpu), quoted(memory))
    };
    format!(
        "env:\n{env}\
         resources:\n  requests:\n{}  limits:\n{}\
         volumeMounts:\n- name: {VOLUME}\n  mountPath: {DIRECTORY}\n  readOnly: true\n",
        amounts(cpu, memory),
        amounts(cpu_limit, memory_limit),
    )
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}
