//! The sockets of the DNS resolver, on the control thread.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::system_conf::read_system_conf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::dns::DnsPlan;
use crate::dns::{Answer, Directory, answer, failure};
use crate::net::Egress;
use crate::runtime::datagram::towards;
use crate::telemetry::status::Status;

/// The maximum number of queries and connections at once. Further ones are dropped, and the client
/// tries again.
pub const QUERIES_MAX: usize = 512;

/// Time limit for one system resolver before the next one is tried.
pub const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a TCP connection of a client may be idle.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest forwarded UDP message.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The port of DNS.
const PORT: u16 = 53;

/// The DNS resolver. It may be off.
pub struct Resolver {
    shared: Arc<Shared>,
    serving: Option<(SocketAddr, [JoinHandle<()>; 2])>,
}

struct Shared {
    directory: Mutex<Arc<Directory>>,
    status: Status,
    room: Arc<Semaphore>,
    own: Mutex<Option<SocketAddr>>,
    mark: AtomicU32,
}

impl Resolver {
    /// Creates a resolver that is off. `status` counts the results of queries.
    pub fn new(status: Status) -> Self {
        let shared = Shared {
            directory: Mutex::default(),
            status,
            room: Arc::new(Semaphore::new(QUERIES_MAX)),
            own: Mutex::default(),
            mark: AtomicU32::default(),
        };
        Self { shared: Arc::new(shared), serving: None }
    }

    /// Applies `plan`.
    ///
    /// # Errors
    /// When the address cannot be bound. The resolver then stays on the old address.
    pub async fn serve(&mut self, plan: DnsPlan) -> Result<(), String> {
        let DnsPlan { bind: address, directory, mark } = plan;
        *lock(&self.shared.directory) = Arc::new(directory);
        self.shared.mark.store(mark, Ordering::Relaxed);
        if self.serving.as_ref().map(|(address, _)| *address) == address {
            return Ok(());
        }
        let Some(address) = address else {
            self.stop();
            return Ok(());
        };
        let refused = |error: io::Error| {
            format!("the resolver cannot listen on {address}: {error}; change mesh.dns.bind")
        };
        let datagrams = UdpSocket::bind(address).await.map_err(refused)?;
        let connections = TcpListener::bind(address).await.map_err(refused)?;
        self.stop();
        *lock(&self.shared.own) = Some(address);
        let datagrams = tokio::spawn(serve_udp(Arc::clone(&self.shared), Arc::new(datagrams)));
        let connections = tokio::spawn(serve_tcp(Arc::clone(&self.shared), connections));
        self.serving = Some((address, [datagrams, connections]));
        tracing::info!(%address, "DNS resolver is listening");
        Ok(())
    }

    fn stop(&mut self) {
        for task in self.serving.take().into_iter().flat_map(|(_, tasks)| tasks) {
            task.abort();
        }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut block = vec![0; MESSAGE_BYTES_MAX];
    loop {
        // The error concerns only one datagram, for example of a client that has left.
        let Ok((len, client)) = socket.recv_from(&mut block).await else { continue };
        let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
            shared.status.known().queries.dropped += 1;
            continue;
        };
        let (query, shared) = (block[..len].to_vec(), Arc::clone(&shared));
        let socket = Arc::clone(&socket);
        tokio::spawn(async move {
            if let Some(reply) = shared.reply(&query, Via::Udp).await {
                socket.send_to(&reply, client).await.ok();
            }
            drop(permit);
        });
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // no free descriptors
            continue;
        };
        let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
            shared.status.known().queries.dropped += 1;
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            converse(&shared, stream).await.ok();
            drop(permit);
        });
    }
}

/// Serves the queries of one connection (RFC 7766 6.2.1).
async fn converse(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let query = timeout(TCP_IDLE_TIMEOUT, read_message(&mut stream)).await??;
        let Some(reply) = shared.reply(&query, Via::Tcp).await else { return Ok(()) };
        write_message(&mut stream, &reply).await?;
    }
}

/// Reads a message after its length prefix (RFC 1035 4.2.2).
async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}

/// The transport of a query. The forwarded query uses the same transport.
#[derive(Clone, Copy)]
enum Via {
    Udp,
    Tcp,
}

impl Shared {
    async fn reply(&self, query: &[u8], via: Via) -> Option<Vec<u8>> {
        let directory = Arc::clone(&lock(&self.directory));
        match answer(query, &directory) {
            Answer::Here(reply) => {
                self.status.known().queries.here += 1;
                Some(reply)
            }
            Answer::Nothing => {
                self.status.known().queries.dropped += 1;
                None
            }
            Answer::Elsewhere => match self.ask_others(query, via).await {
                Some(reply) => {
                    self.status.known().queries.elsewhere += 1;
                    Some(reply)
                }
                None => {
                    self.status.known().queries.failed += 1;
                    failure(query)
                }
            },
        }
    }

    /// Forwards a query. Returns the first answer of a system resolver.
    async fn ask_others(&self, query: &[u8], via: Via) -> Option<Vec<u8>> {
        let (config, _) = read_system_conf().ok()?;
        let (own, mark) = (*lock(&self.own), self.mark.load(Ordering::Relaxed));
        for server in config.name_servers() {
            let server = SocketAddr::new(server.ip, PORT);
            if own == Some(server) {
                continue; // it is this resolver
            }
            let asked = async {
                match via {
                    Via::Udp => over_udp(server, query, mark).await,
                    Via::Tcp => over_tcp(server, query, mark).await,
                }
            };
            if let Ok(Ok(reply)) = timeout(UPSTREAM_TIMEOUT, asked).await {
                return Some(reply);
            }
        }
        None
    }
}

async fn over_udp(server: SocketAddr, query: &[u8], mark: u32) -> io::Result<Vec<u8>> {
    let (socket, _) = towards(server, Egress { mark, source: None })?;
    let socket = UdpSocket::from_std(socket.into())?;
    socket.send(query).await?;
    let mut block = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let len = socket.recv(&mut block).await?;
        // The id shows whether the answer belongs to the query.
        if block[..len].get(..2) == query.get(..2) {
            return Ok(block[..len].to_vec());
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8], mark: u32) -> io::Result<Vec<u8>> {
    let socket = match server {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // Without the capability to set a mark, the rules recognise the proxy by its user only.
    socket2::SockRef::from(&socket).set_mark(mark).ok();
    let mut stream = socket.connect(server).await?;
    write_message(&mut stream, query).await?;
    read_message(&mut stream).await
}
