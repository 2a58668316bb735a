//! An origin that follows a test's script exactly, even if no real server would behave this way.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Requests that are larger than this are recorded without their body.
const KEPT_BYTES_MAX: usize = 4 << 20;

/// A listening origin. Each connection runs the test's function on its own thread.
pub struct Origin {
    /// The port.
    pub port: u16,
    accepted: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<String>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// One accepted connection.
pub struct Peer {
    /// The socket.
    pub stream: TcpStream,
    requests: Arc<Mutex<Vec<String>>>,
    read: Vec<u8>,
}

impl Origin {
    /// Runs `serve` for each connection.
    pub fn scripted(serve: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let listener = super::free_listener();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let serve = Arc::new(serve);
        let thread = std::thread::spawn({
            let (accepted, requests, stopping) =
                (accepted.clone(), requests.clone(), stopping.clone());
            move || {
                for stream in listener.incoming() {
                    if stopping.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    accepted.fetch_add(1, Ordering::SeqCst);
                    let (serve, requests) = (serve.clone(), requests.clone());
                    std::thread::spawn(move || {
                        stream.set_read_timeout(Some(super::PATIENCE)).unwrap();
                        serve(&mut Peer { stream, requests, read: Vec::new() });
                    });
                }
            }
        });
        Self { port, accepted, requests, stopping, thread: Some(thread) }
    }

    /// Answers every request with `body` and keeps the connection open.
    pub fn saying(body: &str) -> Self {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        Self::scripted(move |peer| {
            while peer.request().is_some() {
                peer.send(&response);
            }
        })
    }

    /// Answers every request with the request's own body.
    pub fn echoing() -> Self {
        Self::scripted(|peer| {
            while let Some(request) = peer.request() {
                let body = request.split_once("\r\n\r\n").map_or("", |(_, body)| body);
                let length = body.len();
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"));
            }
        })
    }

    /// Its address for the configuration.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The heads (and bodies) of the requests read so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Wake the accepting thread.
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], self.port))).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Peer {
    /// The next request, head and body. Returns `None` when the proxy has closed the connection.
    pub fn request(&mut self) -> Option<String> {
        let head_end = loop {
            if let Some(at) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                break at + 4;
            }
            self.more()?;
        };
        let head = String::from_utf8_lossy(&self.read[..head_end]).into_owned();
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length:"));
        let end = if lower.contains("transfer-encoding: chunked") {
            self.chunks_end(head_end)?
        } else {
            let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
            while self.read.len() < head_end + length {
                self.more()?;
            }
            head_end + length
        };
        // `drain` would copy a large body byte by byte in a debug build.
        let rest = self.read.split_off(end);
        let request = std::mem::replace(&mut self.read, rest);
        let request = String::from_utf8_lossy(&request).into_owned();
        let kept = if request.len() > KEPT_BYTES_MAX { head } else { request.clone() };
        self.requests.lock().unwrap().push(kept);
        Some(request)
    }

    /// The end of the chunks and trailers that begin at `start`.
    fn chunks_end(&mut self, start: usize) -> Option<usize> {
        let mut at = start;
        loop {
            let line = self.line_end(at)?;
            let size = std::str::from_utf8(&self.read[at..line - 2]).ok()?;
            let size = usize::from_str_radix(size.split(';').next()?.trim_end(), 16).ok()?;
            at = line;
            if size == 0 {
                break;
            }
            at += size + 2;
            while self.read.len() < at {
                self.more()?;
            }
        }
        loop {
            let line = self.line_end(at)?;
            if line == at + 2 {
                return Some(line);
            }
            at = line;
        }
    }

    /// The end of the line that begins at `at`.
    fn line_end(&mut self, at: usize) -> Option<usize> {
        loop {
            if let Some(end) = self.read[at..].windows(2).position(|w| w == b"\r\n") {
                return Some(at + end + 2);
            }
            self.more()?;
        }
    }

    /// Sends bytes. If the proxy has closed the connection, the origin does not fail.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).ok();
    }

    /// The next bytes as they arrive. Returns `None` when the proxy has closed the connection.
    pub fn portion(&mut self) -> Option<Vec<u8>> {
        if self.read.is_empty() {
            self.more()?;
        }
        Some(std::mem::take(&mut self.read))
    }

    /// Waits until the proxy closes. Returns the bytes before that.
    pub fn until_closed(&mut self) -> Vec<u8> {
        while self.more().is_some() {}
        std::mem::take(&mut self.read)
    }

    /// Makes the next close a reset (RST).
    pub fn reset(&mut self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).ok();
    }

    fn more(&mut self) -> Option<()> {
        let mut portion = [0; 65536];
        match super::read_once(&mut self.stream, &mut portion) {
            Ok(n) if n > 0 => {
                self.read.extend_from_slice(&portion[..n]);
                Some(())
            }
            _ => None,
        }
    }
}
