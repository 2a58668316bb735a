//! Finds the end of a response in the received bytes. An HTTP/1.1 response ends by its framing; an
//! echo ends after a number of bytes.

use crate::error::Refusal;
use crate::http1::chunked::Decoder;
use crate::http1::framing::{self, Body};
use crate::http1::parse::{self, Progress};
use crate::message::Limits;
use crate::message::{Head, Method};

/// The result of processing received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// More bytes are needed.
    More,
    /// The response is complete.
    Done {
        /// The status; 0 for an echo.
        status: u16,
        /// Whether the connection may carry another request.
        keep_alive: bool,
    },
}

/// The state of the response that a connection waits for. The next response uses it again.
#[derive(Debug, Default)]
pub struct Answer {
    state: State,
    /// The part of the head that was received so far, if the head does not arrive in one piece.
    partial: Vec<u8>,
    head: Head,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Echo {
        left: usize,
    },
    Body {
        status: u16,
        keep_alive: bool,
        rest: Rest,
    },
}

#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Decoder),
    UntilClose,
}

impl Answer {
    /// Begins to wait for an HTTP response.
    pub fn expect_http1(&mut self) {
        self.partial.clear();
        self.head.clear();
        self.state = State::Head;
    }

    /// Begins to wait for an echo of `bytes` bytes.
    pub fn expect_echo(&mut self, bytes: usize) {
        self.state = State::Echo { left: bytes };
    }

    /// The number of next bytes that only need to be counted. They are not copied from the kernel.
    pub fn discardable(&self) -> usize {
        match &self.state {
            State::Body { rest: Rest::Length(left), .. } => {
                usize::try_from(*left).unwrap_or(usize::MAX)
            }
            State::Body { rest: Rest::UntilClose, .. } => usize::MAX,
            _ => 0,
        }
    }

    /// Counts bytes that were not copied: see [`Answer::discardable`].
    ///
    /// # Errors
    /// If the bytes are not discardable.
    pub fn discard(&mut self, count: usize) -> Result<Step, Refusal> {
        let State::Body { status, keep_alive, rest } = &mut self.state else {
            return Err(TOO_MUCH);
        };
        match rest {
            Rest::UntilClose => Ok(Step::More),
            Rest::Length(left) => {
                *left = left.checked_sub(count as u64).ok_or(TOO_MUCH)?;
                let done = Step::Done { status: *status, keep_alive: *keep_alive };
                Ok(if *left == 0 { done } else { Step::More })
            }
            Rest::Chunked(_) => Err(TOO_MUCH),
        }
    }

    /// Processes received bytes. They were copied into `bytes`.
    ///
    /// # Errors
    /// If they do not belong to exactly one valid response.
    pub fn take(&mut self, bytes: &[u8], limits: &Limits) -> Result<Step, Refusal> {
        match &mut self.state {
            State::Head if self.partial.is_empty() => self.take_head(bytes, limits),
            State::Head => {
                let mut block = std::mem::take(&mut self.partial);
                block.extend_from_slice(bytes);
                self.take_head(&block, limits)
            }
            State::Echo { left } => {
                *left = left.checked_sub(bytes.len()).ok_or(TOO_MUCH)?;
                let done = Step::Done { status: 0, keep_alive: true };
                Ok(if *left == 0 { done } else { Step::More })
            }
            State::Body { status, keep_alive, rest: Rest::Chunked(decoder) } => {
                let step = decoder.decode(bytes, limits)?;
                let done = Step::Done { status: *status, keep_alive: *keep_alive };
                match step.done {
                    false => Ok(Step::More),
                    true if step.consumed == bytes.len() => Ok(done),
                    true => Err(TOO_MUCH),
                }
            }
            State::Body { .. } => self.discard(bytes.len()),
        }
    }

    /// Handles the end of the connection. Returns `None` if the response is incomplete. Only a
    /// response without a length may end with the connection.
    pub fn end(&self) -> Option<Step> {
        match &self.state {
            State::Body { status, rest: Rest::UntilClose, .. } => {
                Some(Step::Done { status: *status, keep_alive: false })
            }
            _ => None,
        }
    }

    fn take_head(&mut self, mut block: &[u8], limits: &Limits) -> Result<Step, Refusal> {
        loop {
            if parse::response(block, 0..block.len(), limits, &mut self.head)? == Progress::Partial
            {
                self.partial = block.to_vec();
                return Ok(Step::More);
            }
            let status = self.head.status;
            let framing = framing::response(self.head.view(block), Method::Get, false)?;
            block = &block[self.head.len..];
            if status < 200 {
                self.head.clear();
                continue; // an interim response; the final one follows
            }
            let keep_alive = framing.keep_alive;
            let rest = match framing.body {
                Body::None if block.is_empty() => return Ok(Step::Done { status, keep_alive }),
                Body::None => return Err(TOO_MUCH),
                Body::Length(length) => Rest::Length(length),
                Body::Chunked => Rest::Chunked(Decoder::default()),
                Body::UntilClose | Body::Stream { .. } => Rest::UntilClose,
            };
            self.state = State::Body { status, keep_alive, rest };
            return if block.is_empty() { Ok(Step::More) } else { self.take(block, limits) };
        }
    }
}

const TOO_MUCH: Refusal = Refusal::upstream("more bytes than one answer");

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks `bytes` in parts of every size. The result must not depend on the size.
    fn check(bytes: &str, expect: Result<Step, &str>) {
        for size in 1..=bytes.len() {
            let mut answer = Answer::default();
            answer.expect_http1();
            let mut last = Ok(Step::More);
            for part in bytes.as_bytes().chunks(size) {
                last = answer.take(part, &Limits::default());
                if last.is_err() {
                    break;
                }
            }
            let last = match last {
                Ok(Step::More) => Ok(answer.end().unwrap_or(Step::More)),
                other => other.map_err(|refusal| refusal.detail),
            };
            assert_eq!(last, expect, "in parts of {size}: {bytes:?}");
        }
    }

    const OK: Result<Step, &str> = Ok(Step::Done { status: 200, keep_alive: true });

    #[test]
    fn the_end_of_a_response_is_found() {
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", OK);
        check("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", OK);
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", OK);
        check("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", OK);
        check("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell", Ok(Step::More));
        let closes = |status| Ok(Step::Done { status, keep_alive: false });
        check("HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", closes(503));
        check("HTTP/1.1 200 OK\r\n\r\nuntil the end", closes(200));
    }

    #[test]
    fn what_is_not_one_answer_is_an_error() {
        let too_much = Err(TOO_MUCH.detail);
        let mut answer = Answer::default();
        answer.expect_http1();
        let twice = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(answer.take(twice, &Limits::default()).map_err(|r| r.detail), too_much);
        answer.expect_echo(3);
        assert_eq!(answer.take(b"abcd", &Limits::default()).map_err(|r| r.detail), too_much);
        check("SMTP ready\r\n\r\n", Err("the response is not valid HTTP/1"));
    }

    #[test]
    fn a_body_of_known_length_need_not_be_copied() {
        let mut answer = Answer::default();
        answer.expect_http1();
        assert_eq!(answer.discardable(), 0);
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n123";
        assert_eq!(answer.take(head, &Limits::default()).ok(), Some(Step::More));
        assert_eq!(answer.discardable(), 7);
        assert_eq!(answer.discard(6).ok(), Some(Step::More));
        let done = Step::Done { status: 200, keep_alive: true };
        assert_eq!(answer.discard(1).ok(), Some(done));
    }
}
