//! Selectors of workloads: policies for this workload, its namespace, or the whole mesh.

use super::Context;
use crate::sources::objects::{Fields, Object};

/// The workloads that a policy is for. A narrower policy overrides a wider one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// All workloads.
    Mesh,
    /// All workloads of this namespace.
    Namespace,
    /// This workload and others with its labels.
    Workload,
}

/// Reads the selector of a policy. Returns `None` if the policy is not for this workload.
pub(super) fn reach(cx: &mut Context<'_>, object: &Object, spec: &mut Fields<'_>) -> Option<Reach> {
    let labels = match spec.map(&mut cx.reader, "selector") {
        None => Vec::new(),
        Some(mut selector) => {
            let labels = selector.texts(&mut cx.reader, "matchLabels");
            selector.hint("app", "write `matchLabels: {app: NAME}`");
            selector.finish(&mut cx.reader);
            labels
        }
    };
    let help = "write `selector: {matchLabels: ...}`; the labels of this workload are in \
                `sources.istio.labels`";
    spec.refuse(&mut cx.reader, "targetRef", help);
    spec.refuse(&mut cx.reader, "targetRefs", help);
    let is_root = object.namespace == cx.settings.root_namespace;
    let is_own = object.namespace == cx.settings.namespace;
    match labels.is_empty() {
        true if is_root => Some(Reach::Mesh),
        true => is_own.then_some(Reach::Namespace),
        false => ((is_own || is_root) && cx.has_labels(&labels)).then_some(Reach::Workload),
    }
}
