//! What the library does within a program: for whoever decides whether it may be linked.
//!
//! Each table names locks, waits, allocations and system calls with their bounds, and the
//! file where the code is. Test mode ([`docs::testing`](crate::docs::testing)) is left
//! out: it is for test programs. Other platforms than Linux have no stacks, no signal, no
//! timers and no `/proc` files; the rest holds for them too.
//!
//! Words: a *stuck* thread may hold anything for any time. *Short* is a lock whose holders
//! run some hundred instructions and neither wait nor allocate in it; a holder that loses
//! its CPU holds it until the scheduler gives it one again.
//!
//! # On a poll
//! `src/watched.rs`, `watching.rs`, `local.rs`, `registry/`, `slot.rs`, `recorder.rs`,
//! `track.rs`, `hooks.rs`.
//!
//! | when | locks and waits | allocations | system calls |
//! |---|---|---|---|
//! | usual poll, timed or not: begin and end | none | none | none |
//! | future is made (`watched`) | reader's lock of names, short; a new name: writer's | the name, up to 128 bytes; once a process a table of names, under that lock | none |
//! | first poll on a thread | the loader's lock, in the C library, for as long as others hold it; the lock of the thread's own descriptor | some 100 bytes by the C library (below) | `sigaltstack`, `sched_getaffinity`, `getpid`, `gettid`; on the main thread `prlimit64` in place of `sched_getaffinity` |
//! | the same, and the stock of threads is empty or there is no watchdog | as above | 7 KiB more | as above |
//! | first poll of a future, or on another runtime | none; looks at up to 1,024 threads | none | none; on a thread that is no worker, one `futex` for each watchdog that sleeps |
//! | the same | the tracing subscriber is called for its current span: what that does is the subscriber's | the subscriber's | the subscriber's |
//! | first poll of a name on a thread, or of a range of durations | up to 256 locks are tried, none is waited for | none: from the stock. Where that is empty, up to 64 durations a thread wait for it, more are left out | none |
//! | end of a poll that a watchdog has seen | none | none | none; the clock is read once |
//! | tracked future: each poll | its own lock, short but for code of the executor: its waker is cloned in it | none | none |
//! | tracked future: first poll and drop | the lock of the list of tracked futures, short; up to 65,536 entries are looked at in it with `stuck_after` | some 200 bytes where the future was made before there was a watchdog and the stock is empty | none |
//! | `stallscope::spawn_blocking`, twice | the lock of the pool's account, as long as an insertion or removal in it takes | up to some KiB, in that lock | none |
//! | `health`, `report`, `tasks`, where the program calls them in a poll | ledger's lock, as long as another `report` takes; the pool's account; the list of tracked futures | what they return, some of that in the ledger's lock | none |
//! | hooks of parking (`install`) | none | none | one `futex` on waking for each watchdog that sleeps, 64 at most |
//! | with `tokio_unstable`: first poll of a task from a place on a thread | reader's lock of names | its name | none |
//! | thread's end | none | none | none |
//!
//! The first poll on a thread registers a destructor: glibc's `__cxa_thread_atexit_impl`
//! allocates and takes the loader's lock. It asks where the thread's stack is: glibc's
//! `pthread_getattr_np` allocates. tokio's workers have done the like before, for
//! tokio and std. The loader's lock can be held for long by a `dlopen` that runs slow initializers.
//!
//! The library's own tasks on the runtime: the lag sampler, one poll each 20 ms, with one
//! short lock while it rests ([`Builder::lag_period`](crate::Builder::lag_period)); and for
//! 20 ms after the start two tasks a worker, which yield (`sched_yield`) until each worker
//! has been seen.
//!
//! # On the thread that looks
//! `src/watchdog/patrol.rs`, `observe.rs`, `account.rs`, `run_queue.rs`, `lateness.rs`, `src/detector/`,
//! `src/probes.rs`, `src/os/linux/thread.rs`. Once a tick:
//!
//! | what | bound |
//! |---|---|
//! | reads slots and counters | 1,024 threads; atomic loads |
//! | reads `/proc/self/task/TID/stat`, `schedstat`, `syscall` | of threads whose poll or turn goes on, of up to 16 workers with `install`; for a second after the start, and after each sign that somebody waits for a CPU, of 16 more; none takes the lock of the memory map. `comm`, a thread's name, once for each event |
//! | opens one of them | where it is not kept open; the call waits while the kernel enlarges the process's table of files |
//! | own lateness: `schedstat`, `clock_gettime` | twice a look at most |
//! | hands on to queues | three of fixed size; full ones drop. Where a queue is full and its reader has lost its CPU within a read, this thread yields until that is over |
//! | wakes another thread: `futex` | one for each outlet, one for the investigator |
//! | waits: `futex`, with a relative time | 7/8 of a tick; without end while all workers are parked and hooks tell of their waking |
//! | lock: what is known of a current-thread runtime's turn (`driven.rs`) | short; shared with the investigator and the symbolizer. It is the only lock that this thread waits for |
//! | allocations | in the first look; later once where there are more than 64 polls, threads or units at once |
//! | page faults | none once warm: `tests/held_locks.rs`, 10,000 looks. Room for 64 polls, threads and units is written once beforehand |
//!
//! It formats nothing, prints nothing, and calls no code of the program.
//!
//! # On the thread that investigates
//! `src/watchdog/investigator/`, `src/os/linux/capture.rs`, `guards.rs`; one for the process. It may
//! wait, so nothing waits for it but what is said here: an event of a stall in progress
//! for one tick, an event of a stall that is over for 3 s.
//!
//! | what | bound |
//! |---|---|
//! | loader's lock: which libraries are loaded (`dl_iterate_phdr`) | as long as others hold it. While the investigator holds it, it copies the loader's list into memory that was there before, and waits for nothing |
//! | lock of the memory map: a stack is copied (`process_vm_readv`, or `pread64` of `/proc/self/mem`) | as long as others hold it |
//! | looks at a thread until it is asleep again | 64 looks of some 10 us |
//! | the thread's signal mask, in `/proc/self/task/TID/status` | 4 looks, 1.5 ms |
//! | where signals are directed: waits for the handler | 5 ms |
//! | ledger's lock, with that of the stall's profile held | as long as `report` takes to copy what is in it |
//! | looks at a stall's thread, for as long as it lasts | once a tick, or a 64th of the stall's age; asks a running one every eighth of it, 125 ms at most: each time costs that thread some microseconds |
//! | asks the thread of what may soon be a stall, as it has computed for half of the lowest threshold; not where the signal is directed | 8 at once, 10 a second, for each watchdog: each costs that thread some 10 us |
//! | fills stocks | 0.7 MiB, 14 KiB for each CPU |
//! | list of tracked futures, with `stuck_after` | 256 entries at a time; and one search for any |
//! | unwinding | 262,144 frames, some 10 ms |
//! | while a stall waits for a lock: looks at each other stalled thread once more, and on its stack for that lock | 16 locks; of frames that have the lock's address, 8,000 instructions each are followed on paper, some 100 us |
//! | while the thread of a turn is in `block_in_place`: looks at all threads of its name | once a stall, 128 threads, some 50 us each |
//! | stalls in progress | 1,024 |
//!
//! # On the symbolizer
//! `src/explain.rs`, `src/os/linux/symbolize.rs`; one for the process. At most 64 stacks
//! wait for it; more are counted as missed. It maps debug info (`openat`, `statx`,
//! `pread64`, `mmap`, `munmap`), reads the limits of memory before (`/proc/self/limits`,
//! `status`, `cgroup`, and files in `/sys/fs/cgroup`), looks for debug files
//! (`/proc/self/maps`, `environ`), which it reads in pieces, and catches panics of the code that
//! reads debug info ([`Health::symbolizer_panics`](crate::Health::symbolizer_panics)). It
//! takes the ledger's lock to leave its answer. Its figures:
//! [`docs::stacks`](crate::docs::stacks).
//!
//! # On outlets
//! `src/delivery/`: one thread for each callback, one for tracing. Each has a queue of
//! 1,024 messages of its own, and waits for nothing but that queue and the user's code.
//! An event is put together in memory that was there before; that of a name or path over
//! 512 bytes is allocated. What has been found out of 256 stalls is kept. The tracing
//! thread allocates in its rate limit (256 culprits, 1,024 stalls).
//!
//! # Start, drop, end of the program, fork
//! | when | what, and its bound |
//! |---|---|
//! | start | the clock is calibrated once a process: 1 ms, 200 ms at most. The stocks are filled and the threads started on the caller's thread. Then the caller waits until each worker of a multi-thread runtime has said which thread it is: 5 ms at most, some 100 us where they are idle. Debug info is read on the symbolizer's, unwind tables on the investigator's |
//! | `Watchdog::drop` | waits 150 ms at most, in all, for the thread that looks and for outlets. What does not end in time is left to end by itself. Then the caller takes the lock of watchdogs' demands, which is short, and frees memory, which waits for the allocator as any drop does. Joins nothing |
//! | a callback that still runs | is left behind. No further one begins once the drop has returned |
//! | the program's end | nothing is registered with `atexit` or `pthread_atfork`, and nothing is joined; threads end with the process. Where the watchdog was not dropped before, a callback can still be called while exit handlers run |
//! | the runtime's end | a dropped task says so; nothing is reported for it |
//! | a forked child | has none of the threads. Dropping a watchdog there stops nothing and waits for nothing. Nothing else may be called on it, and none may be started, before `exec`: a lock that a thread of the parent held at the fork stays locked in the child. Polls of watched futures go on, as their usual path has no lock |
//!
//! # In the signal handler
//! `src/os/linux/handler.rs`, `request.rs`. It runs on the stuck thread, on its alternate
//! stack where it has one, with all signals masked.
//!
//! | what | bound |
//! |---|---|
//! | reads the request's number and claims it | atomics; a late signal finds none and does nothing |
//! | `gettid` | the only system call; where the clock is not the time stamp counter, the clock is read too |
//! | copies registers and stack | from the stack pointer to 16 KiB beyond the watched poll, else to the stack's end; 256 KiB, and 16 MiB if it is asked again |
//! | memory | written to a buffer whose pages are there; read from the thread's own stack, of which a page can be swapped out |
//! | tokio's id of the task | one word of a thread-local that was initialized before |
//! | its own need of stack | 2,048 bytes and the kernel's frame: a thread without room is not signalled |
//!
//! No lock, no allocation, no unwinding, no formatting; errno is kept.
//!
//! # Locks
//! Which there are, who takes them, and what is taken within.
//!
//! | lock | taken by | within it |
//! |---|---|---|
//! | names (`registry/labels.rs`) | threads that make watched futures | none |
//! | demands (`registry/demand.rs`) | start and drop of watchdogs | none |
//! | stocks' places (`stock.rs`) | polls, who fills: only tried, never waited for | none |
//! | filling (`supply.rs`) | start, investigator | list of tracked futures |
//! | list of tracked futures (`track.rs`) | their first poll and drop, `tasks`, investigator | none |
//! | waker of a tracked future (`track.rs`) | its polls, its wakers | code of the executor |
//! | pool's account (`pool.rs`) | `spawn_blocking`, `health`, `report` | none |
//! | resting (`sampler.rs`) | the lag sampler, investigator; the thread that looks only tries | none |
//! | driven (`driven.rs`) | the thread that looks, investigator, symbolizer | none |
//! | profile of a stall (`watchdog/investigator/`) | investigator, symbolizer | ledger |
//! | ledger (`watchdog/shared.rs`) | `health`, `report`, investigator, symbolizer | pool's account, reason |
//! | reason for no stacks (`watchdog/shared.rs`) | `health`, investigator | none |
//! | symbolizer (`explain.rs`) | symbolizer; the investigator only tries | lack |
//! | lack (`explain.rs`) | symbolizer, investigator | none |
//! | the process's symbolizer, and its investigator | start of watchdogs | starts a thread |
//! | `/proc/self/mem` (`os/linux/memory.rs`) | investigator, under a filter only | the kernel's of the memory map |
//! | a small alternate stack (`os/linux/frame.rs`) | investigator, audits, on processors with AMX | none |
//! | the loader's | investigator; first poll on a thread | none of the investigator's |
//!
//! Order, for those that are held together: profile before ledger, ledger before pool's account and reason;
//! filling before list of tracked futures; symbolizer before lack. No other two are held
//! at once, and no callback, subscriber or waker of the program is called with one held,
//! but for the clone of a tracked future's waker. Unwind tables are copied without the
//! loader's lock, so an allocator may take that lock while it holds its own, to record
//! who allocates.
//!
//! Each `OnceLock` is initialized by who alone uses it, or as a watchdog starts.
//!
//! # System calls
//! | call | thread | when | off with |
//! |---|---|---|---|
//! | `futex` | all | waiting and waking | |
//! | `openat`, `pread64`, `close` of `/proc/self/task/TID/*` | looks, investigates | each tick for what goes on | |
//! | `clock_gettime` of CPU clocks | looks | each tick | |
//! | `sigaltstack`, `sched_getaffinity`, `getpid`, `gettid`, `prlimit64` | polls | first poll on a thread | |
//! | `sched_yield` | workers | 20 ms after the start | |
//! | `clone3` and what starts a thread; `readlink` of `/proc/self/exe`; `openat`, `read`, `close` of files on CPUs and of the host's name; `getrandom` | caller | start | |
//! | `ioctl` for the terminal's width | who prints a report | each time | |
//! | `openat`, `read`, `close` of `/proc/thread-self/status` | investigates | once a capture, and when modules are read | `stacks(false)` |
//! | `openat`, `getdents64`, `read`, `close` of `/proc/self/task` and of names of threads in it | investigates | a turn in `block_in_place`, and who holds a lock | `stacks(false)` |
//! | `process_vm_readv` | investigates | stacks, unwind tables; never under a filter | `stacks(false)` |
//! | `openat`, `pread64` of `/proc/self/mem` | investigates | the same, under a filter | `stacks(false)` |
//! | `rt_sigaction` | investigates | first thread that has computed for half of the lowest threshold; under a filter, that is stuck | `signal(None)` |
//! | `timer_create`, `timer_settime`, `timer_delete`, `uname` | investigates | stack of a running thread; under a filter only if `signal` was called | `signal(None)` |
//! | `sigaltstack`, two or three times | investigates, audits | the same, on processors with AMX: whether the process may use its tiles | `signal(None)` |
//! | `rt_tgsigqueueinfo`, `getuid`, `clock_nanosleep` | investigates | the same, where timers cannot be used | `signal(None)` |
//! | `fstat`, `socketpair`, `fcntl`, `write`, `close`, `clock_nanosleep` | investigates, audits | the same, under a filter, in place of timers if `signal` was not called; `socketpair` and what follows only in a process that has a socket | `signal(None)` |
//! | `mmap`, `munmap`, `statx`, `openat`, `pread64`, `readlink` | symbolizes | start, and stacks | `stacks(false)` |
//! | `sched_getattr`, `sched_setattr` | all of a watchdog's | start | off unless `short_slices(true)` |
//! | `mlock`, `setpriority`, `ptrace`, `perf_event_open` | | never | |
//!
//! And those of the allocator, and of whatever callbacks and subscribers do.
//!
//! All but `sched_setattr` are in groups that a service rarely goes without. By systemd's
//! groups (`src/shared/seccomp-util.c`): `process_vm_readv` is in `@ipc`, timers in
//! `@timer`, `clone3` and `rt_tgsigqueueinfo` in `@process`, `sigaltstack` and
//! `rt_sigaction` in `@signal`, `sched_setattr` in `@resources`; `@system-service` has all
//! of them. A filter that kills for `@timer` or for `@resources` needs no setting: under a
//! filter, timers need a call of [`Builder::signal`](crate::Builder::signal), and
//! `short_slices` is off.
//!
//! A filter is seen in `/proc/thread-self/status`: where `Seccomp:` is not 0, memory is
//! read from `/proc/self/mem` and `process_vm_readv` is not even tried, since a try can
//! kill. For the same reason no timer is tried under a filter, nor `rt_tgsigqueueinfo`.
//! The signal is then sent by a socket with `O_ASYNC`, whose owner is the stuck thread
//! (`F_SETSIG`, `F_SETOWN_EX`): `src/os/linux/directed.rs`. These calls the program makes
//! itself. `fcntl` is in systemd's `@file-system`, with `openat`; Docker's default profile
//! permits it whatever its arguments, and we know of no filter that looks at its command.
//! `socketpair` is in `@network-io`, so a process without a socket of its own, past the
//! first three files, makes none, and its running threads have no stacks. A filter that
//! permits some calls of `@network-io` and kills for `socketpair` alone is not seen.
//!
//! Where `Builder::signal` was called with a signal, timers are tried under a filter, too.
//! Where the filter refuses them with an error, `rt_tgsigqueueinfo` is called instead.
//!
//! # Threads
//! | name | how many | does |
//! |---|---|---|
//! | `stallscope-watch` | one a watchdog | looks |
//! | `stallscope-tell` | one a watchdog | emits tracing events |
//! | `stallscope-call` | one a callback of a watchdog | calls it |
//! | `stallscope-look` | one a process | investigates: takes stacks |
//! | `stallscope-explain` | one a process | symbolizes |
//! | `stallscope-trial` | once a process, for a tick, 2 s at most | sees whether timers work here, computing meanwhile |
//!
//! For n watchdogs with c callbacks each, n times (2 + c), and 2. The kernel shows 15
//! letters of a name. The last two of the process end with its last watchdog.
//!
//! # Files
//! At most 64 stay open, a sixteenth of the limit of open files if that is less, in all
//! watchdogs together. Workers' files may take all of them, those of other threads half:
//! first come, first kept. A thread has up to three for each watchdog's look and three for
//! its investigation, and a watchdog two of its own. A thread without is read by open, read
//! and close: about 10 us a reading in place of 3. Where such a thread's poll or turn goes
//! on, the kernel is then asked only where a severity is due, and not at each tick. So its
//! shares of time are coarser, and its stalls are seen all the same. Files of threads that
//! have ended are closed at the next look. Under a filter one more is open, `/proc/self/mem`.
//!
//! # Memory
//! | what | bound |
//! |---|---|
//! | queues | 1,024 messages for each outlet, and as many events that wait; 512 requests and 512 transitions for the ledger, for each watchdog. A message takes some 260 bytes |
//! | ledger | 1,000 stalls that are over, with 16 stacks each at most, 256 culprits; stacks share their functions. Stalls in progress: as many as threads, and those whose end was lost to a full queue |
//! | profiles of stalls in progress | 64 stacks each, 4,096 for each watchdog as long as there are no more than 1,024 stalls |
//! | threads, names | 1,024 entries of 7 KiB, 256 names; histograms 270 KiB at most for each name and thread |
//! | stocks | 0.7 MiB, 14 KiB for each CPU up to 64, 48 KiB for tracked futures |
//! | tracked futures | 65,536 of some 200 bytes |
//! | threads' waits for a CPU | 24 KiB for each watchdog |
//! | copies of stacks | 1 MiB, and eight buffers of 256 KiB, made as they are needed; up to 16 MiB each for larger stacks, until the request is over; where its handler is still at work then, until the buffer is used again |
//! | unwind tables | as large as `.eh_frame` and `.eh_frame_hdr` of all modules, once for each different setting of `signal` that watchdogs use; and 128 KiB of what is known of calls |
//! | symbolizer | results 2 MiB, units of debug info 4 MiB, an index; [`docs::stacks`](crate::docs::stacks) has what was measured. Debug info that is compressed 64 MiB; less where a limit or a control group leaves too little |
//!
//! Only the symbolizer asks what is left before it takes memory. The rest is allocated as
//! in any Rust program: where there is nothing left at all, the program ends.
//!
//! # Memory pressure and forks
//! What the thread that looks needs is there beforehand: 128 KiB of its stack are touched,
//! its lists and queues are made. It is not locked, as `RLIMIT_MEMLOCK` is small in most
//! places. So reclaim and swap can take its pages, and reading one back takes the lock of
//! the memory map and the disk's time. Its code is in pages of the executable's file,
//! which the kernel drops first. On a machine that thrashes, stalls are told late.
//!
//! A fork write-protects all private pages of the parent and copies its page tables, with
//! the lock of the memory map held; the time grows with the memory in use. Each thread
//! that then writes to a page makes a copy of it, and waits for that lock. So the watchdog
//! is late by a fork of a large process like all others: even a thread that only sleeps
//! comes back after the fork, since its own stack is among those pages, and for the same
//! reason no callback could run before. Durations are right all the same. The watchdog is
//! late alone, which excuses nobody: see below. `vfork` and `posix_spawn` do none of that.
//!
//! # What a standstill is
//! `src/watchdog/lateness.rs`. Time in which the whole process stood still, since it was
//! stopped or the machine was suspended or paused, does not count for a stall's severity.
//! That the watchdog is late does not show it. By evidence, in this order:
//!
//! 1. It is late by no more than a tick, half the lowest threshold or 1 ms, whichever is
//!    longest, once the time is taken off that it waited for a CPU itself (`schedstat`): none.
//! 2. `CLOCK_BOOTTIME` has moved further than `CLOCK_MONOTONIC`, or the watchdog's thread
//!    was given a CPU just once, for its timer, only late: there was one. A paused machine
//!    wakes nobody, and what was on its CPUs seems to have computed.
//! 3. The process has computed for more than a quarter of that time, by its CPU clock,
//!    beside what it can have computed before: none.
//! 4. A thread that slept in a poll or turn before has slept on, and none was woken: none,
//!    since a stop, a freezer and a suspend wake all that sleep.
//! 5. None that slept was woken, and the watchdog's thread had to wait for a page or to
//!    copy one (`ru_minflt` and `ru_majflt` of `RUSAGE_THREAD`): none. Memory held it up,
//!    as a fork does; a look needs no page otherwise.
//! 6. Otherwise there was one.
//!
//! A standstill is one INFO event ([`docs::events`](crate::docs::events)), a gap in
//! [`Health`](crate::Health), and [`Stall::suspended`](crate::Stall::suspended) of what
//! was in progress, whose duration is not cut. Its cause is
//! [`Suspended`](crate::Cause::Suspended) if that is more than half of it.
//!
//! What is left: a host that pauses one virtual CPU and does not tell the guest of stolen
//! time. A thread on it seems to compute. If it is the watchdog's, that is taken for a
//! standstill, and all are excused for as long.
