//! Runs the traffic shifts of the configuration: takes the steps that are due, logs each step, and
//! saves the progress of each shift, so that it continues after a restart.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::shift_file::ShiftFile;
use crate::resilience::{Chance, ShiftEvent, ShiftProgress, ShiftSide};
use crate::route::Shift;
use crate::snapshot::Snapshot;

/// The shifts of the configuration in use.
pub struct Shifts {
    /// `None` if there is no directory for state.
    file: Option<ShiftFile>,
    /// The places of an earlier process.
    saved: HashMap<String, ShiftProgress>,
    shifts: Vec<Arc<Shift>>,
    due: Option<Instant>,
}

impl Shifts {
    /// Reads the places of an earlier process in `directory`, or in the directory of systemd.
    pub fn new(directory: Option<PathBuf>) -> Self {
        let file = directory.or_else(of_systemd).map(ShiftFile::in_directory);
        let read = file.as_ref().map(ShiftFile::read);
        let saved = read.unwrap_or_else(|| Ok(HashMap::new())).unwrap_or_else(|error| {
            tracing::warn!("{error}; shifts begin anew");
            HashMap::new()
        });
        Self { file, saved, shifts: Vec::new(), due: None }
    }

    /// Uses the shifts of `snapshot` from now on. A new one begins, or goes on where an earlier
    /// process was.
    pub fn follow(&mut self, snapshot: &Snapshot) {
        let now = unix_ms();
        let had_any = !self.shifts.is_empty() || !self.saved.is_empty();
        self.shifts.clone_from(&snapshot.shifts);
        for shift in &self.shifts {
            let saved = self.saved.remove(&*shift.state.id);
            let is_saved = saved.is_some();
            if !shift.state.begin(saved, now) {
                continue;
            }
            let (rule, place, plan) = (&*shift.rule, &*shift.place, shift.plan());
            let next = shift.next();
            match is_saved {
                true => tracing::info!(rule, place, plan, next, "shift goes on after a restart"),
                false => tracing::info!(rule, place, plan, next, "shift begins"),
            }
            if self.file.is_none() && !is_saved {
                tracing::warn!(
                    rule,
                    place,
                    "no directory for state: a restart forgets the place of this shift, and \
                     that it went back; set runtime.state_dir, or StateDirectory= of systemd"
                );
            }
            look(shift, now, true);
        }
        // A plan that has left the configuration is forgotten.
        self.saved.clear();
        if had_any || !self.shifts.is_empty() {
            self.save();
        }
        self.plan_next(now);
    }

    /// Waits until a shift must be looked at.
    pub async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Looks at each shift that runs.
    pub fn tick(&mut self) {
        let now = unix_ms();
        let mut changed = false;
        for shift in &self.shifts {
            changed |= look(shift, now, false);
        }
        if changed {
            self.save();
        }
        self.plan_next(now);
    }

    fn plan_next(&mut self, now: u64) {
        /// A control thread that is late does not fall into a loop.
        const SOONEST: Duration = Duration::from_millis(5);
        let waits = self.shifts.iter().filter_map(|shift| shift.state.due_in(now));
        self.due = waits.min().map(|wait| Instant::now() + wait.max(SOONEST));
    }

    fn save(&self) {
        let Some(file) = &self.file else { return };
        let places = self.shifts.iter().filter_map(|shift| {
            let progress = shift.state.progress()?;
            Some((&*shift.state.id, progress))
        });
        if let Err(error) = file.write(places) {
            tracing::warn!("{error}; a restart may begin at an older place of the shifts");
        }
    }
}

/// Looks at one shift. Returns whether its place has changed.
fn look(shift: &Shift, now: u64, resumed: bool) -> bool {
    let of_step = shift.state.since_step();
    let Some(event) = shift.state.tick(now, resumed) else { return false };
    let (rule, place, next) = (&*shift.rule, &*shift.place, shift.next());
    let [old, new] = ShiftSide::BOTH.map(|side| {
        let counts = of_step[side as usize];
        format!("{} of {} requests to {}", counts.errors, counts.requests, shift.name(side))
    });
    let failed = format!("{new}, {old}");
    let note = shift.note(&event);
    match event {
        ShiftEvent::Step { .. } => tracing::info!(rule, place, next, failed, "shift: {note}"),
        ShiftEvent::Done => tracing::info!(rule, place, failed, "shift: {note}"),
        ShiftEvent::Aborted(abort) => {
            let share = Chance::of_parts(abort.share).to_string();
            let reason = abort.fault.label();
            tracing::warn!(
                rule,
                place,
                reason,
                share,
                failed,
                "shift aborted: {note}; to try again, change `shift`, for example its `start`"
            );
        }
    }
    true
}

/// The first directory that systemd has made for the state of the service.
fn of_systemd() -> Option<PathBuf> {
    let directories = std::env::var_os("STATE_DIRECTORY")?;
    let first = std::env::split_paths(&directories).next();
    first.filter(|directory| directory.is_absolute())
}

/// The wall clock.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
