//! The interface to systemd: status notifications, and passed sockets.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::error::plain;

/// The maximum number of queued notifications. Further ones are dropped.
const MESSAGES_MAX: usize = 64;

/// Reports the state of the process to systemd (sd_notify(3)). A thread sends the notifications,
/// because sending blocks while systemd does not read.
pub struct Manager(Option<SyncSender<Vec<NotifyState<'static>>>>);

impl Manager {
    /// Creates the sender. It sends nothing unless systemd has set NOTIFY_SOCKET.
    pub fn new() -> Self {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self(None);
        }
        let (sender, messages) = sync_channel::<Vec<NotifyState<'static>>>(MESSAGES_MAX);
        let thread = std::thread::Builder::new().name("notify".to_owned());
        let send = move || {
            for states in messages {
                if let Err(error) = sd_notify::notify(&states) {
                    let error = plain(&error);
                    tracing::warn!(
                        %error,
                        "cannot notify systemd; it may consider the process not ready or hung"
                    );
                }
            }
        };
        match thread.spawn(send) {
            Ok(_) => Self(Some(sender)),
            Err(error) => {
                let error = plain(&error);
                tracing::error!(
                    %error,
                    "cannot start the thread that notifies systemd; a unit with Type=notify will \
                     not become ready"
                );
                Self(None)
            }
        }
    }

    /// Notifies systemd that the process is ready.
    pub fn ready(&self) {
        self.tell(vec![NotifyState::Ready]);
    }

    /// Notifies systemd that a reload has begun. [`Manager::ready`] reports its end.
    pub fn reloading(&self) {
        // A unit with `Type=notify-reload` waits for a notification that is newer than its signal.
        let time = NotifyState::monotonic_usec_now();
        self.tell([NotifyState::Reloading].into_iter().chain(time).collect());
    }

    /// Notifies systemd that the process is stopping.
    pub fn stopping(&self) {
        self.tell(vec![NotifyState::Stopping]);
    }

    /// Notifies systemd that the process is alive (watchdog).
    pub fn alive(&self) {
        self.tell(vec![NotifyState::Watchdog]);
    }

    fn tell(&self, states: Vec<NotifyState<'static>>) {
        if let Self(Some(sender)) = self {
            // If the queue is full, systemd does not read. Do not wait for it.
            sender.try_send(states).ok();
        }
    }
}

/// The interval of watchdog notifications: half of systemd's limit, as systemd recommends.
pub fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |limit| limit / 2)
}

/// The sockets that systemd has passed, each with its `FileDescriptorName=`.
pub fn passed_sockets() -> Vec<(String, OwnedFd)> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for (index, name) in names.split(':').enumerate().take(passed.len()) {
        let tcp = passed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
        let unix = |passed: &mut ListenFd| {
            passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from)
        };
        match tcp.or_else(|| unix(&mut passed)) {
            Some(socket) => sockets.push((name.to_owned(), socket)),
            None => {
                tracing::warn!(name, "systemd socket ignored: it is not a listening stream socket")
            }
        }
    }
    sockets
}
