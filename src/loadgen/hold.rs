//! Keeps many idle keep-alive connections open, to measure how much they cost the server.
#![allow(clippy::print_stderr)] // a script waits for the line that says all are open

use std::time::Instant;

use super::Error;
use super::args::{Load, Target};
use super::client::Client;
use super::report::Report;

/// The maximum number of connections that are being opened at the same time.
const OPENING_MAX: usize = 256;

/// Opens `count` connections, sends one request on each, and keeps them open for `load.duration`.
/// Prints `holding N idle connections` on standard error when all are open.
///
/// # Errors
/// If the target cannot be reached, or if the system has no free descriptors.
pub(super) fn run(target: &Target, count: u32, load: &Load) -> Result<Report, Error> {
    let start = Instant::now();
    let mut client = Client::new(target, load, count)?;
    let mut begun = 0;
    while begun < count as usize || client.busy() > 0 {
        let now = Instant::now();
        client.sweep(now);
        while begun < count as usize && client.busy() < OPENING_MAX {
            client.begin(begun, Instant::now());
            begun += 1;
        }
        client.wait(Some(now + load.timeout))?;
    }
    client.hold();
    eprintln!("holding {} idle connections", client.open_connections());
    let end = Instant::now() + load.duration;
    while Instant::now() < end {
        client.wait(Some(end))?;
    }
    let held = client.open_connections();
    Ok(client.finish("idle", start.elapsed())?.with_held(held))
}
