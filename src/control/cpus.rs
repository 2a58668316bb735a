//! The CPUs of the process, and the limits of its control groups. CPUs determine the number of
//! workers, and whether workers are pinned.

use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

/// The mount point of the cgroup file systems.
const GROUPS: &str = "/sys/fs/cgroup";

/// The CPUs that the process may use.
pub struct Cpus {
    /// The numbers of the CPUs. Never empty.
    allowed: Vec<usize>,
    /// Whether the process may not use all CPUs of the machine. Then an operator has probably
    /// reserved these CPUs for it.
    given: bool,
    /// The CPU quota of the process's cgroups, in CPUs. `None` means no limit.
    quota: Option<f64>,
}

impl Cpus {
    /// Determines the CPUs of this process.
    pub fn of_process() -> Self {
        let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let mut allowed: Vec<_> =
            (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect();
        if allowed.is_empty() {
            allowed.push(0);
        }
        let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
        let online = online.ok().flatten().and_then(|count| usize::try_from(count).ok());
        let given = online.is_some_and(|online| allowed.len() < online);
        let quota = quota(&groups(), Path::new(GROUPS));
        Self { allowed, given, quota }
    }

    /// The number of workers for `runtime.workers: auto`: one for each CPU, but no more than the
    /// quota, rounded up.
    pub fn workers(&self) -> usize {
        let of_quota = self.quota.map_or(usize::MAX, |cpus| cpus.ceil() as usize);
        self.allowed.len().min(of_quota).max(1)
    }

    /// The CPU time that is available to the process, in CPUs.
    pub fn time(&self) -> f64 {
        let allowed = self.allowed.len() as f64;
        self.quota.map_or(allowed, |quota| quota.min(allowed))
    }

    /// The CPU of each worker. `None` means that the workers are not pinned. `pin` is
    /// `runtime.pin`. Without it, workers are pinned only to reserved CPUs: on shared CPUs, all
    /// processes that pin their workers would begin with the same CPU.
    pub fn places(&self, workers: usize, pin: Option<bool>) -> Option<&[usize]> {
        let alone = self.given && workers == self.allowed.len();
        let fits = workers <= self.allowed.len();
        if pin == Some(true) && !fits {
            tracing::warn!(workers, "runtime.pin is ignored: there are more workers than CPUs");
        }
        (fits && pin.unwrap_or(alone)).then(|| &self.allowed[..workers])
    }
}

/// The cgroups of the process, in the format of `/proc/self/cgroup` (cgroups(7)).
fn groups() -> String {
    std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// The lowest memory limit of the process's cgroups, in bytes. `None` means no limit.
pub fn memory_limit() -> Option<u64> {
    memory_of(&groups(), Path::new(GROUPS))
}

/// The memory of the machine, in bytes.
pub fn memory() -> Option<u64> {
    memory_total(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// `meminfo` is the content of `/proc/meminfo` (proc_meminfo(5)).
fn memory_total(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.split_ascii_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

fn memory_of(groups: &str, mounted: &Path) -> Option<u64> {
    let limits = limits(groups, mounted, "memory", memory_v2, memory_v1);
    limits.min().filter(|limit| *limit < UNLIMITED_BYTES)
}

/// A limit above this number means no limit: cgroups v1 then reports a number near 2^63.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// The kernel throttles a process at `memory.high` and kills it at `memory.max`.
fn memory_v2(group: &Path) -> Option<u64> {
    let read = |name| std::fs::read_to_string(group.join(name)).ok()?.trim().parse().ok();
    ["memory.max", "memory.high"].into_iter().filter_map(read).min()
}

fn memory_v1(group: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(group.join("memory.limit_in_bytes")).ok()?;
    text.trim().parse().ok()
}

/// The lowest limit of the process's cgroup and of its parents, in CPUs.
fn quota(groups: &str, mounted: &Path) -> Option<f64> {
    limits(groups, mounted, "cpu", quota_v2, quota_v1).min_by(f64::total_cmp)
}

/// The limits of the process's cgroup and of its parents. `groups` is the content of
/// `/proc/self/cgroup` (cgroups(7)). `mounted` is the directory of the cgroup file systems.
fn limits<N>(
    groups: &str,
    mounted: &Path,
    controller: &str,
    version_2: fn(&Path) -> Option<N>,
    version_1: fn(&Path) -> Option<N>,
) -> impl Iterator<Item = N> {
    let of_group = move |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, read): (PathBuf, fn(&Path) -> Option<N>) = match controllers {
            "" => (mounted.to_owned(), version_2),
            _ if controllers.split(',').any(|name| name == controller) => {
                (mounted.join(controllers), version_1)
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|group| group.starts_with(&root));
        Some(above.filter_map(read).collect::<Vec<_>>())
    };
    groups.lines().filter_map(of_group).flatten().collect::<Vec<_>>().into_iter()
}

/// The quota of a group of cgroups v2. `cpu.max` contains the time and the period in microseconds.
/// The time may be `max`, which means no limit.
fn quota_v2(group: &Path) -> Option<f64> {
    let text = std::fs::read_to_string(group.join("cpu.max")).ok()?;
    let (time_us, period_us) = text.trim().split_once(' ')?;
    cpus(time_us.parse().ok()?, period_us.parse().ok()?)
}

/// The quota of a group of cgroups v1. The time and the period are in two files, in microseconds. A
/// time of -1 means no limit.
fn quota_v1(group: &Path) -> Option<f64> {
    let read = |name| std::fs::read_to_string(group.join(name)).ok()?.trim().parse().ok();
    cpus(read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)
}

fn cpus(time_us: f64, period_us: f64) -> Option<f64> {
    (time_us > 0.0 && period_us > 0.0).then(|| time_us / period_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus(allowed: usize, given: bool, quota: Option<f64>) -> Cpus {
        Cpus { allowed: (2..2 + allowed).collect(), given, quota }
    }

    #[test]
    fn workers_are_as_many_as_cpus_or_as_the_quota_keeps_busy() {
        for (allowed, quota, workers) in [
            (4, None, 4),
            (4, Some(0.5), 1),
            (4, Some(1.0), 1),
            (4, Some(1.5), 2),
            (4, Some(16.0), 4),
        ] {
            assert_eq!(cpus(allowed, false, quota).workers(), workers, "{allowed} {quota:?}");
        }
    }

    #[test]
    fn only_cpus_that_are_ours_alone_are_pinned_to() {
        for (given, workers, pin, places) in [
            (true, 2, None, Some(&[2, 3][..])),
            (true, 1, None, None),
            (false, 2, None, None),
            (false, 1, Some(true), Some(&[2])),
            (true, 2, Some(false), None),
            (true, 3, Some(true), None),
        ] {
            let cpus = cpus(2, given, None);
            assert_eq!(cpus.places(workers, pin), places, "{given} {workers} {pin:?}");
        }
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("cpu.max", "max 100000\n");
        write("pod/cpu.max", "150000 100000\n");
        write("pod/app/cpu.max", "max 100000\n");
        write("cpu/cpu.cfs_quota_us", "-1\n");
        write("cpu/cpu.cfs_period_us", "100000\n");
        write("cpu/job/cpu.cfs_quota_us", "50000\n");
        write("cpu/job/cpu.cfs_period_us", "100000\n");
        for (groups, expected) in [
            ("0::/pod/app\n", Some(1.5)),
            ("0::/\n", None),
            ("0::/gone/away\n", None),
            ("2:cpuacct:/job\n1:cpu:/job\n0::/\n", Some(0.5)),
            ("1:cpu:/job\n0::/pod\n", Some(0.5)),
            ("1:cpu:/\n", None),
            ("not\n::\n", None),
        ] {
            assert_eq!(quota(groups, root.path()), expected, "{groups}");
        }
    }

    #[test]
    fn the_least_limit_on_memory_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pod/memory.max", "134217728\n");
        write("pod/memory.high", "max\n");
        write("pod/app/memory.max", "max\n");
        write("pod/app/memory.high", "67108864\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        write("memory/job/memory.limit_in_bytes", "1048576\n");
        for (groups, expected) in [
            ("0::/pod\n", Some(128 << 20)),
            ("0::/pod/app\n", Some(64 << 20)),
            ("0::/\n", None),
            ("4:memory:/\n0::/\n", None),
            ("4:memory:/job\n0::/\n", Some(1 << 20)),
        ] {
            assert_eq!(memory_of(groups, root.path()), expected, "{groups}");
        }
    }

    #[test]
    fn the_memory_of_the_machine_is_read() {
        let meminfo = "MemTotal:        8132844 kB\nMemFree:          229132 kB\n";
        assert_eq!(memory_total(meminfo), Some(8_132_844 * 1024));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert!(memory().is_some());
    }
}
