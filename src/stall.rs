//! What is told of a stall: plain data.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::advice::{self, Advice};
use crate::async_name::is_bare;
use crate::cause::Judgement;
use crate::escape::part;
use crate::function_name;
use crate::owner;
use crate::profile::Profile;
use crate::registry::{LabelId, registry};
use crate::report::Confidence;
use crate::runtime_name;
use crate::severity::Severity;
use crate::watchdog::transition::Whereabouts;

/// A number that tells a stall from all others of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StallId(pub(crate) u64);

impl StallId {
    /// The number itself.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Where in a stall's life an event is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It has lasted for the lowest threshold and goes on.
    Started,
    /// It has reached the next severity and goes on.
    Escalated,
    /// It is over, or the watchdog stops: [`Stall::is_ongoing`] tells.
    Ended,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Started => "started",
            Phase::Escalated => "escalated",
            Phase::Ended => "ended",
        })
    }
}

/// What has held up its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StallKind {
    /// One poll of a watched future.
    Poll,
    /// One trip of a worker round its event loop: up to 61 polls, so perhaps
    /// many short ones and no long one.
    Turn,
}

impl fmt::Display for StallKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            StallKind::Poll => "poll",
            StallKind::Turn => "turn",
        })
    }
}

/// Why a poll or turn does not return.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// It computes.
    OnCpu,
    /// It sleeps in a system call.
    Blocked {
        /// The call's name, like `fsync`.
        syscall: String,
    },
    /// It waits for a lock.
    Lock,
    /// It waits for memory that is being read from disk.
    PageFault,
    /// It could run, but other threads had the CPUs.
    Starved,
    /// The whole process stood still.
    Suspended,
    /// Not known.
    Unknown,
}

impl Cause {
    /// Whether the program is to blame: not where it waited for a CPU or stood still.
    pub(crate) const fn is_programs(&self) -> bool {
        !matches!(self, Cause::Starved | Cause::Suspended)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::OnCpu => f.pad("on CPU"),
            Cause::Blocked { syscall } => f.pad(&format!("blocked in {}", part(syscall))),
            Cause::Lock => f.pad("lock"),
            Cause::PageFault => f.pad("page fault"),
            Cause::Starved => f.pad("starved"),
            Cause::Suspended => f.pad("suspended"),
            Cause::Unknown => f.pad("unknown"),
        }
    }
}

/// A place in source code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Location {
    pub(crate) file: String,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Location {
    /// The path as the compiler knows it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Counted from 1.
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// Counted from 1.
    pub const fn column(&self) -> u32 {
        self.column
    }
}

impl From<&std::panic::Location<'_>> for Location {
    fn from(location: &std::panic::Location<'_>) -> Self {
        Location {
            file: location.file().to_owned(),
            line: location.line(),
            column: location.column(),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", part(&self.file), self.line))
    }
}

/// The watched future that a stall is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    pub(crate) name: String,
    pub(crate) location: Option<Location>,
    pub(crate) id: Option<u64>,
}

impl Task {
    /// The future of a label in a task of tokio's; 0 for none.
    pub(crate) fn of(label: LabelId, task: u64) -> Option<Self> {
        let label = registry().label_of(label)?;
        Some(Task {
            name: label.name.to_string(),
            location: label.location.map(Into::into),
            id: (task != 0).then_some(task),
        })
    }

    /// The name given to [`watched`](crate::WatchExt::watched).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it was given; `None` for the name that stands for all beyond the bound.
    pub const fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }

    /// tokio's id of the task it runs in, as `tokio::task::Id` prints it.
    pub const fn id(&self) -> Option<u64> {
        self.id
    }
}

/// One function on a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Frame {
    // Shared: a stack has dozens of functions, each stall that is kept has one, and what
    // is told of while it lasts must not be late for the copying.
    pub(crate) function: Option<Arc<str>>,
    pub(crate) file: Option<Arc<str>>,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) module: Option<Arc<str>>,
    pub(crate) build_id: Option<Arc<str>>,
    pub(crate) address: u64,
    /// Where it has no name of its own: the function that it is in, or that awaits it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<Arc<str>>,
    /// And the function around its line, as the source has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_source: Option<Arc<str>>,
}

impl Frame {
    /// The function's path, without its hash.
    pub fn function(&self) -> Option<&str> {
        self.function.as_deref()
    }

    /// The function's path without closures and generic arguments.
    ///
    /// Debug info of line tables leaves some without a path. A library's function then has
    /// that of its file before it, `serde_json::ser::to_writer`. The body of an `async fn`
    /// has the path that its future's type has, or the name that its source has around
    /// this line, where the source is at hand and no newer than the program; else it is an
    /// `async block in` the function that awaits it.
    pub fn short_function(&self) -> String {
        match &self.in_source {
            Some(name) => name.to_string(),
            None => self.name_in_debug_info(),
        }
    }

    /// The same, without what was read from source: equal wherever the program runs.
    pub(crate) fn name_in_debug_info(&self) -> String {
        let Some(function) = self.function.as_deref() else {
            return "?".to_owned();
        };
        let short = function_name::short(function);
        if let Some(within) = &self.within {
            return format!("{short} in {within}");
        }
        let is_librarys = self.file.as_deref().is_some_and(owner::is_library_path);
        if is_librarys
            && !short.contains("::")
            && let Some(module) = function_name::module(self)
        {
            return format!("{module}::{short}");
        }
        short
    }

    /// Whether debug info gives it no name of its own.
    pub(crate) fn has_no_name(&self) -> bool {
        self.function.as_deref().is_some_and(is_bare)
    }

    /// The short function as it is shown.
    pub(crate) fn shown_function(&self) -> String {
        part(&self.short_function()).to_string()
    }

    /// Function, file and line in short, as they are shown.
    pub(crate) fn short(&self) -> String {
        let function = self.shown_function();
        match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{function} {}:{line}", part(relative(file))),
            _ => function,
        }
    }

    /// The source file, where the program has line tables.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// The line in it.
    pub const fn line(&self) -> Option<u32> {
        self.line
    }

    /// The column in it.
    pub const fn column(&self) -> Option<u32> {
        self.column
    }

    /// The executable or library that the code is in.
    pub fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }

    /// The module's build id in hexadecimal, to symbolize later.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// The address, relative to the module.
    pub const fn address(&self) -> u64 {
        self.address
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{}", part(function))?,
            None => write!(
                f,
                "{}+{:#x}",
                part(self.module.as_deref().unwrap_or("?")),
                self.address
            )?,
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " {}:{line}", part(file)),
            _ => Ok(()),
        }
    }
}

/// A path without what it has in common with the working directory, and that of a library
/// without where libraries lie.
fn relative(file: &str) -> &str {
    if let Some((_, below)) = file.split_once("/registry/src/")
        && let Some((_, library)) = below.split_once('/')
    {
        return library;
    }
    static HERE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let here = HERE.get_or_init(|| {
        // A filter of system calls can kill for `getcwd`; links of `/proc` are read anyway.
        let here = if cfg!(target_os = "linux") {
            std::fs::read_link("/proc/self/cwd").ok()?
        } else {
            std::env::current_dir().ok()?
        };
        Some(format!("{}/", here.to_str()?))
    });
    here.as_deref()
        .and_then(|here| file.strip_prefix(here))
        .unwrap_or(file)
}

/// Where a stuck thread was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stack {
    pub(crate) frames: Arc<[Frame]>,
    pub(crate) culprit: Option<usize>,
    pub(crate) leaf: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) called_from: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) on_behalf_of: Option<Arc<str>>,
    /// Which of them are the user's, by the settings of the watchdog that took it.
    #[serde(default, skip_serializing_if = "no_users")]
    pub(crate) users: Arc<[usize]>,
}

fn no_users(users: &Arc<[usize]>) -> bool {
    users.is_empty()
}

impl fmt::Display for Stack {
    /// A line for each function.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, frame) in self.frames.iter().enumerate() {
            writeln!(f, "{number:4}: {frame}")?;
        }
        Ok(())
    }
}

impl Stack {
    /// All of it, the innermost function first.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// What to blame: the function that holds the thread up.
    ///
    /// It is the innermost function of the user's own code that computes, or that calls
    /// what takes so long. Where the user's code only awaits a library's work, or has
    /// returned before it, it is the outermost function of that library which names the
    /// work, such as `axum::json::into_response`; see [`called_from`](Stack::called_from)
    /// and [`on_behalf_of`](Stack::on_behalf_of). Whose a function is:
    /// [`Builder::user_code`](crate::Builder::user_code).
    pub fn culprit(&self) -> Option<&Frame> {
        self.frames.get(self.culprit?)
    }

    /// The line of the user that awaits it, where the [culprit](Stack::culprit) is a
    /// library's.
    pub fn called_from(&self) -> Option<&Frame> {
        self.frames.get(self.called_from?)
    }

    /// The user's handler or task that a library works for, by the types on the stack,
    /// where no line of the user's is left on it.
    pub fn on_behalf_of(&self) -> Option<&str> {
        self.on_behalf_of.as_deref()
    }

    /// The user's function that calls or awaits what takes so long.
    pub(crate) fn innermost_of_user(&self) -> Option<usize> {
        let of_user = |at: &usize| self.is_users(*at);
        self.called_from.or_else(|| self.culprit.filter(of_user))
    }

    /// Whether this function of it is the user's.
    pub(crate) fn is_users(&self, at: usize) -> bool {
        self.users.contains(&at)
    }

    /// The culprit, and for whom it works; as it is shown.
    pub(crate) fn place(&self) -> Option<String> {
        let culprit = self.culprit()?.short();
        Some(match self.for_whom() {
            Some(whom) => format!("{culprit}, {whom}"),
            None => culprit,
        })
    }

    /// For what: the user's line, or handler, that a library works for; as it is shown.
    pub(crate) fn for_whom(&self) -> Option<String> {
        let line = self
            .called_from()
            .map(|frame| format!("called from {}", frame.short()));
        line.or_else(|| Some(format!("for {}", part(self.on_behalf_of()?))))
    }

    /// Whether most functions have names: a stripped program's do not, only those of
    /// the libraries that it calls.
    pub(crate) fn has_names(&self) -> bool {
        let named = self.frames.iter().filter(|frame| frame.function.is_some());
        named.count() * 2 > self.frames.len()
    }

    /// Whether it shows the line: that of the culprit, or any where there is no culprit.
    pub(crate) fn has_line(&self) -> bool {
        match self.culprit() {
            Some(culprit) => culprit.line.is_some(),
            None => self.has_names() && self.frames.iter().any(|frame| frame.line.is_some()),
        }
    }

    /// What the culprit called, like `std::fs::read`; where the culprit is a library's,
    /// the library that did the work for it, like `serde_json::ser::to_writer`.
    pub fn leaf(&self) -> Option<&Frame> {
        self.frames.get(self.leaf?)
    }
}

/// One stall, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stall {
    pub(crate) id: StallId,
    pub(crate) severity: Severity,
    pub(crate) kind: StallKind,
    pub(crate) task: Option<Task>,
    pub(crate) worker: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runtime: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) thread: Option<String>,
    /// Of the process it was seen in; see `report::Origin`.
    #[serde(default)]
    pub(crate) origin: u64,
    /// Since the watchdog's clock was made ready.
    #[serde(default)]
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) suspended_ns: u64,
    pub(crate) on_cpu_ns: u64,
    pub(crate) waiting_ns: u64,
    pub(crate) off_cpu_ns: u64,
    #[serde(default)]
    pub(crate) known_polls: Option<u64>,
    #[serde(default)]
    pub(crate) one_poll: Option<Confidence>,
    pub(crate) cause: Cause,
    pub(crate) stack: Option<Stack>,
    /// `None` where it was not sampled: in audits, and in reports of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) profile: Option<Arc<Profile>>,
    pub(crate) ongoing: bool,
}

// serde hands a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
pub(crate) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Stall {
    /// Its number, the same in all of its events.
    pub const fn id(&self) -> StallId {
        self.id
    }

    /// The highest severity it has reached.
    ///
    /// Time in which its thread waited for a CPU does not count, if that is more than a
    /// sixteenth: a stall of 120 ms of which 60 were such waiting is no MEDIUM one. What
    /// would be none without such waiting is one all the same where a quarter of it is as
    /// long as the lowest threshold: its severity is the lowest, its cause
    /// [`Cause::Starved`]. Of those, one a minute is an event; reports have all.
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Whether it is one poll, or one turn of a worker's loop.
    pub const fn kind(&self) -> StallKind {
        self.kind
    }

    /// The watched future it is about, where there is one.
    pub const fn task(&self) -> Option<&Task> {
        self.task.as_ref()
    }

    /// The worker it holds up; `None` on a thread that is none, like that of
    /// `block_on` in a multi-thread runtime.
    pub const fn worker(&self) -> Option<usize> {
        self.worker
    }

    /// The runtime that its thread works for: the name that it was
    /// [given](crate::Builder::name), or `runtime 3` with the number of
    /// [tokio's id](tokio::runtime::Id).
    ///
    /// `None` on a thread outside of any runtime, and in audits.
    pub fn runtime(&self) -> Option<&str> {
        self.runtime.as_deref()
    }

    /// The name of its thread, as the system has it: at most 15 bytes.
    ///
    /// `None` where the thread is not known, on other platforms than Linux, and in audits.
    pub fn thread(&self) -> Option<&str> {
        self.thread.as_deref()
    }

    /// How long it has lasted, by the clock.
    ///
    /// Exact for a watched poll that is over, if polls are timed exactly. For a turn it is exact if the
    /// worker was idle before, else right to about a tick.
    pub const fn duration(&self) -> Duration {
        Duration::from_nanos(self.duration_ns)
    }

    /// Of the duration, how long the whole process stood still: it was stopped, or the
    /// machine was asleep or paused. The [severity](Stall::severity) is that of the rest.
    pub const fn suspended(&self) -> Duration {
        Duration::from_nanos(self.suspended_ns)
    }

    /// Of the duration, how long the thread is known to have been on a CPU.
    ///
    /// This and the two that follow are counted from the second tick that saw
    /// the stall on, so together they are up to two ticks short of the duration;
    /// all are zero where the platform or the thread is not known.
    pub const fn on_cpu(&self) -> Duration {
        Duration::from_nanos(self.on_cpu_ns)
    }

    /// Of the duration, how long the thread is known to have slept in the kernel.
    pub const fn off_cpu(&self) -> Duration {
        Duration::from_nanos(self.off_cpu_ns)
    }

    /// Of the duration, how long the thread is known to have waited for a CPU, or to
    /// have had one that did not run: whoever runs a virtual machine can take it away.
    pub const fn waiting(&self) -> Duration {
        Duration::from_nanos(self.waiting_ns)
    }

    /// Of a turn: how many polls in it are known of, which are those of watched
    /// futures; `None` for a poll. With `tokio_unstable` and
    /// [`Builder::install`](crate::Builder::install) those of all spawned tasks are.
    ///
    /// Counted from the second tick that saw it on, so it is the least that there were.
    /// So is how often its thread, where it computed and may be sent a signal, was seen
    /// in another task than before, if that is more.
    pub const fn known_polls(&self) -> Option<u64> {
        self.known_polls
    }

    /// Of a turn: how sure it is that one long poll made it, rather than many
    /// shorter ones; `None` if nothing says so, and for a poll.
    ///
    /// High where its thread was seen in one and the same sleep for 9 tenths of its
    /// duration or more, medium for half of it: a sleep is within one poll. Where it
    /// computed and may be sent a signal, medium if for 3 quarters of the duration each
    /// look found it in the same task, of [tokio's id](tokio::task::Id), low for half of
    /// it: a task that wakes itself may have been polled again.
    pub const fn is_one_poll(&self) -> Option<Confidence> {
        self.one_poll
    }

    /// Why it does not return, as far as that is known: at the place where it was for
    /// most of its time, see [`Stall::places`].
    pub fn cause(&self) -> Cause {
        self.cause.clone()
    }

    /// Where the thread was for most of the time, where that could be found out: the
    /// first of its [`places`](Stall::places).
    pub const fn stack(&self) -> Option<&Stack> {
        self.stack.as_ref()
    }

    /// What there is to say about it, and what to do.
    ///
    /// From the catalogue; that of a report's findings may be one's own, see
    /// [`Report::advise`](crate::Report::advise). It is about no line where less than half
    /// of the stall was [seen](Stall::seen), nor of a turn that was seen there once.
    pub fn advice(&self) -> Advice {
        let stack = self.stack().filter(|_| self.is_sure());
        advice::of(&self.cause, stack)
    }

    /// Whether it goes on: true in an [`Ended`](Phase::Ended) event only if the
    /// watchdog stopped before the stall did.
    pub const fn is_ongoing(&self) -> bool {
        self.ongoing
    }
}

impl Stall {
    /// Takes note of where its thread was, and why it did not go on there.
    pub(crate) fn see(&mut self, by_times: Judgement, seen: &Whereabouts) {
        self.stack.clone_from(&seen.stack);
        self.profile.clone_from(&seen.profile);
        self.cause = seen.cause(by_times).into();
        if self.ongoing {
            self.duration_ns = self.duration_ns.max(seen.lasted_ns);
            let waited_ns = seen.lost_ns.saturating_sub(self.suspended_ns);
            self.waiting_ns = self.waiting_ns.max(waited_ns);
        }
    }

    /// By what stalls are counted together, as it is shown.
    pub(crate) fn culprit_name(&self) -> String {
        self.name_of(self.stack())
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} of {:.1?}",
            self.severity,
            self.kind,
            self.duration()
        )?;
        // Less would only distract from what it was.
        if self.suspended_ns > self.duration_ns / 16 {
            write!(f, ", {:.1?} of it standing still", self.suspended())?;
        }
        // As with the severity, which is without.
        if self.waiting_ns > self.duration_ns / 16 {
            write!(f, ", {:.1?} of it waiting for a CPU", self.waiting())?;
        }
        match (self.one_poll, self.known_polls) {
            (Some(Confidence::High), _) => f.write_str(", in one poll")?,
            (Some(Confidence::Medium), _) => f.write_str(", mostly in one poll")?,
            (Some(Confidence::Low), _) => f.write_str(", perhaps in one poll")?,
            (None, Some(polls @ 2..)) => write!(f, ", at least {polls} polls")?,
            (None, Some(_)) if !self.is_supported() => f.write_str(", at least 1 poll")?,
            (None, _) => {}
        }
        if let Some(task) = &self.task {
            write!(f, " in `{}`", part(&task.name))?;
        }
        if let Some(worker) = self.worker {
            write!(f, " on worker {worker}")?;
        } else if let Some(thread) = &self.thread {
            write!(f, " on thread `{}`", part(thread))?;
        }
        if let Some(runtime) = &self.runtime
            && !runtime_name::is_default(runtime)
        {
            write!(f, " of `{}`", part(runtime))?;
        }
        if self.cause != Cause::Unknown {
            write!(f, ": {}", self.cause)?;
        }
        self.write_places(f)
    }
}

/// What `on_stall` is called with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallEvent {
    /// Where in its life the stall is.
    pub phase: Phase,
    /// The stall as far as it is known.
    pub stall: Stall,
}

impl fmt::Display for StallEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.phase, self.stall)
    }
}
