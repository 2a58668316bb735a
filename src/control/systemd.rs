//! systemd: messages to it, and sockets from it.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::error::plain;

/// How many messages may wait for systemd. Further ones are dropped.
const MESSAGES_MAX: usize = 64;

/// Tells systemd the state of the process. A thread sends the messages, because sending blocks
/// while systemd does not read.
pub struct Manager(Option<SyncSender<Vec<NotifyState<'static>>>>);

impl Manager {
    /// The system manager, if it has asked for messages about the state of the process.
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
                    tracing::warn!(%error, "cannot tell systemd the state of the process");
                }
            }
        };
        match thread.spawn(send) {
            Ok(_) => Self(Some(sender)),
            Err(error) => {
                let error = plain(&error);
                tracing::error!(%error, "cannot start the thread that reports to systemd");
                Self(None)
            }
        }
    }

    /// Tells that the process is ready.
    pub fn ready(&self) {
        self.tell(vec![NotifyState::Ready]);
    }

    /// Tells that a reload begins. [`Manager::ready`] tells its end.
    pub fn reloading(&self) {
        // `Type=notify-reload` waits for a message with a time after that of its signal.
        let time = NotifyState::monotonic_usec_now();
        self.tell([NotifyState::Reloading].into_iter().chain(time).collect());
    }

    /// Tells that the process ends.
    pub fn stopping(&self) {
        self.tell(vec![NotifyState::Stopping]);
    }

    /// Tells that the process is alive.
    pub fn alive(&self) {
        self.tell(vec![NotifyState::Watchdog]);
    }

    fn tell(&self, states: Vec<NotifyState<'static>>) {
        if let Self(Some(sender)) = self {
            // A full queue means that systemd does not read. Do not wait for it.
            sender.try_send(states).ok();
        }
    }
}

/// Half of systemd's watchdog limit, as systemd recommends.
pub fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |limit| limit / 2)
}

/// The sockets from systemd, each with its `FileDescriptorName=`.
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
            None => tracing::warn!(name, "systemd socket ignored: not a listening stream socket"),
        }
    }
    sockets
}
