//! HTTP/2 PINGs, which check whether the peer is still alive.

use std::cell::Cell;
use std::task::{Context, Poll};

use crate::runtime::io::Io;
use crate::time::Time;

/// The PINGs of one connection.
pub struct Pings(Option<h2::PingPong>);

impl Pings {
    /// Takes the handle that the connection gives out once.
    pub fn new(ping: Option<h2::PingPong>) -> Self {
        Self(ping)
    }

    /// Sends a PING, unless one is in flight already.
    pub fn send(&mut self) {
        if let Some(ping) = &mut self.0 {
            // The crate refuses a second PING in flight. The first one is enough.
            ping.send_ping(h2::Ping::opaque()).ok();
        }
    }

    /// Completes when the answer arrives; then the next PING may be sent. Stores the exact time in
    /// `heard`. Ordinary reads store a time that may be slightly old.
    pub fn poll_answer<I: Io>(
        &mut self,
        context: &mut Context<'_>,
        io: &I,
        heard: &Cell<Time>,
    ) -> Poll<()> {
        let Some(ping) = &mut self.0 else { return Poll::Pending };
        match ping.poll_pong(context) {
            Poll::Ready(Ok(_)) => {
                heard.set(io.now());
                Poll::Ready(())
            }
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }
}
