//! Sends the body of a stream, as far as the peer's windows allow, and its trailers.

use std::cell::RefMut;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;

use super::draft::trailers;
use super::held::Held;

/// How much of a part was sent without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it, including the end.
    All,
    /// This many bytes; the peer's windows are full.
    Bytes(usize),
}

/// Sends as much of `data` as the peer's windows allow now. If `end` is given, then ends the stream
/// with these trailer lines.
pub(super) fn send_ready(
    body: Option<RefMut<'_, SendStream<Bytes>>>,
    data: &[u8],
    end: Option<&[u8]>,
) -> io::Result<Sent> {
    let mut body = body.ok_or_else(gone)?;
    let lines = end.filter(|lines| !lines.is_empty());
    let ends = end.is_some() && lines.is_none();
    if !data.is_empty() {
        body.reserve_capacity(data.len());
        let portion = &data[..body.capacity().min(data.len())];
        let last = ends && portion.len() == data.len();
        if !portion.is_empty() {
            let held = Bytes::from_owner(Held::copy_of(portion));
            body.send_data(held, last).map_err(io::Error::other)?;
        }
        match last {
            true => return Ok(Sent::All),
            false if portion.len() < data.len() => return Ok(Sent::Bytes(portion.len())),
            false => {}
        }
    }
    if let Some(lines) = lines {
        let fields = trailers(lines).map_err(io::Error::other)?;
        body.send_trailers(fields).map_err(io::Error::other)?;
    } else if ends {
        body.send_data(Bytes::new(), true).map_err(io::Error::other)?;
    }
    Ok(Sent::All)
}

/// Sends `data` as the peer's windows allow. If `end` is given, then ends the stream with these
/// trailer lines.
pub(super) async fn send_data<'a>(
    body: impl Fn() -> Option<RefMut<'a, SendStream<Bytes>>>,
    mut data: &[u8],
    end: Option<&[u8]>,
) -> io::Result<()> {
    while let Sent::Bytes(sent) = send_ready(body(), data, end)? {
        data = &data[sent..];
        poll_fn(|context| {
            let Some(mut body) = body() else { return Poll::Ready(Err(gone())) };
            poll_capacity(&mut body, context)
        })
        .await?;
    }
    Ok(())
}

/// Waits until some of the reserved capacity is available.
fn poll_capacity(body: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    while body.capacity() == 0 {
        match ready!(body.poll_capacity(context)) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            None => return Poll::Ready(Err(gone())),
        }
    }
    Poll::Ready(Ok(()))
}

/// The error for a stream that no longer exists.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
