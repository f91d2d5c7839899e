//! How much memory the process may still take: by its limits and by its control groups.
//!
//! An allocation that fails ends a Rust program. So whoever needs much has to know before
//! whether there is as much, and to leave the program enough.

use std::fmt;
use std::fs;
use std::path::Path;

use super::control_group::{self, Version};

/// What stays untouched at least.
const RESERVE: u64 = 16 << 20;

/// How much memory of its own debug info may take, however much is left.
const MOST_OWN: u64 = 64 << 20;

/// What sets a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// `RLIMIT_AS`, as `ulimit -v` sets.
    AddressSpace,
    /// `RLIMIT_DATA`.
    Data,
    /// `memory.max` and `memory.high`, or `memory.limit_in_bytes`.
    ControlGroup,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Limit::AddressSpace => "address space",
            Limit::Data => "memory for data",
            Limit::ControlGroup => "the control group's memory",
        })
    }
}

/// What something will take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// In pages of files.
    pub(super) mapped: u64,
    /// In memory of the process's own.
    pub(super) own: u64,
}

/// That there is not as much memory as something needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooLittle {
    Left {
        limit: Limit,
        left: u64,
        need: u64,
    },
    /// This is more than this library takes in any case.
    Allowed {
        need: u64,
    },
}

impl fmt::Display for TooLittle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes.div_ceil(1_000_000);
        match *self {
            TooLittle::Left { limit, left, need } => write!(
                f,
                "{} MB of {limit} are left, {} MB are needed, and a part stays for the program",
                left / 1_000_000,
                mb(need),
            ),
            TooLittle::Allowed { need } => write!(
                f,
                "debug info is compressed and would take {} MB, {} MB are allowed",
                mb(need),
                MOST_OWN / 1_000_000,
            ),
        }
    }
}

/// What is left; `None` where there is no bound, or none that can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryLeft {
    address_space: Option<u64>,
    data: Option<u64>,
    control_group: Option<u64>,
}

impl MemoryLeft {
    /// Reads some files of `/proc` and `/sys/fs/cgroup`: some 100 us.
    pub(super) fn read() -> Self {
        let proc = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).ok();
        let limits = proc("limits").unwrap_or_default();
        let status = proc("status").unwrap_or_default();
        let left = |limit: &str, used: &str| {
            let limit = soft_limit(&limits, limit)?;
            Some(limit.saturating_sub(kilobytes(&status, used)?))
        };
        let groups = proc("cgroup").unwrap_or_default();
        MemoryLeft {
            address_space: left("Max address space", "VmSize:"),
            data: left("Max data size", "VmData:"),
            control_group: control_group_left(&groups, Path::new("/sys/fs/cgroup")),
        }
    }

    #[cfg(test)]
    pub(super) fn of_address_space(left: u64) -> Self {
        MemoryLeft {
            address_space: Some(left),
            ..MemoryLeft::default()
        }
    }

    /// Whether there is as much, and a reserve for the program besides: a quarter of what
    /// is left, at least 16 MiB.
    pub(super) fn allows(&self, need: Need) -> Result<(), TooLittle> {
        if need.own > MOST_OWN {
            return Err(TooLittle::Allowed { need: need.own });
        }
        let all = need.mapped.saturating_add(need.own);
        // Pages of files are taken back by the kernel when a control group needs them.
        let bounds = [
            (Limit::AddressSpace, self.address_space, all),
            (Limit::Data, self.data, need.own),
            (Limit::ControlGroup, self.control_group, need.own),
        ];
        for (limit, left, need) in bounds {
            let Some(left) = left else { continue };
            let reserve = (left / 4).max(RESERVE);
            if need > left.saturating_sub(reserve) {
                return Err(TooLittle::Left { limit, left, need });
            }
        }
        Ok(())
    }
}

/// Of a line like `Max address space  1000  unlimited  bytes`; `None` for no limit.
fn soft_limit(limits: &str, name: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Of a line like `VmSize:  1000 kB`, in bytes.
fn kilobytes(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = rest.split_whitespace().next()?.parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The least that any group of the process has left, up to the root.
fn control_group_left(groups: &str, root: &Path) -> Option<u64> {
    let folders = control_group::folders(groups, "memory", root);
    let left = folders
        .iter()
        .filter_map(|(version, folder)| match version {
            Version::Two => left_in(folder, &["memory.max", "memory.high"], "memory.current"),
            Version::One => left_in(folder, &["memory.limit_in_bytes"], "memory.usage_in_bytes"),
        });
    left.min()
}

/// What the kernel could take back by itself counts as left.
fn left_in(group: &Path, limits: &[&str], used: &str) -> Option<u64> {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(group.join(name)).ok()?;
        text.trim().parse().ok()
    };
    // `max` is no number.
    let limit = limits.iter().filter_map(|name| number(name)).min()?;
    let used = number(used)?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let reclaimable = ["total_inactive_file ", "inactive_file "]
        .iter()
        .find_map(|name| {
            let line = statistics
                .lines()
                .find_map(|line| line.strip_prefix(name))?;
            line.trim().parse::<u64>().ok()
        });
    Some(limit.saturating_sub(used.saturating_sub(reclaimable.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    #[test]
    fn limits_and_use_are_read_from_lines_of_proc() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max data size             unlimited            unlimited            bytes\n\
                      Max address space         61440000             unlimited            bytes\n";
        assert_eq!(soft_limit(limits, "Max address space"), Some(61_440_000));
        assert_eq!(soft_limit(limits, "Max data size"), None);
        let status = "Name:\tx\nVmSize:\t   12345 kB\n";
        assert_eq!(kilobytes(status, "VmSize:"), Some(12_345 * 1024));
        assert_eq!(kilobytes(status, "VmData:"), None);
    }

    #[test]
    fn a_reserve_stays_for_the_program() {
        let left = |address_space, data, control_group| MemoryLeft {
            address_space,
            data,
            control_group,
        };
        let need = Need {
            mapped: 40 * MB,
            own: 10 * MB,
        };
        assert!(left(None, None, None).allows(need).is_ok());
        assert!(left(Some(66 * MB), None, None).allows(need).is_err());
        assert!(left(Some(67 * MB), None, None).allows(need).is_ok());
        assert!(
            left(None, Some(26 * MB), Some(26 * MB))
                .allows(need)
                .is_ok()
        );
        assert!(left(None, Some(25 * MB), None).allows(need).is_err());
        let error = left(None, None, Some(12 * MB)).allows(need).unwrap_err();
        assert_eq!(
            error.to_string(),
            "12 MB of the control group's memory are left, 11 MB are needed, \
             and a part stays for the program"
        );
        assert!(left(Some(0), None, None).allows(Need::default()).is_ok());
        let large = Need {
            mapped: 900 * MB,
            own: 65 * MB,
        };
        let error = MemoryLeft::default().allows(large).unwrap_err();
        assert!(error.to_string().contains("would take 69 MB"), "{error}");
    }

    #[test]
    fn the_least_of_all_groups_counts_in_both_versions() {
        let root = std::env::temp_dir().join(format!("stallscope-groups-{}", std::process::id()));
        let write = |folder: &str, files: &[(&str, &str)]| {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, text) in files {
                fs::write(folder.join(name), text).unwrap();
            }
        };
        write(
            "service/inner",
            &[
                ("memory.max", "max\n"),
                ("memory.high", "900\n"),
                ("memory.current", "300\n"),
                ("memory.stat", "anon 1\ninactive_file 100\n"),
            ],
        );
        write(
            "service",
            &[("memory.max", "500\n"), ("memory.current", "450\n")],
        );
        write(
            "memory/old",
            &[
                ("memory.limit_in_bytes", "70\n"),
                ("memory.usage_in_bytes", "30\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 10\n"),
            ],
        );
        let left = |groups: &str| control_group_left(groups, &root);
        assert_eq!(left("0::/service/inner\n"), Some(50));
        assert_eq!(left("0::/elsewhere\n"), None);
        assert_eq!(left("3:cpu:/old\n4:memory,hugetlb:/old\n"), Some(50));
        assert_eq!(left("0::/../../service\n"), None);
        assert_eq!(left("nonsense\n\n"), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
