//! Tables of documents. `tests/inject/` has whole workloads.

use super::*;

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web # the shop's
spec:
  containers:
  - name: web
    image: web:1
";

fn injected(text: &str) -> Injected {
    inject("pods.yaml", text, &Settings::default()).unwrap_or_else(|it| panic!("{it}"))
}

fn mistake(text: &str) -> String {
    match inject("pods.yaml", text, &Settings::default()) {
        Ok(done) => panic!("no mistake: {}", done.text),
        Err(mistakes) => mistakes.to_string(),
    }
}

#[test]
fn every_line_of_a_workload_stays() {
    let done = injected(POD).text;
    let mut rest = done.lines();
    for line in POD.lines() {
        assert!(rest.any(|other| other == line), "{line:?} is lost:\n{done}");
    }
    assert!(done.contains("\n  initContainers:\n  - name: ringway-init\n"), "{done}");
    assert!(done.contains("  annotations:\n    ringway.io/status: injected\n"), "{done}");
    let windows = injected(&POD.replace('\n', "\r\n")).text;
    assert_eq!(windows, done.replace('\n', "\r\n"));
}

#[test]
fn a_second_injection_changes_nothing() {
    let flow = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: b}]}}";
    let json = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"name\": \"a\"},\n  \
        \"spec\": {\"containers\": [{\"name\": \"b\", \"args\": [\"\\ud83d\\ude00\"]}]}}";
    for text in [POD, flow, json] {
        let once = injected(text);
        assert_eq!(once.reports[0].outcome, Outcome::Injected);
        let twice = injected(&once.text);
        assert_eq!(twice.text, once.text);
        let reason = "it has its sidecar".to_owned();
        assert_eq!(twice.reports[0].outcome, Outcome::Unchanged(reason), "{}", once.text);
    }
    assert!(injected(json).text.starts_with('{'));
    assert!(serde_json::from_str::<serde_json::Value>(&injected(json).text).is_ok());
}

#[test]
fn other_documents_pass_byte_for_byte() {
    let others = [
        "",
        "# nothing\n",
        "---\n---\n",
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:   {ports:  [{port: 80}]}\n",
        "kind: ConfigMap\ndata:\n  a: &x |\n    ---\n    b\n  c: *x\n",
        "kind: Other\ndata: {{ .Values.it }}\n",
        "apiVersion: extensions/v1\nkind: Deployment\nspec: {}\n",
        "apiVersion: serving.knative.dev/v1\nkind: Service\nspec: !!str a\n",
    ];
    for other in others {
        assert_eq!(injected(other).text, other);
        let both = format!("{other}---\n{POD}---\n{other}");
        let done = injected(&both).text;
        assert_eq!(done, format!("{other}---\n{}---\n{other}", injected(POD).text));
    }
}

#[test]
fn a_pod_may_stay_without_a_sidecar() {
    for value in ["\"false\"", "disabled"] {
        let annotation = format!("metadata:\n  annotations: {{ringway.io/inject: {value}}}\n");
        let text = POD.replace("metadata:\n", &annotation);
        let text = text.replace("spec:\n", "spec:\n  hostNetwork: true\n");
        let done = injected(&text);
        assert_eq!(done.text, text);
        assert!(summary(&done.reports).contains("unchanged: Pod web: ringway.io/inject"));
    }
}

#[test]
fn annotations_change_the_settings() {
    let annotations = "metadata:\n  annotations:\n    \
        ringway.io/exclude-inbound-ports: 22, 8000-8100\n    ringway.io/image: r.example/r:2\n    \
        ringway.io/admin-port: \"9901\"\n    ringway.io/memory-limit: 1Gi\n    \
        ringway.io/config: shop\n";
    let done = injected(&POD.replace("metadata:\n", annotations)).text;
    for line in [
        "    - --exclude-inbound-ports\n    - \"22,8000-8100\"\n",
        "    image: \"r.example/r:2\"\n",
        "        port: 9901\n",
        "        memory: \"1Gi\"\n",
        "      - configMap:\n          name: \"shop\"\n",
    ] {
        assert!(done.contains(line), "{line}\n{done}");
    }
}

#[test]
fn each_mistake_has_its_place_and_its_correction() {
    let cases = [
        (
            format!(
                "---\nkind: Other\n---\n{}",
                POD.replace("spec:\n", "spec:\n  hostNetwork: yes\n")
            ),
            "pods.yaml:9:16: error: Pod web has the network of its node",
            "ringway.io/inject: \"false\"",
        ),
        (
            POD.replace("image: web:1", "securityContext: {runAsUser: 1337}"),
            "the user 1337 is that of the proxy",
            "--user",
        ),
        (
            POD.replace("image: web:1", "securityContext: {runAsUser: 0x539}"),
            "the user 1337 is that of the proxy",
            "--user",
        ),
        (
            POD.replace("spec:\n", "spec:\n  hostNetwork: True\n"),
            "has the network of its node",
            "ringway.io/inject: \"false\"",
        ),
        (
            POD.replace("image: web:1", "ports: [{containerPort: 9900}]"),
            "port 9900 is that of the proxy's admin interface",
            "ringway.io/admin-port",
        ),
        (
            POD.replace("name: web\n    ", "name: istio-proxy\n    "),
            "sidecar of Istio",
            "without it",
        ),
        (
            POD.replace("  containers:", "  volumes: [{name: ringway-config}]\n  containers:"),
            "a volume ringway-config of its own",
            "another name",
        ),
        (
            POD.replace("containers:\n  - name: web\n    image: web:1", "containers: []"),
            "Pod web has no containers",
            "`containers:",
        ),
        (POD.replace("spec:", "spec: &a\n  x: *a"), "not supported", "write the value out"),
        (POD.replace("spec:\n", "spec: {{ x }}\n"), "pods.yaml:5:", "help"),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\n  annotations: \
             {ringway.io/inject: \"false\"}\nspec: {template: {spec: {containers: [{name: a}]}}}\n"
                .to_owned(),
            "the annotation ringway.io/inject belongs to the pods",
            "move it to spec.template.metadata.annotations",
        ),
        (
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec: {}\n".to_owned(),
            "Job a has no pod template",
            "`spec.template`",
        ),
    ];
    for (text, message, help) in cases {
        let told = mistake(&text);
        assert!(told.contains(message), "{message}:\n{told}");
        assert!(told.contains(help), "{help}:\n{told}");
    }
}

#[test]
fn each_wrong_annotation_has_its_correction() {
    let annotated = |annotation: &str| {
        POD.replace("metadata:\n", &format!("metadata:\n  annotations:\n    {annotation}\n"))
    };
    let cases = [
        (annotated("ringway.io/inject: maybe"), "pods.yaml:5:24: error", "\"true\" or \"false\""),
        (
            annotated("ringway.io/cpus: 2"),
            "there is no annotation ringway.io/cpus",
            "did you mean \"cpu\"",
        ),
        (
            annotated("ringway.io/memory: 1Gi"),
            "the proxy requests memory 1Gi, its limit is 256Mi",
            "raise memory-limit",
        ),
        (
            annotated("ringway.io/cpu: lots").replace("annotations", "labels"),
            "the label ringway.io/cpu is not read",
            "write it as an annotation",
        ),
        (
            annotated("ringway.io/inject: maybe").replace("annotations", "labels"),
            "ringway.io/inject is \"maybe\"",
            "write \"true\"",
        ),
        (annotated("ringway.io/cpu: lots"), "cannot be \"lots\"", "500m"),
        (
            annotated("ringway.io/exclude-outbound-cidrs: 10.0.0.1/8"),
            "ringway.io/exclude-outbound-cidrs cannot be",
            "10.0.0.0/8",
        ),
    ];
    for (text, message, help) in cases {
        let told = mistake(&text);
        assert!(told.contains(message), "{message}:\n{told}");
        assert!(told.contains(help), "{help}:\n{told}");
    }
}

#[test]
fn words_of_other_meshes_get_a_warning() {
    let text = POD.replace(
        "metadata:\n",
        "metadata:\n  annotations:\n    sidecar.istio.io/inject: \"false\"\n    \
         config.linkerd.io/skip-inbound-ports: \"22\"\n",
    );
    let warnings = injected(&text).warnings.to_string();
    assert!(warnings.contains("warning: sidecar.istio.io/inject is not read here"), "{warnings}");
    assert!(warnings.contains("write ringway.io/exclude-inbound-ports: \"22\""), "{warnings}");
}

#[test]
fn labels_count_too() {
    let off = POD.replace("metadata:\n", "metadata:\n  labels: {ringway.io/inject: \"false\"}\n");
    let done = injected(&off);
    assert_eq!(done.text, off);
    let istio = off.replace("ringway.io/inject", "sidecar.istio.io/inject");
    let warnings = injected(&istio).warnings.to_string();
    assert!(warnings.contains("warning: sidecar.istio.io/inject is not read here"), "{warnings}");
}

#[test]
fn an_image_of_another_proxy_is_not_recommended() {
    let annotation = "metadata:\n  annotations: {sidecar.istio.io/proxyImage: istio/proxyv2}\n";
    let warnings = injected(&POD.replace("metadata:\n", annotation)).warnings.to_string();
    assert!(warnings.contains("write ringway.io/image: with an image of Ringway"), "{warnings}");
}

#[test]
fn entries_without_content_are_replaced_in_their_place() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  \
        name: web # a\n  annotations: {} # b\nspec:\n  \
        initContainers:\n  volumes: []\n  containers: # c\n  - name: web\n    image: !!str 12\n    \
        args: []\n";
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let done = injected(&text);
        assert_eq!(done.warnings.to_string(), "");
        for line in text.lines() {
            let is_replaced = ["annotations:", "initContainers:", "volumes:"]
                .iter()
                .any(|name| line.trim_start().starts_with(name));
            assert!(is_replaced || done.text.lines().any(|it| it == line), "{line}\n{}", done.text);
        }
        for name in ["\n  # b", "\n  annotations:", "\n  initContainers:", "\n  volumes:"] {
            assert_eq!(done.text.matches(name).count(), 1, "{name}\n{}", done.text);
        }
        assert_eq!(injected(&done.text).text, done.text);
    }
}

#[test]
fn a_document_that_is_printed_again_gets_a_warning() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n\
        spec: {containers: [{name: b, image: !!str 12, args: [\"\\x7f\"]}]} # a comment\n";
    let done = injected(text);
    let warnings = done.warnings.to_string();
    assert!(warnings.contains("printed again, without its comments"), "{warnings}");
    for part in ["image: \"12\"\n", "\"\\u007f\"\n"] {
        assert!(done.text.contains(part), "{part}\n{}", done.text);
    }
}

#[test]
fn a_pod_with_its_sidecar_is_checked_all_the_same() {
    let settings = Settings { user: 2000, admin_port: 9901, ..Settings::default() };
    let done = inject("pods.yaml", POD, &settings).unwrap().text;
    assert_eq!(injected(&done).text, done);
    let later = |container: &str| {
        done.replace("  containers:\n", &format!("  containers:\n  - {container}\n"))
    };
    for (container, message) in [
        ("name: istio-proxy", "sidecar of Istio"),
        ("{name: a, securityContext: {runAsUser: 2000}}", "the user 2000 is that of the proxy"),
        ("{name: a, ports: [{containerPort: 9901}]}", "port 9901 is that of the proxy's admin"),
    ] {
        let told = mistake(&later(container));
        assert!(told.contains(message), "{message}:\n{told}");
    }
    injected(&later("{name: a, ports: [{containerPort: 9900}]}"));
}

#[test]
fn a_kind_with_pods_that_is_not_known_says_so() {
    let rollout = POD.replace("v1\nkind: Pod", "argoproj.io/v1alpha1\nkind: Rollout");
    let rollout = rollout.replace("spec:\n", "spec: {template: {spec: {containers: []}}}\nx:\n");
    let said = summary(&injected(&rollout).reports);
    assert!(said.contains("it has pods, but this kind is not known here"), "{said}");
}

#[test]
fn each_kind_has_its_pods_in_its_place() {
    let spec = "spec: {containers: [{name: a, image: b}]}";
    let template = format!("template: {{{spec}}}");
    let kinds = [
        ("v1", "ReplicationController", format!("spec: {{{template}}}")),
        ("apps/v1", "Deployment", format!("spec: {{{template}}}")),
        ("apps/v1", "StatefulSet", format!("spec: {{{template}}}")),
        ("apps/v1", "DaemonSet", format!("spec: {{{template}}}")),
        ("apps/v1", "ReplicaSet", format!("spec: {{{template}}}")),
        ("batch/v1", "Job", format!("spec: {{{template}}}")),
        ("batch/v1", "CronJob", format!("spec: {{jobTemplate: {{spec: {{{template}}}}}}}")),
        ("v1", "List", format!("items: [{{apiVersion: v1, kind: Pod, {spec}}}]")),
    ];
    for (version, kind, rest) in kinds {
        let text = format!("apiVersion: {version}\nkind: {kind}\n{rest}\n");
        let done = injected(&text);
        assert_eq!(done.reports[0].outcome, Outcome::Injected, "{kind}");
        assert!(done.text.contains("restartPolicy: Always"), "{}", done.text);
    }
}
