//! Receives signals. A separate thread does this, so that a second signal ends the process even if
//! the control thread is stuck, for example in a file system that does not respond.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::telemetry::logs;

/// The time that the control thread has to end after the second signal.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// The signals that were received and not yet handled.
pub struct Signals {
    end: Arc<Notify>,
    reload: Arc<Notify>,
    reopen: Arc<Notify>,
}

/// The effect of a received signal.
#[derive(PartialEq, Eq)]
pub enum Told {
    /// The process ends: SIGTERM or SIGINT.
    End,
    /// The process reloads its configuration: SIGHUP.
    Reload,
    /// The process opens the file of its access log again: SIGUSR1.
    Reopen,
}

impl Signals {
    /// Starts the thread that receives the signals.
    ///
    /// # Errors
    /// If the system refuses the thread or a signal handler.
    pub fn new() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let [end, reload, reopen] = [(); 3].map(|()| Arc::new(Notify::new()));
        let watch = {
            let _inside = runtime.enter();
            watch([&end, &reload, &reopen].map(Arc::clone))?
        };
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(watch))?;
        Ok(Self { end, reload, reopen })
    }

    /// Waits for the next signal. Several signals of one kind may count as one.
    pub async fn next(&mut self) -> Told {
        tokio::select! {
            biased;
            () = self.end.notified() => Told::End,
            () = self.reload.notified() => Told::Reload,
            () = self.reopen.notified() => Told::Reopen,
        }
    }
}

fn watch([end, reload, reopen]: [Arc<Notify>; 3]) -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user = signal(SignalKind::user_defined1())?;
    Ok(async move {
        loop {
            tokio::select! {
                () = told_to_end(&mut terminate, &mut interrupt) => break end.notify_one(),
                _ = hangup.recv() => reload.notify_one(),
                _ = user.recv() => reopen.notify_one(),
            }
        }
        told_to_end(&mut terminate, &mut interrupt).await;
        end.notify_one();
        tokio::time::sleep(LAST_MOMENT).await;
        tracing::error!(
            waited = ?LAST_MOMENT,
            "the control thread did not end after the second SIGTERM or SIGINT; the process exits \
             now and cuts open connections"
        );
        logs::finish_process_log(logs::HURRIED_FINISH_LIMIT);
        std::process::exit(1);
    })
}

async fn told_to_end(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
