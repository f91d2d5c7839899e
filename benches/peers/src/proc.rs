//! What the kernel knows of this process.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use crate::contender::{Failure, WORKER};
use crate::job::LIMITER;

/// Memory that is resident, in bytes.
pub(crate) fn resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(field(&status, "VmRSS:").ok_or("no VmRSS")? * 1024)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Of one thread or more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub cpu: Duration,
    /// How often it went to sleep of its own accord, and so was woken.
    pub sleeps: u64,
}

/// Of each thread that is neither the runtime's nor the first, by number.
#[derive(Debug, Default)]
pub(crate) struct Threads {
    background: HashMap<u64, Usage>,
    all: HashMap<u64, Usage>,
}

impl Threads {
    pub(crate) fn now() -> Result<Self, Failure> {
        let mut threads = Threads::default();
        let first = u64::from(std::process::id());
        for entry in fs::read_dir("/proc/self/task")? {
            let path = entry?.path();
            let number = path
                .file_name()
                .and_then(|name| name.to_str()?.parse().ok());
            let (Some(number), Ok(name), Ok(cpu), Ok(status)) = (
                number,
                fs::read_to_string(path.join("comm")),
                fs::read_to_string(path.join("schedstat")),
                fs::read_to_string(path.join("status")),
            ) else {
                // It has ended meanwhile.
                continue;
            };
            let cpu_ns = cpu.split(' ').next().and_then(|ns| ns.parse().ok());
            let usage = Usage {
                cpu: Duration::from_nanos(cpu_ns.unwrap_or(0)),
                sleeps: field(&status, "voluntary_ctxt_switches:").unwrap_or(0),
            };
            threads.all.insert(number, usage);
            if number != first && ![WORKER, LIMITER].contains(&name.trim_end()) {
                threads.background.insert(number, usage);
            }
        }
        Ok(threads)
    }

    /// What the threads besides the runtime's have used since.
    pub(crate) fn background_since(&self, before: &Threads) -> Usage {
        since(&self.background, &before.background)
    }

    /// What all threads have used since.
    pub(crate) fn all_since(&self, before: &Threads) -> Usage {
        since(&self.all, &before.all)
    }
}

fn since(now: &HashMap<u64, Usage>, before: &HashMap<u64, Usage>) -> Usage {
    now.iter().fold(Usage::default(), |sum, (number, now)| {
        let before = before.get(number).copied().unwrap_or_default();
        Usage {
            cpu: sum.cpu + now.cpu.saturating_sub(before.cpu),
            sleeps: sum.sleeps + now.sleeps.saturating_sub(before.sleeps),
        }
    })
}
