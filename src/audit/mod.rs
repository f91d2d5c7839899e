//! Test mode: what a future does to its thread, told by the thread itself.
//!
//! `measure` takes each poll's account on its thread, `session` gathers them,
//! `spotter` finds the lines from outside, `onlooker` what other tasks of the runtime do, `findings` makes a report of it all by
//! what `evidence` speaks for and less what `allowance` knows to be allowed, `verdict` says
//! what is wrong and how to mend it. `attribute` is what `#[stallscope::test]` calls.

#[doc(hidden)]
pub mod macros;

mod allow_blocking;
mod allowance;
mod armed;
#[cfg(feature = "macros")]
mod attribute;
mod builder;
mod evidence;
mod findings;
mod future;
mod measure;
mod neighbours;
mod onlooker;
mod polls;
mod session;
mod spotter;
#[cfg(test)]
mod tests;
mod verdict;

pub use allow_blocking::{AllowBlocking, allow_blocking};
pub use armed::self_test;
pub use builder::Audit;
pub use future::{Audited, Auditing, TryAuditing, Unfinished, Why};

pub use verdict::Failure;

pub(crate) use future::Inherited;
pub(crate) use measure::current;
#[cfg(all(feature = "interpose", target_os = "linux", target_env = "gnu"))]
pub(crate) use measure::{calls_count, note_call};
#[cfg(all(feature = "interpose", target_os = "linux", target_env = "gnu"))]
pub(crate) use neighbours::{
    calls_count as neighbours_calls_count, note_call as note_neighbours_call,
};
#[cfg(all(feature = "interpose", target_os = "linux", target_env = "gnu"))]
pub(crate) use session::Call;

use std::future::Future;

/// Audits a future: what its polls do to their threads, in a report beside its output.
///
/// Each poll is measured by its own thread: for how long it computed, how often
/// it went to sleep in the kernel, how long it waited for a CPU. That does not
/// depend on how busy the machine is: time spent waiting for a CPU does not
/// count, and a poll that slept is found however short it was. A thread beside
/// looks for the lines. What is [spawned](crate::spawn) from within is audited
/// too; what `tokio::spawn` spawns is not, but see [`Audit::whole_runtime`].
///
/// For most tests [`assert_no_stalls!`](crate::assert_no_stalls) and
/// [`assert_no_blocking!`](crate::assert_no_blocking) are simpler; see
/// [`docs::testing`](crate::docs::testing).
///
/// # Panics
/// If the future does, with its payload; if there is something to say about what
/// it did until then, and the payload is a text, with that added.
///
/// # Cost
/// Some 5 us a poll, and a thread that looks every 250 us. For tests.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let audited = stallscope::audit(async { 1 + 1 }).await;
/// assert_eq!(audited.output, 2);
/// assert!(audited.report.stalls().is_empty());
/// # }
/// ```
#[track_caller]
pub fn audit<F: Future>(future: F) -> Auditing<F> {
    Audit::new().run(future)
}
