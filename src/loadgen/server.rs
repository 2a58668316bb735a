//! A simple TCP server, for measurements of a proxy in front of it. It echoes or discards bytes.
#![allow(clippy::print_stderr)] // says that it is ready

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use slab::Slab;

use super::Error;
use super::poller::{Interest, Poller, Ready, reserve_descriptors};

/// The maximum number of connections, if the limit on open files allows it.
const CONNECTIONS_MAX: u32 = 16_384;

/// The maximum size of one read.
const READ_BYTES: usize = 256 * 1024;

/// The wait after `accept` has failed because no descriptor was free.
const ACCEPT_REST: Duration = Duration::from_millis(20);

const LISTENER: u64 = u64::MAX;

/// Runs the server until the process ends.
///
/// # Errors
/// If the address is in use, or if epoll fails.
pub(super) fn run(address: SocketAddr, sink: bool) -> Result<ExitCode, Error> {
    // Ignore the error: the server also works with fewer descriptors.
    reserve_descriptors(CONNECTIONS_MAX).ok();
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.add(&listener, LISTENER, Interest::Read)?;
        Ok((listener, poller))
    };
    let (listener, poller) = listen().map_err(Error::system("cannot listen"))?;
    let what = if sink { "swallowing" } else { "echoing" };
    eprintln!("{what} on {}", listener.local_addr().map_err(Error::system("cannot listen"))?);
    let scratch = vec![0; READ_BYTES];
    Server { listener, poller, peers: Slab::new(), sink, scratch }.serve()
}

struct Server {
    listener: TcpListener,
    poller: Poller,
    peers: Slab<Peer>,
    sink: bool,
    scratch: Vec<u8>,
}

struct Peer {
    socket: TcpStream,
    /// Received bytes that are not sent back yet. The server reads no more until they are sent.
    unsent: Vec<u8>,
}

impl Server {
    fn serve(mut self) -> Result<ExitCode, Error> {
        let mut ready: Vec<Ready> = Vec::new();
        loop {
            self.poller.wait(None, &mut ready).map_err(Error::system("epoll"))?;
            for event in &ready {
                if event.token == LISTENER {
                    self.accept()?;
                    continue;
                }
                let index = event.token as usize;
                let keeps = match self.peers.get_mut(index) {
                    Some(peer) if self.sink => peer.swallow(&mut self.scratch),
                    Some(peer) => peer.echo(&self.poller, event.token, &mut self.scratch),
                    None => continue,
                };
                if !matches!(keeps, Ok(true)) {
                    self.peers.remove(index);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Error> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_the_peers(&error) => continue,
                Err(_) => {
                    // No descriptor is free. Wait until a connection closes.
                    let mut none = Vec::new();
                    let rest = Poller::new().and_then(|mut idle| {
                        idle.wait(Some(Instant::now() + ACCEPT_REST), &mut none)
                    });
                    return rest.map_err(Error::system("epoll"));
                }
            };
            let entry = self.peers.vacant_entry();
            let added = socket
                .set_nonblocking(true)
                .and_then(|()| socket.set_nodelay(true))
                .and_then(|()| self.poller.add(&socket, entry.key() as u64, Interest::Read));
            if added.is_ok() {
                entry.insert(Peer { socket, unsent: Vec::new() });
            }
        }
    }
}

impl Peer {
    /// Discards received bytes. Returns false when the client has closed its sending side.
    fn swallow(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        // MSG_TRUNC drops the bytes in the kernel, without a copy.
        match recv(self.socket.as_raw_fd(), scratch, MsgFlags::MSG_TRUNC).map_err(io::Error::from) {
            Ok(count) => Ok(count > 0),
            Err(error) if is_passing(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Sends received bytes back. Returns false when the client has closed its sending side.
    fn echo(&mut self, poller: &Poller, token: u64, scratch: &mut [u8]) -> io::Result<bool> {
        if !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            self.send(&unsent)?;
            if self.unsent.is_empty() {
                poller.change(&self.socket, token, Interest::Read)?;
            }
            return Ok(true);
        }
        let count = match self.socket.read(scratch) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if is_passing(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        self.send(&scratch[..count])?;
        if !self.unsent.is_empty() {
            poller.change(&self.socket, token, Interest::Write)?;
        }
        Ok(true)
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent = bytes.to_vec();
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn is_the_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted)
}
