//! The metrics of servers that are asked for more of the configuration.

use super::page::Page;
use crate::telemetry::status::SourceState;

pub(super) fn write(page: &mut Page, source: Option<&SourceState>) {
    let Some(source) = source else { return };
    let labels: &[(&str, &dyn std::fmt::Display)] = &[("source", &source.name)];
    let mut gauge = |name: &str, help: &str, value: f64| {
        page.family(name, "gauge", help);
        page.sample(name, labels, value);
    };
    let connected = f64::from(u8::from(source.connected));
    gauge("ringway_source_connected", "1 if the server answers.", connected);
    if let Some(age) = source.age() {
        gauge(
            "ringway_source_age_seconds",
            "Time since the server was last heard, or since the copy in use was written.",
            age.as_secs_f64(),
        );
    }
    let revision = source.revision as f64;
    gauge("ringway_source_revision", "The revision of the server that is in use.", revision);
    let documents = source.documents as f64;
    gauge("ringway_source_documents", "Documents of the server that are in use.", documents);
    let name = "ringway_source_refused_total";
    page.family(name, "counter", "Revisions of the server that were refused.");
    page.sample(name, labels, source.refused);
    let name = "ringway_source_connections_total";
    page.family(name, "counter", "Connections to the server.");
    page.sample(name, labels, source.connections);
}
