//! From a hundred to a million live tasks: memory of each, and what a poll costs then.
//!
//! Memory is what became resident while the tasks were spawned and polled once, so it includes
//! tokio's own part, which is that of bare. Below some thousand tasks pages are too coarse.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::contender::{Contender, Failure, Settings, builder};
use crate::contenders::Entry;
use crate::cost::{WORKERS, ns};
use crate::stats::Spread;
use crate::{job, proc};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub tasks: usize,
    /// Of all tasks together.
    pub polls: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub polls: u64,
    pub cpu_ns: u64,
    pub resident_a_task: f64,
}

/// Waits until all are there, then yields.
async fn live(there: Arc<AtomicUsize>, gate: Arc<Semaphore>, yields: usize) -> u64 {
    there.fetch_add(1, Ordering::Relaxed);
    // It is never given out, only closed.
    let _ = gate.acquire().await;
    let mut polls = 1;
    for _ in 0..yields {
        tokio::task::yield_now().await;
        polls += 1;
    }
    polls
}

pub(crate) fn run<C: Contender>(job: &Job) -> Result<Outcome, Failure> {
    let settings = Settings::quiet();
    let (runtime, contender) = C::start(builder(Some(WORKERS)), &settings)?;
    let there = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Semaphore::new(0));
    let yields = (job.polls / job.tasks).max(1);
    let spawn = || {
        let future = live(Arc::clone(&there), Arc::clone(&gate), yields);
        contender.spawn(runtime.handle(), future)
    };
    // Threads' own stores, and the first use of everything.
    let mut tasks = Vec::with_capacity(job.tasks + WORKERS);
    tasks.extend((0..WORKERS).map(|_| spawn()));
    wait_for(&there, tasks.len());

    let before = proc::resident()?;
    tasks.extend((0..job.tasks).map(|_| spawn()));
    wait_for(&there, tasks.len());
    let grown = proc::resident()?.saturating_sub(before);

    let cpu = ProcessTime::now();
    gate.close();
    let polls = runtime.block_on(async {
        let mut polls = 0;
        for task in tasks {
            polls += task.await?;
        }
        Ok::<_, Failure>(polls)
    })?;
    let outcome = Outcome {
        polls,
        cpu_ns: ns(cpu.elapsed()),
        resident_a_task: grown as f64 / job.tasks as f64,
    };
    contender.finish(runtime, &settings)?;
    Ok(outcome)
}

fn wait_for(there: &AtomicUsize, tasks: usize) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while there.load(Ordering::Relaxed) < tasks && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(1));
    }
    // The last ones may still be on their way into the semaphore.
    std::thread::sleep(Duration::from_millis(20));
}

/// Of one contender with so many tasks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub tasks: usize,
    pub cpu_to_bare: Spread,
    pub bytes_a_task: Spread,
    pub bytes_added: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub contender: &'static str,
    pub scales: Vec<Measured>,
}

/// In turns, for each number of tasks, in so many rounds.
pub(crate) fn measure(
    entries: &[&'static Entry],
    numbers: &[(usize, usize)],
    polls: usize,
) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = entries
        .iter()
        .map(|entry| Row {
            contender: entry.name,
            scales: Vec::new(),
        })
        .collect();
    for &(tasks, rounds) in numbers {
        let job = job::Job::Tasks(Job { tasks, polls });
        let mut outcomes: Vec<Vec<Outcome>> = vec![Vec::new(); entries.len()];
        for _ in 0..rounds {
            for (entry, outcomes) in entries.iter().zip(&mut outcomes) {
                if tasks > entry.most_tasks {
                    continue;
                }
                match job::ask(entry, &job)? {
                    job::Outcome::Tasks(outcome) => outcomes.push(outcome),
                    other => return Err(format!("{other:?}").into()),
                }
            }
        }
        let bare = outcomes.first().cloned().unwrap_or_default();
        let bytes = |of: &[Outcome]| Spread::of(of.iter().map(|of| of.resident_a_task));
        let bare_bytes = bytes(&bare).map_or(0.0, |bytes| bytes.median);
        for (row, own) in rows.iter_mut().zip(&outcomes) {
            let each = |of: &Outcome| of.cpu_ns as f64 / of.polls as f64;
            let ratios = own
                .iter()
                .zip(&bare)
                .map(|(own, bare)| each(own) / each(bare));
            if let (Some(cpu_to_bare), Some(bytes_a_task)) = (Spread::of(ratios), bytes(own)) {
                row.scales.push(Measured {
                    tasks,
                    cpu_to_bare,
                    bytes_added: bytes_a_task.median - bare_bytes,
                    bytes_a_task,
                });
            }
        }
    }
    Ok(rows)
}
