//! One connection to a member of etcd: gRPC over HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, Uri};
use pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::compile::EtcdSource;
use crate::error::plain;
use crate::grpc::rate_limit::PREFIX_BYTES;
use crate::grpc::{Code, etcd};
use crate::net::Address;
use crate::sources::lookup::Lookups;
use crate::tls::ClientTls;

/// The time limit for connecting, and for each answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// A member that sends nothing for this time is asked whether it is alive. etcd refuses peers that
/// ask more often than every 5 s.
pub(super) const ALIVE: Duration = Duration::from_secs(6);

/// The windows of flow control. A first answer may have all documents.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// A message may be larger than its documents by this factor: etcd adds keys and numbers.
const OVERHEAD: usize = 2;

/// A message may have at least this size.
const MESSAGE_BYTES_MIN: usize = 1024 * 1024;

/// A connection to a member. Dropping it closes the connection.
pub(super) struct Client {
    requests: SendRequest<Bytes>,
    pings: PingPong,
    driver: JoinHandle<()>,
    authority: String,
    scheme: &'static str,
    token: Option<String>,
    message_bytes_max: usize,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The messages of a stream.
pub(super) struct Messages {
    body: RecvStream,
    head: HeaderMap,
    read: Vec<u8>,
    bytes_max: usize,
    /// The sending side. Dropping it would cancel the stream.
    _sending: Option<SendStream<Bytes>>,
}

fn broken(error: h2::Error) -> String {
    format!("the connection broke off: {}", plain(&error))
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = || Err(format!("no {what} within {ANSWER:?}"));
    timeout(ANSWER, work).await.unwrap_or_else(|_| late())
}

impl Client {
    /// Connects to the member at `host` and `port`.
    pub(super) async fn connect(
        lookups: &Lookups,
        source: &EtcdSource,
        (host, port): (&str, u16),
    ) -> Result<Self, String> {
        within("connection", Box::pin(Self::open(lookups, source, host, port))).await
    }

    async fn open(
        lookups: &Lookups,
        source: &EtcdSource,
        host: &str,
        port: u16,
    ) -> Result<Self, String> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => lookups.all_addresses(host).await?,
        };
        let mut last = format!("{host} has no address");
        for ip in addresses {
            let address = SocketAddr::new(ip, port);
            match lookups.outward().stream(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).ok();
                    return match &source.tls {
                        None => Self::begin(stream, "http", source, (host, port)).await,
                        Some(tls) => {
                            let stream = encrypt(stream, tls, host, address).await?;
                            Self::begin(stream, "https", source, (host, port)).await
                        }
                    };
                }
                Err(error) => last = format!("cannot connect: {}", plain(&error)),
            }
        }
        Err(last)
    }

    async fn begin<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        stream: S,
        scheme: &'static str,
        source: &EtcdSource,
        (host, port): (&str, u16),
    ) -> Result<Self, String> {
        let (requests, mut connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .map_err(broken)?;
        let pings = connection.ping_pong().ok_or("no PING is possible")?;
        let driver = tokio::spawn(async move {
            connection.await.ok();
        });
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Ok(Self {
            requests,
            pings,
            driver,
            authority: format!("{host}:{port}"),
            scheme,
            token: None,
            message_bytes_max: (source.bytes_max * OVERHEAD).max(MESSAGE_BYTES_MIN),
        })
    }

    /// Exchanges the password for a token, which later requests have.
    pub(super) async fn authenticate(&mut self, user: &str, password: &str) -> Result<(), String> {
        let message = etcd::authenticate_request(user, password);
        let answer = within("answer", self.call(etcd::AUTHENTICATE, &message)).await;
        let answer = answer.map_err(|why| format!("the user {user:?} is refused: {why}"))?;
        self.token = Some(etcd::token(&answer).map_err(|_| super::NO_ETCD)?);
        Ok(())
    }

    /// Reads all keys that begin with `prefix`.
    pub(super) async fn range(&mut self, prefix: &str) -> Result<Vec<u8>, String> {
        // The answer may be large, so only its parts have a time limit.
        self.call(etcd::RANGE, &etcd::range_request(prefix.as_bytes())).await
    }

    /// Begins to watch the keys that begin with `prefix`, from the revision `start` on.
    pub(super) async fn watch(&mut self, prefix: &str, start: u64) -> Result<Messages, String> {
        let message = etcd::watch_request(prefix.as_bytes(), start);
        within("answer", self.begin_call(etcd::WATCH, &message, false)).await
    }

    /// Checks that the member is alive.
    pub(super) async fn ping(&mut self) -> Result<(), String> {
        let pong = async { self.pings.ping(Ping::opaque()).await.map(drop).map_err(broken) };
        within("answer", pong).await
    }

    async fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let mut messages = within("answer", self.begin_call(path, message, true)).await?;
        messages.next_within(ANSWER).await
    }

    async fn begin_call(
        &mut self,
        path: &str,
        message: &[u8],
        ends: bool,
    ) -> Result<Messages, String> {
        let strange = |error: http::Error| error.to_string();
        let uri = Uri::builder().scheme(self.scheme).authority(&*self.authority);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri.path_and_query(path).build().map_err(strange)?)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header(etcd::HAS_LEADER, "true");
        if let Some(token) = &self.token {
            request = request.header(etcd::TOKEN, token);
        }
        let request = request.body(()).map_err(strange)?;
        let mut requests = self.requests.clone().ready().await.map_err(broken)?;
        let (response, mut sending) = requests.send_request(request, false).map_err(broken)?;
        let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
        framed.push(0);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        sending.send_data(framed.into(), ends).map_err(broken)?;
        let response: Response<RecvStream> = response.await.map_err(broken)?;
        let (head, body) = response.into_parts();
        if head.status != 200 {
            return Err(format!("no gRPC is spoken there: status {}", head.status.as_u16()));
        }
        let (head, read) = (head.headers, Vec::new());
        let _sending = (!ends).then_some(sending);
        Ok(Messages { body, head, read, bytes_max: self.message_bytes_max, _sending })
    }
}

impl Messages {
    /// The next message. An `Err` also if the stream has ended.
    ///
    /// The caller may drop the future at any time without losing a byte.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.more().await?;
        }
    }

    /// The same, with a time limit for each part.
    async fn next_within(&mut self, limit: Duration) -> Result<Vec<u8>, String> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            let late = |_| format!("no answer within {limit:?}");
            timeout(limit, self.more()).await.map_err(late)??;
        }
    }

    /// Takes a message that was received.
    fn take(&mut self) -> Result<Option<Vec<u8>>, String> {
        let Some((prefix, _)) = self.read.split_at_checked(PREFIX_BYTES) else { return Ok(None) };
        let len = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if prefix[0] != 0 {
            return Err("the answer is compressed".to_owned());
        }
        if len > self.bytes_max {
            let max = self.bytes_max;
            return Err(format!("a message of {len} bytes; `max_bytes` allows {max} at most"));
        }
        if self.read.len() < PREFIX_BYTES + len {
            return Ok(None);
        }
        let rest = self.read.split_off(PREFIX_BYTES + len);
        let mut message = std::mem::replace(&mut self.read, rest);
        message.drain(..PREFIX_BYTES);
        Ok(Some(message))
    }

    /// Receives more bytes.
    async fn more(&mut self) -> Result<(), String> {
        match self.body.data().await {
            Some(data) => {
                let data = data.map_err(broken)?;
                self.body.flow_control().release_capacity(data.len()).map_err(broken)?;
                self.read.extend_from_slice(&data);
                Ok(())
            }
            None => {
                let trailers = self.body.trailers().await.map_err(broken)?.unwrap_or_default();
                Err(ended(&trailers, &self.head))
            }
        }
    }
}

/// Why a stream has ended.
fn ended(trailers: &HeaderMap, head: &HeaderMap) -> String {
    let field = |name| trailers.get(name).or_else(|| head.get(name));
    let code = field("grpc-status").map(|value| Code::from_value(value.as_bytes()));
    let message = field("grpc-message").and_then(|value| value.to_str().ok());
    match (code, message) {
        (Some(Code::OK) | None, _) => "the member has ended the stream".to_owned(),
        (Some(code), Some(message)) => format!("{}: {}", code.name(), plain(&message)),
        (Some(code), None) => code.name().to_owned(),
    }
}

async fn encrypt<S: AsyncRead + AsyncWrite + Send + Unpin>(
    stream: S,
    tls: &ClientTls,
    host: &str,
    address: SocketAddr,
) -> Result<tokio_rustls::client::TlsStream<S>, String> {
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name @ ServerName::DnsName(_)) if tls.name.is_none() => name,
        _ => tls.name_for(&Address::Tcp(address)),
    };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let connecting = connector.connect(name, stream);
    connecting.await.map_err(|error| format!("the TLS handshake failed: {}", plain(&error)))
}
