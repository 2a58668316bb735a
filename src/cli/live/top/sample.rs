//! Reads the metrics of a proxy.

use std::collections::BTreeMap;

use crate::cells::Durations;

/// The counters of a service, a rule or an endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counters {
    /// Requests.
    pub(super) requests: f64,
    /// Requests that have failed: status 5xx, or no response.
    pub(super) failures: f64,
    /// Requests or connections in progress.
    pub(super) active: f64,
    /// The buckets of the durations: upper bounds in milliseconds, and cumulative counts.
    pub(super) buckets: Vec<(f64, f64)>,
    /// The durations, if the proxy tells them.
    pub(super) durations: Durations,
    /// The sum of the durations in milliseconds, and their number.
    pub(super) duration: (f64, f64),
    /// Whether health checks or outlier detection have taken the endpoint out.
    pub(super) is_out: bool,
}

/// The counters by name.
pub(super) type Items = BTreeMap<String, Counters>;

/// The durations of services by name: microseconds, and how often they occurred.
type Latencies = BTreeMap<String, Vec<(u64, u64)>>;

/// The counters of the proxy at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Services, rules (`HOST RULE`) and endpoints (`SERVICE ADDRESS`).
    pub(super) views: [Items; 3],
}

impl Sample {
    /// Reads the Prometheus text of a proxy. Other lines are ignored.
    pub(super) fn read(text: &str) -> Self {
        let mut sample = Self::default();
        for line in text.lines().filter(|line| line.starts_with("ringway_")) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            if let Ok(value) = value.parse() {
                sample.add(name, &labels_of(labels), value);
            }
        }
        for item in sample.views.iter_mut().flat_map(BTreeMap::values_mut) {
            item.buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        }
        sample
    }

    /// Reads the durations of services (`/latencies`).
    pub(super) fn read_latencies(&mut self, text: &str) {
        let all: Latencies = serde_json::from_str(text).unwrap_or_default();
        for (name, counts) in all {
            if let Some(service) = self.views[0].get_mut(&name) {
                service.durations = Durations::of_us(counts);
            }
        }
    }

    fn add(&mut self, name: &str, labels: &BTreeMap<&str, String>, value: f64) {
        let label = |key| labels.get(key).cloned().unwrap_or_default();
        let [services, routes, endpoints] = &mut self.views;
        if let Some(what) = name.strip_prefix("ringway_service_") {
            let entry = || label("service");
            match what {
                "requests_total" => {
                    let item = services.entry(entry()).or_default();
                    item.requests += value;
                    item.failures += failed(&label("class"), value);
                }
                "requests_active" => services.entry(entry()).or_default().active += value,
                "request_duration_milliseconds_bucket" => {
                    let bound = label("le").parse().unwrap_or(f64::INFINITY);
                    services.entry(entry()).or_default().buckets.push((bound, value));
                }
                _ => {}
            }
        } else if name == "ringway_route_requests_total" {
            let item = routes.entry(format!("{} {}", label("host"), label("route"))).or_default();
            item.requests += value;
            item.failures += failed(&label("class"), value);
        } else if let Some(what) = name.strip_prefix("ringway_endpoint_") {
            let name = format!("{} {}", label("service"), label("endpoint"));
            let item = endpoints.entry(name).or_default();
            match what {
                "requests_total" => item.requests += value,
                "failures_total" => item.failures += value,
                "connections_active" => item.active += value,
                "response_duration_milliseconds_sum" => item.duration.0 += value,
                "response_duration_milliseconds_count" => item.duration.1 += value,
                "healthy" => item.is_out |= value == 0.0,
                "ejected" => item.is_out |= value == 1.0,
                _ => {}
            }
        }
    }
}

/// `value`, if the status class means a failure.
fn failed(class: &str, value: f64) -> f64 {
    if matches!(class, "5xx" | "none") { value } else { 0.0 }
}

/// The labels of a series, without their escapes.
fn labels_of(text: &str) -> BTreeMap<&str, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c)) => value.push(c),
                    None => {}
                },
                '"' => {
                    end = at + 1;
                    break;
                }
                _ => value.push(c),
            }
        }
        labels.insert(key.trim_start_matches([',', ' ']), value);
        rest = &after[end.min(after.len())..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_become_counters_by_name() {
        let sample = Sample::read(
            "# HELP ringway_service_requests_total x\n\
             ringway_service_requests_total{service=\"a\",class=\"2xx\"} 90\n\
             ringway_service_requests_total{service=\"a\",class=\"5xx\"} 10\n\
             ringway_service_requests_active{service=\"a\"} 3\n\
             ringway_service_request_duration_milliseconds_bucket{service=\"a\",le=\"+Inf\"} 100\n\
             ringway_service_request_duration_milliseconds_bucket{service=\"a\",le=\"5\"} 50\n\
             ringway_route_requests_total{host=\"h\",route=\"r\\\"\\\\\",class=\"2xx\"} 4\n\
             ringway_endpoint_requests_total{service=\"a\",endpoint=\"1.2.3.4:5\"} 7\n\
             ringway_endpoint_healthy{service=\"a\",endpoint=\"1.2.3.4:5\"} 0\n\
             other{service=\"a\"} 1\nringway_odd\nringway_odd{ 1\n",
        );
        let [services, routes, endpoints] = &sample.views;
        let service = &services["a"];
        assert_eq!((service.requests, service.failures, service.active), (100.0, 10.0, 3.0));
        assert_eq!(service.buckets, [(5.0, 50.0), (f64::INFINITY, 100.0)]);
        assert_eq!(routes["h r\"\\"].requests, 4.0);
        let endpoint = &endpoints["a 1.2.3.4:5"];
        assert_eq!((endpoint.requests, endpoint.is_out), (7.0, true));
    }
}
