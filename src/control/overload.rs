//! Monitors the memory, the descriptors and the CPU time of the process, and sets the overload
//! level that the workers read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource as Limited, UsageWho, getrlimit, getrusage};

use super::cpus::{memory, memory_limit};
use crate::runtime::buffer::BUFFER_BYTES;
use crate::snapshot::{Level, Overload, OverloadTerms, Pressure, Resource, Watched};
use crate::telemetry::status::Reading;

/// The interval between two readings.
pub const READ_INTERVAL: Duration = Duration::from_millis(500);

/// The weight of the latest reading in the smoothed CPU usage. Smoothing hides short bursts, which
/// are normal.
const CPU_SMOOTHING: f64 = 0.25;

/// By default, all buffers together may have one of this many parts of the memory.
const DEFAULT_BUFFERS_PART: u64 = 4;

/// The least share of a worker. With less, most of its time would go into asking for free space.
const BUFFER_SHARE_MIN_BYTES: usize = 8 * BUFFER_BYTES;

/// Monitors the resources of the process.
pub struct Monitor {
    level: Arc<Overload>,
    /// The default of `limits.buffer_bytes`. `None` if the memory of the machine is not known.
    default_buffer_bytes: Option<usize>,
    pressures: [Pressure; Resource::ALL.len()],
    /// The number of CPUs that the process may use.
    cpus: f64,
    cpu: CpuTime,
}

/// The CPU usage of the process as of the last reading.
struct CpuTime {
    at: Instant,
    used: Duration,
    /// The exponential moving average of the number of CPUs in use.
    smoothed: f64,
}

impl Monitor {
    /// Creates a monitor that writes the overload level to `level`. The process may use `cpus`
    /// CPUs.
    pub fn new(level: Arc<Overload>, cpus: f64) -> Self {
        let cpu = CpuTime { at: Instant::now(), used: cpu_time(), smoothed: 0.0 };
        // The heads, the tasks, TLS and the sockets of connections need memory, too, and the
        // frames of HTTP/2.
        let least = [memory_limit(), memory()].into_iter().flatten().min();
        let default_buffer_bytes = least.map(|bytes| (bytes / DEFAULT_BUFFERS_PART) as usize);
        Self { level, default_buffer_bytes, pressures: Default::default(), cpus, cpu }
    }

    /// Tells each of `workers` its share of the buffers. `bytes` is `limits.buffer_bytes`. The
    /// default is a quarter of the memory of the machine, or of the group's limit if that is less.
    pub fn share_buffers(&self, bytes: Option<usize>, workers: usize) {
        if let Some(bytes) = bytes.or(self.default_buffer_bytes) {
            let share = bytes / workers.max(1);
            self.level.set_buffer_bytes(share.max(BUFFER_SHARE_MIN_BYTES));
        }
    }

    /// Reads all resources, updates the level for the workers, and logs each change. Also returns
    /// whether the level of memory has risen, so that the allocator should return free memory to
    /// the system.
    pub fn look(&mut self, terms: &OverloadTerms) -> ([Option<Reading>; 3], bool) {
        self.cpu.read();
        let mut wants_memory = false;
        let readings = Resource::ALL.map(|resource| {
            let pressure = &mut self.pressures[resource.index()];
            let found = self.cpu.use_of(resource, terms.watched[resource.index()], self.cpus);
            let Some((used, limit)) = found else {
                *pressure = Pressure::default();
                return None;
            };
            let before = pressure.level();
            let level = pressure.read(terms, used / limit);
            wants_memory |= resource == Resource::Memory && level > before;
            if level != before {
                report(resource, (before, level), used, limit);
            }
            Some(Reading { resource, used, limit, level })
        });
        let levels = self.pressures.iter().map(Pressure::level);
        let descriptors = self.pressures[Resource::Descriptors.index()].level();
        self.level.set(levels.max().unwrap_or_default(), descriptors);
        (readings, wants_memory)
    }
}

fn report(resource: Resource, (before, level): (Level, Level), used: f64, limit: f64) {
    let (resource, percent) = (resource.name(), (used * 100.0 / limit).round());
    let now = match level {
        Level::Normal => "all requests are served again",
        Level::Shed => "requests of low priority are refused",
        Level::Stop => "only requests of high priority are served",
    };
    match level > before {
        true => tracing::warn!(resource, %level, percent, limit, "overload level rose: {now}"),
        false => tracing::info!(resource, %level, percent, limit, "overload level fell: {now}"),
    }
}

impl CpuTime {
    fn read(&mut self) {
        let (now, used) = (Instant::now(), cpu_time());
        let passed = now.duration_since(self.at).as_secs_f64();
        if passed > 0.0 {
            let cpus = used.saturating_sub(self.used).as_secs_f64() / passed;
            self.smoothed += CPU_SMOOTHING * (cpus - self.smoothed);
        }
        (self.at, self.used) = (now, used);
    }

    /// The amount in use and the limit of a resource. `None` if it is not limited.
    fn use_of(&self, resource: Resource, watched: Watched, cpus: f64) -> Option<(f64, f64)> {
        let limit = match (watched, resource) {
            (Watched::Off, _) => return None,
            (Watched::At(limit), _) => limit,
            (Watched::Auto, Resource::Memory) => memory_limit()? as f64,
            (Watched::Auto, Resource::Descriptors) => {
                getrlimit(Limited::RLIMIT_NOFILE).ok()?.0 as f64
            }
            (Watched::Auto, Resource::Cpu) => cpus,
        };
        let used = match resource {
            Resource::Memory => memory_bytes()?,
            Resource::Descriptors => descriptors()?,
            Resource::Cpu => self.smoothed,
        };
        (limit > 0.0).then_some((used, limit))
    }
}

fn cpu_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let us = |time: nix::sys::time::TimeVal| {
        time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_usec().unsigned_abs()
    };
    Duration::from_micros(us(usage.user_time()) + us(usage.system_time()))
}

fn memory_bytes() -> Option<f64> {
    let pages = own_pages(&fs::read_to_string("/proc/self/statm").ok()?)?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(pages as f64 * page as f64)
}

/// The resident pages without those of files, such as the program itself: the kernel takes these
/// back when memory is short. `statm` is the content of `/proc/self/statm` (proc(5)).
fn own_pages(statm: &str) -> Option<u64> {
    let mut fields = statm.split_ascii_whitespace().skip(1).map(str::parse);
    let (resident, of_files): (u64, u64) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(resident.saturating_sub(of_files))
}

/// The number of open descriptors. Since Linux 6.2, this is the size of the directory. On older
/// kernels, its entries must be counted.
fn descriptors() -> Option<f64> {
    match fs::metadata("/proc/self/fd").ok()?.size() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as f64),
        size => Some(size as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_of_the_program_are_no_memory_in_use() {
        assert_eq!(own_pages("40960 15000 11000 9000 0 7000 0\n"), Some(4000));
        assert_eq!(own_pages("1 2 3 4"), Some(0));
        assert_eq!(own_pages("1 x 3"), None);
        assert_eq!(own_pages(""), None);
    }
}
