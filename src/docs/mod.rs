//! Longer texts: what the crate says, and how it works.

pub mod design;
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
    //! | `runtime` | name of its runtime: [`Stall::runtime`](crate::Stall::runtime) |
    //! | `thread` | the system's name of its thread |
    //! | `duration_ms` | how long it has lasted |
    //! | `cause` | why it does not return |
    //! | `on_cpu_ms` | how long its thread is known to have computed |
    //! | `off_cpu_ms` | how long it is known to have slept |
    //! | `waiting_ms` | how long it is known to have waited for a CPU |
    //! | `culprit` | the innermost function of the user's code where most of the time went, with file and line |
    //! | `held_by` | who held the lock that it waited for, where that is proven: [`Stall::held_by`](crate::Stall::held_by) |
    //! | `culprit_ms` | how much of the time is laid to it |
    //! | `seen_ms` | how much of the time is laid to places in all |
    //! | `leaf` | what it called |
    //! | `suppressed` | stalls of this culprit that were not told before this one |
    //!
    //! The message also names the other places that had a tenth of the time or more, with
    //! their shares ([`Stall::places`](crate::Stall::places)). It says so where less than
    //! half of the stall was seen. `seen at` is said of a turn that was seen there once and
    //! may be many polls: its line is one that was there, and need not be to blame.
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
    //! Where stacks, or their lines and names, cannot be had, one INFO event says so, with
    //! `reason`: when that begins, and again when the reason is another one or has come
    //! back. [`Health::no_stacks`](crate::Health::no_stacks) has the same text. That
    //! signals are switched off is no such reason.
    //!
    //! Where the whole process has stood still, since it was stopped or its machine was
    //! suspended or paused, one INFO event says for how long, with `standstill_ms`. Of the
    //! stalls that were in progress, the message says how much of their duration that is
    //! ([`Stall::suspended`](crate::Stall::suspended)); `severity` is without it, and
    //! `duration_ms` is with it. What counts as one: [`docs::design`](crate::docs::design).
    //!
    //! Of each culprit five stalls are told at once and one more a second; a HIGH
    //! or CRITICAL one always. What is kept back is counted: in `suppressed` of the
    //! next that is told, and in [`Health::suppressed`](crate::Health::suppressed). At the
    //! watchdog's drop, one INFO event for each culprit, with `culprit` and `suppressed`,
    //! tells of those that no later event has told of. Callbacks and reports have all of
    //! them.
    //!
    //! The events are emitted on a thread of their own, to the subscriber of the place where
    //! the watchdog was started. Without a subscriber nothing is told and nothing is printed.
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
    //! debug = "limited"
    //! ```
    //!
    //! That gives each function its whole path. With `"line-tables-only"` the file is smaller,
    //! and an inlined `async fn` or closure has no name of its own: it is called by the path
    //! that its future's type has, or by what its source says, where that is at hand and no
    //! newer than the program; else `async block in` the function that awaits it.
    //!
    //! # Whose function it is, and which one is the place
    //! The place is the innermost function of the user, with what it called. Where the user's
    //! code only awaits a library's work, or has returned before it, the place is the
    //! library's outermost function that names the work, with the line that awaits it
    //! ([`Stack::called_from`](crate::Stack::called_from)) or the handler or task from its
    //! types ([`Stack::on_behalf_of`](crate::Stack::on_behalf_of)). A `block_on` within a poll
    //! is the place itself. Whose a function is goes by its path and crate:
    //! [`Builder::user_code`](crate::Builder::user_code) and
    //! [`Builder::library_code`](crate::Builder::library_code) correct that.
    //!
    //! A handler that has returned is known by types alone, which are in the names that line
    //! tables have. With `"limited"` names have the functions' whole paths and no types: so
    //! `on_behalf_of` finds nothing there, and the place is told without the handler.
    //!
    //! # Who holds a lock
    //! Of a stall that waits for a lock, another stalled thread may be the holder:
    //! [`Stall::held_by`](crate::Stall::held_by). Locks of std and `parking_lot` do not say who
    //! has them, and that a lock's address is on a stack proves nothing: it may be left over
    //! from a guard that is gone. But for each call that a function makes while it has a
    //! guard, its unwind tables name the code that drops the guard if the call panics. That
    //! code is followed on paper, with the function's registers and stack. Only if each way
    //! through it lets go of the very lock that the other thread sleeps on, and none takes it
    //! before, the function holds it. With `panic = "abort"` there is no such code; then what
    //! comes after the call is followed, which succeeds less often. Of a thread that sleeps,
    //! registers are known as far as inner functions have saved them.
    //!
    //! A wait on a condition variable has a guard and lets the lock go; that is told by its
    //! name, so a program without names gets no holders. Readers of a `RwLock` are not named.
    //!
    //! A stripped build without a debug file leaves addresses with module and build id, for
    //! symbolizing elsewhere.
    //!
    //! # Where debug info is looked for
    //! In the file that was loaded, first. Where that has no `.debug_info` or no table of
    //! all symbols, the first of these that is of the same build is read in its place:
    //!
    //! 1. by the build id, `.build-id/xx/yyyy.debug` in `/usr/lib/debug`, in the file's own
    //!    folder and in `.debug` below that;
    //! 2. by the name in `.gnu_debuglink`, in the file's folder, in `.debug` below that, and
    //!    in `/usr/lib/debug/` with the path of that folder;
    //! 3. what `debuginfod`'s clients have downloaded: `ID/debuginfo` in
    //!    `$DEBUGINFOD_CACHE_PATH`, else in `$XDG_CACHE_HOME/debuginfod_client`, else in
    //!    `~/.cache/debuginfod_client`, as these variables were when the process was started.
    //!    Nothing is downloaded.
    //!
    //! A debug file is of the same build where the build ids are equal. Where one has none,
    //! the checksum of `.gnu_debuglink` must be that of the debug file.
    //!
    //! With `split-debuginfo = "packed"` or `"unpacked"` lines are in the program, and the
    //! names of functions in the part that was split off. That is sought by its id in the
    //! `.dwp` beside the program or its debug file, called as these are with `.dwp` after
    //! it, and then in the `.dwo` where the compiler has written it, or beside the program.
    //!
    //! A program or library that was replaced on disk while it runs gets no names of the new
    //! file. Build ids are compared; without one, what `/proc/self/maps` says of the file
    //! counts. The program's own file can still be read, and that of a library by root.
    //!
    //! Where something of this is missing or of another build,
    //! [`Health::no_stacks`](crate::Health::no_stacks) says so. That there is no debug file
    //! at all is no such reason. Debug files are not mapped: they may be written over, as a
    //! compiler does with `.dwp` and `.dwo`.
    //!
    //! # How
    //! For as long as a stall lasts, a thread that may wait looks at the stuck thread's
    //! `/proc/self/task/TID/syscall`: at each tick at first, then after a 64th of the
    //! stall's age.
    //!
    //! - **Blocked**: it reads program counter and stack pointer there, copies the
    //!   stack, and looks again whether nothing moved. The stuck thread is not touched: a
    //!   signal would make `nanosleep`, `poll`, `epoll_wait` and reads under a
    //!   timeout return EINTR.
    //! - **Running**: a one-shot timer on the stuck thread's own CPU clock sends one signal
    //!   ([`Builder::signal`](crate::Builder::signal)). That clock moves only while the
    //!   thread runs, so the signal comes at the next scheduler's tick at which it does:
    //!   after 4 ms of running at most, at 250 Hz. The kernel raises it on the thread's way
    //!   back to user mode, so no system call is cut short. The handler copies registers
    //!   and stack, and makes no system call but `gettid`.
    //!
    //! A thread that has not been given a CPU since the last look is in the same sleep, at
    //! the same place. One that sleeps anew is read again. One that runs is asked at once
    //! where it slept before, else an eighth of the stall's age after the last time, 125 ms
    //! at most. So the time of a stall is shared out among [places](crate::Stall::places):
    //! where one computes and the next sleeps, by the thread's CPU clock; else half way
    //! between two looks. A look speaks for a quarter of the stall's age around it, 4 ticks
    //! or the lowest threshold at least: what is further from any is not seen.
    //!
    //! The copy of a blocked thread's stack is there at once. That of a running thread is
    //! picked up at the next look, a tick later or more. So a stall that computes mostly
    //! starts without a line, and has one when it escalates or ends; the report has the
    //! line as soon as it is there. A copy that arrives just before a stall ends counts.
    //!
    //! The handler also notes tokio's id of the task: one and the same throughout a turn is
    //! likely [one poll](crate::Stall::is_one_poll), several are several polls.
    //!
    //! The copy counts only if it leads to the frame that polls the watched future, or else
    //! to the beginning of the thread: no stack rather than a wrong one. Symbolizing is the
    //! slow part, and has a thread of its own. Copies of stacks never leave the process's
    //! memory.
    //!
    //! [`Started`](crate::Phase::Started) does not wait for the line longer than one tick,
    //! and not at all where debug info has to be read again, after 30 s without a stall.
    //! [`Ended`](crate::Phase::Ended) waits for 3 s at most.
    //!
    //! # Which kernels
    //! | kernel | running threads are signalled by | a system call can be cut short |
    //! |---|---|---|
    //! | x86-64 from Linux 5.9, aarch64 from 5.16 | a timer on their CPU clock | `io_uring_enter` and KVM's `KVM_RUN` only |
    //! | older, or one that refuses timers | a directed signal | yes, in a race of microseconds |
    //! | any, under a filter of system calls (seccomp), unless [`Builder::signal`](crate::Builder::signal) was called with a signal | a directed signal, by a socket | the same |
    //!
    //! By the kernel's release. With the first timer, one more is tried on a thread of our
    //! own: a kernel that only claims to be such a one is found out so.
    //!
    //! A directed signal is sent only to a thread that has had 1 ms of CPU time without
    //! going to sleep, and was not switched out between the last two looks. The thread may
    //! have entered a system call since. The calls named
    //! above, and the others of signal(7)'s list, then return EINTR, whatever `SA_RESTART`
    //! says. Where that must not be, `Builder::signal(None)` leaves out all stacks of
    //! running threads. `scripts/eintr.sh` counts interrupted calls on the kernel that it
    //! runs on.
    //!
    //! # Which threads are never signalled
    //! [`Health::no_stacks`](crate::Health::no_stacks) says which of these it is:
    //!
    //! - one that blocks the signal, for the signal would wait until it is unblocked and
    //!   come at any time;
    //! - one without room for the handler, which needs some 6 KiB with AVX-512 or AMX, and
    //!   14 KiB once the process may use AMX's tiles: an overflow would end the program. The
    //!   alternate signal stack must hold that; where there is none, the stack must have
    //!   64 KiB. Threads of the standard library, and so tokio's, have an alternate stack
    //!   that is as large as the kernel's largest frame or 8 KiB. In a process that may use
    //!   tiles that is too small: its threads have no stacks while they run, unless the
    //!   program gives them a larger alternate stack;
    //! - one whose stack's place is not known;
    //! - any, where the program has a handler of its own for the signal, which stays;
    //! - any, where a filter of system calls (seccomp) is in force,
    //!   [`Builder::signal`](crate::Builder::signal) was not called with a signal, and the
    //!   process has no socket: a filter may kill for `timer_create`, and for a socket;
    //! - any, where no more signals can be pending (`RLIMIT_SIGPENDING`): a timer takes one.
    //!
    //! An alternate stack that a thread sets up after its first watched poll is not
    //! noticed: leave room for the handler there.
    //!
    //! # Which stacks are cut
    //! - Of more than 512 frames the innermost and the outermost 256 are kept.
    //! - Over 262,144 frames, or over 16 MiB, there is no stack.
    //! - Of a watched poll only what lies below it is copied, and 16 KiB beyond. Otherwise
    //!   all up to the thread's start is.
    //! - Where it is not known where a blocked thread's stack ends, 256 KiB are copied. What
    //!   is longer is not proven, and there is no stack.
    //! - A thread on a coroutine's stack has no stack.
    //! - From the thread's place on, each return address must follow a call that can have led
    //!   to the next inner function: one of it, of what jumps to it, or by pointer. A stack
    //!   with another is not proven.
    //! - A function without an unwind table is passed if it was called directly and its
    //!   instructions say how much it has on the stack, or if it runs with a frame pointer and
    //!   nothing else on its stack can be its caller. Otherwise there is no stack: code that
    //!   is made at run time and waits for the kernel has none.
    //!
    //! # What it costs
    //! `cargo test --release --lib what_a_capture_costs -- --ignored --nocapture`
    //! printed, on two cores of a virtual machine:
    //!
    //! ```text
    //! blocked, the watchdog's time a capture: p50 23.1µs, p99 37.2µs, max 651.2µs
    //! blocked, the thread held up a capture: not at all, it sleeps on
    //! running, the watchdog's time a capture: p50 16.5µs, p99 147.4µs, max 801.0µs
    //! running, the thread held up a capture: p50 0.0ns, p99 17.2µs, max 28.0µs
    //! first stack symbolized: 15.9ms for 17 frames
    //! the same again: 2.1µs for 17 frames
    //! memory of debug info and cache: 23116 KiB
    //! once it is let go: 23116 KiB
    //! ```
    //!
    //! Of a running thread, the time of a capture is that of one look: the copy arrives
    //! later. The memory is the whole resident set, most of it pages of the program's file.
    //!
    //! Nothing of this happens while nothing is stuck, but that the unwind tables are
    //! taken in as the watchdog starts, and an index of the executable's debug info; and
    //! that a thread which has computed for half of the lowest threshold in one poll or turn
    //! is asked where it is, 10 times a second at most.
    //! All watchdogs of a process share one symbolizer.
    //!
    //! # Memory
    //! Debug info stays in the pages of its file, which the kernel takes back when it needs
    //! them; of a debug file or `.dwp` 512 KiB are kept, of a `.dwo` what is read. Beside them 8 MB were taken at most, for files of 39 to 146 MB:
    //! `scripts/symbol_memory.sh [file]...` measures it, as RssAnon, and fails where it is
    //! more than 64 MB, or 10 MB after a quiet time. Debug info that is compressed has to be
    //! in memory: 64 MiB at most.
    //!
    //! Where a limit of the process or its control group leaves less than what is needed and
    //! a reserve, a quarter of what is left and 16 MiB at least, lines are left out, and
    //! then names; [`Health::no_stacks`](crate::Health::no_stacks) says so. After 30 s
    //! without a stack, what is read again fast is let go.
    //!
    //! The copies of stacks, and the unwind tables, which are as large as the `.eh_frame` of
    //! all loaded modules: see [`docs::design`](crate::docs::design).
    //!
    //! # What it cannot
    //! - Debug info that `dwz` has shared between files (`.gnu_debugaltlink`) has no names
    //!   of inlined functions there, and `.gnu_debugdata` is not read.
    //! - A thread becomes known when a watched poll or the lag sampler runs on it, or
    //!   at once with [`Builder::install`](crate::Builder::install). Of one that is
    //!   not known there is neither stack nor cause.
    //! - A system call that computes in the kernel is seen as it returns.
}
