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
use crate::local;
use crate::registry::registry;
use crate::watchdog::PollTiming;
use crate::watching::{Watch, Watching};

pin_project! {
    /// A future whose polls are watched; made by [`WatchExt::watched`].
    ///
    /// Each poll makes itself known to the watchdog of its runtime, which can
    /// then name it while it is stuck, and is timed for the histogram of its
    /// name. It behaves as the future within in every other way: a panic passes
    /// through, and dropping it drops that future.
    ///
    /// # Cost
    /// A few nanoseconds a poll, no allocation, no lock, no system call. The first
    /// poll on a thread asks the C library and the kernel where its stack is; the first of
    /// a name on a thread, or of a duration, takes the counters for it from a stock that a
    /// watchdog keeps. See [`docs::design`](crate::docs::design). 56 bytes.
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
            .map(|label| label.name.to_string())
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
        self.watch.set_timing(timing.timing());
        self
    }

    /// Tracks what it does between its polls, while there is a watchdog: how long it
    /// waits to be polled once woken, and who could wake it.
    ///
    /// [`Watchdog::tasks`](crate::Watchdog::tasks) then shows it, a report has its
    /// [scheduling delays](crate::TaskPolls::delays), and it can be told when it is
    /// [stuck](crate::Builder::stuck_after). [`Builder::track`](crate::Builder::track)
    /// is for all watched futures.
    ///
    /// # Cost
    /// Some 200 bytes, allocated as the future is made; for one that is made before there
    /// is a watchdog, and is not among the first 64 of those, in its first poll. At each
    /// poll two readings of the clock and a lock that else only its wakers take; these are
    /// ours, and hand on to the task's. At most 65,536 at once are tracked.
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
        self.watch.set_tracked();
        self
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    // Always: left to itself the compiler makes it a function of its own around a
    // small future, and saving registers for the call is a third of its cost.
    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let Some(thread) = local::this_thread() else {
            return poll_with(this.future, cx.waker());
        };
        let anchor = MaybeUninit::<u8>::uninit();
        let watching = Watching::begin(this.watch, thread, cx, (&raw const anchor).addr());
        match watching.waker {
            None => this.future.poll(cx),
            Some(waker) => poll_with(this.future, waker),
        }
    }
}

// Not inlined, and cold, so that the future's own code is there but once where it is
// needed most.
#[cold]
#[inline(never)]
fn poll_with<F: Future>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
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
    /// A name may come from a request. Of one that is longer than 128 bytes the first
    /// 125 are kept, or up to 3 less, so that no character is cut, and `…`: two that are
    /// the same until there are one. Wherever it is printed, control and invisible
    /// characters are shown by number, as `\u{1b}`; [`Watched::name`] has it as it is kept.
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
/// A name of more than 128 bytes is cut, see [`WatchExt::watched`].
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
