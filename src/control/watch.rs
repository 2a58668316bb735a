//! Detects changes of configuration files.
//!
//! Directories are watched, not files: editors replace files, and a Kubernetes ConfigMap changes
//! by swapping the symlink `..data`. Where a file is a symlink, the directory of its target is
//! watched too.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A change takes effect after this time without another change. So an editor that writes twice
/// causes one reload.
pub const QUIET: Duration = Duration::from_millis(100);

/// The longest delay of a change while other changes follow.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the files of a configuration.
pub struct Watch {
    /// Dropping the watcher stops it. `None` means that the system cannot watch files.
    watcher: Option<notify::RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
    /// Names of files that the configuration refers to, for example certificates.
    named: Named,
    changes: mpsc::Receiver<()>,
    /// The times of the first and the last change that was not handled yet.
    unrest: Option<(Instant, Instant)>,
}

type Named = Arc<Mutex<HashSet<OsString>>>;

impl Watch {
    /// A watch without directories.
    pub fn new() -> Self {
        let (sender, changes) = mpsc::channel(1);
        let named = Named::default();
        let known = Arc::clone(&named);
        let handler = move |event: notify::Result<notify::Event>| {
            // A full channel has a message already.
            if event.is_ok_and(|event| is_relevant(&event, &known)) {
                sender.try_send(()).ok();
            }
        };
        let watcher = notify::recommended_watcher(handler);
        if let Err(error) = &watcher {
            tracing::warn!(%error, "configuration files are not watched; reload with SIGHUP");
        }
        Self { watcher: watcher.ok(), directories: BTreeSet::new(), named, changes, unrest: None }
    }

    /// Watches the `-c` arguments and the files that the configuration refers to. Returns true when
    /// a directory is new; its files may have changed since they were read.
    pub fn follow<'a>(
        &mut self,
        arguments: &[PathBuf],
        references: impl Iterator<Item = &'a Path>,
    ) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let mut directories = directories(arguments);
        let mut named = HashSet::new();
        for path in references {
            add_directories(&mut directories, path);
            named.extend(path.file_name().map(ToOwned::to_owned));
        }
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
        for gone in self.directories.difference(&directories) {
            watcher.unwatch(gone).ok(); // a deleted directory is not watched any more
        }
        // Watch known directories again: a name may now refer to another directory.
        for directory in &directories {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                let directory = directory.display();
                tracing::warn!(%error, %directory, "directory not watched; reload with SIGHUP");
            }
        }
        let more = !directories.is_subset(&self.directories);
        self.directories = directories;
        more
    }

    /// Completes when files have changed and no further change followed for a moment. The control
    /// loop may drop the future at any time; no change is lost.
    pub async fn changed(&mut self) {
        loop {
            let known = self.unrest;
            let told = match known {
                None => self.changes.recv().await,
                Some((first, last)) => {
                    let quiet = (last + QUIET).min(first + PATIENCE);
                    match timeout_at(quiet, self.changes.recv()).await {
                        Ok(told) => told,
                        Err(_) => break,
                    }
                }
            };
            if told.is_none() {
                std::future::pending::<()>().await;
            }
            let now = Instant::now();
            let first = known.map_or(now, |(first, _)| first);
            self.unrest = Some((first, now));
            if now >= first + PATIENCE {
                break;
            }
        }
        self.unrest = None;
    }
}

/// Whether the event is a change. Reads are events too. Only configuration files, files that they
/// refer to, and symlinks to either count.
fn is_relevant(event: &notify::Event, named: &Named) -> bool {
    let named = named.lock().unwrap_or_else(PoisonError::into_inner);
    let may_lead = |path: &PathBuf| {
        let yaml =
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let name = path.file_name();
        let configmap = name.is_some_and(|name| name.to_string_lossy().starts_with(".."));
        yaml || configmap || path.is_symlink() || name.is_some_and(|name| named.contains(name))
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(may_lead)
}

fn directories(arguments: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for argument in arguments {
        if !argument.is_dir() || argument.is_symlink() {
            add_directories(&mut directories, argument);
        }
        let entries = std::fs::read_dir(argument).into_iter().flatten();
        for entry in entries.map_while(Result::ok) {
            add_directories(&mut directories, &entry.path());
        }
    }
    directories.extend(arguments.iter().filter(|argument| argument.is_dir()).cloned());
    directories
}

/// Adds the directory of a file and, for a symlink, the directory of its target.
fn add_directories(directories: &mut BTreeSet<PathBuf>, file: &Path) {
    let parent_of = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let parent = parent_of(file);
    // A missing directory cannot be watched. Reading the file reports the error.
    if parent.is_dir() {
        directories.insert(parent);
    }
    if let Ok(target) = file.canonicalize() {
        directories.insert(parent_of(&target));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_not_forgotten_when_something_else_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::new();
        watch.follow(std::slice::from_ref(&file), std::iter::empty());
        std::fs::write(&file, "drain: 1s").unwrap();
        // Shorter than the quiet time, as in the control loop, where logs and ticks interrupt it.
        let began = Instant::now();
        while tokio::time::timeout(QUIET / 4, watch.changed()).await.is_err() {
            assert!(began.elapsed() < PATIENCE * 20, "the change was forgotten");
        }
    }
}
