//! A test client outside this network namespace. It has a namespace of its own, and a veth pair
//! connects the two. So its connections arrive like those of other hosts. The kernel removes the
//! namespace when this process ends.

use std::fs::read_link;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

use super::error::InterceptError;
use super::system::{has_ipv6, run};

/// The name of the veth interface in this namespace.
const INTERFACE: &str = "rwcheck0";

/// The addresses of [`INTERFACE`]. They are from ranges for benchmarks (RFC 2544, RFC 5180).
const HERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 133, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0x133, 0, 0, 0, 1)),
];

/// The addresses of the veth interface in the client's namespace.
const THERE: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 18, 133, 2)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 2, 0, 0x133, 0, 0, 0, 2)),
];

/// A function that runs on the client's thread.
type Work = Box<dyn FnOnce() + Send>;

/// A test client outside this network namespace.
pub(super) struct Visitor {
    work: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Visitor {
    /// Creates the namespace and the veth pair.
    ///
    /// # Errors
    /// If this process does not have CAP_SYS_ADMIN and CAP_NET_ADMIN.
    pub(super) fn new() -> Result<Self, InterceptError> {
        let (work, orders) = mpsc::channel::<Work>();
        let (said, namespace) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let place = unshare(CloneFlags::CLONE_NEWNET).map_err(|error| error.to_string());
            let place = place.and_then(|()| {
                let task = read_link("/proc/thread-self").map_err(|error| error.to_string())?;
                Ok(format!("/proc/{}/ns/net", task.display()))
            });
            let cabled = place.is_ok();
            said.send(place).ok();
            if cabled {
                orders.into_iter().for_each(|work| work());
            }
        });
        let denied = |said: String| InterceptError::Denied { said };
        let namespace = namespace.recv().map_err(|error| denied(error.to_string()))?;
        let visitor = Self { work: Some(work), thread: Some(thread) };
        visitor.lay_cable(&namespace.map_err(denied)?)?;
        Ok(visitor)
    }

    fn lay_cable(&self, namespace: &str) -> Result<(), InterceptError> {
        let v6 = has_ipv6();
        let ip = |line: String| run("ip", &line.split(' ').collect::<Vec<_>>(), "").map(drop);
        ip(format!("link add {INTERFACE} type veth peer name eth0 netns {namespace}"))?;
        let [here4, here6] = HERE;
        ip(format!("addr add {here4}/30 dev {INTERFACE}"))?;
        if v6 {
            ip(format!("addr add {here6}/126 dev {INTERFACE} nodad"))?;
        }
        ip(format!("link set {INTERFACE} up"))?;
        let set_up = move || {
            let ip = |line: String| run("ip", &line.split(' ').collect::<Vec<_>>(), "").map(drop);
            let [there4, there6] = THERE;
            ip(format!("addr add {there4}/30 dev eth0"))?;
            if v6 {
                ip(format!("addr add {there6}/126 dev eth0 nodad"))?;
            }
            ip("link set eth0 up".to_owned())
        };
        self.within(set_up)
    }

    /// The address at which the client reaches this host.
    pub(super) fn address(&self, v6: bool, port: u16) -> SocketAddr {
        SocketAddr::new(HERE[usize::from(v6)], port)
    }

    /// The source address of the client.
    pub(super) fn own(v6: bool) -> IpAddr {
        THERE[usize::from(v6)]
    }

    /// Runs a function on the client's thread, which is in the client's namespace.
    pub(super) fn within<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, InterceptError> + Send + 'static,
    ) -> Result<T, InterceptError> {
        let (done, result) = mpsc::channel();
        let order: Work = Box::new(move || {
            done.send(work()).ok();
        });
        let gone = || InterceptError::Plan("the thread of the test client has ended".to_owned());
        self.work.as_ref().and_then(|work| work.send(order).ok()).ok_or_else(gone)?;
        result.recv().map_err(|_| gone())?
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        // Remove the interface now, because the kernel removes the namespace only some time later.
        run("ip", &["link", "delete", INTERFACE], "").ok();
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}
