//! Who tells of which stalls, how soon, how exactly, and of which that are none.

mod scenario;
mod score;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Failure, Settings, Tells, builder};
use crate::contenders::Entry;
use crate::job;
use crate::told::Log;

pub(crate) use scenario::Scenario;
pub(crate) use score::Score;

/// From which duration on a poll is to be told.
const THRESHOLD: Duration = Duration::from_millis(100);

/// What the child does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub scenario: Scenario,
    pub times: usize,
}

pub(crate) type Outcome = Score;

pub(crate) fn run<C: Contender>(job: &Job) -> Result<Outcome, Failure> {
    let log = Log::default();
    let settings = Settings {
        threshold: THRESHOLD,
        log: Some(log.clone()),
        by_poll_only: false,
    };
    let (runtime, contender) = C::start(builder(job.scenario.workers()), &settings)?;
    let held = scenario::play(job.scenario, job.times, &runtime, &contender)?;
    contender.finish(runtime, &settings)?;
    Ok(score::score(job.scenario, &held, &log.all(), THRESHOLD))
}

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub contender: &'static str,
    /// Why there is nothing to score.
    pub cannot: Option<&'static str>,
    pub scores: Vec<(Scenario, Score)>,
}

/// In turns, scenario by scenario.
pub(crate) fn measure(
    entries: &[&'static Entry],
    scenarios: &[Scenario],
    times: usize,
) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = entries
        .iter()
        .map(|entry| Row {
            contender: entry.name,
            cannot: match entry.tells {
                Tells::Nobody(why) => Some(why),
                Tells::Program | Tells::Recording => None,
            },
            scores: Vec::new(),
        })
        .collect();
    for &scenario in scenarios {
        let job = job::Job::Detection(Job { scenario, times });
        for (entry, row) in entries.iter().zip(&mut rows) {
            if row.cannot.is_some() {
                continue;
            }
            match job::ask(entry, &job)? {
                job::Outcome::Detection(score) => row.scores.push((scenario, score)),
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
    Ok(rows)
}
