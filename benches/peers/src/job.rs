//! What a child process is told to do, and what it answers.

use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::contender::{Contender, Failure};
use crate::contenders::{Entry, TABLE};
use crate::{cost, detection, scale};

/// A child that takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// The first argument of a child.
pub(crate) const CHILD: &str = "--child";

/// The thread that ends a child that hangs.
pub(crate) const LIMITER: &str = "peers-limit";

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    Cost(cost::Job),
    Detection(detection::Job),
    Tasks(scale::tasks::Job),
    Workers(scale::workers::Job),
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Cost(cost::Outcome),
    Detection(detection::Outcome),
    Tasks(scale::tasks::Outcome),
    Workers(scale::workers::Outcome),
}

/// Does the job, in the child.
pub(crate) fn run<C: Contender>(job: &Job) -> Result<Outcome, Failure> {
    Ok(match job {
        Job::Cost(job) => Outcome::Cost(cost::run::<C>(job)?),
        Job::Detection(job) => Outcome::Detection(detection::run::<C>(job)?),
        Job::Tasks(job) => Outcome::Tasks(scale::tasks::run::<C>(job)?),
        Job::Workers(job) => Outcome::Workers(scale::workers::run::<C>(job)?),
    })
}

/// What the child does with the arguments after [`CHILD`].
pub(crate) fn child(name: &str, job: &str) -> Result<String, Failure> {
    let entry = TABLE
        .iter()
        .find(|entry| entry.name == name)
        .ok_or_else(|| format!("no contender is called {name}"))?;
    let job: Job = serde_json::from_str(job)?;
    std::thread::Builder::new()
        .name(LIMITER.to_owned())
        .spawn(|| {
            std::thread::sleep(LIMIT);
            std::process::exit(3);
        })?;
    Ok(serde_json::to_string(&(entry.run)(&job)?)?)
}

/// The command that starts a child.
pub(crate) fn arguments(entry: &Entry, job: &Job) -> Result<[String; 3], Failure> {
    Ok([
        CHILD.to_owned(),
        entry.name.to_owned(),
        serde_json::to_string(job)?,
    ])
}

/// Has a process of its own do the job.
pub(crate) fn ask(entry: &Entry, job: &Job) -> Result<Outcome, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments(entry, job)?)
        .env("HOTPATH_METRICS_SERVER_OFF", "1")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer = text.lines().last().filter(|_| output.status.success());
    let Some(answer) = answer else {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}, {job:?}: {}: {said}", entry.name, output.status).into());
    };
    Ok(serde_json::from_str(answer)?)
}
