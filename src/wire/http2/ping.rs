//! Asking a peer whether it is still there.

use std::cell::Cell;
use std::task::{Context, Poll};

use crate::runtime::io::Io;
use crate::time::Time;

/// The PINGs of one connection.
pub struct Pings(Option<h2::PingPong>);

impl Pings {
    /// With what the connection gives for it, which is once.
    pub fn new(ping: Option<h2::PingPong>) -> Self {
        Self(ping)
    }

    /// Asks.
    pub fn send(&mut self) {
        if let Some(ping) = &mut self.0 {
            // One that is still under way will do.
            ping.send_ping(h2::Ping::opaque()).ok();
        }
    }

    /// Completes with the answer, which makes room for the next PING, and tells `heard` the time of
    /// it: exactly, for what is read is only marked with a recent time.
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
