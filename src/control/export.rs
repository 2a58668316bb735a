//! Sends spans and lines of the access log to collectors in batches (OTLP).
//!
//! Their queues are bounded. A collector that is away, slow or wrong costs dropped spans and lines,
//! which are counted, and nothing else.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use h2::client;
use http::{Method, Request, Uri};
use pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::plain;
use crate::grpc::Code;
use crate::grpc::rate_limit::PREFIX_BYTES;
use crate::observe::otlp::{self, Partial};
use crate::observe::span::BATCH;
use crate::observe::{Export, Observers, otlp_lines};
use crate::snapshot::{LogSink, Snapshot};
use crate::sources::lookup::Lookups;
use crate::sources::{Connection, Fetcher, authorities, post};
use crate::telemetry::logs::AccessLog;
use crate::telemetry::status::Status;
use crate::tls::PROVIDER;

/// How often the exporter looks for spans and lines.
const TICK: Duration = Duration::from_millis(200);

/// The longest time that spans and lines wait for others.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The time limit of one export.
const LIMIT: Duration = Duration::from_secs(5);

/// The waits before an export is tried again. After the last one, its spans are dropped.
const RETRIES: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// The maximum size of an answer of a collector.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The number of bytes of lines with which an export begins at once, and the maximum of one.
const LINE_BYTES: usize = 256 * 1024;

/// How long spans and lines are still sent to a collector that is not configured any more.
const LET_GO: Duration = Duration::from_secs(5);

/// Sends the spans and lines of all workers to the collectors of the configuration.
pub struct Exporters {
    spans: Exporter,
    lines: Exporter,
}

impl Exporters {
    /// Creates exporters without collectors.
    pub fn new(status: &Status, lookups: &Lookups) -> Self {
        let known = status.known();
        let spans = Load::Spans(Arc::clone(&known.observers));
        let lines = Load::Lines(Arc::clone(&known.access_log));
        let of = |load| Exporter::new(load, lookups.clone());
        Self { spans: of(spans), lines: of(lines) }
    }

    /// Sends to the collectors of `snapshot` from now on.
    pub fn follow(&mut self, snapshot: Option<&Snapshot>) {
        let tracing = snapshot.and_then(|snapshot| snapshot.tracing.as_ref());
        self.spans.follow(tracing.and_then(|tracing| tracing.export.as_ref()));
        let log = snapshot.and_then(|snapshot| snapshot.access_log.as_ref());
        self.lines.follow(match log.map(|log| &log.sink) {
            Some(LogSink::Otlp(export)) => Some(export),
            _ => None,
        });
    }

    /// Sends what waits, for at most `limit`.
    pub async fn finish(&mut self, limit: Duration) {
        let (spans, lines) = (self.spans.finish(limit), self.lines.finish(limit));
        tokio::join!(Box::pin(spans), Box::pin(lines));
    }
}

/// Sends one kind of load to one collector.
struct Exporter {
    load: Load,
    lookups: Lookups,
    /// The collector. `None` if there is none.
    export: Option<Export>,
    /// How the last task ends.
    ending: watch::Sender<Ending>,
    /// The task that sends to the collector, and those that leave earlier ones.
    tasks: JoinSet<()>,
}

/// Whether a task has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It goes on.
    Not,
    /// It ends when it has sent what it has taken. The rest is for another collector.
    Held,
    /// It ends when nothing waits.
    All,
}

impl Exporter {
    fn new(load: Load, lookups: Lookups) -> Self {
        let (ending, tasks) = (watch::Sender::new(Ending::Held), JoinSet::new());
        Self { load, lookups, export: None, ending, tasks }
    }

    fn follow(&mut self, export: Option<&Export>) {
        while self.tasks.try_join_next().is_some() {}
        if self.export.as_ref() == export {
            return;
        }
        self.export = export.cloned();
        let Some(export) = export else {
            self.ending.send_replace(Ending::All);
            return;
        };
        self.ending.send_replace(Ending::Held);
        self.ending = watch::Sender::new(Ending::Not);
        let (load, lookups) = (self.load.clone(), self.lookups.clone());
        let fetcher = Fetcher::new(lookups.clone());
        let sender = Sender { load, fetcher, lookups, export: export.clone() };
        self.tasks.spawn(sender.run(self.ending.subscribe()));
    }

    /// Sends what waits, for at most `limit`. Counts the rest as dropped.
    async fn finish(&mut self, limit: Duration) {
        if self.export.take().is_some() {
            self.ending.send_replace(Ending::All);
        }
        let tasks = &mut self.tasks;
        timeout(limit, async { while tasks.join_next().await.is_some() {} }).await.ok();
        // A task that is aborted counts what it has taken.
        tasks.shutdown().await;
        self.load.drop_all();
    }
}

/// A kind of things that are exported, with their queue.
#[derive(Clone)]
enum Load {
    Spans(Arc<Observers>),
    Lines(Arc<AccessLog>),
}

impl Load {
    /// Whether something waits, and whether it is enough for an export at once.
    fn waiting(&self) -> (bool, bool) {
        let (waiting, enough) = match self {
            Self::Spans(observers) => (observers.spans.waiting(), BATCH),
            Self::Lines(log) => (log.exported().waiting(), LINE_BYTES),
        };
        (waiting > 0, waiting >= enough)
    }

    /// The next message, and the number of spans or lines in it.
    async fn take(&self, resource: &[(String, String)]) -> Option<(Bytes, u64)> {
        match self {
            Self::Spans(observers) => {
                let spans = observers.spans.take(BATCH);
                let mut message = Vec::new();
                otlp::request(&mut message, resource, &spans);
                (!spans.is_empty()).then(|| (message.into(), spans.len() as u64))
            }
            Self::Lines(log) => {
                let lines = log.exported().take(LINE_BYTES);
                let count = memchr::memchr_iter(b'\n', &lines).count() as u64;
                let mut lost = Batch { load: self, count };
                let resource = resource.to_vec();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // To read the lines takes a while, so it is not done on the control thread.
                let encoding = tokio::task::spawn_blocking(move || {
                    let mut message = Vec::new();
                    otlp_lines::request(&mut message, &resource, &lines, now.as_nanos() as u64);
                    Bytes::from(message)
                });
                let message = if count > 0 { encoding.await.ok()? } else { return None };
                lost.count = 0;
                Some((message, count))
            }
        }
    }

    /// Counts what was taken and is lost.
    fn lost(&self, count: u64) {
        match self {
            Self::Spans(observers) => observers.spans.drop_counted(count),
            Self::Lines(log) => log.exported().lost(count, "the collector did not take them"),
        }
    }

    /// Drops and counts what waits, at the end.
    fn drop_all(&self) {
        self.lost(match self {
            Self::Spans(observers) => observers.spans.take(usize::MAX).len() as u64,
            Self::Lines(log) => {
                let lines = log.exported().take(usize::MAX);
                memchr::memchr_iter(b'\n', &lines).count() as u64
            }
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Spans(_) => "spans",
            Self::Lines(_) => "access log lines",
        }
    }

    /// The path of the method over gRPC.
    fn method(&self) -> &'static str {
        match self {
            Self::Spans(_) => otlp::GRPC_PATH,
            Self::Lines(_) => otlp_lines::GRPC_PATH,
        }
    }
}

struct Sender {
    load: Load,
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
    /// Sends what waits, again and again, until `ending` says that it has to end. Then it has
    /// [`LET_GO`] for the rest.
    async fn run(self, ending: watch::Receiver<Ending>) {
        let mut told = ending.clone();
        let over = async {
            told.wait_for(|ending| *ending != Ending::Not).await.ok();
            sleep(LET_GO).await;
        };
        tokio::select! {
            () = self.work(ending.clone()) => {}
            () = over => {}
        }
        if *ending.borrow() == Ending::All {
            self.load.drop_all();
        }
    }

    async fn work(&self, mut ending: watch::Receiver<Ending>) {
        let mut waited = Duration::ZERO;
        while *ending.borrow_and_update() == Ending::Not {
            tokio::select! {
                changed = ending.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = sleep(TICK) => waited += TICK,
            }
            let (waits, is_enough) = self.load.waiting();
            if is_enough || waits && waited >= WAIT_MAX {
                waited = Duration::ZERO;
                self.flush(&ending).await;
            }
        }
        self.flush(&ending).await;
    }

    /// Sends all that waits, unless it is for another collector.
    async fn flush(&self, ending: &watch::Receiver<Ending>) {
        while *ending.borrow() != Ending::Held
            && let Some((message, count)) = self.load.take(&self.export.resource).await
        {
            let mut batch = Batch { load: &self.load, count };
            batch.count = self.send(message, count).await;
        }
    }

    /// Sends one message, and tries again if it fails. Returns the number of spans or lines
    /// that were lost.
    async fn send(&self, message: Bytes, count: u64) -> u64 {
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
                    let what = self.load.name();
                    tracing::warn!(rejected, %message, "the collector has refused {what}");
                    return rejected.min(count);
                }
                Err(failed) => failed,
            };
            let (url, error) = (&*self.export.url, plain(&failed.message));
            let what = self.load.name();
            match retries.next().filter(|_| failed.is_passing) {
                Some(wait) => {
                    tracing::debug!(url, %error, "cannot send {what}, will retry");
                    sleep(wait).await;
                }
                None => {
                    tracing::warn!(url, %error, count, "cannot send {what}, they are dropped");
                    return count;
                }
            }
        }
    }

    /// Sends a message over HTTP.
    async fn post(&self, message: Bytes) -> Result<Partial, Failed> {
        let (fetcher, url) = (self.fetcher.clone(), self.export.url.clone());
        let ca = self.export.ca.clone();
        let posting = tokio::task::spawn_blocking(move || {
            post(&fetcher, (&url, ca.as_deref()), "application/x-protobuf", &message, LIMIT)
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
        let (scheme, authority) = match self.export.url.split_once("://") {
            Some(("grpcs", authority)) => ("https", authority.to_owned()),
            Some((_, authority)) => ("http", authority.to_owned()),
            None => ("http", self.export.url.clone()),
        };
        let stream = self.connect(&authority).await.map_err(Failed::passing)?;
        let (requests, connection) = client::handshake(stream).await.map_err(broken)?;
        let driver = tokio::spawn(async move { timeout(LIMIT * 2, connection).await.ok() });
        let mut requests = requests.ready().await.map_err(broken)?;
        let uri = Uri::builder().scheme(scheme).authority(authority);
        let uri = uri.path_and_query(self.load.method());
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

    async fn connect(&self, authority: &str) -> Result<Connection, String> {
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
                Ok(stream) if self.export.is_tls => {
                    let stream = encrypted(stream, host, self.export.ca.as_deref()).await?;
                    return Ok(Box::new(stream));
                }
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = plain(&error),
            }
        }
        Err(last)
    }
}

/// Begins TLS with the collector `host`. `ca` are the CAs of its certificate.
async fn encrypted(
    stream: TcpStream,
    host: &str,
    ca: Option<&[u8]>,
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities(ca)?);
    let config = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::new(config));
    let failed = |error| format!("the TLS handshake failed: {}", plain(&error));
    connector.connect(name, stream).await.map_err(failed)
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

/// Counts the spans or lines of a batch as dropped, unless they were sent. Also if the export is
/// cancelled.
struct Batch<'a> {
    load: &'a Load,
    /// The number that is lost if nothing else is said.
    count: u64,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.load.lost(self.count);
        }
    }
}
