//! Which process a report is of.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A process that was watched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    id: u64,
    host: String,
    program: String,
    pid: u32,
    seen_unix_ms: u64,
    cpus: usize,
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
        }
    })
}
