//! Reads the answer of a server of HTTP/1.1.

use tokio::io::AsyncReadExt as _;

use super::dial::Connection;
use crate::error::{Refusal, plain};
use crate::http1::chunked::Decoder;
use crate::http1::framing::{self, Body};
use crate::http1::parse::{self, Progress};
use crate::message::{Head, Limits, Method};

/// The space for each read.
const READ_BYTES: usize = 16 * 1024;

/// An answer to GET. Its body is read as it arrives.
pub(super) struct Incoming {
    /// The head, whose bytes are in `block`.
    pub(super) head: Head,
    pub(super) block: Vec<u8>,
    /// Whether the connection may have another request when the body has ended.
    pub(super) keep_alive: bool,
    /// The data of the body that nobody has taken yet.
    pub(super) data: Vec<u8>,
    /// Whether the body has ended.
    pub(super) is_done: bool,
    body: Body,
    /// The rest of a body with a length.
    left: u64,
    decoder: Decoder,
    limits: Limits,
    /// The bytes that were read, as they came.
    raw: Vec<u8>,
}

impl Incoming {
    /// Reads the head, and the beginning of the body that comes with it.
    ///
    /// # Errors
    /// If the connection breaks off, or this is no answer.
    pub(super) async fn begin(connection: &mut Connection) -> Result<Self, String> {
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
        // A body may go on for minutes.
        block.shrink_to_fit();
        let mut incoming = Self {
            head,
            block,
            keep_alive: framing.keep_alive && framing.body != Body::UntilClose,
            data: Vec::new(),
            is_done: false,
            body: framing.body,
            left,
            decoder: Decoder::default(),
            limits,
            raw,
        };
        incoming.decode()?;
        Ok(incoming)
    }

    /// The whole body, of about `max` bytes at most.
    ///
    /// # Errors
    /// If the connection breaks off, or the body is too large.
    pub(super) async fn whole(
        &mut self,
        connection: &mut Connection,
        max: usize,
    ) -> Result<Vec<u8>, String> {
        while !self.is_done {
            if self.data.len() > max {
                return Err(format!("an answer of more than {max} bytes"));
            }
            self.more(connection).await?;
        }
        Ok(std::mem::take(&mut self.data))
    }

    /// Reads more of the body.
    ///
    /// # Errors
    /// If the connection breaks off.
    pub(super) async fn more(&mut self, connection: &mut Connection) -> Result<(), String> {
        self.raw.reserve(READ_BYTES);
        match connection.read_buf(&mut self.raw).await.map_err(broken)? {
            0 if self.body == Body::UntilClose => self.is_done = true,
            0 => return Err("the answer is cut off".to_owned()),
            _ => self.decode()?,
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

/// The reason why a connection is lost.
pub(super) fn broken(error: std::io::Error) -> String {
    format!("the connection broke off: {}", plain(&error))
}
