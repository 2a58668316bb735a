//! Overload of the process: near its limit of memory, descriptors or CPU, it refuses new requests,
//! those with the lowest priority first.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// The default of `shed`, in percent of a limit.
pub const SHED_PERCENT: u8 = 90;

/// The default of `stop_accepting`, in percent of a limit.
pub const STOP_PERCENT: u8 = 97;

/// A level ends only when the use is this many percentage points below its threshold. Otherwise the
/// level could change with each request.
const RELEASE_POINTS: f64 = 5.0;

/// A level ends after this many consecutive readings that are far enough below its threshold.
const RELEASE_READINGS: u32 = 3;

/// A resource of which the process has a limited amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The memory of the control group.
    Memory,
    /// The open files and sockets.
    Descriptors,
    /// The CPU time of the process.
    Cpu,
}

impl Resource {
    /// All resources, in the order of [`Resource::index`].
    pub const ALL: [Self; 3] = [Self::Memory, Self::Descriptors, Self::Cpu];

    /// The key in the configuration, and the label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Descriptors => "descriptors",
            Self::Cpu => "cpu",
        }
    }

    /// The position in [`Resource::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// The level of overload: how close the process is to one of its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// All requests are served.
    #[default]
    Normal,
    /// Requests of low priority are refused.
    Shed,
    /// Only requests of high priority are served. Few connections are accepted.
    Stop,
}

impl Level {
    const ALL: [Self; 3] = [Self::Normal, Self::Shed, Self::Stop];

    /// Whether a request of this priority is served at this level.
    pub fn admits(self, priority: Priority) -> bool {
        match self {
            Self::Normal => true,
            Self::Shed => priority >= Priority::Normal,
            Self::Stop => priority >= Priority::High,
        }
    }

    /// The value of the level in metrics.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Shed => "shed",
            Self::Stop => "stop_accepting",
        })
    }
}

/// The priority of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Requests of this priority are refused first.
    Low,
    /// The priority of a request for which none is configured.
    #[default]
    Normal,
    /// Requests of this priority are never refused because of overload.
    High,
}

impl Priority {
    /// All priorities, in the order of [`Priority::index`].
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The value in the configuration, and the label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// The position in [`Priority::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Determines the priority of a request by one of its header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityBy {
    /// The name of the field.
    pub header: Box<str>,
    /// The values of the field that mean high priority.
    pub high: Vec<Box<str>>,
    /// The values of the field that mean low priority.
    pub low: Vec<Box<str>>,
}

impl PriorityBy {
    /// The priority of a request with this value of the field.
    pub fn of(&self, value: Option<&[u8]>) -> Priority {
        let Some(value) = value else { return Priority::Normal };
        let is_in = |list: &[Box<str>]| list.iter().any(|it| it.as_bytes() == value);
        match () {
            () if is_in(&self.high) => Priority::High,
            () if is_in(&self.low) => Priority::Low,
            () => Priority::Normal,
        }
    }
}

/// The limit on a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Watched {
    /// The limit of the system: the control group, or the resource limit of the process.
    #[default]
    Auto,
    /// The resource is not limited.
    Off,
    /// A configured limit, in bytes, descriptors or CPUs.
    At(f64),
}

/// The settings of overload protection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OverloadTerms {
    /// The limit on each resource, by [`Resource::index`].
    pub watched: [Watched; Resource::ALL.len()],
    /// The use from which requests of low priority are refused, in percent of a limit.
    pub shed: u8,
    /// The use from which only requests of high priority are served, in percent of a limit.
    pub stop: u8,
}

impl Default for OverloadTerms {
    fn default() -> Self {
        let watched = [Watched::Auto, Watched::Auto, Watched::Off];
        Self { watched, shed: SHED_PERCENT, stop: STOP_PERCENT }
    }
}

/// The level of one resource. It rises at once. It falls only after several readings well below the
/// threshold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    level: Level,
    below: u32,
}

impl Pressure {
    /// Updates the level. `used` is the used part of the limit, from 0 to 1. Returns the new level.
    pub fn read(&mut self, terms: &OverloadTerms, used: f64) -> Level {
        let percent = used * 100.0;
        let reached = |points: f64| {
            let is_at = |threshold: u8| percent >= f64::from(threshold) - points;
            match () {
                () if is_at(terms.stop) => Level::Stop,
                () if is_at(terms.shed) => Level::Shed,
                () => Level::Normal,
            }
        };
        let (rises_to, falls_to) = (reached(0.0), reached(RELEASE_POINTS));
        if rises_to > self.level {
            *self = Self { level: rises_to, below: 0 };
        } else if falls_to < self.level {
            self.below += 1;
            if self.below >= RELEASE_READINGS {
                *self = Self { level: falls_to, below: 0 };
            }
        } else {
            self.below = 0;
        }
        self.level
    }

    /// The current level.
    pub fn level(&self) -> Level {
        self.level
    }
}

/// The level of the process, the highest of all resources, and whether descriptors are at the level
/// [`Level::Stop`]. Also each worker's share of the buffers. The control thread writes it, and all
/// workers read it.
#[derive(Debug, Default)]
pub struct Overload {
    level: AtomicU8,
    /// Zero until it is known.
    buffer_bytes: AtomicUsize,
}

/// This bit is set if descriptors are short. The other bits are the level.
const SHORT_OF_DESCRIPTORS: u8 = 0x80;

impl Overload {
    /// The current level.
    pub fn level(&self) -> Level {
        let number = self.level.load(Ordering::Relaxed) & !SHORT_OF_DESCRIPTORS;
        Level::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }

    /// Whether the process should close idle connections and accept few new ones. Only a lack of
    /// descriptors is a reason: it costs memory and CPU time to open connections again.
    pub fn is_short_of_descriptors(&self) -> bool {
        self.level.load(Ordering::Relaxed) & SHORT_OF_DESCRIPTORS != 0
    }

    /// Sets the level of the process, and that of its descriptors.
    pub fn set(&self, level: Level, descriptors: Level) {
        let short = if descriptors == Level::Stop { SHORT_OF_DESCRIPTORS } else { 0 };
        self.level.store(level.number() | short, Ordering::Relaxed);
    }

    /// Each worker's share of `limits.buffer_bytes`. `None` if it is not known yet.
    pub fn buffer_bytes(&self) -> Option<usize> {
        Some(self.buffer_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Sets each worker's share of `limits.buffer_bytes`.
    pub fn set_buffer_bytes(&self, bytes: usize) {
        self.buffer_bytes.store(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_requests_are_refused_first() {
        for (level, admitted) in [
            (Level::Normal, [true, true, true]),
            (Level::Shed, [false, true, true]),
            (Level::Stop, [false, false, true]),
        ] {
            assert_eq!(Priority::ALL.map(|priority| level.admits(priority)), admitted, "{level}");
            let overload = Overload::default();
            for descriptors in Level::ALL {
                overload.set(level, descriptors);
                assert_eq!(overload.level(), level);
                assert_eq!(overload.is_short_of_descriptors(), descriptors == Level::Stop);
            }
        }
    }

    #[test]
    fn a_level_rises_at_once_and_falls_late() {
        use Level::{Normal, Shed, Stop};
        let (terms, mut pressure) = (OverloadTerms::default(), Pressure::default());
        let readings = [
            (0.50, Normal),
            (0.899, Normal),
            (0.90, Shed),
            (0.86, Shed), // not far enough below
            (0.84, Shed),
            (0.84, Shed),
            (0.90, Shed), // the count begins again
            (0.84, Shed),
            (0.84, Shed),
            (0.84, Normal),
            (0.89, Normal),
            (0.97, Stop),
            (0.93, Stop),
            (0.92, Stop), // exactly five points below are too few
            (0.91, Stop),
            (0.91, Stop),
            (0.91, Shed),
            (1.20, Stop),
            (0.10, Stop),
            (0.10, Stop),
            (0.10, Normal),
        ];
        for (step, (used, level)) in readings.into_iter().enumerate() {
            assert_eq!(pressure.read(&terms, used), level, "step {step}, {used}");
        }
    }

    #[test]
    fn use_that_swings_around_a_threshold_does_not_change_the_level() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (terms, mut pressure) = (OverloadTerms::default(), Pressure::default());
            let threshold = f64::from([terms.shed, terms.stop][random.usize(..2)]) / 100.0;
            let first = pressure.read(&terms, threshold);
            for _ in 0..200 {
                let used = threshold - 0.049 + 0.049 * random.f64();
                assert_eq!(pressure.read(&terms, used), first, "seed {seed}");
            }
        }
    }
}
