//! A control group with a limit of memory.

use std::fs;
use std::path::{Path, PathBuf};

use super::eventually;

/// A control group. It is removed when it is dropped; its processes must have ended by then.
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// A group of this name whose processes may use `bytes` of memory together. Returns `None`
    /// where it cannot be made.
    pub fn with_memory(name: &str, bytes: usize) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        // Version 2, or version 1 with a hierarchy for memory.
        let (parent, limit) = match root.join("cgroup.controllers").exists() {
            true => (root.to_owned(), "memory.max"),
            false => (root.join("memory"), "memory.limit_in_bytes"),
        };
        if !parent.join("cgroup.procs").exists() {
            return None;
        }
        let group = Self(parent.join(format!("{name}-{}", std::process::id())));
        fs::create_dir(&group.0).ok()?;
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }

    /// A shell command that enters the group and then runs its arguments.
    pub fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            eventually("the control group to be empty", || fs::remove_dir(&self.0).ok());
        }
    }
}
