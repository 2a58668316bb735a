//! A gRPC client for the control thread: HTTP/2 over any connection.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response, Uri};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::dial::Connection;
use crate::error::plain;
use crate::grpc::Code;
use crate::grpc::rate_limit::PREFIX_BYTES;

/// The time limit for each answer.
pub(super) const ANSWER: Duration = Duration::from_secs(5);

/// The rest of a longer message of a status is left out.
const WHY_CHARS_MAX: usize = 500;

/// The windows of flow control. A first answer may be large.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

/// A connection to a server. Dropping it closes the connection.
pub(super) struct RpcClient {
    requests: SendRequest<Bytes>,
    pings: PingPong,
    driver: JoinHandle<()>,
    server: Server,
}

/// The terms of a connection.
pub(super) struct Server {
    /// The scheme of requests: `http` or `https`.
    pub scheme: &'static str,
    /// The authority of requests.
    pub authority: String,
    /// Metadata of all requests.
    pub metadata: Vec<(&'static str, String)>,
    /// The maximum size of a message from the server.
    pub message_bytes_max: usize,
    /// The setting with this maximum, for the message about a larger one.
    pub setting: &'static str,
}

impl Drop for RpcClient {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The messages of a stream.
pub(super) struct Messages {
    answer: Answer,
    head: HeaderMap,
    read: Vec<u8>,
    bytes_max: usize,
    setting: &'static str,
    /// The sending side. Dropping it would cancel the stream.
    sending: SendStream<Bytes>,
}

/// The answer of the server.
enum Answer {
    Awaited(ResponseFuture),
    Begun(RecvStream),
}

/// Why there is no further message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The status that the server has sent. `None` if the connection broke off.
    pub code: Option<Code>,
    /// A sentence.
    pub why: String,
}

impl From<Ended> for String {
    fn from(ended: Ended) -> Self {
        ended.why
    }
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self { code: None, why }
    }
}

fn broken(error: h2::Error) -> String {
    format!("the connection broke off: {}", plain(&error))
}

/// Runs `work` with the time limit of an answer.
pub(super) async fn within<T, E: From<String>>(
    what: &str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let late = || Err(format!("no {what} within {ANSWER:?}").into());
    timeout(ANSWER, work).await.unwrap_or_else(|_| late())
}

impl RpcClient {
    /// Begins to speak HTTP/2 on `connection`.
    pub(super) async fn begin(connection: Connection, server: Server) -> Result<Self, String> {
        let (requests, mut connection) = client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(connection)
            .await
            .map_err(broken)?;
        let pings = connection.ping_pong().ok_or("no PING is possible")?;
        let driver = tokio::spawn(async move {
            connection.await.ok();
        });
        Ok(Self { requests, pings, driver, server })
    }

    /// Adds metadata to later requests.
    pub(super) fn add_metadata(&mut self, name: &'static str, value: String) {
        self.server.metadata.push((name, value));
    }

    /// Checks that the server is alive.
    pub(super) async fn ping(&mut self) -> Result<(), String> {
        let pong = async { self.pings.ping(Ping::opaque()).await.map(drop).map_err(broken) };
        within("answer", pong).await
    }

    /// Sends one message and returns the first one of the answer.
    pub(super) async fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, String> {
        let mut messages = within("answer", self.begin_call(path, message, true)).await?;
        messages.next_within(ANSWER).await.map_err(Into::into)
    }

    /// Sends one message and returns the stream of answers. `ends` ends our side of the stream.
    pub(super) async fn begin_call(
        &mut self,
        path: &str,
        message: &[u8],
        ends: bool,
    ) -> Result<Messages, String> {
        let mut messages = self.open(path).await?;
        messages.send(message, ends)?;
        messages.begun().await?;
        Ok(messages)
    }

    /// Opens a stream without a message. Some servers begin their answer only with its first
    /// message, so this does not wait for it.
    pub(super) async fn open(&mut self, path: &str) -> Result<Messages, String> {
        let strange = |error: http::Error| error.to_string();
        let uri = Uri::builder().scheme(self.server.scheme).authority(&*self.server.authority);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri.path_and_query(path).build().map_err(strange)?)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in &self.server.metadata {
            request = request.header(*name, value);
        }
        let request = request.body(()).map_err(strange)?;
        let mut requests = self.requests.clone().ready().await.map_err(broken)?;
        let (response, sending) = requests.send_request(request, false).map_err(broken)?;
        Ok(Messages {
            answer: Answer::Awaited(response),
            head: HeaderMap::new(),
            read: Vec::new(),
            bytes_max: self.server.message_bytes_max,
            setting: self.server.setting,
            sending,
        })
    }
}

impl Messages {
    /// Sends a message. It waits in memory while the window of the server has no room. `ends` ends
    /// our side of the stream.
    pub(super) fn send(&mut self, message: &[u8], ends: bool) -> Result<(), String> {
        let mut framed = Vec::with_capacity(PREFIX_BYTES + message.len());
        framed.push(0);
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        self.sending.send_data(framed.into(), ends).map_err(broken)
    }

    /// Whether everything that was sent fits into the window of the server, with room for more.
    pub(super) fn has_room(&mut self) -> bool {
        self.sending.reserve_capacity(1);
        self.sending.capacity() > 0
    }

    /// Waits until `has_room`.
    pub(super) async fn room(&mut self) -> Result<(), String> {
        self.sending.reserve_capacity(1);
        match poll_fn(|context| self.sending.poll_capacity(context)).await {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(broken(error)),
            None => Err("the stream is closed".to_owned()),
        }
    }

    /// Waits for the head of the answer.
    async fn begun(&mut self) -> Result<&mut RecvStream, String> {
        if let Answer::Awaited(response) = &mut self.answer {
            let response: Response<RecvStream> = response.await.map_err(broken)?;
            let (head, body) = response.into_parts();
            if head.status != 200 {
                return Err(format!("no gRPC is spoken there: status {}", head.status.as_u16()));
            }
            (self.head, self.answer) = (head.headers, Answer::Begun(body));
        }
        match &mut self.answer {
            Answer::Begun(body) => Ok(body),
            Answer::Awaited(_) => Err("there is no answer".to_owned()),
        }
    }

    /// The next message. An `Err` also if the stream has ended.
    ///
    /// The caller may drop the future at any time without losing a byte.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Ended> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.more().await?;
        }
    }

    /// The same, with a time limit for each part.
    pub(super) async fn next_within(&mut self, limit: Duration) -> Result<Vec<u8>, Ended> {
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
            let (max, setting) = (self.bytes_max, self.setting);
            return Err(format!("a message of {len} bytes; {setting} allows {max} at most"));
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
    async fn more(&mut self) -> Result<(), Ended> {
        let body = self.begun().await?;
        match body.data().await {
            Some(data) => {
                let data = data.map_err(broken)?;
                body.flow_control().release_capacity(data.len()).map_err(broken)?;
                self.read.extend_from_slice(&data);
                Ok(())
            }
            None => {
                let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
                Err(ended(&trailers, &self.head))
            }
        }
    }
}

/// Why a stream has ended.
fn ended(trailers: &HeaderMap, head: &HeaderMap) -> Ended {
    let field = |name| trailers.get(name).or_else(|| head.get(name));
    let code = field("grpc-status").map(|value| Code::from_value(value.as_bytes()));
    let message = field("grpc-message").and_then(|value| value.to_str().ok());
    let why = match (code, message) {
        (Some(Code::OK) | None, _) => "the server has ended the stream".to_owned(),
        (Some(code), Some(message)) => {
            let message: String = message.chars().take(WHY_CHARS_MAX).collect();
            format!("{}: {}", code.name(), plain(&message))
        }
        (Some(code), None) => code.name().to_owned(),
    };
    Ended { code, why }
}
