//! The webhook, through the real binary over HTTPS.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::pki::{Pki, Wanted};
use crate::support::{PATIENCE, eventually, free_port, tls};

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A running webhook. It is killed when it is dropped.
struct Webhook {
    child: Child,
    port: u16,
    log: tempfile::NamedTempFile,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Webhook {
    fn start(pki: &Pki) -> Self {
        let port = free_port();
        let log = tempfile::NamedTempFile::new().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["inject", "--serve", &format!("127.0.0.1:{port}")])
            .args(["--cert", &pki.path("hook.pem"), "--key", &pki.path("hook.key")])
            .args(["--exclude-inbound-ports", "9100"])
            .stdout(Stdio::null())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let webhook = Self { child, port, log };
        let client = tls::client(pki, None);
        let ready = || Some(webhook.ask(&client, "GET", "/ready", "").ok()?.0 == 200);
        eventually("the webhook is ready", ready);
        webhook
    }

    /// A connection after its handshake.
    fn connect(&self, client: &Arc<ClientConfig>) -> std::io::Result<Tls> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = ClientConnection::new(Arc::clone(client), name).unwrap();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }

    /// A connection with the head of a review, and without its body.
    fn begin(&self, client: &Arc<ClientConfig>, length: usize) -> Tls {
        let mut stream = self.connect(client).unwrap();
        let head =
            format!("POST /inject HTTP/1.1\r\nHost: hook\r\nContent-Length: {length}\r\n\r\n {{");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    /// Waits for a line of the log.
    fn says(&self, text: &str) {
        let said =
            || std::fs::read_to_string(self.log.path()).unwrap().contains(text).then_some(());
        eventually(text, said);
    }

    /// The status and the body of an answer.
    fn ask(
        &self,
        client: &Arc<ClientConfig>,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let mut stream = self.connect(client)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: hook\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // An answer may come before the end of a body that is too large.
        stream.write_all(body.as_bytes()).ok();
        let mut text = Vec::new();
        match stream.read_to_end(&mut text) {
            Err(error) if text.is_empty() && error.kind() != ErrorKind::UnexpectedEof => {
                return Err(error);
            }
            _ => {}
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.unwrap(), body.to_owned()))
    }
}

/// The review of a new pod.
fn review(annotations: &Value) -> String {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "web-", "annotations": annotations},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    });
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    let request = json!({
        "uid": "u-1", "kind": kind, "operation": "CREATE", "namespace": "shop", "object": object,
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
        .to_string()
}

#[test]
fn new_pods_get_a_patch_over_https() {
    let pki = Pki::new();
    pki.leaf("hook", &Wanted::default());
    let webhook = Webhook::start(&pki);
    let client = tls::client(&pki, None);
    let (status, body) = webhook.ask(&client, "POST", "/inject", &review(&json!({}))).unwrap();
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).unwrap();
    let response = &answer["response"];
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
    let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch = String::from_utf8(patch).unwrap();
    for part in ["/spec/initContainers", "ringway-proxy", "\"9100\"", "ringway.io/status"] {
        assert!(patch.contains(part), "{part}: {patch}");
    }
    let wrong = review(&json!({"ringway.io/inject": "off"}));
    let (status, body) = webhook.ask(&client, "POST", "/inject", &wrong).unwrap();
    assert_eq!(status, 200);
    assert!(body.contains("\"allowed\":false"), "{body}");
    let refused = webhook.ask(&client, "POST", "/inject", "{}").unwrap();
    assert_eq!(refused.0, 400);
    let large = " ".repeat(5 * 1024 * 1024);
    // The connection may be reset before the answer is read.
    let too_large = webhook.ask(&client, "POST", "/inject", &large);
    assert!(too_large.is_err() || too_large.is_ok_and(|(status, _)| status == 413));
    assert_eq!(webhook.ask(&client, "GET", "/live", "").unwrap().0, 200);
}

#[test]
fn a_new_certificate_is_used_and_a_wrong_one_is_not() {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.leaf("hook", &Wanted::default());
    let mut webhook = Webhook::start(&pki);
    let [client, next] = [&pki, &other].map(|pki| tls::client(pki, None));
    assert!(webhook.ask(&next, "GET", "/live", "").is_err());
    pki.replace("hook.key", "not a key");
    webhook.says("the webhook keeps its certificate");
    assert_eq!(webhook.ask(&client, "GET", "/live", "").unwrap().0, 200);
    other.leaf("hook", &Wanted::default());
    pki.replace("hook.pem", &other.read("hook.pem"));
    assert_eq!(webhook.ask(&client, "GET", "/live", "").unwrap().0, 200);
    pki.replace("hook.key", &other.read("hook.key"));
    let used = || webhook.ask(&next, "GET", "/live", "").ok().filter(|(status, _)| *status == 200);
    eventually("the new certificate is used", used);
    // A request that does not end does not keep the process.
    let _half = webhook.begin(&next, 100);
    kill(Pid::from_raw(webhook.child.id() as i32), Signal::SIGTERM).unwrap();
    let ended = eventually("the webhook ends", || webhook.child.try_wait().unwrap());
    assert!(ended.success());
}

#[test]
fn silent_clients_do_not_keep_others_out() {
    let pki = Pki::new();
    pki.leaf("hook", &Wanted::default());
    let webhook = Webhook::start(&pki);
    let client = tls::client(&pki, None);
    let silent: Vec<Tls> = (0..256).map(|_| webhook.connect(&client).unwrap()).collect();
    for _ in 0..3 {
        let (status, _) = webhook.ask(&client, "POST", "/inject", &review(&json!({}))).unwrap();
        assert_eq!(status, 200);
    }
    drop(silent);
}

#[test]
fn large_reviews_have_a_bound_and_a_request_has_its_time() {
    let pki = Pki::new();
    pki.leaf("hook", &Wanted::default());
    let webhook = Webhook::start(&pki);
    let client = tls::client(&pki, None);
    let mut large: Vec<Tls> = (0..16).map(|_| webhook.begin(&client, 1024 * 1024)).collect();
    let padded = format!("{}{}", review(&json!({})), " ".repeat(256 * 1024));
    let status =
        |body: &str| webhook.ask(&client, "POST", "/inject", body).ok().map(|(status, _)| status);
    eventually("there is no place for a large review", || {
        matches!(status(&padded), None | Some(503)).then_some(())
    });
    assert_eq!(status(&review(&json!({}))), Some(200));
    // They end after their ten seconds, without an answer, and their places are free.
    let mut rest = Vec::new();
    large[0].read_to_end(&mut rest).ok();
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
    eventually("there is a place again", || (status(&padded) == Some(200)).then_some(()));
}

#[test]
fn a_webhook_without_a_certificate_does_not_start() {
    let pki = Pki::new();
    let done = Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(["inject", "--serve", "127.0.0.1:0", "--cert", &pki.path("ca.pem")])
        .args(["--key", &pki.path("none.key")])
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot read") && said.contains("none.key"), "{said}");
}
