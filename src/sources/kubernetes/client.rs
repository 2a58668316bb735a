//! One request to an API server: HTTP/1.1, with an answer that may go on for minutes.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::access::Access;
use crate::sources::dial::{Connection, authority, dial, encrypt};
use crate::sources::incoming::{Incoming, broken};
use crate::sources::lookup::Lookups;
use crate::sources::rpc::within;

/// The time limit for the head of an answer.
const HEAD: Duration = Duration::from_secs(15);

/// The maximum size of one object. The API server itself takes at most 3 MiB.
const OBJECT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The answer to a request. Its body is read as it arrives.
pub(super) struct Answer {
    pub(super) status: u16,
    connection: Connection,
    incoming: Incoming,
    /// How much of the data has no end of a line.
    searched: usize,
}

/// Asks for `target`.
///
/// # Errors
/// The reason why there is no answer.
pub(super) async fn ask(
    lookups: &Lookups,
    access: &Access,
    target: &str,
) -> Result<Answer, String> {
    let mut connection = within("connection", Box::pin(connect(lookups, access))).await?;
    let mut request = format!(
        "GET {}{target} HTTP/1.1\r\nhost: {}\r\nuser-agent: ringway/{}\r\n\
         accept: application/json\r\nconnection: close\r\n",
        access.path,
        authority(&access.host, access.port),
        env!("CARGO_PKG_VERSION")
    );
    if let Some(token) = &access.token {
        request.push_str(&format!("authorization: Bearer {}\r\n", token.as_str()));
    }
    request.push_str("\r\n");
    connection.write_all(request.as_bytes()).await.map_err(broken)?;
    connection.flush().await.map_err(broken)?;
    let late = |_| format!("no answer within {HEAD:?}");
    let begun = timeout(HEAD, Box::pin(Incoming::begin(&mut connection))).await;
    let incoming = begun.map_err(late)??;
    Ok(Answer { status: incoming.head.status, connection, incoming, searched: 0 })
}

async fn connect(lookups: &Lookups, access: &Access) -> Result<Connection, String> {
    let plain_text = dial(lookups, None, (&access.host, access.port)).await?;
    match &access.tls {
        None => Ok(plain_text),
        Some((config, name)) => encrypt(plain_text, config, name.clone()).await,
    }
}

impl Answer {
    /// The next line. `None` at the end. A line that takes longer than `patience` is an error.
    ///
    /// # Errors
    /// If the connection breaks off, or a line is too long.
    pub(super) async fn line(&mut self, patience: Duration) -> Result<Option<Vec<u8>>, String> {
        loop {
            let Incoming { data, is_done, .. } = &mut self.incoming;
            if let Some(at) = memchr::memchr(b'\n', &data[self.searched..]) {
                let rest = data.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(data, rest);
                self.searched = 0;
                line.pop();
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            self.searched = data.len();
            if *is_done {
                self.searched = 0;
                let rest = std::mem::take(data);
                return Ok(Some(rest).filter(|rest| !rest.iter().all(u8::is_ascii_whitespace)));
            }
            if data.len() > OBJECT_BYTES_MAX {
                return Err(format!("an object of more than {OBJECT_BYTES_MAX} bytes"));
            }
            let late = |_| format!("silence for {patience:?}");
            timeout(patience, self.incoming.more(&mut self.connection)).await.map_err(late)??;
        }
    }

    /// The whole body, of at most `max` bytes, within `patience`.
    ///
    /// # Errors
    /// If the connection breaks off, or the body is too large.
    pub(super) async fn whole(mut self, max: usize, patience: Duration) -> Result<Vec<u8>, String> {
        let reading = self.incoming.whole(&mut self.connection, max);
        let late = |_| format!("no whole answer within {patience:?}");
        timeout(patience, reading).await.map_err(late)?
    }
}
