//! What an audit looks for, and for how long.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::audit::allowance::AllowedFunction;
use crate::audit::future::{Audited, Auditing, TryAuditing, Unfinished, Why};
use crate::audit::session::{OnLimit, TaskName, Wanted};
use crate::error::Error;
use crate::report::Report;
use crate::severity::Thresholds;

/// How long a thread that has been told of its limit has to say something itself.
const GRACE: Duration = Duration::from_secs(1);
/// How long the report of one that is stuck may take: a debug build's debug info is large, and
/// the machine may be busy.
const REPORT_TAKES: Duration = Duration::from_secs(20);

/// What comes of an audit on a thread of its own.
enum Outcome<T> {
    Ended(Box<Result<Audited<T>, Unfinished>>),
    /// The limit has been reached: the report from outside.
    Outside(Box<Report>),
}

/// Sets up an [audit](crate::audit()).
///
/// ```
/// use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let audited = stallscope::Audit::new()
///     .name("checkout")
///     .under(Duration::from_millis(50))
///     .limit(Duration::from_secs(30))
///     .try_run(async { 1 + 1 })
///     .await
///     .unwrap();
/// assert_eq!(audited.output, 2);
/// # }
/// ```
#[must_use = "an audit begins with `run`, `try_run` or `block_on`"]
pub struct Audit {
    name: Cow<'static, str>,
    thresholds: Thresholds,
    under: Option<Duration>,
    limit: Option<Duration>,
    on_limit: Option<OnLimit>,
    whole_runtime: bool,
    allowed: Vec<AllowedFunction>,
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("name", &self.name)
            .field("thresholds", &self.thresholds)
            .field("under", &self.under)
            .field("limit", &self.limit)
            .field("on_limit", &self.on_limit.is_some())
            .field("whole_runtime", &self.whole_runtime)
            .field("allowed", &self.allowed)
            .finish()
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self::new()
    }
}

impl Audit {
    /// An audit with the default thresholds, of the future alone, without a limit.
    pub fn new() -> Self {
        Audit {
            name: Cow::Borrowed("audited future"),
            thresholds: Thresholds::default(),
            under: None,
            limit: None,
            on_limit: None,
            whole_runtime: false,
            allowed: Vec::new(),
        }
    }

    /// What messages call the future.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// From which duration on a stall has which severity.
    pub const fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    /// From which duration on a poll is a stall; `thresholds.monitor` by default.
    ///
    /// Time spent waiting for a CPU does not count.
    pub const fn under(mut self, under: Duration) -> Self {
        self.under = Some(under);
        self
    }

    /// For how long it may run, in real time, even where tokio's time is paused.
    ///
    /// A future that is pending then is given up; one that is stuck in a poll
    /// cannot be, see [`Audit::on_limit`] and [`Audit::block_on`].
    pub const fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Calls `callback` with the report when the limit is reached, from another
    /// thread: even while the future is stuck in a poll.
    pub fn on_limit(mut self, callback: impl Fn(&Report) + Send + Sync + 'static) -> Self {
        self.on_limit = Some(Box::new(callback));
        self
    }

    /// Audits all tasks of the runtime that the future is polled in.
    ///
    /// Of this future and what it [spawns](crate::spawn) all is measured. Of other tasks
    /// a thread sees from outside, on Linux, each sleep of a millisecond and more, with its
    /// line; as a stall where it takes as long as one. With the feature `interpose`, all of
    /// their blocking calls are seen, but for waiting for locks. What they compute is in
    /// [`Report::unsure`](crate::Report::unsure): from outside one long poll looks like many
    /// short ones. Two such audits of one runtime both see its tasks.
    pub const fn whole_runtime(mut self) -> Self {
        self.whole_runtime = true;
        self
    }

    /// Allows what a function does, with whatever it calls, and says why.
    ///
    /// Stalls and blocking that are laid to it are not in the report's lists, but in
    /// [`Report::allowed`](crate::Report::allowed), with the reason, so that the list
    /// can shrink. Of a poll that both computed and slept, the one is still a stall by
    /// itself where only the other is allowed.
    ///
    /// The function is any whose path ends with `function`, closures and generic
    /// arguments aside: `config::load` means `app::config::load`. It may be a library's,
    /// like `std::fs::read`. For a section of code that can be changed there is
    /// [`allow_blocking`](crate::allow_blocking), which works where there are no stacks,
    /// too: this needs them, so it allows nothing elsewhere than on Linux, on x86-64 and
    /// aarch64.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use std::time::Duration;
    ///
    /// fn load() {
    ///     std::thread::sleep(Duration::from_millis(15));
    /// }
    ///
    /// let audited = stallscope::Audit::new()
    ///     .allow("load", "reads the fixtures, once")
    ///     .run(async { load() })
    ///     .await;
    /// # if cfg!(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))) {
    /// assert!(audited.report.stalls().is_empty());
    /// assert_eq!(audited.report.allowed()[0].count(), 1);
    /// # }
    /// # }
    /// ```
    #[track_caller]
    pub fn allow(mut self, function: &str, reason: impl Into<String>) -> Self {
        let location = Location::caller();
        self.allowed
            .push(AllowedFunction::new(function, reason.into(), location));
        self
    }

    /// Audits a future.
    ///
    /// # Panics
    /// If the future does, if the limit is reached, or a setting is out of range.
    #[track_caller]
    pub fn run<F: Future>(self, future: F) -> Auditing<F> {
        Auditing::new(self.try_run(future))
    }

    /// Audits a future; a panic of it, or the limit, comes back with the report.
    #[track_caller]
    pub fn try_run<F: Future>(self, future: F) -> TryAuditing<F> {
        let location = Location::caller();
        let name = self.name.clone().into_owned();
        let whole_runtime = self.whole_runtime;
        TryAuditing::new(future, name, location, self.wanted(), whole_runtime)
    }

    /// Audits a future on a thread of its own, in a current-thread runtime of its
    /// own, and waits for it: no longer than the limit even if it is stuck in a poll.
    ///
    /// The thread of a future that is stuck is left behind.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stallscope::{Audit, Why};
    ///
    /// let stuck = Audit::new()
    ///     .limit(Duration::from_millis(100))
    ///     .block_on(|| async { std::thread::sleep(Duration::from_secs(5)) })
    ///     .unwrap_err();
    /// assert!(matches!(stuck.why, Why::Limit(_)));
    /// assert!(stuck.report.stalls()[0].is_ongoing());
    /// ```
    ///
    /// # Errors
    /// If the future panics, the limit is reached, or the runtime cannot be made.
    #[track_caller]
    pub fn block_on<F, T>(
        mut self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Audited<T>, Unfinished>
    where
        F: Future<Output = T>,
        T: Send + 'static,
    {
        let (send, receive) = channel();
        let limit = self.limit;
        // Where the future is stuck, its report comes from outside.
        let outside = send.clone();
        let users = self.on_limit.take();
        self.on_limit = Some(Box::new(move |report| {
            let _ = outside.send(Outcome::Outside(Box::new(report.clone())));
            if let Some(users) = &users {
                users(report);
            }
        }));
        let location = Location::caller();
        let name = self.name.clone().into_owned();
        let whole_runtime = self.whole_runtime;
        let wanted = self.wanted();
        let completed = wanted.as_ref().map(|wanted| Arc::clone(&wanted.completed));
        let completed = completed.unwrap_or_default();
        let named = Arc::new(TaskName {
            name: name.clone(),
            location,
        });
        let audit = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Unfinished::refused(Error::runtime(error)))?;
            let auditing = TryAuditing::new(make(), name, location, wanted, whole_runtime);
            runtime.block_on(auditing)
        };
        let started = std::thread::Builder::new()
            .name("stallscope-audited".to_owned())
            .spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(audit)).unwrap_or_else(|payload| {
                    Err(Unfinished {
                        why: Why::Panicked(payload),
                        report: Box::default(),
                        name: None,
                    })
                });
                let _ = send.send(Outcome::Ended(Box::new(ended)));
            });
        if let Err(error) = started {
            return Err(Unfinished::refused(Error::thread("audit", error)));
        }
        let until = limit.and_then(|limit| Instant::now().checked_add(limit.saturating_add(GRACE)));
        await_outcome(&receive, until, &completed).unwrap_or_else(|report| {
            Err(Unfinished {
                why: Why::Limit(limit.unwrap_or_default()),
                report,
                name: Some(named),
            })
        })
    }

    fn wanted(self) -> Result<Wanted, Error> {
        self.thresholds.check()?;
        let under = self.under.unwrap_or(self.thresholds.monitor);
        if under.is_zero() {
            return Err(Error::config(
                "under",
                "is zero, which makes every poll a stall".to_owned(),
                "set it to what a poll may take, say 10 ms",
            ));
        }
        for function in &self.allowed {
            function.check()?;
        }
        Ok(Wanted {
            thresholds: self.thresholds,
            floor: under,
            limit: self.limit,
            on_limit: self.on_limit,
            allowed: self.allowed,
            completed: Arc::default(),
        })
    }
}

/// What the audited thread says until then, or soon after; else the report from outside.
fn await_outcome<T>(
    outcomes: &Receiver<Outcome<T>>,
    until: Option<Instant>,
    completed: &AtomicBool,
) -> Result<Result<Audited<T>, Unfinished>, Box<Report>> {
    let mut report = None;
    loop {
        let now = Instant::now();
        let received = match until {
            None => outcomes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => outcomes.recv_timeout(until.saturating_duration_since(now)),
        };
        let received = match received {
            // It was in time, or the report from outside is on its way.
            Err(RecvTimeoutError::Timeout) if report.is_none() || completed.load(Relaxed) => {
                outcomes.recv_timeout(REPORT_TAKES)
            }
            received => received,
        };
        match received {
            Ok(Outcome::Ended(ended)) => return Ok(*ended),
            Ok(Outcome::Outside(outside)) => report = Some(outside),
            Err(_) => return Err(report.unwrap_or_default()),
        }
    }
}
