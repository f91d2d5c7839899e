//! From 1 to 64 workers: what the threads behind the scenes take, busy and idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Failure, Settings, builder};
use crate::contenders::Entry;
use crate::job;
use crate::proc::{Threads, Usage};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub workers: usize,
    pub span_ms: u64,
}

/// A second's.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// Percent of one CPU.
    pub cpu_percent: f64,
    pub wakeups: f64,
}

impl Taken {
    fn of(usage: Usage, span: Duration) -> Self {
        Taken {
            cpu_percent: 100.0 * usage.cpu.as_secs_f64() / span.as_secs_f64(),
            wakeups: usage.sleeps as f64 / span.as_secs_f64(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// By the contender's own threads while nothing runs.
    pub idle: Taken,
    /// By the whole process then: tasks that sleep wake its workers.
    pub idle_process: Taken,
    /// By the contender's own threads while each worker has work.
    pub busy: Taken,
}

pub(crate) fn run<C: Contender>(job: &Job) -> Result<Outcome, Failure> {
    let settings = Settings::quiet();
    let span = Duration::from_millis(job.span_ms);
    let (runtime, contender) = C::start(builder(Some(job.workers)), &settings)?;
    // Workers look for work for a while before they sleep.
    std::thread::sleep(Duration::from_millis(100));
    let (idle, idle_process) = taken(span)?;

    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..job.workers * 4)
        .map(|_| {
            let stop = Arc::clone(&stop);
            contender.spawn(runtime.handle(), async move {
                while !stop.load(Ordering::Relaxed) {
                    work();
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let (busy, _) = taken(span)?;
    stop.store(true, Ordering::Relaxed);
    runtime.block_on(async {
        for task in tasks {
            task.await?;
        }
        Ok::<_, Failure>(())
    })?;
    contender.finish(runtime, &settings)?;
    Ok(Outcome {
        idle,
        idle_process,
        busy,
    })
}

/// Some microseconds of it.
fn work() {
    for number in 0..2_000_u32 {
        std::hint::black_box(number);
    }
}

/// By the contender's threads, and by the process.
fn taken(span: Duration) -> Result<(Taken, Taken), Failure> {
    let (before, start) = (Threads::now()?, Instant::now());
    std::thread::sleep(span);
    let (now, span) = (Threads::now()?, start.elapsed());
    Ok((
        Taken::of(now.background_since(&before), span),
        Taken::of(now.all_since(&before), span),
    ))
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub contender: &'static str,
    pub workers: usize,
    #[serde(flatten)]
    pub taken: Outcome,
}

/// In turns, for each number of workers.
pub(crate) fn measure(
    entries: &[&'static Entry],
    numbers: &[usize],
    span: Duration,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for &workers in numbers {
        let job = job::Job::Workers(Job {
            workers,
            span_ms: u64::try_from(span.as_millis())?,
        });
        for entry in entries {
            match job::ask(entry, &job)? {
                job::Outcome::Workers(taken) => rows.push(Row {
                    contender: entry.name,
                    workers,
                    taken,
                }),
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
    Ok(rows)
}
