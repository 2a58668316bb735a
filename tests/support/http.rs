//! A plain HTTP/1.1 client that shows the exact bytes of the response.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One response as it was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// The head, without the empty line.
    pub head: String,
    /// The body; chunked bodies without their chunks.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub trailers: String,
}

impl Response {
    /// The value of a field, by name without case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }
}

/// A connection that stays open between requests.
pub struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    /// Connects to a loopback port.
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to the proxy");
        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Uses an existing connection.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// The next head, without its body. Returns `None` when none arrives.
    pub fn head(&mut self) -> Option<String> {
        let mut block = [0; 4096];
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.read.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            match super::read_once(&mut self.stream, &mut block) {
                Ok(n @ 1..) => self.read.extend_from_slice(&block[..n]),
                _ => return None,
            }
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        // The proxy may have refused and closed already. Its answer can still be read.
        self.stream.write_all(bytes.as_ref()).ok();
        self
    }

    /// Shuts down the sending side.
    pub fn finish(&mut self) -> &mut Self {
        self.stream.shutdown(std::net::Shutdown::Write).ok();
        self
    }

    /// The next response. Panics when the connection ends before the response is complete.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response(false).expect("a whole response")
    }

    /// The next response to a HEAD request.
    #[track_caller]
    pub fn head_response(&mut self) -> Response {
        self.try_response(true).expect("a whole response head")
    }

    /// The next response. The error has the received bytes when the connection ended before the
    /// response was complete.
    pub fn try_response(&mut self, is_head: bool) -> Result<Response, Vec<u8>> {
        let end = self.read_until(b"\r\n\r\n")?;
        let head: Vec<u8> = self.read.drain(..end).collect();
        let head = String::from_utf8_lossy(&head[..end - 4]).into_owned();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_default();
        let mut response = Response { status, head, ..Response::default() };
        if is_head || status / 100 == 1 || status == 204 || status == 304 {
            return Ok(response);
        }
        if response.field("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked"))
        {
            self.read_chunks(&mut response)?;
        } else if let Some(length) = response.field("content-length") {
            let length = length.parse().expect("a number");
            self.read_at_least(length)?;
            response.body = self.read.drain(..length).collect();
        } else {
            self.stream.read_to_end(&mut self.read).map_err(|_| self.read.clone())?;
            response.body = std::mem::take(&mut self.read);
        }
        Ok(response)
    }

    fn read_chunks(&mut self, response: &mut Response) -> Result<(), Vec<u8>> {
        loop {
            let end = self.read_until(b"\r\n")?;
            let line: Vec<u8> = self.read.drain(..end).collect();
            let line = String::from_utf8_lossy(&line);
            let size = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).expect("a chunk size");
            if size == 0 {
                break;
            }
            self.read_at_least(size + 2)?;
            response.body.extend(self.read.drain(..size));
            self.read.drain(..2);
        }
        loop {
            let end = self.read_until(b"\r\n")?;
            let line: Vec<u8> = self.read.drain(..end).collect();
            if end == 2 {
                return Ok(());
            }
            response.trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    /// Sends a request and returns its response.
    #[track_caller]
    pub fn request(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).response()
    }

    /// GET on a kept-alive connection.
    #[track_caller]
    pub fn get(&mut self, host: &str, target: &str) -> Response {
        self.request(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// All bytes until the peer closes or resets the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        self.stream.read_to_end(&mut self.read).ok();
        std::mem::take(&mut self.read)
    }

    /// Whether the peer closes within `time` without sending any more bytes.
    pub fn closes_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let read = super::read_once(&mut self.stream, &mut byte);
        self.stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
        let closed = match &read {
            Ok(n) => *n == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        };
        if !closed {
            eprintln!("no close, but: {read:?}, {byte:?}");
        }
        closed
    }

    /// The next `n` bytes as they are.
    pub fn exactly(&mut self, n: usize) -> Result<Vec<u8>, Vec<u8>> {
        self.read_at_least(n)?;
        Ok(self.read.drain(..n).collect())
    }

    /// The socket, for operations that this client does not have.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read_until(&mut self, mark: &[u8]) -> Result<usize, Vec<u8>> {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|w| w == mark) {
                return Ok(at + mark.len());
            }
            self.read_more()?;
        }
    }

    fn read_at_least(&mut self, n: usize) -> Result<(), Vec<u8>> {
        while self.read.len() < n {
            self.read_more()?;
        }
        Ok(())
    }

    fn read_more(&mut self) -> Result<(), Vec<u8>> {
        let mut portion = [0; 65536];
        match super::read_once(&mut self.stream, &mut portion) {
            Ok(n) if n > 0 => {
                self.read.extend_from_slice(&portion[..n]);
                Ok(())
            }
            _ => Err(std::mem::take(&mut self.read)),
        }
    }
}
