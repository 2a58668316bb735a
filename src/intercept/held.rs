//! Capture rules that this process installs, and removes when it drops them.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};

use super::error::InterceptError;
use super::install::{self, Backend};
use super::nft::{self, Lifetime};
use super::plan::{InterceptPlan, WhenDead};
use super::rules;
use super::system::need;
use crate::error::plain;

/// The time limit for nft to install the table.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval of checks whether the table exists, in milliseconds.
const LOOK_MS: u16 = 20;

/// Installed rules. Dropping this value removes them from the kernel.
pub struct Installed {
    holder: Option<Holder>,
    when_dead: WhenDead,
}

impl Installed {
    /// Installs the rules of `plan`. If traffic may bypass a dead proxy and the backend is nft, the
    /// kernel removes the rules when this process ends, even after SIGKILL.
    ///
    /// # Errors
    /// As for [`install::up`].
    pub fn up(plan: &InterceptPlan, wanted: Option<Backend>) -> Result<Self, InterceptError> {
        let backend = Backend::choose(wanted)?;
        let when_dead = plan.when_dead;
        let holder = match (when_dead, backend) {
            (WhenDead::Open, Backend::Nft) => Some(Holder::new(plan)?),
            (WhenDead::Open, Backend::Iptables) => {
                tracing::warn!(
                    "if SIGKILL ends this process, its iptables rules stay installed; configure a \
                     stop hook that runs `ringway intercept down` (systemd: ExecStopPost)"
                );
                install::up(plan, backend).map(|()| None)?
            }
            (WhenDead::Closed, _) => install::up(plan, backend).map(|()| None)?,
        };
        Ok(Self { holder, when_dead })
    }

    /// Whether traffic bypasses the proxy while no proxy runs.
    pub fn is_open(&self) -> bool {
        self.when_dead == WhenDead::Open
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        drop(self.holder.take());
        if let Err(error) = install::down(None) {
            tracing::error!(
                "cannot remove the capture rules; remove them with `ringway intercept down`: \
                 {error}"
            );
        }
    }
}

/// An nft process that owns the table (`flags owner`). The kernel removes the table when this
/// process ends. The process ends when its standard input is closed, and `input` is the other end
/// of that pipe.
struct Holder {
    child: Child,
    input: Option<ChildStdin>,
}

impl Holder {
    fn new(plan: &InterceptPlan) -> Result<Self, InterceptError> {
        install::clear_for(plan)?;
        let failed = |said: String| InterceptError::Failed { command: "nft -i".to_owned(), said };
        let mut child = Command::new(need("nft")?)
            .arg("-i")
            .env("LC_ALL", "C")
            // Without this setting, nft would write a history file in the home directory.
            .env("HOME", "/nonexistent")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // nft must not get the Ctrl-C of the terminal. The proxy gets it, and is drained before
            // nft ends.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(plain(&error)))?;
        let input = child.stdin.take();
        let mut holder = Self { child, input };
        let table = nft::table(&rules::chains(plan), Lifetime::OfProcess);
        let command = nft::in_one_line(&table);
        let written = holder.input.as_mut().map(|input| input.write_all(command.as_bytes()));
        if let Some(Err(error)) = written {
            return Err(failed(plain(&error)));
        }
        holder.wait_for_table().map_err(|said| match said.is_empty() {
            true => failed("the table does not appear".to_owned()),
            false => InterceptError::of_program("nft -i", &said),
        })?;
        Ok(holder)
    }

    /// Waits until the table exists. Returns the error output of nft if it fails.
    fn wait_for_table(&mut self) -> Result<(), String> {
        let Some(stderr) = &mut self.child.stderr else { return Err(String::new()) };
        let began = Instant::now();
        while began.elapsed() < INSTALL_TIMEOUT {
            let listed = install::listed_by_nft().map_err(|error| error.to_string())?;
            if listed.is_some() {
                return Ok(());
            }
            let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, LOOK_MS).is_ok_and(|count| count > 0) {
                let mut bytes = [0; 4096];
                let length = stderr.read(&mut bytes).unwrap_or_default();
                return Err(String::from_utf8_lossy(&bytes[..length]).into_owned());
            }
        }
        Err(String::new())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.input.take());
        self.child.wait().ok();
    }
}
