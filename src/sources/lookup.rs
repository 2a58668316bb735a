//! Looks up names with the DNS servers of the system, and reads the files that configure them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::outward::Outward;
use crate::dns::{Family, Found, Response, SystemSettings, is_refusal, query, response};
use crate::error::plain;
use crate::file;

/// The file that lists the DNS servers of the system.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The file with the addresses of names for which no DNS server is needed.
const HOSTS: &str = "/etc/hosts";

/// The file with the name of this host.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// The maximum size of these files.
const SYSTEM_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The time after which the next server is asked, too, if a server has not answered.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// The maximum number of concurrent queries of this process itself. Further queries wait.
pub const QUERIES_MAX: usize = 256;

/// The maximum size of a UDP response.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The transport of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Looks up names. Clones share all state.
#[derive(Clone)]
pub struct Lookups(Arc<Shared>);

struct Shared {
    outward: Outward,
    files: Mutex<Files>,
    own: Mutex<Option<SocketAddr>>,
    turns: Semaphore,
}

/// The state of the two system files, and the settings that they contained when they were last
/// read.
#[derive(Default)]
struct Files {
    seen: [Option<Signature>; 2],
    settings: Option<Arc<SystemSettings>>,
}

/// The metadata of a file, to detect changes: device, inode, length, mtime and ctime. If a bind
/// mount in a container changes, the device and the inode change.
type Signature = (u64, u64, u64, i64, i64, i64, i64);

impl Lookups {
    /// Creates lookups that open their sockets with `outward`.
    pub fn new(outward: Outward) -> Self {
        let turns = Semaphore::new(QUERIES_MAX);
        Self(Arc::new(Shared { outward, files: Mutex::default(), own: Mutex::default(), turns }))
    }

    /// Sets the address of this process's own resolver. Lookups skip this server: otherwise the
    /// process would send its queries to itself.
    pub fn set_own(&self, address: Option<SocketAddr>) {
        *lock(&self.0.own) = address;
    }

    /// The factory of the sockets that lookups use.
    pub fn outward(&self) -> &Outward {
        &self.0.outward
    }

    /// The current DNS settings of the system. Reads the files again if they have changed. A file
    /// that cannot be read counts as empty.
    pub fn settings(&self) -> Arc<SystemSettings> {
        let mut files = lock(&self.0.files);
        let signatures = [RESOLV_CONF, HOSTS].map(signature);
        if let Some(settings) = files.settings.as_ref().filter(|_| files.seen == signatures) {
            return Arc::clone(settings);
        }
        let text = |path| file::read(Path::new(path), SYSTEM_FILE_BYTES_MAX).unwrap_or_default();
        let text = |path| String::from_utf8_lossy(&text(path)).into_owned();
        let read = SystemSettings::parse(&text(RESOLV_CONF), &text(HOSTS), text(HOSTNAME).trim());
        files.seen = signatures;
        let same = files.settings.take().filter(|known| **known == read);
        let settings = same.unwrap_or_else(|| {
            let servers = &read.servers;
            match servers.is_empty() {
                true => tracing::warn!(
                    "/etc/resolv.conf lists no DNS server; DNS lookups fail until it lists one"
                ),
                false => tracing::info!(?servers, "using the DNS servers of /etc/resolv.conf"),
            }
            Arc::new(read)
        });
        files.settings = Some(Arc::clone(&settings));
        settings
    }

    /// Looks up the addresses of `host`, which is a name without a port.
    pub async fn addresses(&self, host: &str, family: Family) -> Found {
        let settings = self.settings();
        let listed = settings.addresses(host, family);
        if !listed.is_empty() {
            return Found::Addresses(listed, Duration::MAX);
        }
        let mut failure = None;
        for name in settings.candidates(host) {
            match self.ask_for(&settings, &name, family).await {
                Ok(Response::Addresses(list, valid_s)) => {
                    return Found::Addresses(list, Duration::from_secs(valid_s.into()));
                }
                Ok(Response::Failed(why)) | Err(why) => failure = Some(why),
                Ok(Response::None | Response::Truncated) => {}
            }
        }
        failure.map_or(Found::None, Found::Failed)
    }

    /// Looks up all addresses of `host`. Addresses to which this host has no route come last. Among
    /// the others, IPv6 addresses come first (RFC 6724).
    ///
    /// # Errors
    /// The reason why no address was found.
    pub async fn all_addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let [ipv4, ipv6] = Family::ALL.map(|family| self.addresses(host, family));
        let (ipv4, ipv6) = tokio::join!(ipv4, ipv6);
        let (mut list, mut failure) = (Vec::new(), "the name does not exist".to_owned());
        for found in [ipv6, ipv4] {
            match found {
                Found::Addresses(some, _) => list.extend(some),
                Found::None => {}
                Found::Failed(why) => failure = why,
            }
        }
        list.sort_by_key(|ip| !self.0.outward.has_route(*ip));
        if list.is_empty() { Err(failure) } else { Ok(list) }
    }

    async fn ask_for(
        &self,
        settings: &SystemSettings,
        name: &str,
        family: Family,
    ) -> Result<Response, String> {
        let asked = query(fastrand::u16(..), name, family);
        let asked = asked.ok_or_else(|| format!("{name:?} is not a DNS name"))?;
        let _turn = self.0.turns.acquire().await.map_err(|error| error.to_string())?;
        for via in [Via::Udp, Via::Tcp] {
            let bytes = self.ask_any(settings, &asked, via).await?;
            match response(&bytes, &asked, family) {
                Response::Truncated if via == Via::Udp => {}
                said => return Ok(said),
            }
        }
        Ok(Response::Failed("the response over TCP is truncated, too".to_owned()))
    }

    /// Sends the query `asked` to the servers of the system, in their order, until one answers. If
    /// a server refuses the query (such as with SERVFAIL) or does not answer, the next one is
    /// asked. If no server answers, but one has refused, its refusal is returned.
    ///
    /// # Errors
    /// The reason why no server has answered or refused.
    pub async fn ask(&self, asked: &[u8], via: Via) -> Result<Vec<u8>, String> {
        self.ask_any(&self.settings(), asked, via).await
    }

    async fn ask_any(
        &self,
        settings: &SystemSettings,
        asked: &[u8],
        via: Via,
    ) -> Result<Vec<u8>, String> {
        let own = *lock(&self.0.own);
        let mut servers = settings.servers.clone();
        servers.retain(|server| Some(*server) != own);
        let mut tries = servers.repeat(settings.attempts).into_iter();
        let asked: Arc<[u8]> = asked.into();
        let mut running = JoinSet::new();
        let (mut refusal, mut failure) = (None, NO_SERVER.to_owned());
        loop {
            let next = tries.next();
            let patience = next.map_or(settings.timeout, |_| SLOW_AFTER.min(settings.timeout));
            match next {
                Some(server) => {
                    let (outward, asked) = (self.0.outward.clone(), Arc::clone(&asked));
                    let limit = settings.timeout;
                    running.spawn(async move {
                        let said = timeout(limit, exchange(&outward, server, &asked, via)).await;
                        let said = said.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                        said.map_err(|error| format!("{server}: {}", plain(&error)))
                    });
                }
                None if running.is_empty() => return refusal.ok_or(failure),
                None => {}
            }
            match timeout(patience, running.join_next()).await {
                Ok(Some(Ok(Ok(bytes)))) if is_refusal(&bytes) => refusal = refusal.or(Some(bytes)),
                Ok(Some(Ok(Ok(bytes)))) => return Ok(bytes),
                Ok(Some(Ok(Err(why)))) => failure = why,
                Ok(Some(Err(_)) | None) | Err(_) => {}
            }
        }
    }
}

const NO_SERVER: &str = "there is no DNS server to ask";

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn signature(path: &str) -> Option<Signature> {
    let found = std::fs::metadata(path).ok()?;
    let (content, inode) = ((found.mtime(), found.mtime_nsec()), found.ctime_nsec());
    let (device, number) = (found.dev(), found.ino());
    Some((device, number, found.len(), content.0, content.1, found.ctime(), inode))
}

/// Sends a query to one server, and reads its response.
async fn exchange(
    outward: &Outward,
    server: SocketAddr,
    asked: &[u8],
    via: Via,
) -> io::Result<Vec<u8>> {
    match via {
        Via::Udp => {
            let socket = outward.datagrams(server)?;
            socket.send(asked).await?;
            let mut block = vec![0; MESSAGE_BYTES_MAX];
            loop {
                let len = socket.recv(&mut block).await?;
                // A response belongs to the query if both have the same id.
                if block[..len].get(..2) == asked.get(..2) {
                    block.truncate(len);
                    return Ok(block);
                }
            }
        }
        Via::Tcp => {
            let mut stream = outward.stream(server).await?;
            write_message(&mut stream, asked).await?;
            read_message(&mut stream).await
        }
    }
}

/// Reads a DNS message over TCP. A length prefix precedes it (RFC 1035 4.2.2).
///
/// # Errors
/// If the connection ends before the end of the message.
pub async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = vec![0; usize::from(len)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes a DNS message over TCP, with its length prefix.
///
/// # Errors
/// If the message is longer than 65,535 bytes, or if the connection fails.
pub async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&len.to_be_bytes(), message].concat()).await
}
