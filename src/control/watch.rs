//! Detects changes of configuration files and of the files that they refer to.
//!
//! inotify watches directories instead of files: editors replace files, a Kubernetes ConfigMap
//! changes by replacing the symlink `..data`, and a whole directory may be renamed. So each
//! directory on the path of a file is watched for changes of the next name on the path.
//!
//! If a directory cannot be watched, the files are read again regularly (see [`Watch::is_blind`]).

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, timeout_at};

use crate::error::plain;

/// A change takes effect after this time without another change. So an editor that writes a file
/// twice causes only one reload.
pub const QUIET: Duration = Duration::from_millis(100);

/// The maximum delay of a change while other changes follow.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// The maximum number of symlinks in one path, which is also the kernel's limit.
const LINKS_MAX: usize = 40;

/// Events for changes of the names in a directory, and of the directory itself.
const NAMES: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// Events for changes of the files in a directory.
const CONTENTS: AddWatchFlags =
    AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_CLOSE_WRITE).union(NAMES);

/// Events that mean that the watch of a directory has ended, or that events were lost.
const UPHEAVAL: AddWatchFlags = AddWatchFlags::IN_Q_OVERFLOW
    .union(AddWatchFlags::IN_IGNORED)
    .union(AddWatchFlags::IN_UNMOUNT)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Watches the files of a configuration for changes.
#[derive(Default)]
pub struct Watch {
    /// The inotify descriptor. `None` if the system has refused it so far.
    inotify: Option<AsyncFd<Descriptor>>,
    watched: HashMap<WatchDescriptor, Interest>,
    /// The directories that could not be watched at the last try. An empty path means all
    /// directories.
    refused: HashSet<PathBuf>,
    /// The times of the first and the last change that are not handled yet.
    unrest: Option<(Instant, Instant)>,
}

/// The changes in a directory that are relevant.
#[derive(Clone, Default)]
struct Interest {
    names: HashSet<OsString>,
    /// Whether this is a directory of configuration files, in which every name is relevant.
    configuration: bool,
    /// Whether there are files among the names, and not only directories and symlinks.
    contents: bool,
}

struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Watches the `-c` arguments and the files that the configuration refers to. Returns whether a
    /// directory is new. Its files may have changed since they were read.
    pub fn follow<'a>(
        &mut self,
        arguments: &[PathBuf],
        references: impl Iterator<Item = &'a Path>,
    ) -> bool {
        let mut ways = Ways::default();
        arguments.iter().for_each(|argument| ways.add_argument(argument));
        references.for_each(|path| ways.add(path));
        let mut refused = std::mem::take(&mut ways.refused);
        if self.inotify.is_none() {
            match open() {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(error) => self.note_refusal(&mut refused, PathBuf::new(), &error),
            }
        }
        let mut watched: HashMap<WatchDescriptor, Interest> = HashMap::new();
        for (directory, interest) in ways.directories {
            let Some(inotify) = &self.inotify else { break };
            let flags = if interest.contents { CONTENTS } else { NAMES };
            match inotify.get_ref().0.add_watch(&directory, flags) {
                Ok(descriptor) => watched.entry(descriptor).or_default().join(interest),
                // The directory does not exist, but its parent is watched. Reading the files
                // reports the error.
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => self.note_refusal(&mut refused, directory, &error.into()),
            }
        }
        let more = watched.keys().any(|descriptor| !self.watched.contains_key(descriptor));
        let known = std::mem::replace(&mut self.watched, watched);
        for gone in known.keys().filter(|descriptor| !self.watched.contains_key(descriptor)) {
            if let Some(inotify) = &self.inotify {
                inotify.get_ref().0.rm_watch(*gone).ok(); // it may have ended by itself
            }
        }
        self.refused = refused;
        more
    }

    /// Whether a directory cannot be watched. Then the caller must read the files regularly, and
    /// call [`Watch::follow`] again.
    pub fn is_blind(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Records a directory that cannot be watched. Logs it the first time.
    fn note_refusal(
        &self,
        refused: &mut HashSet<PathBuf>,
        directory: PathBuf,
        error: &std::io::Error,
    ) {
        if !self.refused.contains(&directory) {
            let directory = directory.display();
            tracing::warn!(
                %directory,
                error = %plain(&error),
                "configuration files cannot be watched; they are read again at least once a minute"
            );
        }
        refused.insert(directory);
    }

    /// Completes when files have changed and no further change has followed for [`QUIET`], or at
    /// the latest [`PATIENCE`] after the first change. The caller may drop the future at any time
    /// without losing a change.
    pub async fn changed(&mut self) {
        loop {
            match self.unrest {
                None => self.next_change().await,
                Some((first, last)) => {
                    let quiet = (last + QUIET).min(first + PATIENCE);
                    if timeout_at(quiet, self.next_change()).await.is_err() {
                        break;
                    }
                }
            }
            let now = Instant::now();
            let first = self.unrest.map_or(now, |(first, _)| first);
            self.unrest = Some((first, now));
            if now >= first + PATIENCE {
                break;
            }
        }
        self.unrest = None;
    }

    /// Waits for an event that is a relevant change.
    async fn next_change(&mut self) {
        loop {
            let Some(inotify) = &self.inotify else { return std::future::pending().await };
            let Ok(mut ready) = inotify.readable().await else {
                return std::future::pending().await;
            };
            match inotify.get_ref().0.read_events() {
                Ok(events) => {
                    if events.iter().any(|event| self.is_change(event)) {
                        return;
                    }
                }
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(_) => {}
            }
        }
    }

    fn is_change(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        // The queue may still contain events of a watch that was removed.
        let Some(interest) = self.watched.get(&event.wd) else { return false };
        event.mask.intersects(UPHEAVAL)
            || event.name.as_ref().is_some_and(|name| interest.has(name))
    }
}

fn open() -> std::io::Result<AsyncFd<Descriptor>> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    // Use the deprecated `new`, because its replacement is unsafe. `new` is sound here: a
    // `Descriptor` stays open as long as it exists.
    #[expect(deprecated)]
    AsyncFd::new(Descriptor(inotify))
}

impl Interest {
    fn has(&self, name: &OsStr) -> bool {
        let yaml = || {
            let extension = Path::new(name).extension();
            extension.is_some_and(|extension| extension == "yaml" || extension == "yml")
        };
        self.names.contains(name) || (self.configuration && yaml())
    }

    fn join(&mut self, other: Self) {
        self.names.extend(other.names);
        self.configuration |= other.configuration;
        self.contents |= other.contents;
    }
}

/// The directories on the paths of the files, with all symlinks resolved.
#[derive(Default)]
struct Ways {
    directories: BTreeMap<PathBuf, Interest>,
    /// Directories that could not be listed.
    refused: HashSet<PathBuf>,
}

impl Ways {
    /// Adds a `-c` argument, which is a file or a directory of files.
    fn add_argument(&mut self, argument: &Path) {
        let end = self.walk(argument);
        match std::fs::read_dir(&end) {
            Ok(entries) => {
                let interest = self.directories.entry(end).or_default();
                interest.configuration = true;
                interest.contents = true;
                let is_link = |entry: &std::fs::DirEntry| {
                    entry.file_type().is_ok_and(|kind| kind.is_symlink())
                };
                let entries = entries.filter_map(Result::ok).filter(is_link);
                for entry in entries {
                    self.add(&entry.path());
                }
            }
            Err(error) if is_absence(&error) => self.note_file(&end),
            Err(_) => _ = self.refused.insert(end),
        }
    }

    /// Adds the directories on the path of a file.
    fn add(&mut self, file: &Path) {
        let end = self.walk(file);
        self.note_file(&end);
    }

    /// Records that changes of the content of `file` are relevant.
    fn note_file(&mut self, file: &Path) {
        if let Some(interest) = file.parent().and_then(|parent| self.directories.get_mut(parent)) {
            interest.contents = true;
        }
    }

    /// Resolves `path` as the kernel does, and records each name on it. Returns the resolved path,
    /// or the path of the first name that does not exist.
    fn walk(&mut self, path: &Path) -> PathBuf {
        let mut at = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let mut rest: VecDeque<OsString> = parts(path);
        let mut links = 0;
        while let Some(part) = rest.pop_front() {
            if part == "/" {
                at = PathBuf::from("/");
            } else if part == ".." {
                at.pop();
            } else {
                let next = at.join(&part);
                self.directories.entry(at.clone()).or_default().names.insert(part);
                match std::fs::read_link(&next) {
                    Ok(target) if links < LINKS_MAX => {
                        links += 1;
                        let mut parts = parts(&target);
                        parts.append(&mut rest);
                        rest = parts;
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => return next,
                    _ => at = next,
                }
            }
        }
        at
    }
}

fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// The components of a path: `/`, `..` and names, without `.`.
fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_not_forgotten_when_something_else_comes_first() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.yaml");
        std::fs::write(&file, "").unwrap();
        let mut watch = Watch::default();
        watch.follow(std::slice::from_ref(&file), std::iter::empty());
        std::fs::write(&file, "drain: 1s").unwrap();
        // Shorter than [`QUIET`], as in the control loop, where other events drop the future.
        let began = Instant::now();
        while tokio::time::timeout(QUIET / 4, watch.changed()).await.is_err() {
            assert!(began.elapsed() < PATIENCE * 20, "the change was forgotten");
        }
    }
}
