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

/// A running webhook. It is killed when it is dropped.
struct Webhook {
    child: Child,
    port: u16,
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
        let child = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(["inject", "--serve", &format!("127.0.0.1:{port}")])
            .args(["--cert", &pki.path("hook.pem"), "--key", &pki.path("hook.key")])
            .args(["--exclude-inbound-ports", "9100"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let webhook = Self { child, port };
        let client = tls::client(pki, None);
        let ready = || Some(webhook.ask(&client, "GET", "/ready", "").ok()?.0 == 200);
        eventually("the webhook is ready", ready);
        webhook
    }

    /// The status and the body of an answer.
    fn ask(
        &self,
        client: &Arc<ClientConfig>,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, String)> {
        let stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(client), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
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
    other.leaf("hook", &Wanted::default());
    pki.replace("hook.pem", &other.read("hook.pem"));
    assert_eq!(webhook.ask(&client, "GET", "/live", "").unwrap().0, 200);
    pki.replace("hook.key", &other.read("hook.key"));
    let used = || webhook.ask(&next, "GET", "/live", "").ok().filter(|(status, _)| *status == 200);
    eventually("the new certificate is used", used);
    kill(Pid::from_raw(webhook.child.id() as i32), Signal::SIGTERM).unwrap();
    let ended = eventually("the webhook ends", || webhook.child.try_wait().unwrap());
    assert!(ended.success());
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
