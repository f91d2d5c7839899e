//! The contenders, and the table of them: one entry each.

mod bare;
#[cfg(tokio_unstable)]
mod console;
#[cfg(tokio_unstable)]
mod dial9;
mod hotpath;
mod lag;
#[cfg(tokio_unstable)]
mod poll_histogram;
mod poller;
mod sleeper;
pub(crate) mod stallscope;
#[cfg(tokio_unstable)]
mod tokio_blocked;
mod tokio_metrics;

use crate::contender::{Contender, Failure, Like, Tells};
use crate::job::{Job, Outcome};

/// One contender, without its type.
pub(crate) struct Entry {
    pub name: &'static str,
    pub does: &'static str,
    pub like: Like,
    pub tells: Tells,
    pub most_tasks: usize,
    pub run: fn(&Job) -> Result<Outcome, Failure>,
}

const fn entry<C: Contender>() -> Entry {
    Entry {
        name: C::NAME,
        does: C::DOES,
        like: C::LIKE,
        tells: C::TELLS,
        most_tasks: C::MOST_TASKS,
        run: crate::job::run::<C>,
    }
}

/// In the order in which they take turns; the first is what the others are compared with.
pub(crate) const TABLE: &[Entry] = &[
    entry::<bare::Bare>(),
    entry::<stallscope::RuntimeWatch>(),
    entry::<stallscope::Watched<stallscope::NoWatchdog>>(),
    entry::<stallscope::Watched<stallscope::DetectOnly>>(),
    entry::<stallscope::Watched<stallscope::Sampled>>(),
    entry::<stallscope::Watched<stallscope::Exact>>(),
    entry::<stallscope::Watched<stallscope::Tracked>>(),
    entry::<stallscope::Installed>(),
    entry::<sleeper::Sleeper>(),
    entry::<lag::LagTask>(),
    entry::<tokio_metrics::TaskMonitor>(),
    entry::<hotpath::Measure>(),
    entry::<hotpath::Future>(),
    #[cfg(tokio_unstable)]
    entry::<poll_histogram::PollHistogram>(),
    #[cfg(tokio_unstable)]
    entry::<tokio_blocked::TokioBlocked>(),
    #[cfg(tokio_unstable)]
    entry::<console::Console>(),
    #[cfg(tokio_unstable)]
    entry::<dial9::Hooks>(),
    #[cfg(tokio_unstable)]
    entry::<dial9::Spawn>(),
];

/// The build this is: rows differ.
pub(crate) const BUILD: &str = if cfg!(tokio_unstable) {
    "tokio_unstable"
} else {
    "stable"
};
