//! The admin interface on a Unix socket, with TLS, and of several proxies on one page.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::http::Client;
use crate::support::origin::Origin;
use crate::support::peers::curl;
use crate::support::pki::{Pki, Wanted};
use crate::support::proxy::Proxy;
use crate::support::{eventually, free_listener, free_port};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A directory with a configuration: the admin interface as `admin` says, and one service.
fn directory(admin: &str, web: u16, endpoint: &str, name: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), admin);
    let config = format!(
        "listeners: {{web: {{bind: 127.0.0.1:{web}}}}}\nroutes: {{'*': [{{to: app}}]}}\n\
         services: {{app: {{endpoints: ['{endpoint}']}}}}\n\
         telemetry: {{metrics: {{istio: true, workload: {{name: {name}}}}}}}\n"
    );
    std::fs::write(directory.path().join("ringway.yaml"), config).unwrap();
    directory
}

fn write(directory: &Path, admin: &str) {
    let base = format!("admin: {{{admin}}}\nruntime: {{workers: 1}}\n");
    std::fs::write(directory.join("base.yaml"), base).unwrap();
}

fn ringway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway")).args(arguments).output().unwrap()
}

/// The output of a command that fails, on standard error.
fn refusal(arguments: &[&str]) -> String {
    let output = ringway(arguments);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_unix_socket_serves_its_own_user_only() {
    let origin = Origin::saying("x");
    let (port, web) = (free_port(), free_port());
    let at_port = format!("bind: '127.0.0.1:{port}'");
    let proxy = Proxy::start_on(directory(&at_port, web, &origin.address(), "gate"), port);
    let path = |name: &str| proxy.directory().join(name);
    let (one, two) = (path("one.sock"), path("two.sock"));
    let address = |path: &Path| format!("unix:{}", path.display());
    let answers = |at: &str| {
        eventually(&format!("an answer at {at}"), || {
            let output = ringway(&["why", "--admin", at, "--json"]);
            output.status.success().then_some(output)
        })
    };
    write(proxy.directory(), &format!("bind: '{}'", address(&one)));
    answers(&address(&one));
    assert_eq!(std::fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(refusal(&["why", "--admin", &address(&two)]).contains("No such file"));
    // All commands that ask a running proxy, and the address of its configuration.
    Client::connect(web).get("a", "/story");
    let stories = || ringway(&["why", "--admin", &address(&one), "--json"]).status.success();
    eventually("the story", || stories().then_some(()));
    let directory = proxy.directory().to_str().unwrap().to_owned();
    let top = ringway(&["top", "-c", &directory, "--once"]);
    assert!(String::from_utf8(top.stdout).unwrap().contains("app"), "{:?}", top.stderr);
    let at = address(&one);
    let tap = std::thread::spawn(move || ringway(&["tap", "--admin", &at, "-n", "1"]));
    eventually("a tapped request", || {
        Client::connect(web).get("a", "/tapped");
        tap.is_finished().then_some(())
    });
    assert!(String::from_utf8(tap.join().unwrap().stdout).unwrap().contains("/tapped"));
    // The socket of a process that was killed is replaced, another file is not.
    drop(std::os::unix::net::UnixListener::bind(&two).unwrap());
    write(proxy.directory(), &format!("bind: '{}'", address(&two)));
    answers(&address(&two));
    eventually("the old file to go", || (!one.exists()).then_some(()));
    std::fs::write(path("three.sock"), "a file").unwrap();
    write(proxy.directory(), &format!("bind: '{}'", address(&path("three.sock"))));
    eventually("the refusal", || {
        proxy.log().contains("the admin interface keeps its previous address").then_some(())
    });
    answers(&address(&two));
    assert_eq!(std::fs::read(path("three.sock")).unwrap(), b"a file");
    write(proxy.directory(), &at_port);
    eventually("the port again", || TcpStream::connect(("127.0.0.1", port)).ok());
    eventually("no socket", || (!two.exists()).then_some(()));
}

#[test]
fn mutual_tls_guards_the_pages() {
    let (pki, others) = (Pki::new(), Pki::new());
    pki.leaf("admin", &Wanted::default());
    pki.leaf("operator", &Wanted { names: &["operator"], ..Wanted::default() });
    others.leaf("operator", &Wanted { names: &["operator"], ..Wanted::default() });
    let (port, web) = (free_port(), free_port());
    let plain = format!("bind: '127.0.0.1:{port}'");
    let proxy = Proxy::start_on(directory(&plain, web, "127.0.0.1:9", "gate"), port);
    let mut old = Client::connect(port);
    assert_eq!(old.get("localhost", "/metrics").status, 200);
    let path = |name: &str| pki.path(name);
    let tls = |more: &str| {
        let (cert, key, ca) = (path("admin.pem"), path("admin.key"), path("ca.pem"));
        let files = format!("cert: {cert}, key: {key}, client_ca: {ca}{more}");
        format!("bind: '127.0.0.1:{port}', tls: {{{files}}}")
    };
    write(proxy.directory(), &tls(""));
    let admin = format!("localhost:{port}");
    let ca = path("ca.pem");
    let with = |pki: &Pki| {
        let files = ["--cert", &pki.path("operator.pem"), "--key", &pki.path("operator.key")];
        let asked = ["why", "--json", "--admin", &admin, "--ca", &ca];
        ringway(&[&asked[..], &files[..]].concat())
    };
    eventually("an answer to a certificate", || with(&pki).status.success().then_some(()));
    // The connection of before is not one without a certificate now.
    let asked = old.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").try_response(false);
    assert_eq!(asked.map_or(503, |answer| answer.status), 503);
    assert!(!with(&others).status.success());
    assert!(refusal(&["why", "--admin", &admin]).contains("it speaks TLS"));
    assert!(refusal(&["why", "--admin", &admin, "--ca", &ca]).contains("cannot ask the proxy"));
    let config = proxy.directory().to_str().unwrap();
    assert!(refusal(&["why", "-c", config]).contains("--cert FILE --key FILE"));
    assert!(
        refusal(&["why", "--admin", &admin, "--ca", &others.path("ca.pem")])
            .contains("invalid peer certificate")
    );
    // Without the demand, probes need no certificate, and the pages still do.
    write(proxy.directory(), &tls(", client_auth: optional"));
    let asks = ["why", "--admin", &admin, "--ca", &ca];
    eventually("another demand", || {
        let output = ringway(&asks);
        String::from_utf8_lossy(&output.stderr).contains("demands a certificate").then_some(())
    });
    assert!(with(&pki).status.success());
    std::fs::write(proxy.directory().join("token"), TOKEN).unwrap();
    write(proxy.directory(), &format!("{}, token: token", tls(", client_auth: optional")));
    let token = proxy.directory().join("token").to_str().unwrap().to_owned();
    eventually("the token in place of a certificate", || {
        ringway(&[&asks[..], &["--token", &token]].concat()).status.success().then_some(())
    });
    assert!(refusal(&asks).contains("demands a token"));
    assert!(with(&pki).status.success());
    // A new certificate is used without a restart.
    pki.leaf("admin", &Wanted { names: &["elsewhere"], ..Wanted::default() });
    eventually("the new certificate", || {
        let output = ringway(&asks);
        String::from_utf8_lossy(&output.stderr).contains("not valid for name").then_some(())
    });
}

/// A website must not make a browser read the pages by a name of its own that means 127.0.0.1.
#[test]
fn an_open_interface_answers_to_an_address_only() {
    let (port, web) = (free_port(), free_port());
    let bind = format!("bind: '127.0.0.1:{port}'");
    let proxy = Proxy::start_on(directory(&bind, web, "127.0.0.1:9", "gate"), port);
    let mut client = Client::connect(port);
    let pages = ["/", "/metrics", "/config", "/dashboard", "/requests", "/requests/x", "/tap"];
    for page in pages {
        let answer = client.get("evil.example", page);
        assert_eq!(answer.status, 421, "{page}");
        assert!(answer.text().contains("127.0.0.1"), "{}", answer.text());
    }
    for page in ["/live", "/ready"] {
        assert_eq!(client.get("evil.example", page).status, 200, "{page}");
    }
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]:9".to_owned()] {
        assert_eq!(client.get(&host, "/metrics").status, 200, "{host}");
    }
    // A website does not know the token.
    std::fs::write(proxy.directory().join("token"), TOKEN).unwrap();
    write(proxy.directory(), &format!("{bind}, token: token"));
    let asked = format!(
        "GET /metrics HTTP/1.1\r\nHost: gate.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    eventually("the token", || (client.request(&asked).status == 200).then_some(()));
    assert_eq!(client.get("localhost", "/metrics").status, 401);
}

/// Clients that say nothing after they have connected do not lock the interface.
#[test]
fn silent_clients_of_tls_make_room() {
    let pki = Pki::new();
    pki.leaf("admin", &Wanted::default());
    let (port, web) = (free_port(), free_port());
    let plain = format!("bind: '127.0.0.1:{port}'");
    let files = format!("cert: {}, key: {}", pki.path("admin.pem"), pki.path("admin.key"));
    let proxy = Proxy::start_on(directory(&plain, web, "127.0.0.1:9", "gate"), port);
    write(proxy.directory(), &format!("{plain}, tls: {{{files}}}"));
    let (admin, ca) = (format!("localhost:{port}"), pki.path("ca.pem"));
    let asks = || ringway(&["why", "--json", "--admin", &admin, "--ca", &ca]).status.success();
    eventually("TLS", || asks().then_some(()));
    eventually("an answer before a silent client is given up", || {
        let silent: Vec<_> =
            (0..64).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let answered = asks();
        let is_open = |mut silent: &TcpStream| {
            silent.set_nonblocking(true).unwrap();
            silent.read(&mut [0]).is_err_and(|it| it.kind() == ErrorKind::WouldBlock)
        };
        // The oldest one has made room; the newest one has not been given up yet.
        (answered && !is_open(&silent[0]) && is_open(&silent[63])).then_some(())
    });
}

/// Clients that accept gzip get it, except those of a tap.
#[test]
fn pages_are_packed_for_those_who_accept_it() {
    let (port, web) = (free_port(), free_port());
    let bind = format!("bind: '127.0.0.1:{port}'");
    let proxy = Proxy::start_on(directory(&bind, web, "127.0.0.1:9", "gate"), port);
    let at = |page: &str| format!("http://127.0.0.1:{port}{page}");
    let head = |page: &str| curl(&["-s", "-D", "-", "-o", "/dev/null", "--compressed", &at(page)]);
    for page in ["/metrics", "/config", "/services"] {
        let plain = curl(&["-s", &at(page)]);
        let packed = curl(&["-s", "--compressed", &at(page)]);
        // Counters and times differ.
        let lines = |text: &str| text.lines().count();
        assert_eq!(lines(&packed), lines(&plain), "{page}");
        let head = head(page).to_ascii_lowercase();
        assert_eq!(head.contains("content-encoding: gzip"), plain.len() >= 1024, "{page}: {head}");
    }
    assert!(head("/metrics").to_ascii_lowercase().contains("content-encoding: gzip"));
    let asked = "GET /tap HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\n";
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(asked.as_bytes()).unwrap();
    let mut first = [0; 1024];
    let length = stream.read(&mut first).unwrap();
    let head = String::from_utf8_lossy(&first[..length]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200") && !head.contains("content-encoding"), "{head}");
    drop(proxy);
}

/// More answers than this do not come while the control thread accepts a connection.
const ANSWERS_MIN: usize = 40;

/// The control thread answers others while a long page is rendered.
#[test]
fn a_long_page_holds_up_nobody() {
    let (port, web) = (free_port(), free_port());
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), &format!("bind: '127.0.0.1:{port}'"));
    let mut config = format!("listeners: {{web: {{bind: 127.0.0.1:{web}}}}}\nroutes:\n");
    (0..1000).for_each(|number| config += &format!("  h{number}: [{{to: s{number}}}]\n"));
    config += "services:\n";
    (0..1000).for_each(|it| config += &format!("  s{it}: {{endpoints: ['127.0.0.1:9']}}\n"));
    std::fs::write(directory.path().join("ringway.yaml"), config).unwrap();
    let proxy = Proxy::start_on(directory, port);
    let mut client = Client::connect(port);
    for page in ["/services", "/metrics"] {
        let asked = format!("GET {page} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        eventually("answers before the page", || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(asked.as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut answers = 0;
            while stream.read(&mut [0]).is_err_and(|it| it.kind() == ErrorKind::WouldBlock) {
                assert_eq!(client.get("localhost", "/ready").status, 200);
                answers += 1;
            }
            // A few come before the proxy has read what was asked, but not so many.
            (answers > ANSWERS_MIN).then_some(())
        });
    }
    drop(proxy);
}

#[test]
fn one_page_shows_the_mesh_of_several_proxies() {
    let origin = Origin::saying("x");
    let (a, b, web_a, web_b) = (free_port(), free_port(), free_port(), free_port());
    let bind = |port: u16| format!("bind: '127.0.0.1:{port}'");
    let cart = directory(&bind(b), web_b, &origin.address(), "cart");
    std::fs::write(cart.path().join("token"), TOKEN).unwrap();
    write(cart.path(), &format!("{}, token: token", bind(b)));
    let cart = Proxy::start_on(cart, b);
    let dead = free_listener().local_addr().unwrap();
    let silent = free_listener();
    let gate = directory(&bind(a), web_a, &format!("127.0.0.1:{web_b}"), "gate");
    std::fs::write(gate.path().join("token"), TOKEN).unwrap();
    let peers = format!(
        "cart: {{address: '127.0.0.1:{b}', token: token}}, locked: '127.0.0.1:{b}', \
         dead: '{dead}', silent: '{}', strange: '{}'",
        silent.local_addr().unwrap(),
        origin.address()
    );
    write(gate.path(), &format!("{}, peers: {{{peers}}}", bind(a)));
    let gate = Proxy::start_on(gate, a);
    let mut client = Client::connect(web_a);
    (0..9).for_each(|_| assert_eq!(client.get("shop", "/").status, 200));
    let mesh = || -> Value { serde_json::from_str(gate.admin("/mesh").text()).unwrap() };
    let requests = |proxy: &Value, kind: &str, name: &str| {
        let edges = proxy["edges"].as_array()?;
        let edge = edges.iter().find(|edge| edge["kind"] == kind && edge["name"] == name)?;
        edge["requests"].as_u64()
    };
    // The counters are read every ten seconds, and each proxy has a second chance.
    for index in [0, 1] {
        eventually("the traffic of a proxy", || {
            let served = requests(&mesh()["proxies"][index], "service", "app");
            (served == Some(9)).then_some(())
        });
    }
    let reasons = [
        (2, "locked", "demands a token"),
        (3, "dead", "cannot connect"),
        (4, "silent", "no answer within 2s"),
        (5, "strange", "not the admin interface"),
    ];
    // On a busy machine, another proxy may take too long once.
    let found = eventually("all proxies and reasons", || {
        let found = mesh();
        let away = |index: usize| found["proxies"][index]["away"].as_str();
        let fits = |(index, _, why): &(usize, _, &str)| away(*index)?.contains(why).then_some(());
        let both = [0, 1].map(|index| requests(&found["proxies"][index], "service", "app"));
        let known = both == [Some(9), Some(9)] && reasons.iter().all(|it| fits(it).is_some());
        known.then_some(found)
    });
    let proxy = |index: usize| &found["proxies"][index];
    assert_eq!(found["proxies"].as_array().unwrap().len(), 6);
    assert_eq!((&proxy(0)["workload"], &proxy(0)["name"]), (&"gate".into(), &Value::Null));
    assert_eq!((&proxy(1)["workload"], &proxy(1)["name"]), (&"cart".into(), &"cart".into()));
    assert_eq!((&proxy(1)["state"], &proxy(1)["away"]), (&"ready".into(), &Value::Null));
    assert_eq!(requests(proxy(1), "client", ""), Some(9));
    for (index, name, _) in reasons {
        assert_eq!(proxy(index)["name"], name);
        assert!(proxy(index)["edges"].is_null(), "{name}");
    }
    assert!(!found.to_string().contains(TOKEN) && !gate.log().contains(TOKEN));
    // A proxy that goes away is shown as away.
    drop(cart);
    eventually("the other proxy to be away", || mesh()["proxies"][1]["away"].as_str().map(|_| ()));
}
