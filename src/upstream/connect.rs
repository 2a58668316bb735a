//! Opens a connection to an endpoint.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::limited::ConnectionSlot;
use super::pool::{EndpointState, Upstream};
use crate::net::Egress;
use crate::runtime::io::Io;
use crate::wire::Wire;

/// The reason why a connection could not be opened.
#[derive(Debug)]
pub enum ConnectError {
    /// The connect timeout has passed.
    Timeout,
    /// The endpoint or the system refused the connection.
    Failed(io::Error),
}

/// Opens a connection to `endpoint` within `timeout`. `taken` is its slot in the circuit breaker.
///
/// # Errors
/// See [`ConnectError`]. The failure is counted for the endpoint.
pub async fn connect<I: Io>(
    io: &I,
    endpoint: &Rc<EndpointState<Wire<I::Stream>>>,
    egress: Egress,
    timeout: Duration,
    taken: Option<ConnectionSlot>,
) -> Result<Upstream<Wire<I::Stream>>, ConnectError> {
    let alarm = io.alarms().alarm();
    alarm.set(io.now() + timeout);
    let config = Arc::clone(&endpoint.config.borrow());
    let result = match alarm.guard(io.connect(&config.address, egress)).await {
        Ok(Ok(stream)) => return Ok(endpoint.opened(Wire::Plain(stream), alarm, taken)),
        Ok(Err(error)) => ConnectError::Failed(error),
        Err(_) => ConnectError::Timeout,
    };
    endpoint.cells().connect_failures.increment();
    Err(result)
}
