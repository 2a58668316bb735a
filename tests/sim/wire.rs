//! A simulated connection for clients and endpoints. It has its own HTTP reader, so that the
//! proxy's parser does not judge the proxy's output.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use ringway::net::{Address, Egress};
use ringway::runtime::io::{Io, Quiet, Read, Stream};
use ringway::runtime::sim::{SimIo, SimStream};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Ended,
    Reset,
}

/// A connection and the bytes read from it.
pub struct Wire {
    io: SimIo,
    stream: SimStream,
    read: Vec<u8>,
}

/// The address in `text`.
pub fn address(text: &str) -> Address {
    Address::Tcp(text.parse().unwrap())
}

/// Serves connections to `at` while the world exists.
pub fn accept<F>(io: &SimIo, at: &str, serve: impl Fn(SimStream) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let (listener, io) = (io.listen(&address(at)), io.clone());
    io.clone().spawn(async move {
        loop {
            let stream = listener.accept().await;
            io.spawn(serve(stream));
        }
    });
}

impl Wire {
    pub fn new(io: &SimIo, stream: SimStream) -> Self {
        Self { io: io.clone(), stream, read: Vec::new() }
    }

    pub async fn connect(io: &SimIo, to: &str) -> std::io::Result<Self> {
        Ok(Self::new(io, io.connect(&address(to), Egress::default()).await?))
    }

    /// Splits the connection into a sender and a reader.
    pub fn split(&mut self) -> (Sender<'_>, Reader<'_>) {
        let Self { io, stream, read } = self;
        (Sender { io, stream }, Reader { io, stream, read })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        self.split().0.send(bytes).await
    }

    pub fn reader(&mut self) -> Reader<'_> {
        self.split().1
    }

    /// Whether the connection is open and there is nothing to read.
    pub fn is_quiet(&self) -> bool {
        self.read.is_empty() && self.stream.quiet() == Quiet::Quiet
    }

    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    pub async fn finish(&self) {
        self.stream.shutdown_write().await;
    }
}

/// The sending half.
pub struct Sender<'a> {
    io: &'a SimIo,
    stream: &'a SimStream,
}

impl Sender<'_> {
    pub async fn send(&self, bytes: &[u8]) -> Result<(), Cut> {
        for part in bytes.chunks(30_000) {
            let mut buf = self.io.buffers().take();
            buf.append(part);
            if self.stream.write_all(buf).await.0.is_err() {
                return Err(Cut::Reset);
            }
        }
        Ok(())
    }
}

/// The reading half.
pub struct Reader<'a> {
    io: &'a SimIo,
    stream: &'a SimStream,
    read: &'a mut Vec<u8>,
}

/// A head, as lines.
#[derive(Debug)]
pub struct Head {
    pub first: String,
    fields: Vec<(String, String)>,
}

impl Head {
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let first = found.next();
        assert!(found.next().is_none(), "{name} twice: {self:?}");
        first.map(|(_, value)| &**value)
    }

    pub fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line")
    }

    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Reader<'_> {
    async fn more(&mut self) -> Result<(), Cut> {
        match self.stream.read(self.io.buffers().take()).await {
            (Ok(Read::Data(_)), buf) => {
                self.read.extend_from_slice(buf.data());
                Ok(())
            }
            (Ok(_), _) => Err(Cut::Ended),
            (Err(_), _) => Err(Cut::Reset),
        }
    }

    /// Waits for the first byte.
    pub async fn first_byte(&mut self) -> Result<(), Cut> {
        if self.read.is_empty() { self.more().await } else { Ok(()) }
    }

    async fn line(&mut self) -> Result<String, Cut> {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Ok(String::from_utf8(line[..end].to_vec()).expect("text"));
            }
            self.more().await?;
        }
    }

    pub async fn head(&mut self) -> Result<Head, Cut> {
        let first = self.line().await?;
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Head { first, fields });
            }
            let (name, value) = line.split_once(':').expect("a field line");
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    pub async fn exactly(&mut self, n: usize) -> Result<Vec<u8>, Cut> {
        while self.read.len() < n {
            self.more().await?;
        }
        Ok(self.read.drain(..n).collect())
    }

    pub async fn chunked(&mut self) -> Result<Vec<u8>, Cut> {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).expect("a chunk size");
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.exactly(size).await?);
            assert_eq!(self.line().await?, "", "a chunk ends with its line");
        }
    }

    /// Reads all bytes until the connection ends. Returns them, and how the connection ended.
    pub async fn rest(&mut self) -> (Vec<u8>, Cut) {
        loop {
            if let Err(cut) = self.more().await {
                return (std::mem::take(self.read), cut);
            }
        }
    }

    /// The body that `head` announces. `until_close` says whether a message without a length has a
    /// body that ends with the connection.
    pub async fn body(&mut self, head: &Head, until_close: bool) -> Result<Vec<u8>, Cut> {
        match (head.field("transfer-encoding"), head.field("content-length")) {
            (Some(_), Some(_)) => panic!("two framings: {head:?}"),
            (Some(coding), None) => {
                assert_eq!(coding, "chunked");
                self.chunked().await
            }
            (None, Some(length)) => self.exactly(length.parse().expect("a length")).await,
            (None, None) if until_close => match self.rest().await {
                (body, Cut::Ended) => Ok(body),
                (_, Cut::Reset) => Err(Cut::Reset),
            },
            (None, None) => Ok(Vec::new()),
        }
    }
}

/// Runs both futures, and returns the result of `main`. If `beside` still runs then, it is dropped.
pub async fn beside<T>(main: impl Future<Output = T>, beside: impl Future) -> T {
    let (mut main, mut beside) = (pin!(main), pin!(beside));
    let mut runs = true;
    poll_fn(|context| {
        if runs && beside.as_mut().poll(context).is_ready() {
            runs = false;
        }
        match main.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
