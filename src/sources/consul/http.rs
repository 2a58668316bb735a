//! One connection to an agent of Consul: HTTP/1.1, one request at a time.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::compile::ConsulSource;
use crate::error::plain;
use crate::http1::chunked::Decoder;
use crate::http1::framing::{self, Body};
use crate::http1::parse::{self, Progress};
use crate::message::{Head, Limits, Method};
use crate::sources::dial::{Connection, authority, dial};
use crate::sources::lookup::Lookups;
use crate::sources::rpc::within;

/// The maximum size of an answer.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// The space for each read.
const READ_BYTES: usize = 16 * 1024;

/// An answer of the agent.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The index of the state. `None` if it is missing or no number.
    pub(super) index: Option<u64>,
    /// Whether the token may not read a part of the state.
    pub(super) is_filtered: bool,
    pub(super) body: Vec<u8>,
}

/// A connection.
pub(super) struct Client {
    connection: Connection,
    fields: String,
    is_open: bool,
}

impl Client {
    /// Connects to the agent of `source`.
    pub(super) async fn connect(lookups: &Lookups, source: &ConsulSource) -> Result<Self, String> {
        let (host, port) = &source.server;
        let dialling = dial(lookups, source.tls.as_ref(), (host, *port));
        let connection = within("connection", Box::pin(dialling)).await?;
        let mut fields = format!(
            "host: {}\r\nuser-agent: ringway/{}\r\n",
            authority(host, *port),
            env!("CARGO_PKG_VERSION")
        );
        if let Some(token) = &source.token {
            fields.push_str(&format!("x-consul-token: {}\r\n", token.as_str()));
        }
        Ok(Self { connection, fields, is_open: true })
    }

    /// Whether the connection may have another request.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Asks for `target`. The answer has the time `limit`.
    pub(super) async fn get(&mut self, target: &str, limit: Duration) -> Result<Answer, String> {
        self.is_open = false;
        let late = |_| format!("no answer within {limit:?}");
        timeout(limit, self.exchange(target)).await.map_err(late)?
    }

    async fn exchange(&mut self, target: &str) -> Result<Answer, String> {
        let broken = |error: std::io::Error| format!("the connection broke off: {}", plain(&error));
        let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", self.fields);
        self.connection.write_all(request.as_bytes()).await.map_err(broken)?;
        self.connection.flush().await.map_err(broken)?;
        let (limits, mut head, mut block) = (Limits::default(), Head::default(), Vec::new());
        let wrong = |refusal: crate::error::Refusal| refusal.detail.to_owned();
        loop {
            let progress = parse::response(&block, 0..block.len(), &limits, &mut head);
            if !block.is_empty() && progress.map_err(wrong)? != Progress::Partial {
                break;
            }
            head.clear();
            block.reserve(READ_BYTES);
            if self.connection.read_buf(&mut block).await.map_err(broken)? == 0 {
                return Err("the connection was closed before the answer".to_owned());
            }
        }
        let view = head.view(&block);
        let framing = framing::response(view, Method::Get, false).map_err(wrong)?;
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse().ok();
        let mut answer = Answer {
            status: head.status,
            index: view.value(b"x-consul-index").and_then(number),
            is_filtered: view.value(b"x-consul-results-filtered-by-acls") == Some(b"true"),
            body: Vec::new(),
        };
        let rest = block.split_off(head.len);
        answer.body = self.body(framing.body, rest, &limits).await?;
        self.is_open = framing.keep_alive && framing.body != Body::UntilClose;
        Ok(answer)
    }

    /// Reads the body, whose first bytes are `part`.
    async fn body(
        &mut self,
        framing: Body,
        mut part: Vec<u8>,
        limits: &Limits,
    ) -> Result<Vec<u8>, String> {
        let (mut body, mut decoder) = (Vec::new(), Decoder::default());
        loop {
            let done = match framing {
                Body::Chunked => {
                    let decoded = decoder.decode_data(&mut part, limits);
                    let (step, kept) = decoded.map_err(|refusal| refusal.detail.to_owned())?;
                    body.extend_from_slice(&part[..kept]);
                    step.done
                }
                Body::Length(length) => {
                    body.append(&mut part);
                    body.len() as u64 >= length
                }
                Body::UntilClose => {
                    body.append(&mut part);
                    false
                }
                Body::None | Body::Stream { .. } => true,
            };
            if done {
                return Ok(body);
            }
            if body.len() > ANSWER_BYTES_MAX {
                return Err(format!("an answer of more than {ANSWER_BYTES_MAX} bytes"));
            }
            part.clear();
            part.reserve(READ_BYTES);
            match self.connection.read_buf(&mut part).await {
                Ok(0) if framing == Body::UntilClose => return Ok(body),
                Ok(0) => return Err("the answer is cut off".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("the connection broke off: {}", plain(&error))),
            }
        }
    }
}
