//! A client of the admin interface.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

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
    reader: BufReader<Stream>,
}

/// A connection.
enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Stream {
    #[allow(clippy::disallowed_methods)] // a command may block on DNS
    fn connect(admin: &Admin) -> io::Result<Self> {
        if let Some(path) = admin.address.strip_prefix("unix:") {
            return Ok(Self::Unix(UnixStream::connect(path)?));
        }
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in admin.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => return Self::encrypted(admin, stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn encrypted(admin: &Admin, stream: TcpStream) -> io::Result<Self> {
        let Some(tls) = &admin.tls else { return Ok(Self::Tcp(stream)) };
        let host = admin.address.rsplit_once(':').map_or(&*admin.address, |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, stream))))
    }

    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(limit),
            Self::Tls(stream) => stream.sock.set_read_timeout(limit),
            Self::Unix(stream) => stream.set_read_timeout(limit),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

/// Asks for the page `path`, which has no characters to escape.
pub(super) fn get(admin: &Admin, path: &str) -> Result<Answer, String> {
    let address = &admin.address;
    let failed = |error: io::Error| {
        let error = plain(&error);
        format!(
            "cannot ask the proxy at {address}: {error}; name its admin address with --admin \
             ADDRESS, or its configuration with -c DIR"
        )
    };
    let mut stream = Stream::connect(admin).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let host = if address.starts_with("unix:") { "localhost" } else { address };
    // An answer to HTTP/1.0 has no chunks: it ends with the connection.
    let token = admin.token.iter().map(|token| format!("Authorization: Bearer {token}\r\n"));
    let fields = token.collect::<String>();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).and_then(|()| stream.flush()).map_err(failed)?;
    let mut reader = BufReader::new(stream);
    let mut head = reader.by_ref().take(HEAD_MAX);
    let mut line = Vec::new();
    head.read_until(b'\n', &mut line).map_err(failed)?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let status = line.split(' ').nth(1).and_then(|status| status.trim().parse().ok());
    // The beginning of a record of TLS: an alert.
    let help = match line.as_bytes() {
        [0x15, 0x03, ..] => "; it speaks TLS: name the CA of its certificate with --ca FILE",
        _ => "",
    };
    let strange = format!("{address} is not the admin interface of Ringway{help}");
    let status = status.filter(|_| line.starts_with("HTTP/1.")).ok_or(strange)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        if head.read_until(b'\n', &mut line).map_err(failed)? == 0 || line.trim_ascii().is_empty() {
            break;
        }
    }
    match status {
        401 => {
            let help = "name the file with its token with --token FILE, or its configuration";
            Err(format!("the proxy at {address} demands a token; {help} with -c DIR"))
        }
        403 => {
            let help = "name it with --cert FILE --key FILE";
            Err(format!("the proxy at {address} demands a certificate of this client; {help}"))
        }
        _ => Ok(Answer { status, reader }),
    }
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
