//! Sends the HTTP/1.1 request of a health check, on a connection of its own.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::probe::{Failed, Link, broken, farewell};
use crate::health::Reason;

/// The maximum size of a response head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The maximum number of field lines in a response head.
const FIELDS_MAX: usize = 100;

/// The value of `user-agent` in health checks.
pub const USER_AGENT: &str = concat!("ringway-health-check/", env!("CARGO_PKG_VERSION"));

/// Sends a request, and returns the status of the final response.
///
/// # Errors
/// If there is no valid response.
pub async fn status(mut link: Link, method: &str, host: &str, path: &str) -> Result<u16, Failed> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {USER_AGENT}\r\n\
         connection: close\r\n\r\n"
    );
    link.stream.write_all(request.as_bytes()).await.map_err(broken)?;
    link.stream.flush().await.map_err(broken)?;
    let mut head = Vec::with_capacity(1024);
    loop {
        if let Some(status) = final_status(&mut head)? {
            farewell(link);
            return Ok(status);
        }
        if head.len() >= HEAD_BYTES_MAX {
            return Err(Failed::new(Reason::Broken, "the answer's head is too large"));
        }
        if link.stream.read_buf(&mut head).await.map_err(broken)? == 0 {
            return Err(broken("it was closed before there was an answer"));
        }
    }
}

/// The status of the final response, if its head is complete. Removes interim (1xx) responses.
fn final_status(head: &mut Vec<u8>) -> Result<Option<u16>, Failed> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let length = match response.parse(head) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => {
                let message = format!("the answer is not valid HTTP/1.1: {error}");
                return Err(Failed::new(Reason::Broken, message));
            }
        };
        match response.code {
            Some(100 | 102..=199) => drop(head.drain(..length)),
            status => return Ok(status),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_final_status_counts() {
        for (head, status) in [
            ("", Ok(None)),
            ("HTTP/1.1 200 OK\r\n", Ok(None)),
            ("HTTP/1.1 200 OK\r\n\r\n", Ok(Some(200))),
            ("HTTP/1.0 503 no\r\nx: y\r\n\r\nbody", Ok(Some(503))),
            ("HTTP/1.1 103 Early Hints\r\n\r\n", Ok(None)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
                Ok(Some(204)),
            ),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Ok(Some(101))),
            ("SSH-2.0-OpenSSH_9.2\r\n", Err(Reason::Broken)),
        ] {
            let found = final_status(&mut head.as_bytes().to_vec());
            assert_eq!(found.map_err(|failed| failed.reason), status, "{head:?}");
        }
    }
}
