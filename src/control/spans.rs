//! Sends spans to a collector in batches (OTLP).
//!
//! The queue of spans is bounded. A collector that is away, slow or wrong costs dropped spans,
//! which are counted, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client;
use http::{Method, Request, Uri};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::error::plain;
use crate::grpc::Code;
use crate::grpc::rate_limit::PREFIX_BYTES;
use crate::observe::otlp::{self, GRPC_PATH, Partial};
use crate::observe::span::BATCH;
use crate::observe::{Export, Observers};
use crate::sources::lookup::Lookups;
use crate::sources::{Fetcher, post};

/// How often the exporter looks for spans.
const TICK: Duration = Duration::from_millis(200);

/// The longest time that spans wait for others.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The time limit of one export.
const LIMIT: Duration = Duration::from_secs(5);

/// The waits before an export is tried again. After the last one, its spans are dropped.
const RETRIES: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// The maximum size of an answer of a collector.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends the spans of all workers to the collector of the configuration.
pub struct SpanExporter {
    observers: Arc<Observers>,
    lookups: Lookups,
    running: Option<(Export, JoinHandle<()>)>,
}

impl SpanExporter {
    /// Creates an exporter without a collector.
    pub fn new(observers: Arc<Observers>, lookups: Lookups) -> Self {
        Self { observers, lookups, running: None }
    }

    /// Sends spans to the collector of `export` from now on.
    pub fn follow(&mut self, export: Option<&Export>) {
        if self.running.as_ref().map(|(export, _)| export) == export {
            return;
        }
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
        let Some(export) = export.cloned() else { return };
        let sender = Sender {
            observers: Arc::clone(&self.observers),
            fetcher: Fetcher::new(self.lookups.clone()),
            lookups: self.lookups.clone(),
            export: export.clone(),
        };
        self.running = Some((export, tokio::spawn(sender.run())));
    }

    /// Sends the spans that wait, for at most `limit`.
    pub async fn finish(&mut self, limit: Duration) {
        let Some((export, task)) = self.running.take() else { return };
        task.abort();
        let observers = Arc::clone(&self.observers);
        let fetcher = Fetcher::new(self.lookups.clone());
        let sender = Sender { observers, fetcher, lookups: self.lookups.clone(), export };
        timeout(limit, sender.flush()).await.ok();
    }
}

impl Drop for SpanExporter {
    fn drop(&mut self) {
        if let Some((_, task)) = self.running.take() {
            task.abort();
        }
    }
}

struct Sender {
    observers: Arc<Observers>,
    fetcher: Fetcher,
    lookups: Lookups,
    export: Export,
}

/// Why an export has failed.
struct Failed {
    message: String,
    /// Whether the same export may succeed later.
    is_passing: bool,
}

impl Failed {
    fn passing(message: impl Into<String>) -> Self {
        Self { message: message.into(), is_passing: true }
    }
}

impl Sender {
    async fn run(self) {
        let mut waited = Duration::ZERO;
        loop {
            sleep(TICK).await;
            waited += TICK;
            let waiting = self.observers.spans.waiting();
            if waiting >= BATCH || waiting > 0 && waited >= WAIT_MAX {
                waited = Duration::ZERO;
                self.flush().await;
            }
        }
    }

    /// Sends all spans that wait.
    async fn flush(&self) {
        loop {
            let spans = self.observers.spans.take(BATCH);
            if spans.is_empty() {
                return;
            }
            let mut message = Vec::new();
            otlp::request(&mut message, &self.export.resource, &spans);
            let mut batch = Batch { observers: &self.observers, spans: spans.len() as u64 };
            batch.spans = self.send(Bytes::from(message), batch.spans).await;
        }
    }

    /// Sends one message, and tries again if it fails. Returns the number of spans that were lost.
    async fn send(&self, message: Bytes, spans: u64) -> u64 {
        let mut retries = RETRIES.into_iter();
        loop {
            let sent = match self.export.is_grpc {
                true => timeout(LIMIT, self.call(message.clone())).await,
                false => Ok(self.post(message.clone()).await),
            };
            let late = Failed::passing(format!("no answer within {LIMIT:?}"));
            let failed = match sent.unwrap_or(Err(late)) {
                Ok(Partial { rejected: 0, .. }) => return 0,
                Ok(Partial { rejected, message }) => {
                    let message = plain(&message);
                    tracing::warn!(rejected, %message, "the collector has refused spans");
                    return rejected.min(spans);
                }
                Err(failed) => failed,
            };
            let (url, error) = (&*self.export.url, plain(&failed.message));
            match retries.next().filter(|_| failed.is_passing) {
                Some(wait) => {
                    tracing::debug!(url, %error, "cannot send spans, will retry");
                    sleep(wait).await;
                }
                None => {
                    tracing::warn!(url, %error, spans, "cannot send spans, they are dropped");
                    return spans;
                }
            }
        }
    }

    /// Sends a message over HTTP.
    async fn post(&self, message: Bytes) -> Result<Partial, Failed> {
        let (fetcher, url) = (self.fetcher.clone(), self.export.url.clone());
        let posting = tokio::task::spawn_blocking(move || {
            post(&fetcher, &url, "application/x-protobuf", &message, LIMIT)
        });
        let answer = posting.await.map_err(|error| Failed::passing(error.to_string()))?;
        let (status, body) = answer.map_err(Failed::passing)?;
        match status {
            200 => otlp::answer(&body).map_err(|_| Failed {
                message: "the answer is not one of a collector".into(),
                is_passing: false,
            }),
            status => Err(Failed {
                message: format!("the collector answered {status}"),
                is_passing: matches!(status, 429 | 502 | 503 | 504),
            }),
        }
    }

    /// Sends a message over gRPC, on a connection of its own.
    async fn call(&self, message: Bytes) -> Result<Partial, Failed> {
        let broken = |error: h2::Error| Failed::passing(error.to_string());
        let authority = self.export.url.trim_start_matches("grpc://").to_owned();
        let stream = self.connect(&authority).await.map_err(Failed::passing)?;
        let (requests, connection) = client::handshake(stream).await.map_err(broken)?;
        let driver = tokio::spawn(async move { timeout(LIMIT * 2, connection).await.ok() });
        let mut requests = requests.ready().await.map_err(broken)?;
        let uri = Uri::builder().scheme("http").authority(authority).path_and_query(GRPC_PATH);
        let strange = |error: http::Error| Failed { message: error.to_string(), is_passing: false };
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri.build().map_err(strange)?)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(strange)?;
        let (response, mut body) = requests.send_request(request, false).map_err(broken)?;
        let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
        framed.push(0);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(&message);
        body.send_data(framed.into(), true).map_err(broken)?;
        let answered = answer(response.await.map_err(broken)?).await;
        driver.abort();
        answered
    }

    async fn connect(&self, authority: &str) -> Result<tokio::net::TcpStream, String> {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "4317"));
        let port = port.parse().map_err(|_| format!("{authority} has no port"))?;
        let host = host.trim_matches(['[', ']']);
        let addresses = match host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.lookups.all_addresses(host).await?,
        };
        let mut last = format!("{host} has no address");
        for ip in addresses {
            match self.lookups.outward().stream(std::net::SocketAddr::new(ip, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = plain(&error),
            }
        }
        Err(last)
    }
}

/// Reads the answer to a call.
async fn answer(response: http::Response<h2::RecvStream>) -> Result<Partial, Failed> {
    let broken = |error: h2::Error| Failed::passing(error.to_string());
    let (head, mut body) = response.into_parts();
    let mut message = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
        message.extend_from_slice(&data);
        if message.len() > ANSWER_BYTES_MAX {
            return Err(Failed { message: "the answer is too large".into(), is_passing: false });
        }
    }
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
    let code = trailers.get("grpc-status").or_else(|| head.headers.get("grpc-status"));
    let code = code.map(|value| Code::from_value(value.as_bytes()));
    let passing = [1, 4, 8, 10, 11, 14, 15];
    match code {
        Some(Code::OK) => message
            .get(PREFIX_BYTES..)
            .and_then(|message| otlp::answer(message).ok())
            .ok_or_else(|| Failed {
                message: "the answer is not one of a collector".into(),
                is_passing: false,
            }),
        Some(code) => Err(Failed {
            message: format!("the collector answered {}", code.name()),
            is_passing: passing.contains(&code.number()),
        }),
        None => Err(Failed {
            message: format!("no gRPC is spoken there: status {}", head.status.as_u16()),
            is_passing: false,
        }),
    }
}

/// Counts the spans of a batch as dropped, unless they were sent. Also if the export is cancelled.
struct Batch<'a> {
    observers: &'a Observers,
    /// The number of spans that are lost if nothing else is said.
    spans: u64,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.observers.spans.drop_counted(self.spans);
    }
}
