//! One request to an API server: HTTP/1.1, with an answer that may go on for minutes.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::access::Access;
use crate::error::{Refusal, plain};
use crate::http1::chunked::Decoder;
use crate::http1::framing::{self, Body};
use crate::http1::parse::{self, Progress};
use crate::message::{Head, Limits, Method};
use crate::sources::dial::{Connection, authority, dial};
use crate::sources::lookup::Lookups;
use crate::sources::rpc::within;

/// The time limit for the head of an answer.
const HEAD: Duration = Duration::from_secs(15);

/// The maximum size of one object. The API server itself takes at most 3 MiB.
const OBJECT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The space for each read.
const READ_BYTES: usize = 16 * 1024;

/// The answer to a request. Its body is read as it arrives.
pub(super) struct Answer {
    pub(super) status: u16,
    connection: Connection,
    body: Body,
    /// The rest of a body with a length.
    left: u64,
    decoder: Decoder,
    limits: Limits,
    /// The bytes that were read, as they came.
    raw: Vec<u8>,
    /// The data that is not returned yet.
    data: Vec<u8>,
    /// How much of `data` has no end of a line.
    searched: usize,
    is_done: bool,
}

/// A request with a body: its method, the type of the body, and the body.
pub(super) struct Sent<'a> {
    pub(super) method: &'static str,
    pub(super) kind: &'static str,
    pub(super) body: &'a [u8],
}

/// Asks for `target`, or sends something to it.
///
/// # Errors
/// The reason why there is no answer.
pub(super) async fn ask(
    lookups: &Lookups,
    access: &Access,
    target: &str,
    sent: Option<Sent<'_>>,
) -> Result<Answer, String> {
    let broken = |error: std::io::Error| format!("the connection broke off: {}", plain(&error));
    let mut connection = within("connection", Box::pin(connect(lookups, access))).await?;
    let method = sent.as_ref().map_or("GET", |sent| sent.method);
    let mut request = format!(
        "{method} {}{target} HTTP/1.1\r\nhost: {}\r\nuser-agent: ringway/{}\r\n\
         accept: application/json\r\nconnection: close\r\n",
        access.path,
        authority(&access.host, access.port),
        env!("CARGO_PKG_VERSION")
    );
    if let Some(token) = &access.token {
        request.push_str(&format!("authorization: Bearer {}\r\n", token.as_str()));
    }
    if let Some(Sent { kind, body, .. }) = &sent {
        let length = body.len();
        request.push_str(&format!("content-type: {kind}\r\ncontent-length: {length}\r\n"));
    }
    request.push_str("\r\n");
    connection.write_all(request.as_bytes()).await.map_err(broken)?;
    if let Some(sent) = sent {
        connection.write_all(sent.body).await.map_err(broken)?;
    }
    connection.flush().await.map_err(broken)?;
    let late = |_| format!("no answer within {HEAD:?}");
    timeout(HEAD, Box::pin(head(connection))).await.map_err(late)?
}

async fn connect(lookups: &Lookups, access: &Access) -> Result<Connection, String> {
    let plain_text = dial(lookups, None, (&access.host, access.port)).await?;
    let Some((config, name)) = &access.tls else { return Ok(plain_text) };
    let connector = TlsConnector::from(config.clone());
    match connector.connect(name.clone(), plain_text).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(format!("the TLS handshake failed: {}", plain(&error))),
    }
}

async fn head(mut connection: Connection) -> Result<Answer, String> {
    let broken = |error: std::io::Error| format!("the connection broke off: {}", plain(&error));
    let wrong = |refusal: Refusal| refusal.detail.to_owned();
    let (limits, mut head, mut block) = (Limits::default(), Head::default(), Vec::new());
    loop {
        let progress = parse::response(&block, 0..block.len(), &limits, &mut head);
        if !block.is_empty() && progress.map_err(wrong)? != Progress::Partial {
            break;
        }
        head.clear();
        block.reserve(READ_BYTES);
        if connection.read_buf(&mut block).await.map_err(broken)? == 0 {
            return Err("the connection was closed before the answer".to_owned());
        }
    }
    let framing = framing::response(head.view(&block), Method::Get, false).map_err(wrong)?;
    let left = match framing.body {
        Body::Length(length) => length,
        _ => 0,
    };
    let raw = block.split_off(head.len);
    let mut answer = Answer {
        status: head.status,
        connection,
        body: framing.body,
        left,
        decoder: Decoder::default(),
        limits,
        raw,
        data: Vec::new(),
        searched: 0,
        is_done: false,
    };
    answer.decode()?;
    Ok(answer)
}

impl Answer {
    /// The next line. `None` at the end. A line that takes longer than `patience` is an error.
    ///
    /// # Errors
    /// If the connection breaks off, or a line is too long.
    pub(super) async fn line(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, String> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.data[self.searched..]) {
                let rest = self.data.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.data, rest);
                self.searched = 0;
                line.pop();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = self.data.len();
            if self.is_done {
                self.searched = 0;
                let rest = std::mem::take(&mut self.data);
                return Ok(Some(rest).filter(|rest| !rest.iter().all(u8::is_ascii_whitespace)));
            }
            if self.data.len() > OBJECT_BYTES_MAX {
                return Err(format!("an object of more than {OBJECT_BYTES_MAX} bytes"));
            }
            let late = |_| format!("silence for {patience:?}");
            timeout(patience, self.more()).await.map_err(late)??;
        }
    }

    /// The whole body, of at most `max` bytes, within `patience`.
    ///
    /// # Errors
    /// If the connection breaks off, or the body is too large.
    pub(super) async fn whole(mut self, max: usize, patience: Duration) -> Result<Vec<u8>, String> {
        let reading = async {
            while !self.is_done {
                if self.data.len() > max {
                    return Err(format!("an answer of more than {max} bytes"));
                }
                self.more().await?;
            }
            Ok(std::mem::take(&mut self.data))
        };
        let late = |_| format!("no whole answer within {patience:?}");
        timeout(patience, reading).await.map_err(late)?
    }

    async fn more(&mut self) -> Result<(), String> {
        self.raw.reserve(READ_BYTES);
        match self.connection.read_buf(&mut self.raw).await {
            Ok(0) if self.body == Body::UntilClose => self.is_done = true,
            Ok(0) => return Err("the answer is cut off".to_owned()),
            Ok(_) => self.decode()?,
            Err(error) => return Err(format!("the connection broke off: {}", plain(&error))),
        }
        Ok(())
    }

    /// Moves what was read to the data.
    fn decode(&mut self) -> Result<(), String> {
        match self.body {
            Body::Chunked => {
                let decoded = self.decoder.decode_data(&mut self.raw, &self.limits);
                let (step, kept) = decoded.map_err(|refusal| refusal.detail.to_owned())?;
                self.data.extend_from_slice(&self.raw[..kept]);
                self.raw.clear();
                self.is_done = step.done;
            }
            Body::Length(_) => {
                self.left = self.left.saturating_sub(self.raw.len() as u64);
                self.data.append(&mut self.raw);
                self.is_done = self.left == 0;
            }
            Body::UntilClose => self.data.append(&mut self.raw),
            Body::None | Body::Stream { .. } => self.is_done = true,
        }
        Ok(())
    }
}
