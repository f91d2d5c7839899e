//! The assertions, and what they expand to, which is not for direct use.

#![allow(clippy::panic, reason = "a failed assertion is told by a panic")]

pub use crate::audit::allow_blocking::{AFuture, NotAFuture};
#[cfg(feature = "macros")]
pub use crate::audit::attribute::{Body, Test, eprintln, tokio};
use crate::audit::future::{Audited, Unfinished, Why};

#[track_caller]
pub fn no_stalls<T>(ended: Result<Audited<T>, Unfinished>) -> T {
    let audited = completed(ended);
    if let Err(failure) = audited.report.check_no_stalls() {
        panic!("{failure}");
    }
    audited.output
}

#[track_caller]
pub fn no_blocking<T>(ended: Result<Audited<T>, Unfinished>, skip: bool) -> T {
    let audited = completed(ended);
    match audited.report.check_no_blocking() {
        Err(failure) if !(skip && failure.is_unsupported()) => panic!("{failure}"),
        _ => audited.output,
    }
}

#[track_caller]
fn completed<T>(ended: Result<Audited<T>, Unfinished>) -> Audited<T> {
    match ended {
        Ok(audited) => audited,
        Err(
            unfinished @ Unfinished {
                why: Why::Panicked(_),
                ..
            },
        ) => unfinished.resume(),
        Err(unfinished) => panic!("{unfinished}"),
    }
}

/// Awaits a future, and fails if one of its polls held its thread up for too long.
///
/// Too long is 10 ms, or what `under:` says. Time that the thread spent waiting
/// for a CPU does not count, so a busy machine does not fail a fast future.
/// Evaluates to the future's output. To be used within async code; see
/// [`docs::testing`](crate::docs::testing) for what it can and cannot see.
///
/// # Panics
/// If a poll was too long: the message says where, why and what to do.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use stallscope::assert_no_stalls;
/// let two = assert_no_stalls!(async { 1 + 1 });
/// assert_eq!(two, 2);
/// assert_no_stalls!(tokio::task::yield_now(), under: Duration::from_millis(50));
/// # }
/// ```
#[macro_export]
macro_rules! assert_no_stalls {
    ($future:expr $(,)?) => {
        $crate::macros::no_stalls($crate::Audit::new().try_run($future).await)
    };
    ($future:expr, under: $under:expr $(,)?) => {
        $crate::macros::no_stalls($crate::Audit::new().under($under).try_run($future).await)
    };
}

/// Awaits a future, and fails if one of its polls blocked, however shortly.
///
/// To block is to sleep in the kernel, which the kernel counts; with the feature
/// `interpose` also to make a call that blocks by what it is, like opening a file,
/// whether it had to wait this time or not. Evaluates to the future's output. To
/// be used within async code; see [`docs::testing`](crate::docs::testing) for
/// what it can and cannot see.
///
/// Where the platform cannot tell, it fails and says so; with `unsupported: skip`
/// it passes then.
///
/// # Panics
/// If a poll blocked: the message says where, in what and what to do.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use stallscope::assert_no_blocking;
/// let two = assert_no_blocking!(async { 1 + 1 }, unsupported: skip);
/// assert_eq!(two, 2);
/// # }
/// ```
#[macro_export]
macro_rules! assert_no_blocking {
    ($future:expr $(,)?) => {
        $crate::macros::no_blocking($crate::Audit::new().try_run($future).await, false)
    };
    ($future:expr, unsupported: skip $(,)?) => {
        $crate::macros::no_blocking($crate::Audit::new().try_run($future).await, true)
    };
    ($future:expr, unsupported: fail $(,)?) => {
        $crate::assert_no_blocking!($future)
    };
}
