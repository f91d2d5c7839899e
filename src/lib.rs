//! Says which tokio worker is stuck, in which task, at which line and why, while it is stuck.
//!
//! ```
//! use stallscope::{WatchExt, Watchdog};
//! use std::time::Duration;
//!
//! # #[tokio::main] async fn main() -> Result<(), stallscope::Error> {
//! let watchdog = Watchdog::builder()
//!     .on_stall(|event| eprintln!("{event}"))
//!     .start()?;
//! tokio::spawn(
//!     async {
//!         std::thread::sleep(Duration::from_millis(150)); // blocks the worker
//!     }
//!     .watched("thumbnail"),
//! )
//! .await
//! .unwrap();
//! println!("{}", watchdog.report());
//! # Ok(()) }
//! ```
//!
//! # Map
//! Data flows one way: observe, detect, explain, tell.
//!
//! | what | where |
//! |---|---|
//! | a future's polls are published and timed | [`WatchExt::watched`], [`spawn`], [`spawn_named`] |
//! | a runtime is watched | [`Watchdog`], [`Builder`], [`PollTiming`] |
//! | a runtime's threads are known from the start | [`Builder::install`], [`hooks`] |
//! | a future is tracked between its polls | [`Watched::tracked`], [`Watchdog::tasks`], [`LiveTask`] |
//! | work for the blocking pool is seen | [`spawn_blocking`], [`BlockingPool`] |
//! | what is told | [`StallEvent`], [`Stall`], [`Severity`], [`Thresholds`] |
//! | what is summed up | [`Report`], [`Hotspot`], [`Advice`], [`Health`], [`Summary`] |
//! | a future is tested | `#[stallscope::test]` (feature `macros`), [`assert_no_stalls!`], [`assert_no_blocking!`], [`audit()`], [`Audit`], [`allow_blocking`], [`self_test`] |
//!
//! Stalls are also told as [`tracing`] events of target `stallscope`: see [`docs::events`].
//! How the line of a stuck thread is found, and what that costs: [`docs::stacks`].
//! What the library does to its host, with the bound of each: [`docs::design`].
//! How futures are tested: [`docs::testing`]. What reports say: [`docs::reports`].
//! From a symptom to its fix, in one of five real systems: [`docs::walkthrough`].

mod advice;
mod async_name;
mod audit;
mod blocking;
mod cause;
mod clock;
mod delivery;
mod detector;
pub mod docs;
mod driven;
mod ending;
mod error;
mod escape;
mod events;
mod explain;
mod function_name;
mod health;
mod histogram;
mod holder;
pub mod hooks;
mod idle;
mod isolate;
mod lately;
mod ledger;
mod limit;
mod live;
mod local;
mod os;
mod own_work;
mod owner;
mod pending;
#[cfg(test)]
mod pending_tests;
mod place;
mod pool;
mod post;
mod probes;
mod profile;
mod recorder;
mod registry;
mod report;
mod rollcall;
mod room;
mod runtime;
mod runtime_name;
mod sampler;
mod severity;
mod slot;
#[cfg(test)]
mod slot_tests;
mod stall;
mod stock;
mod supply;
mod sync;
#[cfg(tokio_unstable)]
mod tasks;
mod threads;
mod track;
mod trim;
mod watchdog;
mod watched;
mod watching;
mod worker;

pub use advice::{Advice, Complexity, RiskCategory};
#[doc(hidden)]
pub use audit::macros;
pub use audit::{
    AllowBlocking, Audit, Audited, Auditing, Failure, TryAuditing, Unfinished, Why, allow_blocking,
    audit, self_test,
};
pub use blocking::{Allowed, Blocking, Detection};
pub use error::Error;
pub use health::{Health, RuntimeHealth};
pub use histogram::Summary;
pub use holder::Holder;
pub use live::{LiveTask, TaskState};
pub use pool::{BlockingPool, spawn_blocking};
pub use profile::Place;
pub use report::{Confidence, Fingerprint, Hotspot, Origin, Report, SeverityCounts, TaskPolls};
pub use severity::{Severity, Thresholds};
pub use stall::{
    Cause, Frame, Location, Phase, Stack, Stall, StallEvent, StallId, StallKind, Task,
};
#[cfg(feature = "macros")]
pub use stallscope_macros::test;
pub use watchdog::{Builder, PollTiming, Watchdog, Watching};
pub use watched::{WatchExt, Watched, spawn, spawn_named};
