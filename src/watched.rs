//! A future whose polls are watched.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::mem::MaybeUninit;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::audit::{self, Inherited};
use crate::clock;
use crate::idle;
use crate::local;
use crate::registry::{LabelId, RuntimeId, TIMED, Tag, Thread, Timing, registry, runtime_in};
use crate::slot::Stamp;
use crate::track::Tracking;
use crate::watchdog::PollTiming;

pin_project! {
    /// A future whose polls are watched; made by [`WatchExt::watched`].
    ///
    /// Each poll makes itself known to the watchdog of its runtime, which can
    /// then name it while it is stuck, and is timed for the histogram of its
    /// name. It behaves as the future within in every other way: a panic passes
    /// through, and dropping it drops that future.
    ///
    /// # Cost
    /// A few nanoseconds a poll, no allocation, no lock, no system call; the
    /// first poll, and the first of a name on a thread, do more once. 56 bytes.
    #[must_use = "futures do nothing unless polled"]
    pub struct Watched<F> {
        #[pin]
        future: F,
        watch: Watch,
    }
}

impl<F: fmt::Debug> fmt::Debug for Watched<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("name", &self.name())
            .field("future", &self.future)
            .finish()
    }
}

/// What a watched future remembers from poll to poll.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Its label, and the runtime that it was last polled on where a poll there
    /// has nothing more to do than to publish itself; else [`RuntimeId::NEVER`].
    word: u64,
    task: u64,
    span: u64,
    /// The runtime that it was last polled on; [`RuntimeId::NEVER`] before its first poll.
    runtime: RuntimeId,
    /// `None` where the watchdogs' wish holds.
    timing: Option<Timing>,
    track: Track,
}

#[derive(Debug)]
enum Track {
    /// If a watchdog asks for it.
    IfAsked,
    Yes,
    Tracked(Box<Tracking>),
}

impl Watch {
    pub(crate) fn new(name: &str, location: &'static Location<'static>) -> Self {
        let mut watch = Watch {
            word: registry().label(name, location).pack(),
            task: 0,
            span: 0,
            runtime: RuntimeId::NEVER,
            timing: None,
            track: Track::IfAsked,
        };
        watch.set_shortcut(RuntimeId::NEVER);
        watch
    }

    fn label(&self) -> LabelId {
        Tag::unpack(self.word).label
    }

    fn set_shortcut(&mut self, runtime: RuntimeId) {
        self.word = self.label().pack() | u64::from(runtime.0);
    }

    /// The timing of its polls at the moment.
    fn timing(&self) -> Timing {
        match self.timing {
            Some(own) if registry().is_watched() => own,
            _ => registry().timing(),
        }
    }

    /// On the first poll, and where this thread now works for another runtime.
    #[cold]
    fn get_to_know(&mut self, thread: &Thread) {
        let place = local::place_here();
        registry().claim(thread, place);
        thread.set_polls_apart(place.worker.is_none());
        if place.worker.is_none() {
            idle::wake(place.runtime);
        }
        if self.runtime == RuntimeId::NEVER {
            self.task = local::task_id();
            self.span = tracing::Span::current().id().map_or(0, |id| id.into_u64());
        }
        self.runtime = place.runtime;
        self.begin_tracking();
        if self.span == 0 && self.timing.is_none() && self.tracking().is_none() {
            self.set_shortcut(self.runtime);
        }
    }

    fn begin_tracking(&mut self) {
        let asked = match self.track {
            Track::IfAsked => registry().tracks_all(),
            Track::Yes => registry().is_watched(),
            Track::Tracked(_) => false,
        };
        if asked && let Some(tracking) = Tracking::begin(self.label(), self.runtime, self.task) {
            self.track = Track::Tracked(tracking);
        }
    }

    fn tracking(&self) -> Option<&Tracking> {
        match &self.track {
            Track::Tracked(tracking) => Some(tracking),
            Track::IfAsked | Track::Yes => None,
        }
    }
}

impl<F> Watched<F> {
    #[track_caller]
    fn new(future: F, name: &str) -> Self {
        Watched {
            future,
            watch: Watch::new(name, Location::caller()),
        }
    }

    /// The name it was given; `other` where the process has more than 255 names.
    pub fn name(&self) -> String {
        registry()
            .label_of(self.watch.label())
            .map(|label| label.name.into_string())
            .unwrap_or_default()
    }

    /// How much each of its polls measures, whatever the watchdogs ask for;
    /// nothing while there is no watchdog.
    ///
    /// ```
    /// use stallscope::{PollTiming, WatchExt};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// // Polled millions of times a second: that it stalls is all that is asked.
    /// let sum = async { 1 + 1 }.watched("hot").timing(PollTiming::DetectOnly).await;
    /// # assert_eq!(sum, 2);
    /// # }
    /// ```
    pub fn timing(mut self, timing: PollTiming) -> Self {
        self.watch.timing = Some(timing.timing());
        self.watch.set_shortcut(RuntimeId::NEVER);
        self
    }
}

impl<F> Watched<F> {
    /// Tracks what it does between its polls, while there is a watchdog: how long it
    /// waits to be polled once woken, and who could wake it.
    ///
    /// [`Watchdog::tasks`](crate::Watchdog::tasks) then shows it, a report has its
    /// [scheduling delays](crate::TaskPolls::delays), and it can be told when it is
    /// [stuck](crate::Builder::stuck_after). [`Builder::track`](crate::Builder::track)
    /// is for all watched futures.
    ///
    /// # Cost
    /// Some 200 bytes, and at each poll two readings of the clock and a lock that
    /// nobody else holds; its wakers are ours, which hand on to the task's. At most
    /// 65,536 at once are tracked.
    ///
    /// ```
    /// use stallscope::{WatchExt, Watchdog};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let watchdog = Watchdog::start().unwrap();
    /// let task = tokio::spawn(std::future::pending::<()>().watched("forgotten").tracked());
    /// tokio::task::yield_now().await;
    /// let tasks = watchdog.tasks();
    /// assert_eq!(tasks[0].name(), "forgotten");
    /// assert_eq!(tasks[0].state(), stallscope::TaskState::Unwakeable);
    /// # task.abort();
    /// # }
    /// ```
    pub fn tracked(mut self) -> Self {
        self.watch.track = Track::Yes;
        self
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(thread) = local::this_thread() else {
            return this.future.poll(cx);
        };
        let anchor = MaybeUninit::<u8>::uninit();
        let watching = Watching::begin(this.watch, thread, cx, (&raw const anchor).addr());
        match watching.waker {
            None => this.future.poll(cx),
            Some(waker) => poll_with(this.future, waker),
        }
    }
}

// Not inlined, and cold, so that the future's own code stays where it is needed most.
#[cold]
#[inline(never)]
fn poll_with<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// One poll being watched; its drop ends that, whichever way the poll is left.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    thread: &'static Thread,
    watch: &'a Watch,
    /// What to poll with in place of the task's.
    pub(crate) waker: Option<&'a Waker>,
}

impl<'a> Watching<'a> {
    #[inline]
    pub(crate) fn begin(
        watch: &'a mut Watch,
        thread: &'static Thread,
        cx: &Context<'_>,
        anchor: usize,
    ) -> Self {
        let key = thread.key();
        let anchor = anchor as u64;
        let begun = runtime_in(key) == runtime_in(watch.word) && {
            let tag = Tag::pack(watch.word, key);
            if tag & TIMED == 0 {
                thread.slot.begin_plain(tag, watch.task, anchor)
            } else {
                let start = clock::counter_ticks();
                thread.slot.begin_paced(start, tag, watch.task, anchor)
            }
        };
        if begun {
            return Watching {
                thread,
                watch,
                waker: None,
            };
        }
        begin_full(watch, thread, cx, anchor);
        Watching {
            thread,
            watch,
            waker: watch.tracking().map(Tracking::waker),
        }
    }
}

impl Drop for Watching<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.thread.slot.is_wanted() {
            close(self.thread, self.watch);
        }
        self.thread.slot.end();
    }
}

/// Begins a poll that has more to do than most.
// Not inlined, so that what is inlined into each future's poll is short; and
// with one call at its end at most, so that it saves no registers.
#[inline(never)]
fn begin_full(watch: &mut Watch, thread: &'static Thread, cx: &Context<'_>, anchor: u64) {
    if runtime_in(thread.place()) == runtime_in(watch.word)
        && thread.skips_sample()
        && thread
            .slot
            .begin_plain(Tag::pack(watch.word, thread.place()), watch.task, anchor)
    {
        return;
    }
    begin_anew(watch, thread, cx, anchor);
}

#[inline(never)]
fn begin_anew(watch: &mut Watch, thread: &'static Thread, cx: &Context<'_>, anchor: u64) {
    if runtime_in(thread.place()) != watch.runtime {
        watch.get_to_know(thread);
    }
    let tracking = watch.tracking();
    let due = tracking.is_some() || thread.is_due(watch.timing());
    let start = if due { clock::ticks() } else { 0 };
    if let Some(tracking) = tracking {
        tracking.poll_begins(start, cx.waker(), thread);
    }
    thread.slot.begin(Stamp {
        start,
        tag: Tag::pack(watch.label().pack(), thread.place()),
        task: watch.task,
        span: watch.span,
        anchor,
    });
}

/// Ends a poll that is timed, or whose end somebody wants to know.
// As `begin_full`.
#[inline(never)]
fn close(thread: &'static Thread, watch: &Watch) {
    if let Some(start) = thread.slot.paced()
        && let Some(recorder) = thread.recorder_if_made(watch.label())
        && let Some(ns) = clock::ns_from_to(start, clock::counter_ticks())
    {
        if !recorder.try_record(ns) {
            // Not by another reading of the clock, which might have its place
            // already, and leave this one without for ever.
            recorder.record(ns);
        }
        return;
    }
    close_full(thread, watch);
}

#[inline(never)]
fn close_full(thread: &'static Thread, watch: &Watch) {
    let start = thread.slot.start();
    let end = clock::ticks();
    if start != 0 {
        let one_in = match (watch.tracking(), watch.timing()) {
            // Each of its polls is timed.
            (Some(_), _) => 1,
            (None, Timing(one_in)) => one_in.max(1),
        };
        let ns = clock::ns_from_to(start, end).unwrap_or(0);
        thread.recorder(watch.label()).record_many(ns, one_in);
    }
    if let Some(tracking) = watch.tracking() {
        tracking.poll_ends(end);
    }
    thread.slot.close(end);
}

/// Watches futures: `fut.watched("thumbnail").await`.
pub trait WatchExt: Future + Sized {
    /// Watches each poll of this future under a name.
    ///
    /// The name, with the place of this call, is what stalls, histograms and
    /// reports call it. Use few and constant names, like those of spans: at most
    /// 255 different ones (by name and place) are told apart in a process, and
    /// the rest is counted as `other`. Of watched futures within each other, eight
    /// are told apart and timed.
    ///
    /// Without a watchdog it costs next to nothing; a watchdog that starts later
    /// sees the poll that is then in progress, from then on.
    ///
    /// ```
    /// use stallscope::WatchExt;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let sum = async { 1 + 1 }.watched("sum").await;
    /// assert_eq!(sum, 2);
    /// # }
    /// ```
    #[track_caller]
    fn watched(self, name: impl Into<Cow<'static, str>>) -> Watched<Self> {
        Watched::new(self, &name.into())
    }
}

impl<F: Future> WatchExt for F {}

/// [`tokio::spawn`] of a watched future that is named after the place of this call.
///
/// Within an [audited](crate::audit()) future, what is spawned is audited with it.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::spawn` does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let sum = stallscope::spawn(async { 1 + 1 });
/// assert_eq!(sum.await.unwrap(), 2);
/// # }
/// ```
#[track_caller]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn_watched("spawn", future)
}

/// [`tokio::spawn`] of a watched future, like `tokio::spawn(future.watched(name))`.
///
/// # Panics
/// Outside a tokio runtime, as `tokio::spawn` does.
#[track_caller]
pub fn spawn_named<F>(name: impl Into<Cow<'static, str>>, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    spawn_watched(&name.into(), future)
}

#[track_caller]
fn spawn_watched<F>(name: &str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match audit::current() {
        None => tokio::spawn(Watched::new(future, name)),
        Some(audit) => {
            let location = Location::caller();
            tokio::spawn(Inherited::new(future, name, location, audit))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_and_state_stay_small() {
        assert_eq!(size_of::<Watch>(), 56);
        assert_eq!(size_of::<Watched<[u64; 4]>>(), 32 + 56);
    }

    fn in_progress() -> usize {
        local::this_thread().unwrap().slot.polls().as_slice().len()
    }

    #[test]
    fn a_panic_restores_the_state_and_passes_through() {
        let mut future = Box::pin(
            async {
                assert_eq!(in_progress(), 1);
                std::panic::resume_unwind(Box::new("mine"));
            }
            .watched("panics"),
        );
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = future.as_mut().poll(&mut cx);
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"mine"));
        assert_eq!(in_progress(), 0);
    }

    #[test]
    fn nested_polls_are_all_published() {
        let inner = async { in_progress() }.watched("inner");
        let outer = async { (in_progress(), inner.await, in_progress()) }.watched("outer");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(seen) = Box::pin(outer).as_mut().poll(&mut cx) else {
            panic!("nothing to wait for");
        };
        assert_eq!(seen, (1, 2, 1));
        assert_eq!(in_progress(), 0);
    }

    #[test]
    fn it_remembers_its_name_and_its_callers_place() {
        let future = async {}.watched("place");
        let label = registry().label_of(future.watch.label()).unwrap();
        assert_eq!(future.name(), "place");
        assert_eq!(label.location.unwrap().file(), file!());
        assert_eq!(label.location.unwrap().line(), line!() - 4);
    }
}
