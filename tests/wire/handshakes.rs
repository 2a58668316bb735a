//! TLS handshakes that stall, sessions that resume, and all kinds of keys.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::{openssl, program};
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, free_port, read_once};

/// A listener with the certificate `web` of `pki` and the handshake timeout `handshake`. Returns
/// the proxy and its port.
fn listener(pki: &Pki, handshake: &str) -> (Proxy, u16) {
    pki.leaf("web", &Wanted::default());
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners:\n  web:\n    bind: 127.0.0.1:{port}\n    timeouts: {{handshake: {handshake}}}\n\
         \x20   tls: {{cert: {}, key: {}}}\nroutes: {{\"*\": [{{respond: {{body: hello}}}}]}}\n",
        pki.path("web.pem"),
        pki.path("web.key"),
    ));
    (proxy, port)
}

/// The beginning of a client's first record.
const HELLO: [u8; 16] = [22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3, 4, 5];

#[test]
fn handshakes_that_stall_or_drip_end_with_their_timeout() {
    let pki = Pki::new();
    let (proxy, port) = listener(&pki, "1s");
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let timeouts = || {
        let series = "ringway_listener_tls_failures_total{listener=\"web\",reason=\"timeout\"";
        proxy.metric(series)
    };
    let mut silent = connect();
    assert_eq!(read_once(&mut silent, &mut [0; 64]).unwrap(), 0, "a silent client is sent nothing");
    let counted = |count: f64| {
        eventually("a timeout", || (timeouts() == count).then_some(()));
    };
    counted(1.0);
    let mut stalled = connect();
    stalled.write_all(&HELLO).unwrap();
    assert_eq!(read_once(&mut stalled, &mut [0; 64]).unwrap_or_default(), 0);
    counted(2.0);
    let mut dripping = connect();
    let drip = dripping.try_clone().unwrap();
    drip.set_nodelay(true).unwrap();
    let dripper = std::thread::spawn(move || {
        for byte in HELLO.iter().chain(&[0; 400]) {
            if (&drip).write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
    });
    assert_eq!(
        read_once(&mut dripping, &mut [0; 64]).unwrap_or_default(),
        0,
        "each byte buys no more time"
    );
    counted(3.0);
    dripper.join().unwrap();
    eventually("the reason", || proxy.log().contains("the handshake took too long").then_some(()));
    // Other clients are not affected.
    let said = openssl(&["s_client", "-connect", &format!("127.0.0.1:{port}")], "");
    assert!(said.contains("New, TLSv1.3"), "{said}");
}

#[test]
fn an_endpoint_that_stalls_in_its_handshake_is_given_up() {
    let origin = Origin::scripted(|peer| {
        peer.until_closed();
    });
    let pki = Pki::new();
    let port = free_port();
    let proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}}}}}\nroutes: {{\"*\": [{{to: app}}]}}\n\
         services: {{app: {{endpoints: [\"{}\"], tls: {{ca: {}}}, connect_timeout: 300ms}}}}\n",
        origin.address(),
        pki.path("ca.pem")
    ));
    let answer = Client::connect(port).get("a", "/");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.text(), "the TLS handshake with the endpoint took too long");
    let flag = "ringway_service_response_flags_total{service=\"app\",flag=\"UF\"";
    eventually("the flag", || (proxy.metric(flag) == 1.0).then_some(()));
}

#[test]
fn renegotiation_is_refused() {
    let pki = Pki::new();
    let (proxy, port) = listener(&pki, "10s");
    // `R` at the beginning of a line makes s_client ask for a new handshake.
    let said = openssl(&["s_client", "-tls1_2", "-connect", &format!("127.0.0.1:{port}")], "R\n");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    assert_eq!(proxy.metric("ringway_worker_panics_total"), 0.0);
}

#[test]
fn keys_of_every_kind_and_form_serve() {
    let pki = Pki::new();
    let run = |arguments: &[&str]| {
        let output = program("openssl").args(arguments).current_dir(pki.directory()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["genrsa", "-traditional", "-out", "pkcs1.key", "2048"]);
    run(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072", "-out", "rsa8.key"]);
    run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sec1.key"]);
    run(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "ec8.key"]);
    run(&["genpkey", "-algorithm", "ED25519", "-out", "ed.key"]);
    let kinds = [
        ("pkcs1", "BEGIN RSA PRIVATE KEY"),
        ("rsa8", "BEGIN PRIVATE KEY"),
        ("sec1", "BEGIN EC PRIVATE KEY"),
        ("ec8", "BEGIN PRIVATE KEY"),
        ("ed", "BEGIN PRIVATE KEY"),
    ];
    let mut list = Vec::new();
    for (name, form) in kinds {
        assert!(pki.read(&format!("{name}.key")).contains(form), "{name}");
        let (key, pem) = (format!("{name}.key"), format!("{name}.pem"));
        let subject = format!("/CN={name}.test");
        run(&[
            "req",
            "-x509",
            "-key",
            &key,
            "-out",
            &pem,
            "-subj",
            &subject,
            "-days",
            "2",
            "-addext",
            &format!("subjectAltName=DNS:{name}.test"),
        ]);
        list.push(format!("{{cert: {}, key: {}}}", pki.path(&pem), pki.path(&key)));
    }
    let port = free_port();
    let _proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, tls: [{}]}}}}\n\
         routes: {{\"*\": [{{respond: {{body: hello}}}}]}}\n",
        list.join(", ")
    ));
    for (name, _) in kinds {
        for version in ["-tls1_2", "-tls1_3"] {
            let address = format!("127.0.0.1:{port}");
            let host = format!("{name}.test");
            let arguments = ["s_client", version, "-connect", &address, "-servername", &host];
            let said = openssl(&arguments, "");
            assert!(said.contains(&format!("subject=CN = {host}")), "{name} {version}: {said}");
            assert!(said.contains("\nNew, TLSv1."), "{name} {version}: {said}");
        }
    }
}

#[test]
fn an_ocsp_response_is_stapled() {
    let pki = Pki::new();
    let run = |arguments: &str| {
        let mut command: Command = program("openssl");
        let output = command.args(arguments.split(' ')).current_dir(pki.directory()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.pem -subj /CN=root -days 9");
    run("req -newkey rsa:2048 -nodes -keyout web.key -out web.csr -subj /CN=localhost");
    pki.replace("v3", "subjectAltName=DNS:localhost\n");
    run("x509 -req -in web.csr -CA root.pem -CAkey root.key -set_serial 17 -days 9 -out web.pem \
         -extfile v3");
    let expiry = "351231235959Z";
    pki.replace("index.txt", &format!("V\t{expiry}\t\t11\tunknown\t/CN=localhost\n"));
    run("ocsp -index index.txt -CA root.pem -rsigner root.pem -rkey root.key -issuer root.pem \
         -cert web.pem -respout web.ocsp -ndays 5 -noverify");
    let port = free_port();
    let _proxy = Proxy::start(&format!(
        "listeners: {{web: {{bind: 127.0.0.1:{port}, tls: {{cert: {0}/web.pem, key: {0}/web.key, \
         ocsp: {0}/web.ocsp}}}}}}\nroutes: {{\"*\": [{{respond: {{body: hello}}}}]}}\n",
        pki.directory().display()
    ));
    for version in ["-tls1_2", "-tls1_3"] {
        let address = format!("127.0.0.1:{port}");
        let said = openssl(&["s_client", version, "-connect", &address, "-status"], "");
        assert!(said.contains("OCSP Response Status: successful"), "{version}: {said}");
        assert!(said.contains("Cert Status: good"), "{version}: {said}");
    }
}
