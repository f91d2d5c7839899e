//! The settings of a watchdog, checked before anything is started.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::delivery::OnStall;
use crate::error::Error;
use crate::hooks;
use crate::os::{self, DEFAULT_SIGNAL, SignalUse};
use crate::owner::Ownership;
use crate::registry::Timing;
use crate::severity::Thresholds;
use crate::stall::StallEvent;

use crate::watchdog::Watchdog;

/// The shortest tick: below it the watchdog would do nothing but wake up.
const MIN_TICK: Duration = Duration::from_micros(20);

/// How much each poll of a watched future measures.
///
/// A process has one setting: of several watchdogs the most demanding wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PollTiming {
    /// Each poll's beginning and end, for exact durations and histograms: reads
    /// the clock twice.
    #[default]
    Exact,
    /// One poll in so many, at random, on average: histograms are then estimates,
    /// of which the longest and the shortest are those that were measured.
    ///
    /// Each of those counts for as many as it stands for, so counts are right to
    /// about one part in the root of how many were measured: of 10^6 polls, one
    /// in 100 measured, to 1 %. Stalls are seen as with [`PollTiming::DetectOnly`],
    /// which it costs little more than.
    Sampled(NonZeroU32),
    /// Nothing: reads no clock, and leaves the histograms of polls empty.
    ///
    /// Stalls are seen all the same. A poll then counts from the first tick
    /// that saw it, so its duration is up to one tick too short.
    DetectOnly,
}

impl PollTiming {
    pub(crate) const fn timing(self) -> Timing {
        match self {
            PollTiming::Exact => Timing::EACH,
            PollTiming::Sampled(one_in) => Timing(one_in.get()),
            PollTiming::DetectOnly => Timing::NONE,
        }
    }
}

/// Sets up a [`Watchdog`]; made by [`Watchdog::builder`].
#[derive(Clone)]
pub struct Builder {
    pub(crate) name: Option<String>,
    pub(crate) thresholds: Thresholds,
    pub(crate) tick: Option<Duration>,
    pub(crate) lag_period: Option<Duration>,
    pub(crate) poll_timing: PollTiming,
    pub(crate) track: bool,
    pub(crate) stuck_after: Option<Duration>,
    pub(crate) stacks: bool,
    pub(crate) signal: Option<i32>,
    signal_chosen: bool,
    pub(crate) short_slices: bool,
    pub(crate) ownership: Ownership,
    pub(crate) on_stall: Vec<OnStall>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("thresholds", &self.thresholds)
            .field("tick", &self.tick_or_default())
            .field("lag_period", &self.lag_period)
            .field("poll_timing", &self.poll_timing)
            .field("track", &self.track)
            .field("stuck_after", &self.stuck_after)
            .field("stacks", &self.stacks)
            .field("signal", &self.signal)
            .field("short_slices", &self.short_slices)
            .field("ownership", &self.ownership)
            .field("on_stall", &self.on_stall.len())
            .finish()
    }
}

impl Builder {
    pub(crate) fn new() -> Self {
        Builder {
            name: None,
            thresholds: Thresholds::default(),
            tick: None,
            lag_period: Some(Duration::from_millis(20)),
            poll_timing: PollTiming::default(),
            track: false,
            stuck_after: None,
            stacks: true,
            signal: Some(DEFAULT_SIGNAL),
            signal_chosen: false,
            short_slices: false,
            ownership: Ownership::default(),
            on_stall: Vec::new(),
        }
    }

    /// What the runtime is called that the watchdog starts on, in
    /// [`Stall::runtime`](crate::Stall::runtime), events and reports; `runtime 3`, with
    /// tokio's id, by default.
    ///
    /// A name is cut to 128 bytes. A process keeps 1,024 different ones; those beyond are
    /// called `other`. Runtimes may share a name.
    ///
    /// # Errors
    /// [`start`](Builder::start) refuses an empty name.
    ///
    /// # Examples
    /// ```
    /// let builder = stallscope::Watchdog::builder().name("io");
    /// # drop(builder);
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// From which duration on a stall has which severity; [`Thresholds::default`] by default.
    pub const fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// How often the watchdog looks; half the lowest threshold by default, but
    /// 5 ms at most.
    ///
    /// A stall is told at the latest one tick after it has reached a threshold.
    /// May not be longer than the lowest threshold, or it could miss a stall.
    pub const fn tick(mut self, tick: Duration) -> Self {
        self.tick = Some(tick);
        self
    }

    /// How often the lag of the event loop is sampled, every 20 ms by default; `None` for never.
    ///
    /// Sampling uses the runtime's timers. A runtime that was built without
    /// `enable_time` needs `None` here, or tokio panics in the sampling task.
    pub const fn lag_period(mut self, period: Option<Duration>) -> Self {
        self.lag_period = period;
        self
    }

    /// How much each poll of a watched future measures; all by default.
    pub const fn poll_timing(mut self, timing: PollTiming) -> Self {
        self.poll_timing = timing;
        self
    }

    /// Whether all watched futures are [tracked](crate::Watched::tracked) that are
    /// polled for the first time from now on; no by default.
    pub const fn track(mut self, track: bool) -> Self {
        self.track = track;
        self
    }

    /// From when on a tracked future that was not woken is told to be stuck; `None`,
    /// the default, for never.
    ///
    /// It is told once, as a [`tracing`] event at WARN, until it is polled again:
    /// see [`docs::events`](crate::docs::events). Many futures wait for long by
    /// design, so this is for those that should not.
    pub const fn stuck_after(mut self, after: Option<Duration>) -> Self {
        self.stuck_after = after;
        self
    }

    /// Whether the stacks of stuck threads are taken; yes by default.
    ///
    /// Without them stalls have no line, and the turn of a current-thread runtime with
    /// nothing watched is told when it is over. Causes and shares of time are there all the
    /// same, but a wait for a lock is told as one in `futex`. No memory of other threads is read then, no signal or timer is used, and
    /// neither unwind tables nor debug info is read:
    /// [`docs::design`](crate::docs::design) has the system calls that this leaves out.
    pub const fn stacks(mut self, stacks: bool) -> Self {
        self.stacks = stacks;
        self
    }

    /// The signal whose handler copies the stack of a stuck thread that runs on a CPU,
    /// SIGURG by default; `None` for no signals and no timers, and so no stacks of
    /// running threads.
    ///
    /// A thread that is blocked is not signalled: its stack is read from outside. For one
    /// that runs a timer is set on its own CPU clock, so the signal comes only while that
    /// thread runs, and cuts no system call short but `io_uring_enter` and `KVM_RUN`: on
    /// x86-64 from Linux 5.9 on, on aarch64 from 5.16 on. On older kernels the signal is
    /// sent directly, and a thread that enters a system call in that very moment can get
    /// EINTR. See [`docs::stacks`](crate::docs::stacks).
    ///
    /// The handler is installed when a thread has first computed for half of the lowest
    /// threshold in one poll or turn, and stays: the thread is asked then, 10 times a second
    /// at most, so that the first event of a stall has its line. Where the signal is sent
    /// directly, only the thread of a stall is asked. If the
    /// program has a handler of its own for this signal, that one is left alone and no
    /// stack of a running thread is taken; nor is one of a thread that blocks the signal or
    /// has no room for the handler. [`Health::no_stacks`](crate::Health::no_stacks) says so.
    ///
    /// Under a filter of system calls (seccomp: of systemd's `SystemCallFilter`, and of
    /// most containers) timers are not used by default: a filter may kill the process for
    /// `timer_create`, and no program can find out without a try. The signal is then sent
    /// directly, by way of a socket, with calls that the program makes itself; in a process
    /// without a socket, running threads have no stacks. A call of this with a signal, be
    /// it the default, says that the filter permits `timer_create`, `timer_settime` and
    /// `timer_delete`, or refuses them with an error. Docker's default filter and systemd's
    /// `@system-service` permit them, and with timers no system call is cut short.
    ///
    /// No effect on other platforms.
    ///
    /// # Examples
    /// In a container whose filter permits timers:
    /// ```
    /// const SIGURG: i32 = 23;
    /// let builder = stallscope::Watchdog::builder().signal(Some(SIGURG));
    /// # drop(builder);
    /// ```
    pub const fn signal(mut self, signal: Option<i32>) -> Self {
        self.signal = signal;
        self.signal_chosen = true;
        self
    }

    pub(crate) fn signal_use(&self) -> SignalUse {
        self.signal
            .map_or(SignalUse::Off, |number| SignalUse::Signal {
                number,
                chosen: self.signal_chosen,
            })
    }

    /// Whether the watchdog's threads ask the scheduler for short slices of CPU time, so
    /// that they are given a CPU sooner after they wake while all are busy; no by default.
    ///
    /// With it, stalls are told some milliseconds sooner on a machine without a free CPU.
    /// Linux from 6.12 on; elsewhere without effect. The threads do not get more CPU time,
    /// and their nice value stays. This is the one setting that has the library call
    /// `sched_setattr`, for which a filter of system calls (systemd's
    /// `SystemCallFilter=~@resources`) kills the process: leave it off there.
    pub const fn short_slices(mut self, short: bool) -> Self {
        self.short_slices = short;
        self
    }

    /// Code that is the user's, though its place or name speaks for a library. Each call of
    /// this adds some.
    ///
    /// A crate by its name, `our-store`, or part of the path of its source files, in whole
    /// folders: `/build/ours/`, `crates/store/`, or a file, `src/generated.rs`. A path is
    /// compared with what the compiler wrote into the debug info, see
    /// [`Frame::file`](crate::Frame::file); without debug info there is none, and only
    /// crates' names count.
    ///
    /// Whose a function is decides which one of a stack is
    /// [blamed](crate::Stack::culprit). By default all Rust code is the user's but: the
    /// standard library, crates from a registry or from git, what lies below `vendor`,
    /// `third_party`, `third-party` or `external` as crates do (with a folder `src`, or a
    /// version), and in Nix's and Guix's store; without paths, some 200 crates that are
    /// known by name. Of several that fit, the longest decides; of two as long, this.
    ///
    /// It is decided when a stack is taken, and kept with the stall: a report that is read
    /// elsewhere says the same.
    ///
    /// # Examples
    /// A crate of one's own from a private registry, and one of somebody else in the
    /// workspace:
    /// ```
    /// let builder = stallscope::Watchdog::builder()
    ///     .user_code(["our-store"])
    ///     .library_code(["crates/forked-client/"]);
    /// # drop(builder);
    /// ```
    ///
    /// # Errors
    /// [`start`](Builder::start) refuses what is neither a crate's name nor a path of whole
    /// folders, what is in both of the two, and more than 256.
    pub fn user_code(mut self, code: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ownership.add_users(code);
        self
    }

    /// Code that is not the user's, though nothing speaks for a library: generated,
    /// vendored, or another team's. As [`user_code`](Builder::user_code).
    pub fn library_code(mut self, code: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.ownership.add_libraries(code);
        self
    }

    /// Calls `callback` with each event of each stall; of stalls for want of a CPU alone
    /// ([`Cause::Starved`](crate::Cause::Starved)) with those of one a minute. Each call of
    /// this adds a callback.
    ///
    /// Each callback has a thread of its own, which calls it with one event at a time, in
    /// order. A callback that panics or takes long harms neither detection nor other
    /// callbacks; it is counted in [`Health`](crate::Health), as are the events that it
    /// loses where 1,024 wait for it.
    ///
    /// It should not wait for anything that the stuck thread may hold: a lock of the
    /// program's, its connection pool, or standard output, whose lock a thread can hold
    /// for as long as it likes while it prints. To count, to set a flag, to send into a
    /// channel without waiting, or one `eprintln!` is right.
    pub fn on_stall(mut self, callback: impl Fn(&StallEvent) + Send + Sync + 'static) -> Self {
        self.on_stall.push(Arc::new(callback));
        self
    }

    /// Sets hooks of a runtime that is about to be built, so that the threads of
    /// its workers are known from the start; a watchdog is started with
    /// [`start_on`](Builder::start_on) once it is built.
    ///
    /// Without them, threads become known as watched polls and the lag sampler
    /// run on them, so one that is stuck before that has no stack and no cause.
    ///
    /// With `--cfg tokio_unstable` each poll of each spawned task is published and
    /// timed too, under the name `task` and the place where it was spawned, with
    /// nothing wrapped.
    ///
    /// tokio keeps one callback of each kind: this replaces `on_thread_park` and
    /// `on_thread_unpark`, and with `--cfg tokio_unstable` `on_before_task_poll`
    /// and `on_after_task_poll`. To keep your own, call [`hooks`](crate::hooks)
    /// from them instead.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut runtime = tokio::runtime::Builder::new_multi_thread();
    /// runtime.enable_all();
    /// let watchdog = stallscope::Watchdog::builder().install(&mut runtime);
    /// let runtime = runtime.build()?;
    /// let watchdog = watchdog.start_on(runtime.handle())?;
    /// # Ok(()) }
    /// ```
    pub fn install(self, runtime: &mut tokio::runtime::Builder) -> Self {
        runtime
            .on_thread_park(hooks::on_thread_park)
            .on_thread_unpark(hooks::on_thread_unpark);
        #[cfg(tokio_unstable)]
        {
            let polls = Arc::new(hooks::TaskPolls::new());
            let before = Arc::clone(&polls);
            runtime
                .on_before_task_poll(move |task| before.before(task))
                .on_after_task_poll(move |task| polls.after(task));
        }
        self
    }

    /// Starts a watchdog of the runtime that this is called in.
    ///
    /// Waits, for 5 ms at most, until each worker of a multi-thread runtime has said which
    /// thread it is.
    ///
    /// # Errors
    /// If there is no runtime, a setting is out of range, or a thread cannot be
    /// started; the text names the field and the remedy.
    pub fn start(self) -> Result<Watchdog, Error> {
        let handle = Handle::try_current().map_err(|_| Error::no_runtime())?;
        self.start_on(&handle)
    }

    /// Starts a watchdog of the runtime of this handle.
    ///
    /// A second watchdog of a runtime is independent of the first: each tells
    /// of all stalls by itself.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start_on(self, handle: &Handle) -> Result<Watchdog, Error> {
        self.check()?;
        Watchdog::launch(&self, handle)
    }

    /// The same for one more runtime: the threads of the callbacks have those.
    pub(super) fn without_callbacks(&self) -> Self {
        Builder {
            on_stall: Vec::new(),
            ..self.clone()
        }
    }

    pub(crate) fn tick_or_default(&self) -> Duration {
        self.tick
            .unwrap_or_else(|| (self.thresholds.monitor / 2).min(Duration::from_millis(5)))
    }

    fn check(&self) -> Result<(), Error> {
        self.thresholds.check()?;
        self.ownership.check()?;
        let tick = self.tick_or_default();
        if tick < MIN_TICK {
            return Err(Error::config(
                "tick",
                format!("is {tick:?}, below {MIN_TICK:?}"),
                "set it to about half the lowest threshold",
            ));
        }
        if tick > self.thresholds.monitor {
            return Err(Error::config(
                "tick",
                format!(
                    "is {tick:?}, longer than the lowest threshold, thresholds.monitor ({:?})",
                    self.thresholds.monitor
                ),
                "set it to about half the lowest threshold",
            ));
        }
        if let Some(signal) = self.signal.filter(|signal| !os::is_usable_signal(*signal)) {
            return Err(Error::config(
                "signal",
                format!("is {signal}, which no program can use for this"),
                "leave the default, or set it to one of SIGURG, SIGWINCH, SIGUSR1, \
                 SIGUSR2 or a real-time signal, or to `None`",
            ));
        }
        if self.name.as_deref().is_some_and(str::is_empty) {
            return Err(Error::config(
                "name",
                "is empty".to_owned(),
                "give the runtime a name, or leave the call out",
            ));
        }
        if self
            .stuck_after
            .is_some_and(|after| after < self.thresholds.monitor)
        {
            return Err(Error::config(
                "stuck_after",
                format!(
                    "is {:?}, below the lowest threshold, thresholds.monitor ({:?})",
                    self.stuck_after.unwrap_or_default(),
                    self.thresholds.monitor
                ),
                "set it to what no tracked future should ever wait, or to `None`",
            ));
        }
        match self.lag_period {
            Some(period) if period < Duration::from_millis(1) => Err(Error::config(
                "lag_period",
                format!("is {period:?}, below tokio's timer resolution of 1 ms"),
                "set it to 1 ms or more, or to `None`",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "builder_tests.rs"]
mod tests;
