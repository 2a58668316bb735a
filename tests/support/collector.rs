//! A collector of OTLP with the official protobuf definitions (tests/probes/otlp.py).

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::pki::Pki;
use super::{eventually, free_port};

/// A collector of spans and log records.
pub struct Collector {
    child: Child,
    /// The port of OTLP over HTTP.
    pub http: u16,
    /// The port of OTLP over gRPC.
    pub grpc: u16,
    spans: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// `None` if Python or its packages are missing.
    pub fn start(mode: &str) -> Option<Self> {
        Self::launch(&[mode])
    }

    /// A collector whose gRPC has TLS with the certificate `name`.
    pub fn with_tls(pki: &Pki, name: &str) -> Option<Self> {
        let file = |kind: &str| pki.path(&format!("{name}.{kind}"));
        Self::launch(&["normal", &file("pem"), &file("key")])
    }

    fn launch(more: &[&str]) -> Option<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (http, grpc) = (free_port(), free_port());
        let mut child = Command::new(root.join("target/tools/bin/python"))
            .arg(root.join("tests/probes/otlp.py"))
            .args([http.to_string(), grpc.to_string()])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        if !lines.next()?.ok()?.contains("ready") {
            return None;
        }
        let spans: Arc<Mutex<Vec<Value>>> = Arc::default();
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                kept.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Some(Self { child, http, grpc, spans })
    }

    /// The spans or log records, when it has at least this many.
    pub fn spans(&self, count: usize) -> Vec<Value> {
        eventually("the spans", || {
            let spans = self.spans.lock().unwrap();
            (spans.len() >= count).then(|| spans.clone())
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
