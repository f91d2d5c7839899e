//! Why a process waits for CPUs: a quota of its control group, or the machine's load.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::control_group;

/// In words: how many CPUs there are, whether a quota is the reason, and the load.
///
/// Reads some files of `/proc` and `/sys/fs/cgroup`: some 100 us.
pub(crate) fn cpu_shortage() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = cpus_of(&read("/proc/self/status"));
    let groups = read("/proc/self/cgroup");
    let quota = tightest_quota(&groups, Path::new("/sys/fs/cgroup"));
    in_words(cpus, quota, &read("/proc/loadavg"))
}

/// How much CPU time a control group may have.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quota {
    cpus: f64,
    /// How often it has been used up.
    throttled: u64,
}

fn in_words(cpus: Option<usize>, quota: Option<Quota>, load: &str) -> String {
    let mut words = String::new();
    let of = cpus.map_or_else(String::new, |cpus| format!(" of {cpus}"));
    match (quota, cpus) {
        (Some(quota), _) => {
            let times = quota.throttled;
            let _ = write!(
                words,
                "quota {}{of} CPUs, throttled {times} times",
                quota.cpus
            );
        }
        (None, Some(1)) => words.push_str("1 CPU"),
        (None, Some(cpus)) => {
            let _ = write!(words, "{cpus} CPUs");
        }
        (None, None) => words.push_str("CPUs"),
    }
    if let Some(load) = load.split_whitespace().next() {
        let _ = write!(words, ", load {load}");
    }
    words
}

/// On how many CPUs the process may run, of a list like `0-3,7`.
fn cpus_of(status: &str) -> Option<usize> {
    let line = |line: &'_ str| line.strip_prefix("Cpus_allowed_list:").map(str::to_owned);
    let list = status.lines().find_map(line)?;
    let ranges = list.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    });
    ranges.sum()
}

/// Of the groups of the process, up to the root, that which leaves it the least.
fn tightest_quota(groups: &str, root: &Path) -> Option<Quota> {
    let folders = control_group::folders(groups, "cpu", root);
    let quotas = folders.iter().filter_map(|(_, folder)| quota_in(folder));
    quotas.min_by(|one, other| one.cpus.total_cmp(&other.cpus))
}

/// Only one that has been used up: any other keeps nobody waiting.
fn quota_in(group: &Path) -> Option<Quota> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
    let (quota_us, period_us) = match read("cpu.max") {
        Some(text) => {
            // `max` is no number.
            let mut parts = text.split_whitespace().map(str::parse::<u64>);
            (parts.next()?.ok()?, parts.next()?.ok()?)
        }
        // -1 for none is no number here.
        None => (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?),
    };
    let statistics = read("cpu.stat")?;
    let throttled = |line: &str| line.strip_prefix("nr_throttled ")?.trim().parse().ok();
    let throttled: u64 = statistics.lines().find_map(throttled)?;
    let cpus = (quota_us as f64 / period_us.max(1) as f64 * 100.0).round() / 100.0;
    (throttled > 0).then_some(Quota { cpus, throttled })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_that_was_used_up_is_the_reason_else_the_load() {
        let quota = Some(Quota {
            cpus: 1.5,
            throttled: 12,
        });
        let load = "8.31 6.00 5.02 9/312 4711\n";
        assert_eq!(
            in_words(Some(4), quota, load),
            "quota 1.5 of 4 CPUs, throttled 12 times, load 8.31"
        );
        assert_eq!(in_words(Some(2), None, load), "2 CPUs, load 8.31");
        assert_eq!(in_words(Some(1), None, ""), "1 CPU");
        assert_eq!(in_words(None, None, ""), "CPUs");
    }

    #[test]
    fn cpus_are_counted_from_their_list() {
        let of = |list: &str| cpus_of(&format!("Name:\tx\nCpus_allowed_list:\t{list}\n"));
        assert_eq!(of("0-3,7"), Some(5));
        assert_eq!(of("2"), Some(1));
        assert_eq!((of(""), cpus_of("")), (None, None));
    }

    #[test]
    fn the_tightest_group_counts_in_both_versions() {
        let root = std::env::temp_dir().join(format!("stallscope-quota-{}", std::process::id()));
        let write = |folder: &str, files: &[(&str, &str)]| {
            fs::create_dir_all(root.join(folder)).unwrap();
            for (name, text) in files {
                fs::write(root.join(folder).join(name), text).unwrap();
            }
        };
        let stat = |times: u32| format!("nr_periods 50\nnr_throttled {times}\n");
        write(
            "a",
            &[("cpu.max", "400000 100000\n"), ("cpu.stat", &stat(3))],
        );
        write(
            "a/b",
            &[("cpu.max", "150000 100000\n"), ("cpu.stat", &stat(2))],
        );
        write(
            "a/b/c",
            &[("cpu.max", "max 100000\n"), ("cpu.stat", &stat(0))],
        );
        write(
            "a/calm",
            &[("cpu.max", "100000 100000\n"), ("cpu.stat", &stat(0))],
        );
        let period = ("cpu.cfs_period_us", "100000\n");
        let old = [
            ("cpu.cfs_quota_us", "50000\n"),
            period,
            ("cpu.stat", &stat(7)),
        ];
        write("cpu/d", &old);
        write(
            "cpu/e",
            &[("cpu.cfs_quota_us", "-1\n"), period, ("cpu.stat", &stat(7))],
        );
        let of = |groups: &str| tightest_quota(groups, &root);
        let quota = |cpus, throttled| Some(Quota { cpus, throttled });
        assert_eq!(of("0::/a/b/c\n"), quota(1.5, 2));
        assert_eq!(of("0::/a/calm\n"), quota(4.0, 3));
        assert_eq!(of("4:cpu,cpuacct:/d\n3:memory:/e\n"), quota(0.5, 7));
        assert_eq!((of("4:cpu:/e\n"), of("")), (None, None));
        fs::remove_dir_all(&root).unwrap();
    }
}
