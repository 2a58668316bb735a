//! The file `shifts.json`. It keeps over restarts how far each gradual release (`shift`) has come.
//! Only the control thread writes it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::error::plain;
use crate::file;
use crate::resilience::{ShiftAbort, ShiftFault, ShiftPhase, ShiftProgress};

/// The name of the file in the directory for state.
const NAME: &str = "shifts.json";

/// The maximum size of the file. A place has less than 300 bytes beside its key.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A file with the places of shifts.
pub struct ShiftFile {
    directory: PathBuf,
}

impl ShiftFile {
    /// The file in `directory`.
    pub fn in_directory(directory: PathBuf) -> Self {
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.join(NAME)
    }

    /// The places, by the key of the plan. None if there is no file yet.
    ///
    /// # Errors
    /// A sentence about a file that cannot be read or understood.
    pub fn read(&self) -> Result<HashMap<String, ShiftProgress>, String> {
        let path = self.path();
        let text = match file::read(&path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(HashMap::new()),
            Err(error) => return Err(format!("cannot read {}: {}", path.display(), plain(&error))),
        };
        let places = serde_json::from_slice::<Value>(&text).ok().and_then(|value| places(&value));
        places.ok_or_else(|| format!("{} is damaged", path.display()))
    }

    /// Replaces the file. A crash leaves either the old file or the new one.
    ///
    /// # Errors
    /// A sentence about a directory that cannot be written.
    pub fn write<'a>(
        &self,
        places: impl Iterator<Item = (&'a str, ShiftProgress)>,
    ) -> Result<(), String> {
        let places = places.map(|(id, progress)| (id.to_owned(), of_progress(&progress)));
        let places: serde_json::Map<String, Value> = places.collect();
        let text = format!("{:#}\n", json!({ "shifts": places }));
        let path = self.path();
        replace(&self.directory, &path, text.as_bytes())
            .map_err(|error| format!("cannot write {}: {}", path.display(), plain(&error)))
    }
}

fn replace(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = File::open(directory)?;
    file::written(path, text, 0o644)?.persist(path).map_err(|error| error.error)?;
    // The rename itself survives a loss of power only then.
    directory.sync_all()
}

fn of_progress(progress: &ShiftProgress) -> Value {
    let ShiftProgress { steps, next, phase } = progress;
    let phase = match phase {
        ShiftPhase::Running => json!("running"),
        ShiftPhase::Done { at } => json!({ "done_unix_ms": at }),
        ShiftPhase::Aborted(abort) => json!({
            "aborted_unix_ms": abort.at,
            "millionths": abort.share,
            "reason": abort.fault.label(),
            "requests": abort.requests,
            "bad": abort.bad,
        }),
    };
    json!({ "steps": steps, "next_unix_ms": next, "phase": phase })
}

fn places(value: &Value) -> Option<HashMap<String, ShiftProgress>> {
    let places = value.get("shifts")?.as_object()?;
    places.iter().map(|(id, place)| Some((id.clone(), progress(place)?))).collect()
}

fn progress(value: &Value) -> Option<ShiftProgress> {
    let number = |value: &Value, name: &str| value.get(name)?.as_u64();
    let phase = value.get("phase")?;
    let phase = match phase.as_str() {
        Some("running") => ShiftPhase::Running,
        Some(_) => return None,
        None => match number(phase, "done_unix_ms") {
            Some(at) => ShiftPhase::Done { at },
            None => {
                let reason = phase.get("reason")?.as_str()?;
                let fault = ShiftFault::ALL.into_iter().find(|fault| fault.label() == reason)?;
                ShiftPhase::Aborted(ShiftAbort {
                    at: number(phase, "aborted_unix_ms")?,
                    share: u32::try_from(number(phase, "millionths")?).ok()?,
                    fault,
                    requests: number(phase, "requests")?,
                    bad: number(phase, "bad")?,
                })
            }
        },
    };
    let steps = u32::try_from(number(value, "steps")?).ok()?;
    Some(ShiftProgress { steps, next: number(value, "next_unix_ms")?, phase })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_phases() -> Vec<(&'static str, ShiftProgress)> {
        let abort = ShiftAbort {
            at: 1_796_115_600_001,
            share: 250_000,
            fault: ShiftFault::Slow,
            requests: 200,
            bad: 3,
        };
        let place = |phase| ShiftProgress { steps: 3, next: 1_796_115_600_000, phase };
        vec![
            ("running", place(ShiftPhase::Running)),
            ("done", place(ShiftPhase::Done { at: 7 })),
            ("a \"name\" with\nmore", place(ShiftPhase::Aborted(abort))),
        ]
    }

    #[test]
    fn places_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = ShiftFile::in_directory(directory.path().to_owned());
        assert_eq!(file.read().unwrap(), HashMap::new());
        file.write(all_phases().into_iter()).unwrap();
        let expected = all_phases().into_iter().map(|(id, place)| (id.to_owned(), place));
        assert_eq!(file.read().unwrap(), expected.collect());
        file.write(std::iter::empty()).unwrap();
        assert_eq!(file.read().unwrap(), HashMap::new());
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn a_damaged_file_is_told_and_never_a_panic() {
        let directory = tempfile::tempdir().unwrap();
        let file = ShiftFile::in_directory(directory.path().to_owned());
        file.write(all_phases().into_iter()).unwrap();
        let whole = std::fs::read(file.path()).unwrap();
        for end in 0..whole.len() - 2 {
            std::fs::write(file.path(), &whole[..end]).unwrap();
            let error = file.read().unwrap_err();
            assert!(error.ends_with("shifts.json is damaged"), "{error}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            std::fs::write(file.path(), &bytes).unwrap();
            file.read().ok();
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_told() {
        let file = ShiftFile::in_directory("/nowhere/at/all".into());
        assert_eq!(file.read(), Ok(HashMap::new()));
        let error = file.write(all_phases().into_iter()).unwrap_err();
        assert_eq!(error, "cannot write /nowhere/at/all/shifts.json: No such file or directory");
    }
}
