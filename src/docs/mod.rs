//! Longer texts: what the crate says, and how it works.

pub mod reports;
pub mod testing;
pub mod walkthrough;

pub mod events {
    //! Stalls as tracing events.
    //!
    //! Target `stallscope`. CRITICAL stalls are ERROR, HIGH ones WARN, MEDIUM ones
    //! INFO and MONITOR ones DEBUG. The parent is the span in which the stalled
    //! future was first polled, where there is one: an event of a stall that is over
    //! can come after the end of its span, and has none then.
    //!
    //! | field | meaning |
    //! |---|---|
    //! | `stall_id` | the same in all events of a stall |
    //! | `phase` | `started`, `escalated` or `ended` |
    //! | `severity` | `MONITOR`, `MEDIUM`, `HIGH` or `CRITICAL` |
    //! | `kind` | `poll` or `turn` |
    //! | `task` | name of the watched future |
    //! | `task_id` | tokio's id of the task |
    //! | `location` | where the future was given its name, `file:line` |
    //! | `worker` | index of the worker that is held up |
    //! | `duration_ms` | how long it has lasted |
    //! | `cause` | why it does not return |
    //! | `on_cpu_ms` | how long its thread is known to have computed |
    //! | `off_cpu_ms` | how long it is known to have slept |
    //! | `waiting_ms` | how long it is known to have waited for a CPU |
    //! | `culprit` | the innermost function of the user's code, with file and line |
    //! | `leaf` | what it called |
    //! | `suppressed` | stalls of this culprit that were not told before this one |
    //!
    //! In message and fields alike, control and invisible characters of names, functions
    //! and paths are shown by number, as `\u{1b}`, and each of these texts takes at most
    //! 256 characters: no name forges a line of a log or makes it long.
    //!
    //! A stall's whole stack is a DEBUG event of its own, with `stall_id` and `stack`.
    //!
    //! A [tracked](crate::Watched::tracked) future that is
    //! [stuck](crate::Builder::stuck_after) is one WARN event with `task`, `task_id`,
    //! `location`, `state` (`waiting`, or `unwakeable` if nothing holds a waker of
    //! it), `waiting_ms` and `polls`.
    //!
    //! Where stacks cannot be had, one INFO event says so once, with `reason`.
    //!
    //! Of each culprit five stalls are told at once and one more a second; a HIGH
    //! or CRITICAL one always. What is kept back is counted: in `suppressed` of the
    //! next that is told, at the watchdog's drop, and in
    //! [`Health::suppressed`](crate::Health::suppressed). Callbacks and reports
    //! have all of them.
    //!
    //! Without a subscriber nothing is told and nothing is printed.
}

pub mod stacks {
    //! How the line of a stuck thread is found, and what that costs.
    //!
    //! # What is needed
    //! Linux on x86_64; the same code is written for aarch64 but has not been run
    //! there. On other platforms there are no stacks and no causes, the rest works.
    //!
    //! Functions come from the symbol table; files, lines and inlined functions
    //! from debug info. A release build has none unless it is told to:
    //!
    //! ```toml
    //! [profile.release]
    //! debug = "line-tables-only"
    //! ```
    //!
    //! A stripped build leaves addresses with module and build id, for symbolizing
    //! elsewhere.
    //!
    //! # How
    //! When a stall starts, and at each escalation, the watchdog looks at the
    //! thread's `/proc/self/task/TID/syscall`.
    //!
    //! - **Blocked**: it reads program counter and stack pointer there, copies the
    //!   stack, and looks again whether nothing moved. The thread is not touched: a
    //!   signal would make `nanosleep`, `poll`, `epoll_wait` and reads under a
    //!   timeout return EINTR.
    //! - **Running**: a timer on the thread's own CPU clock sends one signal
    //!   ([`Builder::signal`](crate::Builder::signal)) at the scheduler's next tick, 4 ms
    //!   at most at 250 Hz. The handler copies registers and stack and does nothing else:
    //!   no allocation, no lock, no system call but `gettid`, all other signals masked,
    //!   errno kept. The signal comes on the thread's way back to user mode, so no system
    //!   call is cut short. The answer is picked up at one of the next looks. While a turn lasts that computes and has nothing
    //!   watched in it, the handler is also asked, ever more rarely, for tokio's id of
    //!   the task: one and the same throughout is likely
    //!   [one poll](crate::Stall::is_one_poll), several are several polls.
    //!
    //! The copy is unwound on the watchdog's thread. It counts only if it leads to
    //! the frame that polls the watched future, or else to the beginning of the
    //! thread: no stack rather than a wrong one. Symbolizing is the slow part, and
    //! has a thread of its own. Copies of stacks never leave the process's memory.
    //!
    //! [`Started`](crate::Phase::Started) does not wait for it longer than one tick,
    //! and not at all for the first stack of a process, which takes longer than that:
    //! its first stall may tell its line only when it escalates or ends.
    //!
    //! # What it costs
    //! `cargo test --release --lib what_a_capture_costs -- --ignored --nocapture`
    //! printed, on two cores of a virtual machine:
    //!
    //! ```text
    //! blocked, the watchdog's time a capture: p50 25.9µs, p99 81.8µs, max 1.1ms
    //! blocked, the thread held up a capture: not at all, it sleeps on
    //! running, the watchdog's time a capture: p50 15.5µs, p99 48.4µs, max 493.6µs
    //! running, the thread held up a capture: p50 4.1µs, p99 11.2µs, max 72.3µs
    //! first stack symbolized: 26.1ms for 17 frames
    //! the same again: 12.0µs for 17 frames
    //! memory of debug info and cache: 37072 KiB
    //! once it is let go: 9480 KiB
    //! ```
    //!
    //! Nothing of this happens while nothing is stuck, but that the unwind tables are
    //! taken in as the watchdog starts, and an index of the executable's debug info.
    //! All watchdogs of a process share one symbolizer. Debug info stays in the file's
    //! pages: beside them some 8 MB are taken at most, 64 MB where it is compressed, and
    //! less where a limit of the process or its control group leaves no room: then
    //! lines are missing, and then names, and
    //! [`Health::no_stacks`](crate::Health::no_stacks) says so. After 30 s without a
    //! stall what is read again fast is let go. The copies take 1.3 MiB at most, and the
    //! unwind tables as much as the `.eh_frame` of all loaded modules.
    //!
    //! # What it cannot
    //! - Of split debug info only the part in the program is read: lines, and the names of
    //!   functions that are not inlined.
    //! - A thread becomes known when a watched poll or the lag sampler runs on it, or
    //!   at once with [`Builder::install`](crate::Builder::install). Of one that is
    //!   not known there is neither stack nor cause.
    //! - Such timers are safe on x86-64 from Linux 5.9 on and on aarch64 from 5.16 on. On
    //!   older kernels a signal is sent directly, to a thread that was seen running twice
    //!   without a switch between. The thread may have entered a system call since, and the
    //!   calls named above then return EINTR, whatever SA_RESTART says. On all kernels
    //!   `io_uring_enter` and KVM's `KVM_RUN` may still be interrupted.
    //! - The handler needs room: some 5 KiB with AVX-512. A thread whose alternate signal
    //!   stack is smaller, or that has none and a stack below 64 KiB, is never signalled.
    //!   Nor is one that blocks the signal. A thread on a coroutine's stack has no stack.
    //!   [`Health::no_stacks`](crate::Health::no_stacks) says which it is.
    //! - An alternate stack that a thread sets up after its first watched poll is not
    //!   noticed: leave room for the handler there.
    //! - Of stacks of more than 512 frames the innermost and the outermost 256 are kept. Over
    //!   262,144 frames or 16 MiB there is no stack.
    //! - A program that handles the signal itself keeps its handler, and has no
    //!   stacks of running threads: [`Health::no_stacks`](crate::Health::no_stacks).
}
