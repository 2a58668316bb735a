//! A scripted DNS server, and the resolv.conf of a proxy that uses it.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The answer of a DNS server to every query.
#[derive(Clone, Debug)]
pub enum Say {
    /// These addresses, valid for this many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// There is no such name.
    NoSuchName,
    /// SERVFAIL.
    Failure,
    /// No answer.
    Silence,
}

impl Say {
    /// One address, valid for a second.
    pub fn address(ip: &str) -> Self {
        Self::Addresses(vec![ip.parse().unwrap()], 1)
    }
}

/// A DNS server with its own IP address.
pub struct NameServer {
    /// Its IP address. The port is 53.
    pub ip: String,
    say: Arc<Mutex<Say>>,
    asked: Arc<AtomicUsize>,
}

impl NameServer {
    /// A server at a loopback address that no other test has.
    pub fn start(say: Say) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = std::process::id().wrapping_mul(31) + MADE.fetch_add(1, Ordering::Relaxed);
        let ip = format!("127.53.{}.{}", (number / 250) % 250, number % 250 + 1);
        let socket = UdpSocket::bind((ip.as_str(), 53)).unwrap();
        Self::over(socket, say)
    }

    /// A server on this socket.
    pub fn over(socket: UdpSocket, say: Say) -> Self {
        let ip = socket.local_addr().unwrap().ip().to_string();
        let (say, asked) = (Arc::new(Mutex::new(say)), Arc::new(AtomicUsize::new(0)));
        let (script, count) = (Arc::clone(&say), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut buf = [0; 512];
            while let Ok((n, peer)) = socket.recv_from(&mut buf) {
                let said = script.lock().unwrap().clone();
                if let Some(reply) = reply_to(&buf[..n], &said) {
                    socket.send_to(&reply, peer).ok();
                }
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { ip, say, asked }
    }

    /// The number of queries received so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Sets the answer to all queries from now on.
    pub fn say(&self, say: Say) {
        *self.say.lock().unwrap() = say;
    }
}

/// A query for the A records of `name` (RFC 1035 4.1).
pub fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// The response to a query (RFC 1035 4.1).
fn reply_to(query: &[u8], say: &Say) -> Option<Vec<u8>> {
    let name_end = 12 + query[12..].iter().position(|&byte| byte == 0)? + 1;
    let question = query.get(12..name_end + 4)?;
    let (code, addresses, ttl) = match say {
        Say::Addresses(list, ttl) => (0, list.as_slice(), *ttl),
        Say::NoSuchName => (3, &[][..], 0),
        Say::Failure => (2, &[][..], 0),
        Say::Silence => return None,
    };
    let mut records = Vec::new();
    let mut answers = 0;
    for ip in addresses {
        let (kind, octets) = match ip {
            IpAddr::V4(ip) => (1, ip.octets().to_vec()),
            IpAddr::V6(ip) => (28, ip.octets().to_vec()),
        };
        if question[question.len() - 4..] == [0, kind, 0, 1] {
            records.extend([0xc0, 12, 0, kind, 0, 1]);
            records.extend(ttl.to_be_bytes());
            records.extend([0, octets.len() as u8]);
            records.extend(octets);
            answers += 1;
        }
    }
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0]);
    reply.extend(question);
    reply.extend(records);
    Some(reply)
}

/// A file that is mounted over `/etc/resolv.conf` in the mount namespace of a proxy.
pub struct ResolvConf(tempfile::NamedTempFile);

impl ResolvConf {
    /// A file that names these servers.
    pub fn new(servers: &[&NameServer]) -> Self {
        let file = Self(tempfile::NamedTempFile::new().unwrap());
        file.name(servers);
        file
    }

    /// Replaces the servers in the file.
    pub fn name(&self, servers: &[&NameServer]) {
        let line = |server: &&NameServer| format!("nameserver {}\n", server.ip);
        let lines: String = servers.iter().map(line).collect();
        std::fs::write(self.0.path(), lines).unwrap();
    }

    /// The script of `sh -c` that runs a command with this file.
    pub fn script(&self) -> String {
        format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", self.0.path().display())
    }
}
