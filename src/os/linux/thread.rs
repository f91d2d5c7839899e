//! What the kernel tells of another thread of this process.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::detector::{Spent, ThreadState, ThreadTimes};
use crate::os::platform::files::{Opened, ThreadFile};
use crate::os::platform::memory;
use crate::os::platform::position::Position;
use crate::os::{Activity, Doing, Importance, Miss, ThreadName};

/// The kernel's id of the calling thread.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: gettid has no preconditions and cannot fail.
    unsafe { libc::gettid() }
}

/// The name of a thread of this process.
pub(crate) fn thread_name(tid: i32) -> Option<String> {
    let name = std::fs::read(format!("/proc/self/task/{tid}/comm")).ok()?;
    let name = String::from_utf8_lossy(name.trim_ascii_end()).into_owned();
    (!name.is_empty()).then_some(name)
}

/// The same, without allocating: some 10 us.
pub(crate) fn thread_comm(tid: i32) -> Option<ThreadName> {
    let file = ThreadFile::new(tid, "comm", Importance::Never);
    let mut bytes = [0; ThreadName::ROOM];
    let length = file.open().ok()?.read_at(&mut bytes, 0).ok()?;
    ThreadName::new(bytes.get(..length)?)
}

/// The threads of this process.
pub(crate) fn thread_ids() -> Option<Vec<i32>> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let ids = tasks.map(|task| task.ok()?.file_name().to_str()?.parse().ok());
    ids.collect()
}

/// How long each thread of this process has waited for a CPU in all, by its id.
///
/// Some 10 us a thread, and allocates: for test mode. Empty under a filter of system calls,
/// which may kill for `getdents64`.
pub(crate) fn waits_ns() -> Vec<(i32, u64)> {
    if memory::is_filtered() {
        return Vec::new();
    }
    let waits = thread_ids().unwrap_or_default().into_iter().map(|tid| {
        let file = File::open(format!("/proc/self/task/{tid}/schedstat")).ok()?;
        Some((tid, wait_ns(&file)?))
    });
    waits.flatten().collect()
}

/// Reads what one thread is doing. A look takes some 6 us where the thread's files are
/// kept open, three times as long where not. No look allocates, or takes the lock of the
/// process's memory map.
#[derive(Debug)]
pub(crate) struct ThreadProbe {
    tid: i32,
    stat: ThreadFile,
    /// Not there in a kernel without scheduler statistics.
    schedstat: ThreadFile,
    syscall: ThreadFile,
}

impl ThreadProbe {
    /// Fails where the thread is gone or the system hides it.
    pub(crate) fn open(tid: i32, importance: Importance) -> Result<Self, Miss> {
        let file = |name| ThreadFile::new(tid, name, importance);
        let probe = ThreadProbe {
            tid,
            stat: file("stat"),
            schedstat: file("schedstat"),
            syscall: file("syscall"),
        };
        match probe.stat.open() {
            Ok(_) => {}
            Err(Miss::Gone) if File::open("/proc/self/stat").is_err() => return Err(Miss::NoProc),
            Err(miss) => return Err(miss),
        }
        Ok(probe)
    }

    pub(crate) const fn tid(&self) -> i32 {
        self.tid
    }

    /// Whether a look is cheap, because the files that it reads are kept open.
    pub(crate) fn is_kept(&self) -> bool {
        self.stat.is_kept() && self.schedstat.is_kept()
    }

    /// Where the thread is, unless the system hides it.
    pub(super) fn syscall(&self) -> Result<Opened<'_>, Miss> {
        self.syscall.open()
    }

    /// `None` once the thread is gone.
    pub(crate) fn times(&self) -> Option<ThreadTimes> {
        let asleep = self.is_asleep()?;
        let file = self.schedstat.open().ok()?;
        let before @ [_, wait_ns, runs] = schedstat(&file)?;
        let cpu_ns = cpu_ns(self.tid)?;
        // The clock of a thread moves only while it is on a CPU; reading it takes
        // longer than it ticks.
        let moves = || self::cpu_ns(self.tid).map(|later_ns| later_ns > cpu_ns);
        // One that is given a CPU only now has waited until now: with the runs counted
        // before, the sleep it wakes from would lie within one run.
        let all_along = || schedstat(&file).map(|after| after[1..] == before[1..]);
        let state = if asleep {
            ThreadState::Off
        } else if moves()? && all_along()? {
            ThreadState::OnCpu
        } else {
            ThreadState::Queued
        };
        Some(ThreadTimes {
            spent: Spent {
                cpu_ns,
                wait_ns,
                runs,
            },
            state,
            // Not the kernel's to know.
            polls: 0,
        })
    }

    /// How long the thread has waited for a CPU in all.
    pub(crate) fn wait_ns(&self) -> Option<u64> {
        wait_ns(&*self.schedstat.open().ok()?)
    }

    /// How long the thread has been on a CPU in all; less than 1 us.
    pub(crate) fn cpu_ns(&self) -> Option<u64> {
        cpu_ns(self.tid)
    }

    /// What can be known without asking for its state, which takes as long again.
    pub(crate) fn spent(&self) -> Option<Spent> {
        let [_, wait_ns, runs] = schedstat(&*self.schedstat.open().ok()?)?;
        let cpu_ns = cpu_ns(self.tid)?;
        Some(Spent {
            cpu_ns,
            wait_ns,
            runs,
        })
    }

    /// What the thread is doing; looks so often, some 10 us each, until it is asleep.
    pub(crate) fn doing(&self, looks: usize) -> Option<Doing> {
        let position = Position::asleep_within(looks, &*self.syscall().ok()?).ok()?;
        Some(position.doing)
    }

    /// How often the thread has gone to sleep, and for how long it has run, in all.
    ///
    /// Allocates: for test mode.
    pub(crate) fn activity(&self) -> Option<Activity> {
        let status =
            std::fs::read_to_string(format!("/proc/self/task/{}/status", self.tid)).ok()?;
        let sleeps = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some(Activity {
            sleeps: sleeps.trim().parse().ok()?,
            cpu_ns: cpu_ns(self.tid)?,
        })
    }

    /// Third field of stat, after the name in parentheses: see proc_pid_stat(5).
    ///
    /// Bytes, because the kernel cuts a long name, within a character if need be.
    fn is_asleep(&self) -> Option<bool> {
        let mut buffer = [0; 128];
        let file = self.stat.open().ok()?;
        let text = read_at_start(&file, &mut buffer)?;
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        Some(*text.get(name_end + 2)? != b'R')
    }
}

pub(crate) fn read_at_start<'a>(file: &File, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match file.read_at(buffer, 0) {
            Ok(length) => return buffer.get(..length),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// How long a thread has waited for a CPU in all, by its schedstat; the wait it may
/// be in comes later.
pub(crate) fn wait_ns(schedstat: &File) -> Option<u64> {
    self::schedstat(schedstat).map(|[_, wait_ns, _]| wait_ns)
}

/// Time on a CPU, as of the last tick if it has one; time waiting on a run queue; and
/// number of timeslices run (kernel documentation, `scheduler/sched-stats.rst`).
fn schedstat(file: &File) -> Option<[u64; 3]> {
    let mut buffer = [0; 96];
    let text = read_at_start(file, &mut buffer)?;
    let mut numbers = text.split(u8::is_ascii_whitespace);
    let mut next = || std::str::from_utf8(numbers.next()?).ok()?.parse().ok();
    Some([next()?, next()?, next()?])
}

/// The CPU time of a thread, up to this moment even while it runs.
fn cpu_ns(tid: i32) -> Option<u64> {
    // How the kernel encodes the clock of another thread: the inverted id, and
    // 6 for "of a thread, as the scheduler counts" (kernel 6.18,
    // include/linux/posix-timers_types.h: CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED).
    clock_ns((!tid << 3) | 6)
}

/// What a clock of this process shows; `None` if there is no such.
pub(crate) fn clock_ns(clock: libc::clockid_t) -> Option<u64> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the length of the call; a clock that
    // there is not, like that of no thread of this process, makes it fail.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    fn probe_of(body: impl FnOnce() + Send + 'static) -> ThreadProbe {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            send.send(thread_id()).unwrap();
            body();
        });
        ThreadProbe::open(receive.recv().unwrap(), Importance::Other).unwrap()
    }

    #[test]
    fn a_sleeping_thread_is_off_cpu_and_gains_none() {
        let (stop, stopped) = mpsc::channel::<()>();
        let probe = probe_of(move || {
            let _ = stopped.recv();
        });
        std::thread::sleep(Duration::from_millis(20));
        let before = probe.times().unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let after = probe.times().unwrap();
        assert_eq!(after.state, ThreadState::Off);
        assert_eq!(after.spent.cpu_ns, before.spent.cpu_ns);
        drop(stop);
    }

    #[test]
    fn a_spinning_thread_is_never_off_cpu_and_its_time_adds_up() {
        let stop = Arc::new(AtomicBool::new(false));
        let spin = Arc::clone(&stop);
        let probe = probe_of(move || while !spin.load(Ordering::Relaxed) {});
        let before = probe.times().unwrap();
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        let after = probe.times().unwrap();
        let elapsed = start.elapsed();
        stop.store(true, Ordering::Relaxed);
        assert_ne!(after.state, ThreadState::Off);
        let (before, after) = (before.spent, after.spent);
        assert!(after.cpu_ns > before.cpu_ns);
        let accounted = after.cpu_ns - before.cpu_ns + after.wait_ns - before.wait_ns;
        assert!(Duration::from_nanos(accounted) <= elapsed + Duration::from_millis(10));
    }

    #[test]
    fn a_sleep_never_lies_between_two_looks_that_saw_one_run() {
        const SLEEPS: usize = 200;
        let slept = Arc::new(AtomicUsize::new(0));
        let sleeps = Arc::clone(&slept);
        let nap = Duration::from_millis(2);
        let probe = probe_of(move || {
            for _ in 0..SLEEPS {
                let awake = Instant::now();
                while awake.elapsed() < Duration::from_micros(50) {}
                std::thread::sleep(nap);
                sleeps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut before: Option<(Instant, Spent)> = None;
        let mut as_one_run = 0;
        while slept.load(Ordering::Relaxed) < SLEEPS
            && let Some(ThreadTimes { spent, state, .. }) = probe.times()
        {
            if state != ThreadState::OnCpu {
                continue;
            }
            let now = Instant::now();
            if let Some((at, last)) = before
                && last.runs == spent.runs
                && now - at > nap + Duration::from_nanos(spent.cpu_ns - last.cpu_ns)
            {
                as_one_run += 1;
            }
            before = Some((now, spent));
        }
        // A virtual machine can stand still for as long, now and then.
        assert!(as_one_run <= SLEEPS / 50, "{as_one_run}");
    }

    #[test]
    fn a_thread_that_is_gone_tells_nothing() {
        let (stop, stopped) = mpsc::channel::<()>();
        let probe = probe_of(move || {
            let _ = stopped.recv();
        });
        assert!(probe.times().is_some());
        drop(stop);
        let deadline = Instant::now() + Duration::from_secs(10);
        while probe.times().is_some() {
            assert!(Instant::now() < deadline, "still there");
            std::thread::yield_now();
        }
        let gone = ThreadProbe::open(0x3fff_fffe, Importance::Other);
        assert_eq!(gone.err(), Some(Miss::Gone));
    }
}
