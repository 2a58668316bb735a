//! A client of the admin interface.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::Admin;
use crate::error::plain;

/// How long a connection to the admin interface may take, and how long a page may need.
const PATIENCE: Duration = Duration::from_secs(10);

/// The maximum length of the head of an answer, in bytes.
const HEAD_MAX: u64 = 64 * 1024;

/// An answer of the admin interface.
pub(super) struct Answer {
    /// The status.
    pub(super) status: u16,
    reader: BufReader<TcpStream>,
}

/// Asks for the page `path`, which has no characters to escape.
pub(super) fn get(admin: &Admin, path: &str) -> Result<Answer, String> {
    let address = admin.address;
    let failed = |error: std::io::Error| {
        let error = plain(&error);
        format!(
            "cannot ask the proxy at {address}: {error}; name its admin address with --admin \
             ADDRESS, or its configuration with -c DIR"
        )
    };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    // An answer to HTTP/1.0 has no chunks: it ends with the connection.
    let token = admin.token.iter().map(|token| format!("Authorization: Bearer {token}\r\n"));
    let fields = token.collect::<String>();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut head = reader.by_ref().take(HEAD_MAX);
    let mut line = String::new();
    head.read_line(&mut line).map_err(failed)?;
    let status = line.split(' ').nth(1).and_then(|status| status.trim().parse().ok());
    let strange = format!("{address} is not the admin interface of Ringway");
    let status = status.filter(|_| line.starts_with("HTTP/1.")).ok_or(strange)?;
    loop {
        line.clear();
        if head.read_line(&mut line).map_err(failed)? == 0 || line.trim_end().is_empty() {
            break;
        }
    }
    if status == 401 {
        let help = "name the file with its token with --token FILE, or its configuration with -c";
        return Err(format!("the proxy at {address} demands a token; {help} DIR"));
    }
    Ok(Answer { status, reader })
}

impl Answer {
    /// The whole text.
    pub(super) fn text(mut self) -> Result<String, String> {
        let mut text = String::new();
        self.reader.read_to_string(&mut text).map_err(|error| plain(&error))?;
        Ok(text)
    }

    /// The next line, whenever it comes. `None` means that the proxy has ended the answer.
    pub(super) fn line(&mut self) -> Result<Option<String>, String> {
        self.reader.get_ref().set_read_timeout(None).map_err(|error| plain(&error))?;
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).map_err(|error| plain(&error))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        Ok(Some(line).filter(|line| !line.is_empty()))
    }
}

/// Escapes a value of a query.
pub(super) fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
