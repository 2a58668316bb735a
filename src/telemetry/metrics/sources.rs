//! The metrics of servers that are asked for more of the configuration.

use std::collections::BTreeMap;

use super::page::Page;
use crate::telemetry::status::SourceState;

/// A family: its name, kind and help, and its value for a source. `None` means no sample.
type Family = (&'static str, &'static str, &'static str, fn(&SourceState) -> Option<f64>);

const FAMILIES: [Family; 7] = [
    ("ringway_source_connected", "gauge", "1 if the server answers.", |source| {
        Some(f64::from(u8::from(source.connected)))
    }),
    (
        "ringway_source_age_seconds",
        "gauge",
        "Time since the server was last heard, or since the copy in use was written.",
        |source| source.age().map(|age| age.as_secs_f64()),
    ),
    ("ringway_source_revision", "gauge", "The revision of the server that is in use.", |source| {
        Some(source.revision as f64)
    }),
    ("ringway_source_documents", "gauge", "Documents of the server that are in use.", |source| {
        Some(source.documents as f64)
    }),
    (
        "ringway_source_refused_total",
        "counter",
        "Revisions of the server that were refused.",
        |source| Some(source.refused as f64),
    ),
    (
        "ringway_source_bytes",
        "gauge",
        "Size of the resources of the server that are in use.",
        |source| (!source.resources.is_empty()).then_some(source.bytes as f64),
    ),
    ("ringway_source_connections_total", "counter", "Connections to the server.", |source| {
        Some(source.connections as f64)
    }),
];

pub(super) fn write(page: &mut Page, sources: &BTreeMap<&'static str, SourceState>, absent: usize) {
    if !sources.is_empty() {
        let name = "ringway_services_absent";
        page.family(name, "gauge", "Services that rules name and that no source has.");
        page.sample(name, &[], absent);
    }
    for (name, kind, help, value) in FAMILIES {
        let samples = sources.values().filter_map(|it| Some((it.name, value(it)?)));
        let samples: Vec<(&str, f64)> = samples.collect();
        if !samples.is_empty() {
            page.family(name, kind, help);
        }
        for (source, value) in samples {
            page.sample(name, &[("source", &source)], value);
        }
    }
}
