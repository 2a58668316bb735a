//! Sends a message to an HTTP server, on a thread that may block.

use std::io::Read as _;
use std::time::Duration;

use super::fetch::{self, Fetcher};

/// The maximum size of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Sends `body` to `url` with POST. `ca` are the CAs of its certificate as PEM; the default is
/// those of the system. Returns the status and the body of the answer. Blocks the
/// thread, for at most `limit`.
///
/// # Errors
/// If there is no answer.
pub fn post(
    fetcher: &Fetcher,
    (url, ca): (&str, Option<&[u8]>),
    content_type: &str,
    body: &[u8],
    limit: Duration,
) -> Result<(u16, Vec<u8>), String> {
    let tls = fetch::tls(url, ca)?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .user_agent(concat!("ringway/", env!("CARGO_PKG_VERSION")))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .tls_config(tls)
        .build();
    let request = fetcher.agent(config).post(url).header("content-type", content_type);
    let mut answer = request.send(body).map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let mut bytes = Vec::new();
    let mut reader = answer.body_mut().as_reader().take(ANSWER_BYTES_MAX);
    reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok((status, bytes))
}
