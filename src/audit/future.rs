//! The futures that audit others.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::audit::findings;
use crate::audit::measure::Measuring;
use crate::audit::neighbours::Neighbours;
use crate::audit::session::{Session, TaskName, Wanted};
use crate::audit::spotter;
use crate::error::Error;
use crate::escape::{cut_name, lines};
use crate::local;
use crate::os;
use crate::report::Report;
use crate::severity::Thresholds;
use crate::stall::Stall;
use crate::watchdog::Watchdog;
use crate::watching::{Watch, Watching};

/// What comes of an audit.
#[derive(Debug)]
pub struct Audited<T> {
    /// The future's.
    pub output: T,
    /// What it did to its threads.
    pub report: Report,
}

/// An audit whose future did not complete.
#[non_exhaustive]
pub struct Unfinished {
    /// Why it did not.
    pub why: Why,
    /// What it did to its threads until then.
    pub report: Box<Report>,
}

/// Why an audited future did not complete.
#[non_exhaustive]
pub enum Why {
    /// It panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
    /// It was not done within this time.
    Limit(Duration),
    /// The audit could not begin.
    Refused(Error),
}

impl Unfinished {
    pub(crate) fn refused(error: Error) -> Self {
        Unfinished {
            why: Why::Refused(error),
            report: Box::default(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Panicked(payload) => match text_of(payload.as_ref()) {
                Some(text) => write!(f, "it panicked: {}", lines(text, "    ")),
                None => f.write_str("it panicked"),
            },
            Why::Limit(limit) => write!(f, "it was not done within {limit:?}"),
            Why::Refused(error) => write!(f, "the audit could not begin: {error}"),
        }
    }
}

impl fmt::Debug for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the audited future did not complete: {}", self.why)?;
        if let Some(findings) = self.report.findings() {
            write!(f, "\n\n{findings}")?;
        }
        Ok(())
    }
}

// What `unwrap` shows is meant to be read.
impl fmt::Debug for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Unfinished {}

/// The text of a panic, where it is one.
pub(crate) fn text_of(payload: &(dyn Any + Send)) -> Option<&str> {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

pin_project! {
    /// The future of [`Audit::try_run`](crate::Audit::try_run).
    #[must_use = "futures do nothing unless polled"]
    pub struct TryAuditing<F> {
        #[pin]
        future: F,
        watch: Watch,
        state: State,
    }
}

impl<F> fmt::Debug for TryAuditing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryAuditing").finish_non_exhaustive()
    }
}

enum State {
    New {
        name: Arc<TaskName>,
        wanted: Option<Result<Wanted, Error>>,
        whole_runtime: bool,
    },
    Running(Running),
    Over,
}

struct Running {
    session: Arc<Session>,
    watchdog: Option<Watchdog>,
    _neighbours: Option<Neighbours>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.session.close();
    }
}

impl Running {
    fn begin(
        name: Arc<TaskName>,
        wanted: Result<Wanted, Error>,
        whole_runtime: bool,
    ) -> Result<Self, Error> {
        let wanted = wanted?;
        crate::clock::calibrate();
        os::interpose();
        let watchdog = whole_runtime
            .then(|| {
                Watchdog::builder()
                    .thresholds(from(wanted.floor, wanted.thresholds))
                    .lag_period(None)
                    .start()
            })
            .transpose()?;
        let session = Arc::new(Session::new(name, wanted));
        spotter::enlist(&session);
        let neighbours = whole_runtime.then(|| Neighbours::of_this_runtime(&session));
        Ok(Running {
            session,
            watchdog,
            _neighbours: neighbours.flatten(),
        })
    }

    fn report(self) -> Report {
        let in_progress = spotter::settle(&self.session);
        self.session.close();
        let others = self.watchdog.as_ref().map(Watchdog::report);
        let others: Vec<Stall> = others.map(|report| report.stalls).unwrap_or_default();
        findings::report(&self.session, &in_progress, others)
    }
}

/// Thresholds that begin at `floor`.
fn from(floor: Duration, thresholds: Thresholds) -> Thresholds {
    let above = |duration: Duration, lower: Duration| {
        duration.max(lower.saturating_add(Duration::from_nanos(1)))
    };
    let medium = above(thresholds.medium, floor);
    let high = above(thresholds.high, medium);
    Thresholds {
        monitor: floor,
        medium,
        high,
        critical: above(thresholds.critical, high),
    }
}

impl<F> TryAuditing<F> {
    pub(crate) fn new(
        future: F,
        name: String,
        location: &'static Location<'static>,
        wanted: Result<Wanted, Error>,
        whole_runtime: bool,
    ) -> Self {
        // As the registry cuts it: by the name an audit knows its own stalls.
        let name = cut_name(&name).into_owned();
        TryAuditing {
            future,
            watch: Watch::new(&name, location),
            state: State::New {
                name: Arc::new(TaskName { name, location }),
                wanted: Some(wanted),
                whole_runtime,
            },
        }
    }
}

impl<F: Future> Future for TryAuditing<F> {
    type Output = Result<Audited<F::Output>, Unfinished>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let State::New {
            name,
            wanted,
            whole_runtime,
        } = this.state
            && let Some(wanted) = wanted.take()
        {
            match Running::begin(Arc::clone(name), wanted, *whole_runtime) {
                Ok(running) => *this.state = State::Running(running),
                Err(error) => return Poll::Ready(Err(Unfinished::refused(error))),
            }
        }
        let State::Running(running) = this.state else {
            // Polled again after it was done, which is the future's to complain about.
            return this.future.poll(cx).map(|output| {
                Ok(Audited {
                    output,
                    report: Report::default(),
                })
            });
        };
        let session = &running.session;
        let ended = if session.is_expired() {
            Err(Why::Limit(session.wanted.limit.unwrap_or_default()))
        } else {
            session.wake_at_limit(cx.waker());
            let name = &session.name;
            let polled = catch_unwind(AssertUnwindSafe(|| {
                poll_measured(this.future, cx, this.watch, session, name)
            }));
            match polled {
                Ok(polled) => Ok(ready!(polled)),
                Err(payload) => Err(Why::Panicked(payload)),
            }
        };
        let report = match std::mem::replace(this.state, State::Over) {
            State::Running(running) => running.report(),
            State::New { .. } | State::Over => Report::default(),
        };
        Poll::Ready(match ended {
            Ok(output) => Ok(Audited { output, report }),
            Err(why) => Err(Unfinished {
                why,
                report: Box::new(report),
            }),
        })
    }
}

fn poll_measured<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
    watch: &mut Watch,
    session: &Arc<Session>,
    name: &Arc<TaskName>,
) -> Poll<F::Output> {
    // A thread that is ending has no entry: it is not audited, but goes on.
    let Some(thread) = local::this_thread() else {
        return future.poll(cx);
    };
    let anchor = 0_u8;
    let watching = Watching::begin(watch, thread, cx, (&raw const anchor).addr());
    let _measuring = Measuring::begin(session, name, thread, thread.slot.innermost());
    match watching.waker {
        None => future.poll(cx),
        Some(waker) => future.poll(&mut Context::from_waker(waker)),
    }
}

pin_project! {
    /// The future of [`audit`](crate::audit()) and [`Audit::run`](crate::Audit::run).
    #[must_use = "futures do nothing unless polled"]
    pub struct Auditing<F> {
        #[pin]
        inner: TryAuditing<F>,
    }
}

impl<F> fmt::Debug for Auditing<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auditing").finish_non_exhaustive()
    }
}

impl<F> Auditing<F> {
    pub(crate) const fn new(inner: TryAuditing<F>) -> Self {
        Auditing { inner }
    }
}

impl<F: Future> Future for Auditing<F> {
    type Output = Audited<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(self.project().inner.poll(cx)) {
            Ok(audited) => Poll::Ready(audited),
            Err(unfinished) => unfinished.resume(),
        }
    }
}

impl Unfinished {
    /// Panics as the future did, or with the report where it did not or where
    /// there is something to say.
    #[track_caller]
    #[allow(clippy::panic, reason = "a failed test is told by a panic")]
    pub(crate) fn resume(self) -> ! {
        let silent = self.report.findings().is_none();
        match self.why {
            Why::Panicked(payload) if silent || text_of(payload.as_ref()).is_none() => {
                std::panic::resume_unwind(payload)
            }
            why => panic!(
                "{}",
                Unfinished {
                    why,
                    report: self.report
                }
            ),
        }
    }
}

pin_project! {
    /// What an audited future has spawned.
    pub(crate) struct Inherited<F> {
        #[pin]
        future: F,
        watch: Watch,
        session: Arc<Session>,
        name: Arc<TaskName>,
    }
}

impl<F> Inherited<F> {
    pub(crate) fn new(
        future: F,
        name: &str,
        location: &'static Location<'static>,
        session: Arc<Session>,
    ) -> Self {
        Inherited {
            future,
            watch: Watch::new(name, location),
            session,
            name: Arc::new(TaskName {
                name: cut_name(name).into_owned(),
                location,
            }),
        }
    }
}

impl<F: Future> Future for Inherited<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        poll_measured(this.future, cx, this.watch, this.session, this.name)
    }
}
