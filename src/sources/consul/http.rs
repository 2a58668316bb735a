//! One connection to an agent of Consul: HTTP/1.1, one request at a time.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::compile::ConsulSource;
use crate::sources::dial::{Connection, authority, dial};
use crate::sources::incoming::{Incoming, broken};
use crate::sources::lookup::Lookups;
use crate::sources::rpc::within;

/// The maximum size of an answer.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

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
        let request = format!("GET {target} HTTP/1.1\r\n{}\r\n", self.fields);
        self.connection.write_all(request.as_bytes()).await.map_err(broken)?;
        self.connection.flush().await.map_err(broken)?;
        let mut incoming = Incoming::begin(&mut self.connection).await?;
        let view = incoming.head.view(&incoming.block);
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.trim().parse().ok();
        let mut answer = Answer {
            status: incoming.head.status,
            index: view.value(b"x-consul-index").and_then(number),
            is_filtered: view.value(b"x-consul-results-filtered-by-acls") == Some(b"true"),
            body: Vec::new(),
        };
        answer.body = incoming.whole(&mut self.connection, ANSWER_BYTES_MAX).await?;
        self.is_open = incoming.keep_alive;
        Ok(answer)
    }
}
