//! Istio's standard metrics: two proxies count the same requests, each from its side, and a real
//! Prometheus gets exactly these numbers.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::skipped::of_prometheus;
use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::curl;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port, skipped};

const CART: &str = "spiffe://cluster.local/ns/demo/sa/cart";
const SHOP: &str = "spiffe://cluster.local/ns/demo/sa/shop";

/// The workload `cart` that calls `shop`: a proxy beside each of them.
struct Pair {
    cart: Proxy,
    shop: Proxy,
    web: u16,
    raw: u16,
    _origins: [Origin; 2],
    _pki: Pki,
}

impl Pair {
    /// `metrics` is the section `telemetry.metrics` of both.
    fn start(metrics: &str) -> Self {
        let pki = Pki::new();
        let identity = |name: &str, id: &str| {
            pki.leaf(name, &Wanted { names: &[id], ..Wanted::default() });
            let path = |extension: &str| pki.path(&format!("{name}.{extension}"));
            let roots = pki.path("ca.pem");
            format!("{{cert: {}, key: {}, roots: {roots}}}", path("pem"), path("key"))
        };
        let app = Origin::scripted(|peer| {
            while let Some(request) = peer.request() {
                let status = if request.starts_with("GET /503") { 503 } else { 200 };
                peer.send(format!("HTTP/1.1 {status} S\r\nContent-Length: 3\r\n\r\nabc"));
            }
        });
        let echo = Origin::scripted(|peer| {
            while let Some(portion) = peer.portion() {
                peer.send(portion);
            }
        });
        let dead = free_listener().local_addr().unwrap();
        let (web, raw, inner, inner_raw) = (free_port(), free_port(), free_port(), free_port());
        let shop = Proxy::start(&format!(
            "mesh: {{identity: {}}}\ntelemetry: {{metrics: {{{metrics}}}}}\nlisteners:\n\
             \x20 in: {{bind: '127.0.0.1:{inner}', tls: mesh}}\n\
             \x20 in-raw: {{bind: '127.0.0.1:{inner_raw}', tls: mesh, protocol: tcp, \
             service: db}}\n\
             routes: {{'*': [{{to: app}}]}}\nservices:\n  app: {{endpoints: ['{}']}}\n\
             \x20 db: {{endpoints: ['{}'], protocol: tcp}}\n",
            identity("shop", SHOP),
            app.address(),
            echo.address(),
        ));
        let cart = Proxy::start(&format!(
            "mesh: {{identity: {}}}\n\
             telemetry: {{metrics: {{workload: {{name: cart-v1, app: cart, version: v1}}, \
             {metrics}}}}}\nlisteners:\n\
             \x20 out: {{bind: '127.0.0.1:{web}', direction: outbound}}\n\
             \x20 out-raw: {{bind: '127.0.0.1:{raw}', direction: outbound, protocol: tcp, \
             service: db.prod.svc.cluster.local}}\n\
             routes: {{shop: [{{to: shop}}], dead: [{{to: dead}}]}}\nservices:\n\
             \x20 shop: {{endpoints: ['127.0.0.1:{inner}'], tls: mesh, identity: {SHOP}}}\n\
             \x20 db.prod.svc.cluster.local: {{endpoints: ['127.0.0.1:{inner_raw}'], tls: mesh, \
             identity: {SHOP}, protocol: tcp}}\n\
             \x20 dead: {{endpoints: ['{dead}']}}\n",
            identity("cart", CART),
        ));
        Self { cart, shop, web, raw, _origins: [app, echo], _pki: pki }
    }

    /// Sends 5 good requests, 2 that fail at the service, 3 to a dead service and 4 without a
    /// route, and opens 2 TCP connections.
    fn load(&self) {
        let mut client = Client::connect(self.web);
        for (host, target, status, times) in
            [("shop", "/", 200, 4), ("shop", "/503", 503, 2), ("dead", "/", 503, 3)]
        {
            for _ in 0..times {
                assert_eq!(client.get(host, target).status, status, "{host}");
            }
        }
        let post = "POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 2000\r\n\r\n".to_owned();
        assert_eq!(client.request(post + &"x".repeat(2000)).status, 200);
        for number in 0..4 {
            // A client cannot make series: neither by hosts nor by paths.
            let host = format!("no-{number}.example");
            assert_eq!(client.get(&host, &format!("/{number}")).status, 404);
        }
        for _ in 0..2 {
            let mut client = Client::connect(self.raw);
            client.send("PINGPONG");
            assert_eq!(client.exactly(8).unwrap(), b"PINGPONG");
        }
        eventually("the end of the TCP connections", || {
            let closed = |proxy: &Proxy| proxy.metric("istio_tcp_connections_closed_total") >= 2.0;
            (closed(&self.cart) && closed(&self.shop)).then_some(())
        });
    }
}

/// The sum of all series of a metric that have these labels.
#[track_caller]
fn sum(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> f64 {
    let page = proxy.admin("/metrics");
    let of = format!("{name}{{");
    let texts: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let has = |line: &&str| {
        let inside = line.split_once('{').map_or("", |(_, rest)| rest);
        let has =
            |text: &String| inside.starts_with(&**text) || inside.contains(&format!(",{text}"));
        line.starts_with(&of) && texts.iter().all(has)
    };
    let lines = page.text().lines().filter(has);
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn both_sides_count_the_same_requests_with_istios_labels() {
    let pair = Pair::start("");
    pair.load();
    let good = [
        ("reporter", "source"),
        ("source_workload", "cart-v1"),
        ("source_workload_namespace", "demo"),
        ("source_principal", CART),
        ("source_app", "cart"),
        ("source_version", "v1"),
        ("source_canonical_service", "cart"),
        ("source_canonical_revision", "v1"),
        ("source_cluster", "unknown"),
        ("destination_workload", "shop"),
        ("destination_workload_namespace", "demo"),
        ("destination_principal", SHOP),
        ("destination_app", "unknown"),
        ("destination_service", "shop"),
        ("destination_service_name", "shop"),
        ("destination_service_namespace", "demo"),
        ("request_protocol", "http"),
        ("response_code", "200"),
        ("response_flags", "-"),
        ("connection_security_policy", "unknown"),
    ];
    let requests = "istio_requests_total";
    let at_server = [
        ("reporter", "destination"),
        ("source_workload", "cart"),
        ("source_principal", CART),
        ("destination_workload", "shop"),
        ("destination_principal", SHOP),
        ("destination_service", "app"),
        ("connection_security_policy", "mutual_tls"),
    ];
    let (client, server) = (&pair.cart, &pair.shop);
    let dead = [("destination_service", "dead"), ("response_flags", "UF")];
    let plain = [("destination_service", "dead"), ("source_principal", "unknown")];
    let nowhere = [("destination_service", "unknown"), ("response_flags", "NR")];
    let tcp = [
        ("destination_service", "db.prod.svc.cluster.local"),
        ("destination_service_name", "db"),
        ("destination_service_namespace", "prod"),
        ("request_protocol", "tcp"),
    ];
    for (proxy, name, labels, expected) in [
        (client, requests, &good[..], 5.0),
        (client, requests, &[("response_code", "503"), ("response_flags", "-")], 2.0),
        (client, requests, &dead, 3.0),
        (client, requests, &plain, 3.0),
        (client, requests, &nowhere, 4.0),
        (client, requests, &[], 14.0),
        (server, requests, &at_server, 7.0),
        (server, requests, &[], 7.0),
        (client, "istio_request_duration_milliseconds_count", &good, 5.0),
        (client, "istio_request_bytes_sum", &good, 2000.0),
        (client, "istio_request_bytes_bucket", &[("response_code", "200"), ("le", "0.5")], 4.0),
        (client, "istio_request_bytes_bucket", &[("response_code", "200"), ("le", "2500")], 5.0),
        (server, "istio_response_bytes_sum", &at_server, 21.0),
        (client, "istio_tcp_connections_opened_total", &tcp, 2.0),
        (client, "istio_tcp_connections_closed_total", &tcp, 2.0),
        (client, "istio_tcp_received_bytes_total", &tcp, 16.0),
        (client, "istio_tcp_sent_bytes_total", &tcp, 16.0),
        (server, "istio_tcp_received_bytes_total", &[("destination_service", "db")], 16.0),
        (server, "istio_tcp_received_bytes_total", &[("source_principal", CART)], 16.0),
    ] {
        assert_eq!(sum(proxy, name, labels), expected, "{name} {labels:?}");
    }
    assert!(client.metric("ringway_istio_series ") <= 6.0);
}

#[test]
fn a_tcp_connection_counts_while_it_is_open() {
    let pair = Pair::start("");
    let mut client = Client::connect(pair.raw);
    client.send("PING");
    assert_eq!(client.exactly(4).unwrap(), b"PING");
    eventually("the bytes", || {
        let bytes = [&pair.cart, &pair.shop].map(|p| p.metric("istio_tcp_sent_bytes_total"));
        (bytes == [4.0, 4.0]).then_some(())
    });
    assert_eq!(pair.cart.metric("istio_tcp_connections_opened_total"), 1.0);
    assert_eq!(pair.cart.metric("istio_tcp_connections_closed_total"), 0.0);
}

#[test]
fn overrides_leave_out_metrics_and_labels() {
    let pair = Pair::start(
        "overrides: [{metric: request_size, disabled: true}, \
         {tags: {remove: [response_code, response_flags, destination_service], \
         set: {zone: 'a\"b'}}}, \
         {metric: request_count, mode: server, disabled: true}]",
    );
    pair.load();
    let page = pair.cart.admin("/metrics");
    let text = page.text();
    let lines: Vec<_> =
        text.lines().filter(|line| line.starts_with("istio_requests_total{")).collect();
    assert!(!text.contains("istio_request_bytes_count"), "{text}");
    assert!(!lines.iter().any(|line| line.contains("response_code")), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("zone=\"a\\\"b\"")), "{lines:?}");
    // Series with the same labels are one series: those of `shop`, with all statuses.
    assert_eq!(sum(&pair.cart, "istio_requests_total", &[("destination_principal", SHOP)]), 7.0);
    let of_shop: Vec<_> = lines.iter().filter(|line| line.contains(SHOP)).collect();
    assert_eq!(of_shop.len(), 1, "{of_shop:?}");
    assert_eq!(pair.shop.metric("istio_requests_total"), 0.0);
    assert_eq!(pair.shop.metric("istio_response_bytes_count"), 7.0);
}

/// Facts that clients choose may be labels, within the limit on series.
#[test]
fn labels_with_facts_about_requests_are_bounded() {
    let origin = Origin::saying("x");
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{'*': [{{to: app}}]}}\n\
         services: {{app: {{endpoints: ['{}']}}}}\n\
         telemetry: {{metrics: {{istio: true, series: 8, overrides: [{{metric: request_count, \
         tags: {{from_request: {{url: path, verb: method, site: host}}}}}}]}}}}\n",
        origin.address()
    ));
    let mut client = Client::connect(port);
    (0..3).for_each(|_| _ = client.get("Shop.Example:80", "/cart?x=1"));
    client.get("other.example", "/cart");
    let of = |labels: &[(&str, &str)]| sum(&proxy, "istio_requests_total", labels);
    let cart = [("url", "/cart"), ("verb", "GET"), ("site", "shop.example")];
    eventually("the labels", || (of(&cart) == 3.0).then_some(()));
    eventually("the other host", || (of(&[("site", "other.example")]) == 1.0).then_some(()));
    // Other metrics do not have them.
    let page = proxy.admin("/metrics");
    let of_bytes = |line: &&str| line.starts_with("istio_request_bytes_count{");
    assert!(!page.text().lines().filter(of_bytes).any(|line| line.contains("/cart")));
    // A client that makes names up gets no further than the limit.
    (0..50).for_each(|number| _ = client.get("shop.example", &format!("/{number}")));
    eventually("all requests", || (of(&[]) == 54.0).then_some(()));
    assert!(of(&[("url", "other")]) >= 40.0);
    assert!(proxy.metric("ringway_istio_series ") <= 10.0);
}

#[test]
fn too_many_label_sets_count_as_other_and_nothing_is_lost() {
    let pair = Pair::start("series: 2");
    pair.load();
    assert_eq!(pair.cart.metric("istio_requests_total"), 14.0);
    let other = sum(&pair.cart, "istio_requests_total", &[("destination_service", "other")]);
    assert!(other > 0.0);
    assert!(pair.cart.metric("ringway_istio_series_overflow_total") >= other);
    // Two series, and one of each kind for the rest.
    assert!(pair.cart.metric("ringway_istio_series ") <= 4.0);
}

/// A Prometheus that scrapes these proxies. Killed when dropped.
struct Prometheus {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Prometheus {
    fn scrapes(program: &Path, proxies: &[(&str, &Proxy)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let job = |(name, proxy): &(&str, &Proxy)| {
            format!(
                "  - {{job_name: {name}, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}\n",
                proxy.admin_port
            )
        };
        let jobs: String = proxies.iter().map(job).collect();
        let config = format!("global: {{scrape_interval: 1s}}\nscrape_configs:\n{jobs}");
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, _directory: directory }
    }

    /// Waits until the query has this value. Only then have both proxies been scraped.
    fn expect(&self, query: &str, expected: f64) {
        let url = format!("http://127.0.0.1:{}/api/v1/query", self.port);
        let mut last = String::new();
        let wait = format!("{query} to be {expected}");
        eventually(&wait, || {
            let query = format!("query={query}");
            let retry = ["--retry-connrefused", "--retry", "60", "--retry-delay", "1"];
            let said = curl(&[&retry[..], &["-s", "--data-urlencode", &query, &url]].concat());
            let answer: serde_json::Value = serde_json::from_str(&said).ok()?;
            let value = answer["data"]["result"][0]["value"][1].as_str()?.parse::<f64>().ok()?;
            last = said;
            (value == expected).then_some(())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_real_prometheus_gets_exactly_the_numbers_of_the_load() {
    let programs = of_prometheus("prometheus");
    if programs.is_empty() {
        return skipped("prometheus is missing");
    }
    let pair = Pair::start("");
    let proxies = [("cart", &pair.cart), ("shop", &pair.shop)];
    let all: Vec<_> = programs.iter().map(|it| Prometheus::scrapes(it, &proxies)).collect();
    pair.load();
    for (query, expected) in [
        ("sum(up)", 2.0),
        ("sum(istio_requests_total{reporter=\"source\"})", 14.0),
        ("sum(istio_requests_total{reporter=\"destination\"})", 7.0),
        ("sum(istio_requests_total{response_code=\"200\",job=\"shop\"})", 5.0),
        ("sum by (response_flags) (istio_requests_total{response_flags=\"UF\"})", 3.0),
        ("sum(istio_request_duration_milliseconds_count{job=\"cart\"})", 14.0),
        ("sum(istio_request_bytes_bucket{job=\"cart\",le=\"+Inf\"})", 14.0),
        ("sum(istio_request_bytes_sum{destination_service=\"shop\"})", 2000.0),
        ("sum(istio_tcp_received_bytes_total)", 32.0),
        ("sum(istio_tcp_connections_opened_total - istio_tcp_connections_closed_total)", 0.0),
        ("sum(ringway_service_requests_total{service=\"shop\",class=\"2xx\"})", 5.0),
        (
            "sum(istio_requests_total{reporter=\"source\",destination_service=\"shop\"}) - \
             sum(istio_requests_total{reporter=\"destination\"})",
            0.0,
        ),
    ] {
        all.iter().for_each(|prometheus| prometheus.expect(query, expected));
    }
    // The unit in one of Istio's names is all that promtool has to say.
    for (_, proxy) in proxies {
        for (_, said) in lints(proxy) {
            let mut others = said.lines().filter(|line| !line.contains("milliseconds"));
            assert_eq!(others.next(), None, "{said}");
        }
    }
    // Without that metric, which Ringway's own replace, it has nothing to say.
    let pair = Pair::start("overrides: [{metric: request_duration, disabled: true}]");
    pair.load();
    for proxy in [&pair.cart, &pair.shop] {
        assert!(proxy.metric("istio_request_bytes_count") > 0.0);
        for (is_clean, said) in lints(proxy) {
            assert!(is_clean && said.is_empty(), "{said}");
        }
    }
}

/// For each promtool: whether it accepts the page of metrics, and its words.
fn lints(proxy: &Proxy) -> Vec<(bool, String)> {
    let file = proxy.directory().join("page");
    std::fs::write(&file, proxy.admin("/metrics").text()).unwrap();
    let programs = of_prometheus("promtool").into_iter();
    programs
        .map(|promtool| {
            let page = std::fs::File::open(&file).unwrap();
            let mut command = Command::new(promtool);
            let output = command.args(["check", "metrics"]).stdin(page).output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            (output.status.success(), said)
        })
        .collect()
}

/// Exponential buckets: each request is in one, and Prometheus computes percentiles from them.
#[test]
fn a_real_prometheus_reads_exponential_buckets() {
    let programs = of_prometheus("prometheus");
    if programs.is_empty() {
        return skipped("prometheus is missing");
    }
    let origin = Origin::saying("x");
    let web = free_port();
    let config = |more: &str| {
        format!(
            "listeners: {{web: {{bind: 127.0.0.1:{web}}}}}\nroutes:\n  '*': [{{to: app}}]\n  \
             slow: [{{to: app, fault: {{delay: {{duration: 300ms}}}}}}]\n\
             services: {{app: {{endpoints: ['{}']}}}}\n{more}",
            origin.address()
        )
    };
    let proxy = Proxy::start(&config(""));
    let name = "ringway_service_request_duration_seconds";
    let buckets = || proxy.admin("/metrics").text().matches(&format!("{name}_bucket{{")).count();
    assert_eq!(buckets(), 20);
    proxy.reload(&config("telemetry: {metrics: {buckets: exponential}}\n"));
    assert_eq!(buckets(), 42);
    let proxies = [("one", &proxy)];
    let all: Vec<_> = programs.iter().map(|it| Prometheus::scrapes(it, &proxies)).collect();
    let mut client = Client::connect(web);
    (0..3).for_each(|_| assert_eq!(client.get("fast", "/").status, 200));
    (0..2).for_each(|_| assert_eq!(client.get("slow", "/").status, 200));
    let bucket = |bounds: &str| format!("sum({name}_bucket{{le{bounds}}})");
    for (query, expected) in [
        (bucket("=\"+Inf\""), 5.0),
        (format!("sum({name}_count)"), 5.0),
        (format!("count({name}_bucket)"), 42.0),
        // A request is slow if it was delayed. Others may be, too, on a busy machine.
        (format!("{} <= bool 3", bucket("=\"0.262144\"")), 1.0),
        (format!("histogram_quantile(0.99, {name}_bucket) > bool 0.262"), 1.0),
    ] {
        all.iter().for_each(|prometheus| prometheus.expect(&query, expected));
    }
}
