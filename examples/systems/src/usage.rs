//! What the process takes of the machine.

use std::time::Duration;

/// CPU time and memory of this process; zero where the system does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Of all threads, since the process began.
    pub cpu: Duration,
    /// Memory that is resident.
    pub rss_kib: u64,
}

impl Usage {
    /// As it is now.
    pub fn now() -> Self {
        #[cfg(target_os = "linux")]
        return Usage {
            cpu: linux::cpu().unwrap_or_default(),
            rss_kib: linux::rss_kib().unwrap_or_default(),
        };
        #[cfg(not(target_os = "linux"))]
        Usage::default()
    }

    /// The CPU time since an earlier look.
    pub fn cpu_since(&self, earlier: &Usage) -> Duration {
        self.cpu.saturating_sub(earlier.cpu)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::time::Duration;

    /// The kernel's unit in these files is 10 ms on all platforms Rust knows.
    const TICK: Duration = Duration::from_millis(10);

    pub(super) fn cpu() -> Option<Duration> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the program comes before, and may have spaces.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace().skip(11);
        let user: u32 = fields.next()?.parse().ok()?;
        let kernel: u32 = fields.next()?.parse().ok()?;
        Some(TICK * (user + kernel))
    }

    pub(super) fn rss_kib() -> Option<u64> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn work_and_memory_show() {
        let before = Usage::now();
        let start = Instant::now();
        let mut block = vec![0_u8; 32 << 20];
        while start.elapsed() < Duration::from_millis(300) {
            block
                .iter_mut()
                .for_each(|byte| *byte = byte.wrapping_add(1));
        }
        let after = Usage::now();
        assert!(after.cpu_since(&before) > Duration::ZERO);
        assert!(after.rss_kib >= before.rss_kib + (16 << 10), "{after:?}");
        assert_eq!(block.len(), 32 << 20);
    }
}
