//! Serves the DNS queries of the workload, on the control thread.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::dns::DnsPlan;
use crate::dns::{Answer, Directory, answer, failure, is_refusal};
use crate::error::plain;
use crate::sources::lookup::{Lookups, Via, read_message, write_message};
use crate::telemetry::status::Status;

/// The maximum number of concurrent queries and connections. Further ones are dropped, and the
/// client may retry.
pub const QUERIES_MAX: usize = 512;

/// The idle timeout of a client's TCP connection.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of a UDP query.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The DNS resolver for the workload. It may be off.
pub struct Resolver {
    shared: Arc<Shared>,
    serving: Option<(SocketAddr, [JoinHandle<()>; 2])>,
}

struct Shared {
    directory: Mutex<Arc<Directory>>,
    status: Status,
    room: Arc<Semaphore>,
    lookups: Lookups,
}

impl Resolver {
    /// Creates a resolver that is off. `status` counts the results of queries. `lookups` forwards
    /// the queries that the resolver cannot answer itself.
    pub fn new(status: Status, lookups: Lookups) -> Self {
        let shared = Shared {
            directory: Mutex::default(),
            status,
            room: Arc::new(Semaphore::new(QUERIES_MAX)),
            lookups,
        };
        Self { shared: Arc::new(shared), serving: None }
    }

    /// Applies `plan`: the address to listen on, and the names to answer.
    ///
    /// # Errors
    /// If the address cannot be bound. The resolver then keeps its previous address.
    pub async fn serve(&mut self, plan: DnsPlan) -> Result<(), String> {
        let DnsPlan { bind: address, directory, .. } = plan;
        *lock(&self.shared.directory) = Arc::new(directory);
        if self.serving.as_ref().map(|(address, _)| *address) == address {
            return Ok(());
        }
        let Some(address) = address else {
            self.stop();
            return Ok(());
        };
        let refused = |error: io::Error| {
            format!(
                "the resolver cannot listen on {address}: {}; change mesh.dns.bind",
                plain(&error)
            )
        };
        let datagrams = UdpSocket::bind(address).await.map_err(refused)?;
        let connections = TcpListener::bind(address).await.map_err(refused)?;
        self.stop();
        self.shared.lookups.set_own(Some(address));
        let datagrams = tokio::spawn(serve_udp(Arc::clone(&self.shared), Arc::new(datagrams)));
        let connections = tokio::spawn(serve_tcp(Arc::clone(&self.shared), connections));
        self.serving = Some((address, [datagrams, connections]));
        tracing::info!(%address, "DNS resolver is listening");
        Ok(())
    }

    fn stop(&mut self) {
        self.shared.lookups.set_own(None);
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
        // The error concerns only one datagram: for example, its client has closed its socket.
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
            tokio::time::sleep(Duration::from_millis(50)).await; // no free descriptors: wait
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

/// Serves the queries of one TCP connection, one after the other (RFC 7766 6.2.1).
async fn converse(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let query = timeout(TCP_IDLE_TIMEOUT, read_message(&mut stream)).await??;
        let Some(reply) = shared.reply(&query, Via::Tcp).await else { return Ok(()) };
        write_message(&mut stream, &reply).await?;
    }
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
            Answer::Elsewhere => {
                let reply = self.lookups.ask(query, via).await.ok();
                let queries = &mut self.status.known().queries;
                match reply.as_deref().is_some_and(|reply| !is_refusal(reply)) {
                    true => queries.elsewhere += 1,
                    false => queries.failed += 1,
                }
                reply.or_else(|| failure(query))
            }
        }
    }
}
