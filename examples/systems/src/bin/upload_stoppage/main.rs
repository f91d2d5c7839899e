//! A generation job that "stops after initialisation": no error, no CPU, no end.
//!
//! `cargo run --release -p stallscope-systems --bin upload_stoppage`
//!
//! Items are generated in batches of 5, under a semaphore of 10, on a
//! current-thread runtime. Each ends with an upload; the store sometimes hangs for
//! 10 s, and sometimes never answers.
//!
//! Planted, in `broken.rs`:
//!
//! | fault | what it is told to be |
//! |---|---|
//! | `uploading` with a client that blocks and has no timeout | External API, blocked in `recv..` |
//!
//! The fixed version uploads in `spawn_blocking`, with timeouts, and tries again
//! up to three times, later and later.

mod board;
mod broken;
mod fixed;
mod operator;
mod store;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::channel;

use stallscope::WatchExt;
use stallscope_systems::args::Version;
use stallscope_systems::server::Server;
use stallscope_systems::stage::{Observed, tell, watch};
use stallscope_systems::system::System;
use stallscope_systems::verdict::{RunVerdict, Told};
use stallscope_systems::{Failure, planted, say};
use tokio::runtime::Builder;

use crate::board::Board;
use crate::operator::Operator;
use crate::store::Store;

/// How many there are to generate.
const ITEMS: usize = 20;
/// How many are begun together.
const BATCH: usize = 5;
/// How many may be in progress.
const PERMITS: usize = 10;

fn main() -> ExitCode {
    System {
        name: env!("CARGO_BIN_NAME"),
        planted: &[planted!("uploading", "broken.rs", ExternalApi, "recv")],
        run,
        compare,
    }
    .main()
}

fn run(version: Version) -> Result<(Observed, Told), Failure> {
    let store = Arc::new(Store::default());
    let server = Server::start("store", Arc::clone(&store).router())?;
    let url = server.url("/upload");
    let board = Arc::new(Board::new());
    let (events, told_of) = channel();
    let operator = Operator::start(told_of, server, Arc::clone(&board))?;
    let on_stall = move |event: &stallscope::StallEvent| {
        tell(event);
        // The operator may have gone home.
        let _ = events.send(event.clone());
    };
    let mut runtime = Builder::new_current_thread();
    let ((), observed) = watch(runtime.enable_all(), on_stall, |stage| {
        let runtime = &stage.runtime;
        match version {
            Version::Broken => {
                runtime.block_on(broken::job(url, Arc::clone(&board)).watched("job"));
            }
            Version::Fixed => {
                runtime.block_on(fixed::job(url, Arc::clone(&board)).watched("job"));
            }
        }
        Ok(())
    })?;
    let diagnoses = operator.end()?;

    let mut told = Told::default();
    let done = board.done();
    told.figure("completed", done);
    told.figure("peak_in_progress", board.peak());
    told.figure("peak_uploads", store.peak());
    told.figure("attempts", store.attempts());
    told.figure("told_while_stuck", diagnoses.len());
    match version {
        Version::Broken => {
            told.claim("the job does not complete", done < ITEMS);
            told.claim("CRITICAL is told while it is stuck", !diagnoses.is_empty());
            told.claim(
                "its line and its cause are told while it is stuck",
                !diagnoses.is_empty() && diagnoses.iter().all(|diagnosis| diagnosis.has_line),
            );
            told.claim(
                "others wait that could go on",
                diagnoses.iter().all(|diagnosis| diagnosis.waiting > 0),
            );
            told.claim(
                "the semaphore is not to blame: it has permits left",
                BATCH <= PERMITS && diagnoses.iter().all(|diagnosis| diagnosis.permits > 0),
            );
            if let Some(diagnosis) = diagnoses.first() {
                told.figure("told_after_ms", diagnosis.after);
                told.figure("waiting_then", diagnosis.waiting);
                told.figure("permits_then", diagnosis.permits);
                told.figure("cpu_until_then_ms", diagnosis.usage.cpu);
                told.figure("rss_then_mib", diagnosis.usage.rss_kib >> 10);
            }
        }
        Version::Fixed => {
            told.claim("all items complete", done == ITEMS);
            told.claim("no more than are permitted", board.peak() <= PERMITS);
            told.claim("nothing CRITICAL is told", diagnoses.is_empty());
        }
    }
    say!("  {done} of {ITEMS} items completed");
    Ok((observed, told))
}

fn compare(broken: &RunVerdict, fixed: &RunVerdict, told: &mut Told) {
    let less = |name| fixed.number(name) < broken.number(name);
    told.claim("fixed stalls for less", less("longest_stall_ms"));
    told.claim("fixed holds up others for less", less("heartbeat_late_ms"));
    told.claim(
        "fixed completes more",
        fixed.number("completed") > broken.number("completed"),
    );
}
