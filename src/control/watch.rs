//! Notices that configuration files have changed.
//!
//! Directories are watched, not files: editors replace files, and a Kubernetes ConfigMap changes
//! by swapping the symlink `..data`. Where a file is a symlink, the directory of its target is
//! watched too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// A change is acted on when nothing else has changed for this long, so that an editor that
/// writes twice causes one reload.
pub const QUIET: Duration = Duration::from_millis(100);

/// However busy the directory is, a change is acted on after this time.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Watches the files of a configuration.
pub struct Watch {
    // Dropping it ends the watching.
    _watcher: Option<notify::RecommendedWatcher>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Watches what the `-c` arguments name. What cannot be watched is said in the log and left
    /// to SIGHUP.
    pub fn new(arguments: &[PathBuf]) -> Self {
        let (sender, changes) = mpsc::channel(1);
        let handler = move |event: notify::Result<notify::Event>| {
            // A full channel has been told already.
            if event.is_ok_and(|event| is_relevant(&event)) {
                sender.try_send(()).ok();
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            for directory in directories(arguments) {
                watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "configuration files are not watched; reload with SIGHUP");
        }
        Self { _watcher: watcher.ok(), changes }
    }

    /// Completes when files have changed and then rested for a moment.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let latest = Instant::now() + PATIENCE;
        loop {
            let quiet = (Instant::now() + QUIET).min(latest);
            match timeout_at(quiet, self.changes.recv()).await {
                Ok(Some(())) if Instant::now() < latest => {}
                _ => return,
            }
        }
    }
}

/// Reading the files is an event too: only changes count, and only those of configuration files
/// and of symlinks that may lead to them.
fn is_relevant(event: &notify::Event) -> bool {
    let may_lead = |path: &PathBuf| {
        let yaml =
            path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let configmap =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."));
        yaml || configmap || path.is_symlink()
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(may_lead)
}

fn directories(arguments: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    let parent_of = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut file = |path: &Path| {
        directories.insert(parent_of(path));
        if let Ok(target) = path.canonicalize() {
            directories.insert(parent_of(&target));
        }
    };
    for argument in arguments {
        if !argument.is_dir() || argument.is_symlink() {
            file(argument);
        }
        let entries = std::fs::read_dir(argument).into_iter().flatten();
        for entry in entries.map_while(Result::ok) {
            file(&entry.path());
        }
    }
    for argument in arguments.iter().filter(|argument| argument.is_dir()) {
        directories.insert(argument.clone());
    }
    directories
}
