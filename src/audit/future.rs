//! The futures that audit others.

#![allow(clippy::panic, reason = "a failed test is told by a panic")]

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use crate::audit::allow_blocking::as_own_work;
use crate::audit::findings;
use crate::audit::measure::{Measuring, spawns_audited};
use crate::audit::neighbours::Neighbours;
use crate::audit::session::{Session, TaskName, Wanted};
use crate::audit::spotter;
use crate::error::Error;
use crate::escape::{cut_name, lines, part};
use crate::local;
use crate::os;
use crate::report::Report;
use crate::rollcall;
use crate::runtime::{Gone, Runtime};
use crate::stall;
use crate::watching::{Watch, Watching};
use crate::worker::Asked;

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
    /// Which future it is, where an audit of one had begun.
    pub(crate) name: Option<Arc<TaskName>>,
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
            name: None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Panicked(payload) => match text_of(payload.as_ref()) {
                Some(text) => write!(f, "it panicked: {}", lines(text, "    ")),
                None => f.write_str("it panicked, with what is no text"),
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
        match &self.name {
            Some(name) => write!(
                f,
                "`{}`, audited at {}, did not complete: {}",
                part(&name.name),
                stall::Location::from(name.location),
                self.why
            )?,
            None => write!(f, "the audited future did not complete: {}", self.why)?,
        }
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
    #[must_use = "an audit does nothing until it is awaited: add `.await`"]
    pub struct TryAuditing<F> {
        // Dropped within the measured poll, as a task's is.
        #[pin]
        future: Option<F>,
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
        let whole = whole_runtime.then(Handle::try_current).transpose();
        let whole = whole.map_err(|_| Error::no_runtime())?;
        let runtime = whole.map(|handle| {
            local::announce(Asked::Anywhere);
            let runtime = Runtime::new(&handle, Gone::default());
            if runtime.is_multi_thread() {
                rollcall::call(&handle, runtime.workers());
            }
            runtime
        });
        let session = Arc::new(Session::new(name, wanted, runtime));
        spotter::enlist(&session);
        let neighbours = Neighbours::of(&session);
        Ok(Running {
            session,
            _neighbours: neighbours,
        })
    }

    fn report(self) -> Report {
        let in_progress = spotter::settle(&self.session);
        self.session.close();
        findings::report(&self.session, &in_progress)
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
            future: Some(future),
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
            let begun = as_own_work(|| Running::begin(Arc::clone(name), wanted, *whole_runtime));
            match begun {
                Ok(running) => *this.state = State::Running(running),
                Err(error) => return Poll::Ready(Err(Unfinished::refused(error))),
            }
        }
        let State::Running(running) = this.state else {
            panic!("an audit was polled after it was over");
        };
        let session = Arc::clone(&running.session);
        let name = &session.name;
        let mut future = this.future;
        let was_expired = session.is_expired();
        session.wake_at_limit(cx.waker());
        let polled = catch_unwind(AssertUnwindSafe(|| {
            measured(cx, this.watch, &session, name, |cx| {
                let polled = match future.as_mut().as_pin_mut() {
                    Some(future) if !was_expired => future.poll(cx),
                    // It is given up.
                    _ => Poll::Pending,
                };
                if polled.is_ready() || was_expired {
                    future.set(None);
                }
                polled
            })
        }));
        let ended = match polled {
            Err(payload) => Err(Why::Panicked(payload)),
            Ok(Poll::Ready(output)) if session.completes() => Ok(output),
            Ok(Poll::Pending) if !was_expired => return Poll::Pending,
            Ok(_) => Err(Why::Limit(session.wanted.limit.unwrap_or_default())),
        };
        let report = match std::mem::replace(this.state, State::Over) {
            State::Running(running) => as_own_work(|| running.report()),
            State::New { .. } | State::Over => Report::default(),
        };
        Poll::Ready(match ended {
            Ok(output) => Ok(Audited { output, report }),
            Err(why) => Err(Unfinished {
                why,
                report: Box::new(report),
                name: Some(Arc::clone(name)),
            }),
        })
    }
}

/// Polls by `poll`, measured as a poll of this name.
fn measured<T>(
    cx: &mut Context<'_>,
    watch: &mut Watch,
    session: &Arc<Session>,
    name: &Arc<TaskName>,
    poll: impl FnOnce(&mut Context<'_>) -> T,
) -> T {
    // A thread that is ending has no entry: it is not audited, but goes on.
    let Some(thread) = local::this_thread() else {
        return poll(cx);
    };
    let anchor = 0_u8;
    let watching = Watching::begin(watch, thread, cx, (&raw const anchor).addr());
    let _measuring = Measuring::begin(session, name, thread, thread.slot.innermost());
    match watching.waker {
        None => poll(cx),
        Some(waker) => poll(&mut Context::from_waker(waker)),
    }
}

pin_project! {
    /// The future of [`audit`](crate::audit()) and [`Audit::run`](crate::Audit::run).
    #[must_use = "an audit does nothing until it is awaited: add `.await`"]
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

    // A panic points at the `.await`.
    #[track_caller]
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
    pub(crate) fn resume(self) -> ! {
        let silent = self.report.findings().is_none();
        match self.why {
            Why::Panicked(payload) if silent => std::panic::resume_unwind(payload),
            why => panic!("{}", Unfinished { why, ..self }),
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
        spawns_audited();
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
        let future = this.future;
        measured(cx, this.watch, this.session, this.name, |cx| {
            future.poll(cx)
        })
    }
}
