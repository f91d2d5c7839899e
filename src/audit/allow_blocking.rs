//! Sections of a poll in which blocking is allowed, and those of this library's own work.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::time::Instant;

use crate::audit::measure::{ALLOWED, HERE, Here, MAX_CALLS, ns_between, show};
use crate::audit::neighbours;
use crate::audit::session::AllowedSection;
use crate::os::{self, Usage};

/// Allows what blocks, from [`allow_blocking`] on until it is dropped.
///
/// Not `Send`, and no longer in force once the poll that it was made in is over:
/// what other tasks do meanwhile is not allowed by it.
#[derive(Debug)]
#[must_use = "blocking is allowed until this is dropped"]
pub struct AllowBlocking {
    reason: &'static str,
    location: &'static Location<'static>,
    open: Open,
    _not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
enum Open {
    InPoll(OpenSection),
    /// In a poll of another task of a runtime that is audited as a whole.
    Apart,
    Nowhere,
}

#[derive(Debug)]
struct OpenSection {
    epoch: u64,
    usage: Usage,
    at: Instant,
}

impl AllowBlocking {
    /// Allows what blocks on this thread until the result is dropped.
    ///
    /// For a closure, [`allow_blocking`] is simpler.
    #[track_caller]
    pub fn new(reason: &'static str) -> Self {
        let location = Location::caller();
        let open = HERE.try_with(|here| {
            if here.depth.get() > 0 {
                Open::InPoll(OpenSection::begin(here))
            } else if neighbours::any() {
                here.apart.set(here.apart.get() + 1);
                show(ALLOWED);
                Open::Apart
            } else {
                Open::Nowhere
            }
        });
        AllowBlocking {
            reason,
            location,
            open: open.unwrap_or(Open::Nowhere),
            _not_send: PhantomData,
        }
    }
}

impl OpenSection {
    fn begin(here: &Here) -> Self {
        let mut allow = here.allow.borrow_mut();
        let (usage, at) = os::usage();
        let usage = usage.unwrap_or_default();
        allow.open(at, &usage);
        OpenSection {
            epoch: allow.epoch,
            usage,
            at,
        }
    }

    /// How long it took, and how often the thread slept in it; `None` where the poll that
    /// it was opened in is over.
    fn end(&self, here: &Here) -> Option<(u64, u64)> {
        let mut allow = here.allow.borrow_mut();
        if allow.epoch != self.epoch {
            return None;
        }
        let (usage, now) = os::usage();
        let usage = usage.unwrap_or_default();
        if allow.shut(now, &usage) {
            let session = here.session.borrow();
            show(session.as_ref().map_or(0, |session| session.id()));
        }
        Some((ns_between(self.at, now), usage.since(&self.usage).sleeps))
    }
}

impl Drop for AllowBlocking {
    fn drop(&mut self) {
        let _ = HERE.try_with(|here| match &self.open {
            Open::InPoll(open) => {
                let Some((wall_ns, sleeps)) = open.end(here) else {
                    return;
                };
                let sections = &mut here.allow.borrow_mut().sections;
                if sections.len() < MAX_CALLS {
                    sections.push(AllowedSection {
                        reason: self.reason,
                        location: self.location,
                        wall_ns,
                        sleeps,
                    });
                }
            }
            Open::Apart => {
                let left = here.apart.get().saturating_sub(1);
                here.apart.set(left);
                if left == 0 {
                    show(0);
                }
            }
            Open::Nowhere => {}
        });
    }
}

/// Does this library's own work, which is not the audited poll's that it may be called in.
pub(super) fn as_own_work<T>(work: impl FnOnce() -> T) -> T {
    struct End(Option<OpenSection>);
    impl Drop for End {
        fn drop(&mut self) {
            if let Some(open) = &self.0 {
                let _ = HERE.try_with(|here| open.end(here));
            }
        }
    }
    let open = HERE.try_with(|here| (here.depth.get() > 0).then(|| OpenSection::begin(here)));
    let _end = End(open.ok().flatten());
    work()
}

/// Anything but a future: of a future there are two implementations, between which the
/// compiler cannot choose.
#[doc(hidden)]
pub trait NotAFuture<Kind> {}

impl<T> NotAFuture<()> for T {}

#[derive(Debug)]
#[doc(hidden)]
pub struct AFuture;

impl<T: Future> NotAFuture<AFuture> for T {}

/// Calls `f`, in which blocking is allowed for a reason.
///
/// Within an audited future, what `f` does on this thread is neither a stall nor
/// blocking; it is listed in [`Report::allowed`](crate::Report::allowed) with the
/// reason, so that the list can shrink. Elsewhere it only calls `f`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let handler = async {
///     stallscope::allow_blocking("reads a file of 100 bytes at start-up", || {
///         std::thread::sleep(std::time::Duration::from_millis(1));
///     });
/// };
/// stallscope::assert_no_blocking!(handler, unsupported: skip);
/// # }
/// ```
///
/// An async closure would be called and do nothing, as nobody awaits it: that does not
/// compile. Within async code there is [`AllowBlocking`] for what is awaited between.
///
/// ```compile_fail
/// let _future = stallscope::allow_blocking("is not awaited", async || 1);
/// ```
#[track_caller]
pub fn allow_blocking<T, Kind>(reason: &'static str, f: impl FnOnce() -> T) -> T
where
    T: NotAFuture<Kind>,
{
    let _allowed = AllowBlocking::new(reason);
    f()
}
