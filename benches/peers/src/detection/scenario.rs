//! The stalls, the same for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::contender::{Contender, Failure};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Between stalls, for what is told after them.
const GAP: Duration = ms(160);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// Nothing else runs.
    Idle,
    /// All workers have work all the time.
    Loaded,
    /// The others have some work, and take over the timers.
    OneOfFour,
    CurrentThread,
    /// Well above the threshold.
    Long,
    /// Below the threshold: none.
    Below,
    /// No poll is long, but the loop comes round late.
    ManyMedium,
}

impl Scenario {
    pub(crate) const ALL: [Scenario; 7] = [
        Scenario::Idle,
        Scenario::Loaded,
        Scenario::OneOfFour,
        Scenario::CurrentThread,
        Scenario::Long,
        Scenario::Below,
        Scenario::ManyMedium,
    ];

    pub(crate) const fn title(self) -> &'static str {
        match self {
            Scenario::Idle => "150 ms, idle",
            Scenario::Loaded => "150 ms, loaded",
            Scenario::OneOfFour => "150 ms, one of 4 workers",
            Scenario::CurrentThread => "150 ms, current-thread",
            Scenario::Long => "400 ms, idle",
            Scenario::Below => "30 ms: none",
            Scenario::ManyMedium => "60 polls of 5 ms: no long poll",
        }
    }

    /// `None` for a current-thread runtime.
    pub(crate) const fn workers(self) -> Option<usize> {
        match self {
            Scenario::CurrentThread => None,
            // All the polls in one turn.
            Scenario::ManyMedium => Some(1),
            Scenario::OneOfFour => Some(4),
            Scenario::Idle | Scenario::Loaded | Scenario::Long | Scenario::Below => Some(2),
        }
    }

    /// Whether a poll is long enough to be told.
    pub(crate) const fn has_stalls(self) -> bool {
        !matches!(self, Scenario::Below | Scenario::ManyMedium)
    }

    /// Whether the loop is held up, by whatever.
    pub(crate) const fn holds_the_loop(self) -> bool {
        !matches!(self, Scenario::Below)
    }

    const fn poll(self) -> Duration {
        match self {
            Scenario::Below => ms(30),
            Scenario::ManyMedium => ms(5),
            Scenario::Long => ms(400),
            _ => ms(150),
        }
    }

    const fn polls(self) -> usize {
        match self {
            Scenario::ManyMedium => 60,
            _ => 1,
        }
    }
}

/// When a worker was held up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub start: Instant,
    pub end: Instant,
}

async fn hold(poll: Duration) -> Held {
    let start = Instant::now();
    std::thread::sleep(poll);
    Held {
        start,
        end: Instant::now(),
    }
}

/// Plays it so many times.
pub(crate) fn play<C: Contender>(
    scenario: Scenario,
    times: usize,
    runtime: &Runtime,
    contender: &C,
) -> Result<Vec<Held>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(scenario, runtime, contender, &stop);
    runtime.block_on(async {
        let mut all = Vec::new();
        for _ in 0..times {
            tokio::time::sleep(GAP).await;
            let tasks: Vec<_> = (0..scenario.polls())
                .map(|_| contender.spawn(runtime.handle(), hold(scenario.poll())))
                .collect();
            let mut span: Option<Held> = None;
            for task in tasks {
                let held = task.await?;
                span = Some(span.map_or(held, |span| Held {
                    start: span.start.min(held.start),
                    end: span.end.max(held.end),
                }));
            }
            all.extend(span);
        }
        tokio::time::sleep(GAP).await;
        stop.store(true, Ordering::Relaxed);
        for task in load {
            task.await?;
        }
        Ok(all)
    })
}

fn load<C: Contender>(
    scenario: Scenario,
    runtime: &Runtime,
    contender: &C,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let tasks = match scenario {
        Scenario::Loaded | Scenario::OneOfFour => 8,
        _ => 0,
    };
    (0..tasks)
        .map(|_| {
            let stop = Arc::clone(stop);
            contender.spawn(runtime.handle(), async move {
                while !stop.load(Ordering::Relaxed) {
                    spin(Duration::from_micros(100));
                    if scenario == Scenario::Loaded {
                        tokio::task::yield_now().await;
                    } else {
                        tokio::time::sleep(ms(2)).await;
                    }
                }
            })
        })
        .collect()
}

fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        std::hint::spin_loop();
    }
}
