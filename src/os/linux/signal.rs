//! Asks a running thread for a copy of its stack, by a signal.
//!
//! By a timer on the thread's own CPU clock where that cuts no system call short, see
//! [`super::timer`]. There the request is armed, and the answer is picked up later: the
//! signal comes at the next tick at which the thread runs.
//!
//! Elsewhere, and under a filter of system calls, by a directed signal, see
//! [`super::directed`], and only to a thread that has computed for long without having
//! slept, see [`super::computing`], and was not switched out between the last two looks. It
//! may have entered a system call since, which then returns EINTR. What is left is a race
//! of microseconds, not of the call's length.
//!
//! A thread that blocks the signal, or has no room for the handler, is never asked.

use std::ffi::c_int;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::os::Miss;
use crate::os::platform::computing::Computing;
use crate::os::platform::directed;
use crate::os::platform::handler;
use crate::os::platform::own_stack::OwnStack;
use crate::os::platform::request::{Request, Want};
use crate::os::platform::thread::{ThreadProbe, thread_id};
use crate::os::platform::timer::{self, Timer};

/// How long a directed signal's handler is waited for.
const PATIENCE: Duration = Duration::from_millis(5);
/// For how long the asker looks all the time: on another CPU the handler takes
/// microseconds.
const SPINS: Duration = Duration::from_micros(30);
/// Then it sleeps, as it may be on the thread's CPU: for longer than it is likely to have
/// run since it woke. One that comes back sooner has had more than its share, and waits
/// for the scheduler's next tick, up to 4 ms (kernel 6.18, `kernel/sched/fair.c`:
/// `entity_eligible` in `do_preempt_short`); so does one that yields.
const NAP: Duration = Duration::from_micros(200);

/// How much CPU time a timer that works cannot take to expire: a tick is 10 ms at most
/// (`CONFIG_HZ`, 100 to 1000). While the host of a virtual machine does not run a CPU, a
/// thread on that CPU seems to compute, and has no tick.
const SURELY_EXPIRED_NS: u64 = 200_000_000;
/// And how long it is waited for where this thread gets no CPU.
const TRIAL: Duration = Duration::from_secs(2);

/// How often a thread's mask is looked at, and when again: the C library masks all
/// signals while it starts a thread or a process.
const MASK_LOOKS: usize = 4;
const MASK_PAUSE: Duration = Duration::from_micros(500);

/// What is known of timers, for the process.
static TIMERS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const TRYING: u8 = 1;
const WORK: u8 = 2;
const DO_NOT: u8 = 3;

/// How threads are asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means {
    pub(crate) signal: c_int,
    /// Whether a filter may kill for calls that the program does not make itself.
    pub(crate) is_filtered: bool,
}

/// Asks a running thread for a copy of its stack.
///
/// Never waits for the thread where timers are used; 5 ms at most elsewhere.
pub(crate) fn ask(
    means: Means,
    want: &Want,
    thread: &ThreadProbe,
    computing: &mut Computing,
) -> Result<Request, Miss> {
    let signal = means.signal;
    if means.is_filtered && !directed::may_use_sockets() {
        return Err(Miss::Filtered);
    }
    if blocks(want.tid, signal) {
        return Err(Miss::SignalBlocked);
    }
    handler::install(signal)?;
    if is_harmless(means) {
        match by_timer(signal, want) {
            Ok(request) => {
                try_timers_once(signal);
                return Ok(request);
            }
            // Such a call may be forbidden; a signal may not be.
            Err(Miss::NotPermitted) => TIMERS.store(DO_NOT, Relaxed),
            Err(other) => return Err(other),
        }
    }
    let run = computing.confirm(thread)?;
    // Where it fails the request is dropped, which leaves alone what a signal that was
    // pending before may have claimed.
    let request = Request::new(want)?;
    if means.is_filtered {
        directed::by_socket(signal, want.tid, &request, || run.goes_on())?;
    } else if run.goes_on() {
        directed::by_call(signal, want.tid, &request)?;
    } else {
        return Err(Miss::Queued);
    }
    wait_for(&request);
    Ok(request)
}

/// Whether to ask a thread cuts no system call of its short, so that a thread can be asked
/// before it is certain that there is a stall.
pub(crate) fn is_harmless(means: Means) -> bool {
    !means.is_filtered && may_use_timers()
}

fn by_timer(signal: c_int, want: &Want) -> Result<Request, Miss> {
    let mut request = Request::new(want)?;
    request.timer = Some(Timer::arm(signal, want.tid, request.number())?);
    Ok(request)
}

/// Relaxed throughout: whoever finds out, finds the same.
fn may_use_timers() -> bool {
    match TIMERS.load(Relaxed) {
        WORK | TRYING => true,
        UNKNOWN if timer::are_harmless() => true,
        _ => {
            TIMERS.store(DO_NOT, Relaxed);
            false
        }
    }
}

/// Whether a request is never answered, since timers have turned out not to work.
pub(crate) fn is_hopeless(request: &Request) -> bool {
    request.timer.is_some() && TIMERS.load(Relaxed) == DO_NOT
}

/// Sees whether timers are answered, on a thread of its own: it takes a CPU until the next
/// tick. A kernel's release is a claim: gVisor, for one, has not all that it claims.
fn try_timers_once(signal: c_int) {
    let first = TIMERS.compare_exchange(UNKNOWN, TRYING, Relaxed, Relaxed);
    if first.is_err() {
        return;
    }
    let thread = std::thread::Builder::new().name("stallscope-trial".into());
    let tried = thread.spawn(move || {
        TIMERS.store(outcome_of_trial(signal), Relaxed);
    });
    if tried.is_err() {
        TIMERS.store(UNKNOWN, Relaxed);
    }
}

fn outcome_of_trial(signal: c_int) -> u8 {
    let tid = thread_id();
    let stack = OwnStack::new();
    stack.note();
    let known = stack.known(tid).filter(|known| known.room().is_ok());
    let Some(known) = known.filter(|_| !blocks(tid, signal)) else {
        // Nothing can be found out here, and the release is most likely right.
        return WORK;
    };
    let want = Want {
        tid,
        bounds: known.bounds,
        // Nothing of the stack.
        up_to: 0,
        room: 0,
    };
    let Ok(request) = by_timer(signal, &want) else {
        return UNKNOWN;
    };
    let cpu_ns = || timer::cpu_ns(tid).unwrap_or(0);
    outcome(cpu_ns, || request.is_answered())
}

/// Whether a timer of the calling thread is answered in time, by that thread's CPU clock.
fn outcome(mut cpu_ns: impl FnMut() -> u64, mut is_answered: impl FnMut() -> bool) -> u8 {
    let (start, start_ns) = (Instant::now(), cpu_ns());
    while start.elapsed() < TRIAL {
        // The clock first: the answer may come while the clock is read, however long that
        // takes.
        let now_ns = cpu_ns();
        if is_answered() {
            return WORK;
        }
        if now_ns.saturating_sub(start_ns) > SURELY_EXPIRED_NS {
            return DO_NOT;
        }
    }
    UNKNOWN
}

/// Whether a thread blocks a signal, and goes on to.
fn blocks(tid: i32, signal: c_int) -> bool {
    let blocks = || {
        let status = std::fs::read(format!("/proc/self/task/{tid}/status")).unwrap_or_default();
        masks(&status, signal)
    };
    (1..MASK_LOOKS).all(|_| {
        let blocks = blocks();
        if blocks {
            std::thread::sleep(MASK_PAUSE);
        }
        blocks
    }) && blocks()
}

/// By the line `SigBlk`, a bit for each signal from the lowest on (proc_pid_status(5)).
fn masks(status: &[u8], signal: c_int) -> bool {
    let mut lines = status.split(|byte| *byte == b'\n');
    let mask = lines.find_map(|line| line.strip_prefix(b"SigBlk:"));
    let mask = mask.and_then(|mask| std::str::from_utf8(mask).ok());
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = u32::try_from(signal.saturating_sub(1)).unwrap_or(u32::MAX);
    mask.is_some_and(|mask| mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1))
}

/// Waits for a moment for the answer.
fn wait_for(request: &Request) {
    let start = Instant::now();
    while !request.is_answered() && start.elapsed() < PATIENCE {
        if start.elapsed() < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn timers_work_where_the_answer_comes_with_a_pause() {
        // The host pauses the CPU for 3 s while its clock is read for the second time.
        for (is_ever_answered, expected) in [(true, WORK), (false, DO_NOT)] {
            let reads = Cell::new(0);
            let cpu_ns = || {
                reads.set(reads.get() + 1);
                if reads.get() < 3 { 0 } else { 3_000_000_000 }
            };
            let is_answered = || is_ever_answered && reads.get() >= 3;
            assert_eq!(outcome(cpu_ns, is_answered), expected);
        }
    }
}
