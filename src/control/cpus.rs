//! The CPUs of the process: how many workers run, and whether they are pinned.

use std::path::{Path, PathBuf};

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

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
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let quota = quota(&groups, Path::new("/sys/fs/cgroup"));
        Self { allowed, given, quota }
    }

    /// The number of workers for `runtime.workers: auto`: one for each CPU, but no more than the
    /// quota, rounded up.
    pub fn workers(&self) -> usize {
        let of_quota = self.quota.map_or(usize::MAX, |cpus| cpus.ceil() as usize);
        self.allowed.len().min(of_quota).max(1)
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

/// The lowest CPU quota of the process's cgroup and its parents, in CPUs. `groups` is the content
/// of `/proc/self/cgroup` (cgroups(7)). `mounted` is the mount point of the cgroup file systems.
fn quota(groups: &str, mounted: &Path) -> Option<f64> {
    let of_group = |line: &str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let (root, read): (PathBuf, fn(&Path) -> Option<f64>) = match controllers {
            "" => (mounted.to_owned(), quota_v2),
            _ if controllers.split(',').any(|name| name == "cpu") => {
                (mounted.join(controllers), quota_v1)
            }
            _ => return None,
        };
        let group = root.join(path.trim_start_matches('/'));
        let above = group.ancestors().take_while(|group| group.starts_with(&root));
        above.filter_map(read).min_by(f64::total_cmp)
    };
    groups.lines().filter_map(of_group).min_by(f64::total_cmp)
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
}
