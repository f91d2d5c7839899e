//! Which process a report is of.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::escape::part;

/// How many origins a merged report tells apart.
const MOST: usize = 1_000;

/// A process that was watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    id: u64,
    host: String,
    program: String,
    pid: u32,
    seen_unix_ms: u64,
    cpus: usize,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    processes: u64,
}

const fn one() -> u64 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
const fn is_one(processes: &u64) -> bool {
    *processes == 1
}

impl Origin {
    /// A number that tells it from other processes, on any host; by chance.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The host's name, where the environment or the system tells it; else empty.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The file name of the executable.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The operating system's number of the process.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// When the first watchdog or audit of the process was started, in
    /// milliseconds since 1970.
    pub const fn seen_unix_ms(&self) -> u64 {
        self.seen_unix_ms
    }

    /// How many CPUs the process could use.
    pub const fn cpus(&self) -> usize {
        self.cpus
    }

    /// How many processes it stands for: 1, but for the one origin that stands for
    /// all beyond the [bound](crate::Report::merge) of a merged report.
    pub const fn processes(&self) -> u64 {
        self.processes
    }

    /// Program and host, as they are shown.
    pub(super) fn named(&self) -> String {
        match self.processes {
            1 => format!("{} on {}", part(&self.program), part(&self.host)),
            more => format!("{more} more processes"),
        }
    }

    /// Each process once; those first that stalls are `seen` of.
    pub(super) fn merged(ours: &[Origin], theirs: &[Origin], seen: &HashSet<u64>) -> Vec<Origin> {
        let all = ours.iter().chain(theirs);
        let (mut single, mut rest): (Vec<&Origin>, Vec<&Origin>) =
            all.partition(|origin| origin.processes == 1);
        single.sort();
        single.dedup();
        if single.len() > MOST {
            single.sort_by_key(|origin| !seen.contains(&origin.id));
            rest.extend(single.split_off(MOST));
            single.sort();
        }
        let rest = (!rest.is_empty()).then(|| Origin {
            id: 0,
            host: String::new(),
            program: String::new(),
            pid: 0,
            seen_unix_ms: rest.iter().map(|one| one.seen_unix_ms).min().unwrap_or(0),
            cpus: rest.iter().fold(0, |sum, one| sum.saturating_add(one.cpus)),
            processes: rest
                .iter()
                .fold(0, |sum, one| sum.saturating_add(one.processes)),
        });
        single.into_iter().cloned().chain(rest).collect()
    }
}

impl fmt::Display for Origin {
    /// Program, number and host: `shop 4711 on web-3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.processes {
            1 => {
                let (program, host) = (part(&self.program), part(&self.host));
                write!(f, "{program} {} on {host}", self.pid)
            }
            _ => f.write_str(&self.named()),
        }
    }
}

/// This process.
pub(crate) fn origin() -> &'static Origin {
    static ORIGIN: OnceLock<Origin> = OnceLock::new();
    ORIGIN.get_or_init(|| {
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(|path| path.file_name());
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let host = std::env::var("HOSTNAME")
            .or_else(|_| std::fs::read_to_string("/proc/sys/kernel/hostname"));
        Origin {
            // 53 bits, so that it survives readers of JSON that know only floats.
            id: RandomState::new().hash_one(std::process::id()) >> 11,
            host: host.unwrap_or_default().trim().to_owned(),
            program: program.map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            pid: std::process::id(),
            seen_unix_ms: since
                .ok()
                .and_then(|since| u64::try_from(since.as_millis()).ok())
                .unwrap_or(0),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            processes: 1,
        }
    })
}
