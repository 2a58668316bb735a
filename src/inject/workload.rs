//! Finds the pod of a workload, checks it, and makes the additions.

use super::containers::{self, INIT, PROXY, VOLUME};
use super::edit::{Added, Edit, find};
use super::settings::{ANNOTATIONS, INJECT, PREFIX, STATUS, Settings};
use crate::compile::suggestion;
use crate::sources::yaml::diagnostic::{Diagnostic, Place, Severity};
use crate::sources::yaml::node::{Key, Kind, Node};

/// The kinds with pods: the API group, and the place of the pod's template.
const KINDS: [(&str, &str, &[&str]); 8] = [
    ("Pod", "", &[]),
    ("ReplicationController", "", &["spec", "template"]),
    ("Deployment", "apps", &["spec", "template"]),
    ("StatefulSet", "apps", &["spec", "template"]),
    ("DaemonSet", "apps", &["spec", "template"]),
    ("ReplicaSet", "apps", &["spec", "template"]),
    ("Job", "batch", &["spec", "template"]),
    ("CronJob", "batch", &["spec", "jobTemplate", "spec", "template"]),
];

/// The sidecars of other meshes. Two of them would capture the same traffic.
const OTHERS: [(&str, &str); 3] =
    [("istio-proxy", "Istio"), ("linkerd-proxy", "Linkerd"), ("consul-dataplane", "Consul")];

/// The annotations of other meshes, each with ours.
const HABITS: [(&str, &str); 12] = [
    ("sidecar.istio.io/inject", "inject"),
    ("linkerd.io/inject", "inject"),
    ("consul.hashicorp.com/connect-inject", "inject"),
    ("traffic.sidecar.istio.io/excludeInboundPorts", "exclude-inbound-ports"),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", "exclude-outbound-ports"),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "exclude-outbound-cidrs"),
    ("config.linkerd.io/skip-inbound-ports", "exclude-inbound-ports"),
    ("config.linkerd.io/skip-outbound-ports", "exclude-outbound-ports"),
    ("sidecar.istio.io/proxyImage", "image"),
    ("sidecar.istio.io/proxyCPU", "cpu"),
    ("sidecar.istio.io/proxyMemory", "memory"),
    ("config.linkerd.io/proxy-cpu-limit", "cpu-limit"),
];

/// The result for an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has its sidecar now.
    Injected,
    /// It is unchanged, for this reason.
    Unchanged(String),
}

/// An object, and what happened to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its kind, namespace and name: `Deployment shop/web`.
    pub title: String,
    /// The result.
    pub outcome: Outcome,
}

/// The work on one document.
pub(super) struct Work<'s> {
    settings: &'s Settings,
    /// The additions.
    pub(super) edits: Vec<Edit>,
    /// One for each object.
    pub(super) reports: Vec<Report>,
    /// Mistakes and warnings.
    pub(super) mistakes: Vec<Diagnostic>,
}

/// Whether an object of this kind may have pods.
pub(super) fn is_known(kind: &str) -> bool {
    kind == "List" || KINDS.iter().any(|(name, ..)| *name == kind)
}

impl<'s> Work<'s> {
    pub(super) fn new(settings: &'s Settings) -> Self {
        Self { settings, edits: Vec::new(), reports: Vec::new(), mistakes: Vec::new() }
    }

    /// Looks at the object at `path`, and at those in it if it is a list.
    pub(super) fn object(&mut self, object: &Node, path: &[String]) {
        let kind = child(object, "kind").map_or("", Node::text);
        let version = child(object, "apiVersion").map_or("", Node::text);
        if kind.is_empty() {
            return;
        }
        if kind == "List" {
            for (index, item) in list(object, "items").iter().enumerate() {
                let steps = ["items".to_owned(), index.to_string()];
                self.object(item, &[path, steps.as_slice()].concat());
            }
            return;
        }
        let title = title(object, kind);
        let group = version.split_once('/').map_or("", |(group, _)| group);
        let Some((_, wanted, template)) = KINDS.iter().find(|(name, ..)| *name == kind) else {
            let has_pods = find(object, &["spec", "template", "spec"].map(str::to_owned)).is_some();
            let reason = match has_pods {
                true => "it has pods, but this kind is not known here",
                false => "it has no pods",
            };
            return self.unchanged(title, reason);
        };
        if *wanted != group {
            return self.unchanged(title, &format!("its apiVersion is {version}"));
        }
        let template: Vec<String> = template.iter().map(|&step| step.to_owned()).collect();
        let Some(pod) = find(object, &template) else {
            let message = format!("{title} has no pod template");
            let help = format!("write `{}`", template.join("."));
            return self.mistakes.push(Diagnostic::at(object.place, message).help(help));
        };
        if !template.is_empty() {
            self.misplaced(object, &template);
        }
        self.pod(pod, &[path, template.as_slice()].concat(), title);
    }

    /// Looks at a pod, or at its template.
    pub(super) fn pod(&mut self, pod: &Node, path: &[String], title: String) {
        let before = self.mistakes.len();
        let (settings, wanted) = self.settings_of(pod);
        if !wanted {
            return self.unchanged(title, &format!("{PREFIX}{INJECT} is \"false\""));
        }
        let Some(spec) = child(pod, "spec") else {
            let message = format!("{title} has no containers");
            let help = "write `spec: {containers: [{name: NAME, image: IMAGE}]}`";
            return self.mistakes.push(Diagnostic::at(pod.place, message).help(help));
        };
        let proxy = containers_of(spec).find(|it| text(it, "name") == PROXY);
        match proxy {
            // Another webhook may have added a container after the sidecar.
            Some(proxy) => self.check(spec, &of_sidecar(settings.clone(), proxy), &title, true),
            None => self.check(spec, &settings, &title, false),
        }
        let errors = self.mistakes[before..].iter();
        if errors.filter(|it| it.severity == Severity::Error).count() > 0 {
            return;
        }
        if proxy.is_some() {
            return self.unchanged(title, "it has its sidecar");
        }
        self.add(pod, spec, path, &settings);
        self.reports.push(Report { title, outcome: Outcome::Injected });
    }

    fn unchanged(&mut self, title: String, reason: &str) {
        self.reports.push(Report { title, outcome: Outcome::Unchanged(reason.to_owned()) });
    }

    fn mistake(&mut self, place: Place, message: String, help: impl Into<String>) {
        self.mistakes.push(Diagnostic::at(place, message).help(help));
    }

    /// Reports annotations that must be in the template of the pod.
    fn misplaced(&mut self, object: &Node, template: &[String]) {
        for (name, place, _) in annotations(object) {
            if let Some(word) = name.strip_prefix(PREFIX).filter(|it| ANNOTATIONS.contains(it)) {
                let message = format!("the annotation {PREFIX}{word} belongs to the pods");
                let path = template.join(".");
                self.mistake(place, message, format!("move it to {path}.metadata.annotations"));
            }
        }
    }

    /// The settings with those of the pod's annotations, and whether the pod wants a sidecar.
    fn settings_of(&mut self, pod: &Node) -> (Settings, bool) {
        let (mut settings, mut wanted, mut amount) = (self.settings.clone(), true, None);
        for (name, place, value) in entries(pod, "labels") {
            self.habit(name, place, value.text());
            let Some(word) = name.strip_prefix(PREFIX) else { continue };
            match word {
                INJECT => wanted &= self.is_wanted(value),
                _ if ANNOTATIONS.contains(&word) => {
                    let message = format!("the label {name} is not read");
                    self.mistake(place, message, "write it as an annotation");
                }
                _ => {}
            }
        }
        for (name, place, value) in annotations(pod) {
            let shown = value.text();
            if self.habit(name, place, shown) {
                continue;
            }
            let Some(word) = name.strip_prefix(PREFIX) else { continue };
            match word {
                INJECT => wanted &= self.is_wanted(value),
                STATUS => {}
                _ if ANNOTATIONS.contains(&word) => {
                    if let Err(help) = settings.set(word, shown) {
                        let message = format!("{name} cannot be {}", value.describe());
                        self.mistake(value.place, message, help);
                    } else if ["cpu", "cpu-limit", "memory", "memory-limit"].contains(&word) {
                        amount = Some(value.place);
                    }
                }
                _ => {
                    let message = format!("there is no annotation {name}");
                    self.mistake(place, message, suggestion(word, &ANNOTATIONS));
                }
            }
        }
        if let (Some(place), Err((message, help))) = (amount, settings.resources.check()) {
            self.mistake(place, message, help);
        }
        (settings, wanted)
    }

    /// Warns of an annotation or label of another mesh. Returns whether it is one.
    fn habit(&mut self, name: &str, place: Place, shown: &str) -> bool {
        let Some((_, ours)) = HABITS.iter().find(|(theirs, _)| *theirs == name) else {
            return false;
        };
        let help = match *ours {
            INJECT if ["false", "disabled"].contains(&shown) => {
                format!("write {PREFIX}{INJECT}: \"false\" for a pod without a sidecar")
            }
            INJECT => return true,
            // The image of another proxy would not read our arguments.
            "image" => format!("write {PREFIX}image: with an image of Ringway"),
            ours => format!("write {PREFIX}{ours}: \"{shown}\""),
        };
        let message = format!("{name} is not read here");
        self.mistakes.push(Diagnostic::at(place, message).help(help).warning());
        true
    }

    /// Whether the value of `inject` asks for a sidecar.
    fn is_wanted(&mut self, value: &Node) -> bool {
        match value.text() {
            "false" | "disabled" => return false,
            "true" | "enabled" => {}
            _ => {
                let message = format!("{PREFIX}{INJECT} is {}", value.describe());
                self.mistake(value.place, message, "write \"true\" or \"false\"");
            }
        }
        true
    }

    /// Reports everything that a sidecar cannot work with.
    fn check(&mut self, spec: &Node, settings: &Settings, title: &str, has_sidecar: bool) {
        let opt_out = format!("write the annotation {PREFIX}{INJECT}: \"false\" for this pod");
        if let Some(host) = child(spec, "hostNetwork").filter(|it| is_true(it)) {
            let message =
                format!("{title} has the network of its node, whose traffic would be captured");
            self.mistake(host.place, message, opt_out.as_str());
        }
        if let Some(os) = child(spec, "os").and_then(|os| child(os, "name"))
            && os.text() == "windows"
        {
            let message = format!("{title} runs on Windows, where the rules do not work");
            self.mistake(os.place, message, opt_out.as_str());
        }
        if list(spec, "containers").is_empty() {
            let message = format!("{title} has no containers");
            self.mistake(spec.place, message, "write `containers: [{name: NAME, image: IMAGE}]`");
        }
        let is_ours = |it: &&Node| has_sidecar && [PROXY, INIT].contains(&text(it, "name"));
        let others: Vec<&Node> = containers_of(spec).filter(|it| !is_ours(it)).collect();
        self.check_users(spec, &others, settings.user);
        for container in others {
            self.check_container(container, settings, &opt_out);
        }
        if has_sidecar {
            return;
        }
        for volume in list(spec, "volumes").iter().filter(|it| text(it, "name") == VOLUME) {
            let message = format!("{title} has a volume {VOLUME} of its own");
            self.mistake(volume.place, message, "give it another name");
        }
    }

    fn check_users(&mut self, spec: &Node, containers: &[&Node], own: u32) {
        for node in std::iter::once(spec).chain(containers.iter().copied()) {
            let user = child(node, "securityContext").and_then(|it| child(it, "runAsUser"));
            if let Some(user) = user.filter(|it| number(it.text()) == Some(u64::from(own))) {
                let message =
                    format!("the user {own} is that of the proxy, whose traffic is not captured");
                self.mistake(user.place, message, "choose another number here, or for --user");
            }
        }
    }

    fn check_container(&mut self, container: &Node, settings: &Settings, opt_out: &str) {
        let name = text(container, "name");
        if name == INIT {
            let message = format!("the container {INIT} is here without {PROXY}");
            self.mistake(container.place, message, "take it out: the command adds both");
        }
        if let Some((_, mesh)) = OTHERS.iter().find(|(theirs, _)| *theirs == name) {
            let message = format!("the container {name} is the sidecar of {mesh}");
            let help = format!("inject the pod without it, or {opt_out}");
            self.mistake(container.place, message, help);
        }
        for port in list(container, "ports") {
            let number = child(port, "containerPort");
            let admin = settings.admin_port;
            if let Some(number) = number.filter(|it| self::number(it.text()) == Some(admin.into()))
            {
                let message = format!("port {admin} is that of the proxy's admin interface, too");
                let help = format!(
                    "write another port for admin.bind, and the annotation {PREFIX}admin-port"
                );
                self.mistake(number.place, message, help);
            }
        }
    }

    fn add(&mut self, pod: &Node, spec: &Node, path: &[String], settings: &Settings) {
        let Some(volume) = containers::volume(settings) else { return };
        let status = containers::node("injected").map(|node| (format!("{PREFIX}{STATUS}"), node));
        let Some(status) = status else { return };
        let metadata = [path, &["metadata".to_owned()]].concat();
        match child(pod, "metadata").filter(|it| is_map(it)) {
            None => {
                let entry =
                    |name: &str, (key, node): (String, Node)| (name.to_owned(), map(key, node));
                let metadata = entry("metadata", entry("annotations", status));
                self.entry(path, metadata);
            }
            Some(node) if child(node, "annotations").is_some_and(is_map) => {
                self.entry(&[&metadata[..], &["annotations".to_owned()]].concat(), status);
            }
            Some(_) => {
                let (key, node) = status;
                self.entry(&metadata, ("annotations".to_owned(), map(key, node)));
            }
        }
        let spec_path = [path, &["spec".to_owned()]].concat();
        self.items(spec, &spec_path, "volumes", vec![volume]);
        let added = containers::init_containers(settings);
        self.items(spec, &spec_path, "initContainers", added);
    }

    fn entry(&mut self, path: &[String], (name, value): (String, Node)) {
        self.edits.push(Edit { path: path.to_vec(), added: Added::Entry(name, value) });
    }

    /// Adds the first items of a list of `spec`.
    fn items(&mut self, spec: &Node, path: &[String], name: &str, items: Vec<Node>) {
        if list(spec, name).is_empty() {
            let value = Node { place: Place::default(), kind: Kind::List(items) };
            return self.entry(path, (name.to_owned(), value));
        }
        let path = [path, &[name.to_owned()]].concat();
        self.edits.push(Edit { path, added: Added::Items(items) });
    }
}

/// The kind, namespace and name of an object.
pub(super) fn title(object: &Node, kind: &str) -> String {
    let of = |name: &str| child(object, "metadata").map_or("", |it| text(it, name));
    match (of("namespace"), of("name")) {
        ("", "") => format!("{kind} {}", of("generateName")).trim_end().to_owned(),
        ("", name) => format!("{kind} {name}"),
        (namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

fn is_map(node: &Node) -> bool {
    matches!(&node.kind, Kind::Map(entries) if !entries.is_empty())
}

fn map(key: String, value: Node) -> Node {
    let place = Place::default();
    let key = Key { place, text: key };
    Node { place, kind: Kind::Map(vec![(key, value)]) }
}

/// Whether a pod has the network of its node.
pub(super) fn is_on_host(pod: &Node) -> bool {
    child(pod, "spec").and_then(|spec| child(spec, "hostNetwork")).is_some_and(is_true)
}

/// The settings of a sidecar that is there.
fn of_sidecar(mut settings: Settings, proxy: &Node) -> Settings {
    let user = child(proxy, "securityContext").and_then(|it| child(it, "runAsUser"));
    if let Some(user) = user.and_then(|it| number(it.text())?.try_into().ok()) {
        settings.user = user;
    }
    let port = list(proxy, "ports").first().and_then(|it| child(it, "containerPort"));
    if let Some(port) = port.and_then(|it| number(it.text())?.try_into().ok()) {
        settings.admin_port = port;
    }
    settings
}

/// A whole number, as YAML 1.1 writes it: 1337, 1_337, 0x539, 02471.
fn number(text: &str) -> Option<u64> {
    let text = text.replace('_', "");
    let text = text.strip_prefix('+').unwrap_or(&text);
    let read = |digits: &str, radix| u64::from_str_radix(digits, radix).ok();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            return read(digits, radix);
        }
    }
    match text.strip_prefix('0') {
        Some(digits) if !digits.is_empty() => read(digits, 8),
        _ => read(text, 10),
    }
}

/// Whether Kubernetes, which reads YAML 1.1, takes a value for true.
fn is_true(node: &Node) -> bool {
    ["true", "yes", "on", "y"].contains(&node.text().to_ascii_lowercase().as_str())
}

/// The value of a key.
pub(super) fn child<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|(key, _)| key.text == name).map(|it| &it.1),
        _ => None,
    }
}

fn text<'n>(node: &'n Node, name: &str) -> &'n str {
    child(node, name).map_or("", Node::text)
}

fn list<'n>(node: &'n Node, name: &str) -> &'n [Node] {
    match child(node, name).map(|it| &it.kind) {
        Some(Kind::List(items)) => items,
        _ => &[],
    }
}

fn containers_of(spec: &Node) -> impl Iterator<Item = &Node> {
    list(spec, "initContainers").iter().chain(list(spec, "containers"))
}

/// The annotations of an object or template: the name, its place, and the value.
fn annotations(node: &Node) -> Vec<(&str, Place, &Node)> {
    entries(node, "annotations")
}

/// The entries of a map in the metadata.
fn entries<'n>(node: &'n Node, name: &str) -> Vec<(&'n str, Place, &'n Node)> {
    match child(node, "metadata").and_then(|it| child(it, name)).map(|it| &it.kind) {
        Some(Kind::Map(entries)) => {
            entries.iter().map(|(key, value)| (&*key.text, key.place, value)).collect()
        }
        _ => Vec::new(),
    }
}
