//! A future whose polls are watched.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::JoinHandle;

use crate::audit::{self, Inherited};
use crate::clock;
use crate::local;
use crate::registry::{LabelId, Place, RuntimeId, Tag, Thread, Timing, registry};
use crate::slot::{Begun, Seq, Stamp};

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
    /// first poll, and the first of a name on a thread, do more once. 24 bytes.
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    label: LabelId,
    /// The runtime that it was last polled on; [`RuntimeId::NEVER`] before its first poll.
    runtime: RuntimeId,
    task: u64,
    span: u64,
}

impl Watch {
    pub(crate) fn new(name: &str, location: &'static Location<'static>) -> Self {
        Watch {
            label: registry().label(name, location),
            runtime: RuntimeId::NEVER,
            task: 0,
            span: 0,
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
            .label_of(self.watch.label)
            .map(|label| label.name.into_string())
            .unwrap_or_default()
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
        let anchor = 0_u8;
        let _watching = Watching::begin(this.watch, thread, (&raw const anchor).addr());
        this.future.poll(cx)
    }
}

/// One poll being watched; its drop ends that, whichever way the poll is left.
pub(crate) struct Watching {
    thread: &'static Thread,
    begun: Begun,
    /// 0 where no clock was read.
    start: clock::Ticks,
    label: LabelId,
    timing: Timing,
}

impl Watching {
    #[inline]
    pub(crate) fn begin(watch: &mut Watch, thread: &'static Thread, anchor: usize) -> Self {
        let mut place = thread.place();
        if Place::runtime_in(place) != watch.runtime {
            place = get_to_know(watch, thread);
        }
        let timing = registry().timing();
        let start = match timing {
            Timing::Untimed => 0,
            Timing::Exact => clock::ticks(),
        };
        let begun = thread.slot.begin(Stamp {
            start,
            tag: Tag::pack(watch.label, place),
            task: watch.task,
            span: watch.span,
            anchor: anchor as u64,
        });
        Watching {
            thread,
            begun,
            start,
            label: watch.label,
            timing,
        }
    }
}

impl Watching {
    pub(crate) const fn seq(&self) -> Seq {
        self.begun.seq()
    }
}

impl Drop for Watching {
    #[inline]
    fn drop(&mut self) {
        if self.timing == Timing::Exact {
            self.record();
        } else if self.thread.slot.is_flagged(self.begun) {
            self.finish();
        }
        self.thread.slot.end();
    }
}

impl Watching {
    #[inline]
    fn record(&self) {
        let end = clock::ticks();
        if let Some(recorder) = self.thread.recorder(self.label) {
            recorder.record(clock::ns_between(self.start, end));
        }
        if self.thread.slot.is_flagged(self.begun) {
            self.thread.slot.finish(self.begun, end);
        }
    }

    #[cold]
    fn finish(&self) {
        self.thread.slot.finish(self.begun, clock::ticks());
    }
}

/// On the first poll, and where this thread now works for another runtime.
#[cold]
fn get_to_know(watch: &mut Watch, thread: &Thread) -> u64 {
    let place = local::place_here();
    registry().claim(thread, place);
    if watch.runtime == RuntimeId::NEVER {
        watch.task = local::task_id();
        watch.span = tracing::Span::current().id().map_or(0, |id| id.into_u64());
    }
    watch.runtime = place.runtime;
    place.pack()
}

/// Watches futures: `fut.watched("thumbnail").await`.
pub trait WatchExt: Future + Sized {
    /// Watches each poll of this future under a name.
    ///
    /// The name, with the place of this call, is what stalls, histograms and
    /// reports call it. Use few and constant names, like those of spans: at most
    /// 255 different ones (by name and place) are told apart in a process, and
    /// the rest is counted as `other`.
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
        assert_eq!(size_of::<Watch>(), 24);
        assert_eq!(size_of::<Watched<[u64; 4]>>(), 32 + 24);
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
        let label = registry().label_of(future.watch.label).unwrap();
        assert_eq!(future.name(), "place");
        assert_eq!(label.location.unwrap().file(), file!());
        assert_eq!(label.location.unwrap().line(), line!() - 4);
    }
}
