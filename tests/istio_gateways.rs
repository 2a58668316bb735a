//! Tests of Istio's Gateways: their servers, the hosts that they serve, and their mistakes.
//! Endpoints that objects may not have are here, too.

use ringway::model::{ClientAuth, ServerTls};

use crate::istio_objects::Files;

const SETTINGS: &str = "sources: {istio: {files: objects.yaml, namespace: shop, certificates: \
    {plain: {cert: a.pem, key: a.key}, \
    ca: {cert: a.pem, key: a.key, client_ca: ca.pem, client_auth: optional}}}}\n";

fn gateway(servers: &[&str]) -> String {
    let servers: Vec<String> = servers.iter().map(|it| format!("    - {it}\n")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec:\n  servers:\n{}---\n",
        servers.concat()
    )
}

fn server(port: u16, protocol: &str, host: &str, more: &str) -> String {
    format!("{{port: {{number: {port}, protocol: {protocol}}}, hosts: ['{host}']{more}}}")
}

/// A port must not be open to plain text, or to clients without a certificate, because of a
/// mistake in its TLS.
#[test]
fn tls_of_servers_is_whole() {
    let https = |tls: &str| server(443, "HTTPS", "*", &format!(", tls: {tls}"));
    let simple = https("{mode: SIMPLE, credentialName: plain}");
    let plain = server(443, "HTTP", "*", "");
    for (servers, message) in [
        (vec![server(443, "HTTPS", "*", "")], "a server of HTTPS needs `tls.mode`"),
        (vec![https("{}")], "a server of HTTPS needs `tls.mode`"),
        (vec![https("{credentialName: plain}")], "uses no certificate"),
        (vec![https("{mode: PASSTHROUGH}")], "this mode is not supported"),
        (vec![https("{mode: simple, credentialName: plain}")], "is not a value of `mode`"),
        (vec![https("{mode: MUTUAL, credentialName: plain}")], "has no CA of clients"),
        (vec![https("{mode: OPTIONAL_MUTUAL, credentialName: plain}")], "has no CA of clients"),
        (vec![simple.replace("HTTPS", "HTTP")], "this protocol has no TLS"),
        (vec![server(80, "HTTP", "*", ", tls: {credentialName: plain}")], "uses no certificate"),
        (vec![server(443, "TLS", "*", "")], "this protocol is not supported"),
        (vec![simple.clone(), plain], "has another protocol or `tls.mode`"),
        (
            vec![simple, https("{mode: MUTUAL, credentialName: ca}")],
            "has another protocol or `tls.mode`",
        ),
        (
            vec![server(80, "HTTP", "a", ""), server(80, "HTTP", "b", ", bind: 127.0.0.1")],
            "has another `bind`",
        ),
        (
            vec![
                server(80, "HTTP", "a", ""),
                server(80, "HTTP", "b", ", tls: {httpsRedirect: true}"),
            ],
            "has another `httpsRedirect`",
        ),
        (vec!["{port: {number: 80, protocol: HTTP}}".to_owned()], "this server has no hosts"),
    ] {
        let texts: Vec<&str> = servers.iter().map(String::as_str).collect();
        let errors = Files::new(&gateway(&texts), SETTINGS).compiled().err().unwrap();
        assert!(errors.contains(message), "{servers:?}: {errors}");
    }
}

/// MUTUAL requires certificates of clients, also if the entry of the certificate does not.
#[test]
fn modes_decide_about_certificates_of_clients() {
    for (mode, expected) in
        [("MUTUAL", ClientAuth::Require), ("OPTIONAL_MUTUAL", ClientAuth::Optional)]
    {
        let of = |host: &str| {
            let tls = format!(", tls: {{mode: {mode}, credentialName: ca}}");
            server(443, "HTTPS", host, &tls)
        };
        let objects = gateway(&[&of("a.example.com"), &of("b.example.com")]);
        let model = Files::new(&objects, SETTINGS).model();
        let tls = model.listeners.iter().flat_map(|listener| &listener.value.tls);
        let found: Vec<Option<ClientAuth>> = tls
            .map(|tls| match &tls.value {
                ServerTls::Certificate(files) => files.client_auth.as_ref().map(|it| it.value),
                ServerTls::Mesh => None,
            })
            .collect();
        // The first certificate has the settings of the whole port.
        assert_eq!(found, [Some(expected), None], "{mode}");
    }
}

/// The routes of a port have the more specific of both hosts, and only those of the namespace that
/// the server names.
#[test]
fn hosts_of_servers_and_of_virtual_services() {
    let service = |namespace: &str, host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: a, namespace: {namespace}}}\nspec:\n  hosts: ['{host}']\n  \
             gateways: [shop/edge]\n  http: [{{directResponse: {{status: 200}}}}]\n"
        )
    };
    for (own, namespace, host, expected) in [
        ("*", "shop", "a.example.com", Some("a.example.com")),
        ("a.example.com", "shop", "*.example.com", Some("a.example.com")),
        ("a.example.com", "shop", "*", Some("a.example.com")),
        ("*.example.com", "shop", "b.example.com", Some("b.example.com")),
        ("b.example.com", "shop", "a.example.com", None),
        ("shop/*", "shop", "a.example.com", Some("a.example.com")),
        ("./*", "shop", "a.example.com", Some("a.example.com")),
        ("*/*", "other", "a.example.com", Some("a.example.com")),
        ("shop/*", "other", "a.example.com", None),
        ("./*", "other", "a.example.com", None),
    ] {
        let objects = gateway(&[&server(8080, "HTTP", own, "")]) + &service(namespace, host);
        let files = Files::new(&objects, "");
        let model = files.model();
        let hosts: Vec<&str> =
            model.routes.iter().map(|routes| routes.value.host.value.as_str()).collect();
        assert_eq!(hosts, expected.into_iter().collect::<Vec<_>>(), "{own} {namespace} {host}");
    }
}

fn entry(endpoints: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: reviews}}\n\
         spec:\n  hosts: [reviews]\n  resolution: STATIC\n  \
         ports: [{{number: 9080, name: http, protocol: HTTP}}]\n  endpoints: {endpoints}\n---\n"
    )
}

#[test]
fn objects_name_no_sockets_and_no_admin_interface() {
    for (endpoints, message) in [
        ("[{address: 'unix:///run/docker.sock'}]", "cannot name a socket of this host"),
        ("[{address: 127.0.0.1, ports: {http: 9900}}]", "is the admin interface of this process"),
        ("[{address: 0.0.0.0, ports: {http: 9900}}]", "is the admin interface of this process"),
    ] {
        let errors = Files::new(&entry(endpoints), "").compiled().err().unwrap();
        assert!(errors.contains(message), "{endpoints}: {errors}");
    }
    assert!(Files::new(&entry("[{address: 127.0.0.1}]"), "").compiled().is_ok());
}

/// With ISTIO_MUTUAL, endpoints have the service accounts that their entries name.
#[test]
fn service_accounts_of_endpoints_are_identities() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
        metadata: {name: reviews}\n\
        spec: {host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}\n";
    let one = "{address: 10.0.0.1, serviceAccount: a}";
    let two = "{address: 10.0.0.2, serviceAccount: b}";
    let without = "{address: 10.0.0.3}";
    let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
    for (endpoints, expected) in [
        (format!("[{one}]"), vec![id("a")]),
        (format!("[{one}, {two}, {one}]"), vec![id("a"), id("b")]),
        (format!("[{one}, {without}]"), vec![]),
        (format!("[{without}]"), vec![]),
    ] {
        let model = Files::new(&(entry(&endpoints) + rule), "").model();
        let ids: Vec<String> =
            model.services[0].value.identities.iter().map(|id| id.value.clone()).collect();
        assert_eq!(ids, expected, "{endpoints}");
    }
}
