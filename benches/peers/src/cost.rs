//! What a poll costs: tasks that yield, with polls that do next to nothing.
//!
//! The workload of the library's own `benches/poll_overhead.rs`.

use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::contender::{Contender, Failure, Settings, builder};
use crate::contenders::{Entry, TABLE};
use crate::instructions::{self, Instructions};
use crate::job;
use crate::stats::Spread;

/// What the child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// `None` for a current-thread runtime.
    pub workers: Option<usize>,
    pub tasks: usize,
    pub yields: u64,
    /// The first polls of a name on a thread do more.
    pub warm_yields: u64,
    pub by_poll_only: bool,
}

/// What it took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub polls: u64,
    /// Of the whole process: threads that work behind the scenes count.
    pub cpu_ns: u64,
    pub wall_ns: u64,
}

async fn near_empty(yields: u64) -> u64 {
    let mut polls = 1;
    for _ in 0..yields {
        tokio::task::yield_now().await;
        polls += 1;
    }
    polls
}

/// Spawns the tasks and drives them to their end; valgrind counts what happens in here.
#[inline(never)]
fn round<C: Contender>(
    runtime: &Runtime,
    contender: &C,
    tasks: usize,
    yields: u64,
) -> Result<u64, Failure> {
    let tasks: Vec<_> = (0..tasks)
        .map(|_| contender.spawn(runtime.handle(), near_empty(yields)))
        .collect();
    runtime.block_on(async {
        let mut polls = 0;
        for task in tasks {
            polls += task.await?;
        }
        Ok(polls)
    })
}

pub(crate) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn run<C: Contender>(job: &Job) -> Result<Outcome, Failure> {
    let settings = Settings {
        by_poll_only: job.by_poll_only,
        ..Settings::quiet()
    };
    let (runtime, contender) = C::start(builder(job.workers), &settings)?;
    // As in any service there is a timer: while there is none, tokio spares itself a look
    // at the clock at each turn (1.54, `time/mod.rs`, `park_internal`).
    runtime.spawn(async { tokio::time::sleep(Duration::from_secs(3_600)).await });
    round(&runtime, &contender, job.tasks, job.warm_yields)?;
    // All threads', also of those that have ended.
    let (cpu, start) = (ProcessTime::now(), Instant::now());
    let polls = round(&runtime, &contender, job.tasks, job.yields)?;
    let outcome = Outcome {
        polls,
        wall_ns: ns(start.elapsed()),
        cpu_ns: ns(cpu.elapsed()),
    };
    contender.finish(runtime, &settings)?;
    Ok(outcome)
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub rounds: usize,
    pub yields: u64,
    pub instructions: bool,
}

const TASKS: usize = 64;
/// A share of bare that rounds differ by anyway.
const NEXT_TO_NOTHING: f64 = 0.1;
pub(crate) const WORKERS: usize = 2;

/// Of one contender in one kind of runtime.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub polls_a_round: u64,
    pub ns_a_poll: Spread,
    pub cpu_to_bare: Spread,
    pub wall_to_bare: Spread,
    /// To the mode of stallscope that does like work.
    pub cpu_to_like: Option<Spread>,
    /// What is added to bare, to what that mode adds; of medians, where that is not next to
    /// nothing.
    pub added_to_like: Option<f64>,
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub contender: &'static str,
    pub at_a_poll: &'static str,
    pub like: &'static str,
    pub multi_thread: Measured,
    pub current_thread: Measured,
    pub instructions: Option<Instructions>,
}

/// In turns: a machine that changes its pace changes all.
pub(crate) fn measure(entries: &[&'static Entry], extent: Extent) -> Result<Vec<Row>, Failure> {
    let multi_thread = rounds(entries, Some(WORKERS), extent)?;
    let current_thread = rounds(entries, None, extent)?;
    let mut rows = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        rows.push(Row {
            contender: entry.name,
            at_a_poll: entry.does,
            like: entry.like.name(),
            multi_thread: summary(entries, &multi_thread, index)?,
            current_thread: summary(entries, &current_thread, index)?,
            instructions: None,
        });
    }
    if extent.instructions {
        instructions::count(entries, &mut rows)?;
    }
    Ok(rows)
}

/// For each contender its outcome in each round.
fn rounds(
    entries: &[&'static Entry],
    workers: Option<usize>,
    extent: Extent,
) -> Result<Vec<Vec<Outcome>>, Failure> {
    let job = job::Job::Cost(Job {
        workers,
        tasks: TASKS,
        yields: extent.yields,
        warm_yields: extent.yields / 10,
        by_poll_only: false,
    });
    let mut outcomes = vec![Vec::new(); entries.len()];
    for _ in 0..extent.rounds {
        for (entry, outcomes) in entries.iter().zip(&mut outcomes) {
            match job::ask(entry, &job)? {
                job::Outcome::Cost(outcome) => outcomes.push(outcome),
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
    Ok(outcomes)
}

fn summary(
    entries: &[&'static Entry],
    outcomes: &[Vec<Outcome>],
    index: usize,
) -> Result<Measured, Failure> {
    let of = |name: &str| {
        let index = entries.iter().position(|entry| entry.name == name)?;
        outcomes.get(index)
    };
    let entry = entries.get(index).ok_or("no such contender")?;
    let own = outcomes.get(index).ok_or("not measured")?;
    let bare = TABLE.first().and_then(|bare| of(bare.name));
    let bare = bare.ok_or("bare was not measured")?;
    let none = "no rounds";
    let like = entry.like.mode().and_then(of);
    let like_to_bare = like.and_then(|like| ratios(like, bare, |outcome| outcome.cpu_ns));
    let cpu_to_bare = ratios(own, bare, |outcome| outcome.cpu_ns).ok_or(none)?;
    Ok(Measured {
        polls_a_round: own.first().ok_or(none)?.polls,
        ns_a_poll: Spread::of(own.iter().map(|own| own.cpu_ns as f64 / own.polls as f64))
            .ok_or(none)?,
        cpu_to_bare,
        wall_to_bare: ratios(own, bare, |outcome| outcome.wall_ns).ok_or(none)?,
        cpu_to_like: like.and_then(|like| ratios(own, like, |outcome| outcome.cpu_ns)),
        added_to_like: like_to_bare
            .map(|like| like.median - 1.0)
            .filter(|added| *added > NEXT_TO_NOTHING)
            .map(|added| (cpu_to_bare.median - 1.0) / added),
    })
}

/// Round by round.
fn ratios(of: &[Outcome], to: &[Outcome], what: fn(&Outcome) -> u64) -> Option<Spread> {
    Spread::of(
        of.iter()
            .zip(to)
            .map(|(of, to)| what(of) as f64 / what(to) as f64),
    )
}
