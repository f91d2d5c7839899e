//! A service that runs pipelines: a client posts a prompt, and hears on a WebSocket
//! how its stages come along.
//!
//! `cargo run --release -p stallscope-systems --bin pipeline_service --
//! [--broken | --fixed | --both] [--report DIR] [--json]`
//!
//! Its database is a real one that somebody else's export keeps busy. Five clients
//! come at once, and when they are done, twenty.
//!
//! Planted in the broken one:
//! - each run makes an executor for each stage: settings read, certificates loaded,
//!   filters compiled;
//! - handler and run commit where they are, and wait for the export;
//! - the run asks the model by a client that blocks.
//!
//! So the answer to a submission comes when the first stage is over, and those of
//! others have had their turns. In the fixed one it comes before the run begins: three
//! executors were made at start-up, the database has threads of its own, the model is
//! asked asynchronously.

mod broken;
mod client;
mod clock;
mod executor;
mod fixed;
mod model;
mod premises;
mod runs;
mod updates;

use std::process::ExitCode;
use std::time::Duration;

use stallscope_systems::args::Version;
use stallscope_systems::figures::percentile;
use stallscope_systems::planted::Planted;
use stallscope_systems::stage::{self, Observed};
use stallscope_systems::system::System;
use stallscope_systems::verdict::{RunVerdict, Told};
use stallscope_systems::{Failure, planted};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

use client::Submission;
use premises::Premises;

const PLANTED: &[Planted] = &[
    planted!("executor made for each run", "executor.rs", Cpu),
    planted!("commit on the event loop", "broken.rs", Database),
    planted!("synchronous client", "broken.rs", ExternalApi),
];

/// How many come at once.
const FEW: usize = 5;
const MANY: usize = 20;
/// What a client may be asked to wait for an answer, and for the first update.
const ANSWER: Duration = Duration::from_millis(100);
const UPDATE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let system = System {
        name: env!("CARGO_BIN_NAME"),
        planted: PLANTED,
        run,
        compare,
    };
    system.main()
}

fn run(version: Version) -> Result<(Observed, Told), Failure> {
    let premises = Premises::new()?;
    executor::take_made();
    let mut workers = Builder::new_multi_thread();
    workers.worker_threads(2).enable_all();
    let ((few, many), observed) = stage::watch(&mut workers, stage::tell, |stage| {
        let listener = stage.runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let service = listener.local_addr()?;
        let router = match version {
            Version::Broken => broken::router(&premises)?,
            Version::Fixed => stage.runtime.block_on(fixed::router(&premises))?,
        };
        stage.runtime.spawn(async move {
            // Serves until the runtime goes.
            let _ = axum::serve(listener, router).await;
        });
        // Clients have a thread of their own: they are not what is watched.
        let clients = Builder::new_current_thread().enable_all().build()?;
        clients.block_on(async {
            let few = client::submit(service, FEW).await?;
            Ok((few, client::submit(service, MANY).await?))
        })
    })?;
    Ok((observed, weigh(version, &few, &many)))
}

fn weigh(version: Version, few: &[Submission], many: &[Submission]) -> Told {
    let all: Vec<_> = few.iter().chain(many).collect();
    let took: Vec<_> = many.iter().map(Submission::took).collect();
    let count = |is: &dyn Fn(&Submission) -> bool| all.iter().filter(|one| is(one)).count();
    let before_first = count(&|one| one.answered < one.began);
    let after_first = count(&|one| one.answered > one.first_ended);
    let updates: Vec<_> = all
        .iter()
        .filter_map(|one| Some(one.running?.saturating_sub(one.sent)))
        .collect();
    let made = executor::take_made();
    let mut told = Told::default();
    told.figure("accepted", all.len());
    told.figure("executors_made", made);
    told.figure("answer_p50_ms", percentile(&took, 0.5));
    told.figure("answer_p95_ms", percentile(&took, 0.95));
    told.figure("answered_before_first_stage", before_first);
    told.figure("answered_after_first_stage", after_first);
    told.figure("first_update_p50_ms", percentile(&updates, 0.5));
    told.figure("first_update_max_ms", percentile(&updates, 1.0));
    let runs = FEW + MANY;
    told.claim("all submissions are accepted", all.len() == runs);
    told.claim("all runs are told to be running", updates.len() == runs);
    match version {
        Version::Broken => {
            told.claim(
                "each run makes executors",
                made == runs * runs::STAGES.len(),
            );
            told.claim(
                "all answers come after the first stage",
                after_first == runs,
            );
        }
        Version::Fixed => {
            told.claim("three executors are made", made == runs::STAGES.len());
            told.timed(
                "all answers come before the first stage",
                before_first == runs,
            );
            told.timed(
                format!("answers take less than {ANSWER:?} (median of {MANY})"),
                percentile(&took, 0.5) < ANSWER,
            );
            told.timed(
                format!("the first update comes within {UPDATE:?}"),
                percentile(&updates, 1.0) < UPDATE,
            );
        }
    }
    told
}

fn compare(broken: &RunVerdict, fixed: &RunVerdict, told: &mut Told) {
    let ratio = |name: &str| Some(broken.number(name)? / fixed.number(name)?.max(1.0));
    told.claim(
        "answers come five times as soon, at p95",
        ratio("answer_p95_ms") > Some(5.0),
    );
    told.claim(
        "other tasks wait less",
        ratio("heartbeat_late_ms") > Some(1.0),
    );
    told.claim(
        "the score rises",
        broken.number("score") < fixed.number("score"),
    );
}
