//! A service that takes documents, looks at them in fifteen stages in the background,
//! and tells on WebSockets how they come along, with heartbeats.
//!
//! `cargo run --release -p stallscope-systems --bin document_service --
//! [--broken | --fixed | --both] [--report DIR] [--json]`
//!
//! Fifty clients upload at once, ten listen on WebSockets, five documents are in the
//! background, and somebody keeps asking how far they are. The clients are a process
//! of their own: this program again, with a word that is for itself.
//!
//! Planted in the broken one:
//! - a model is loaded at start-up, and a thread is joined at shutdown, in the future;
//! - a middleware hashes keys;
//! - the handler reads all of the archive's files, decodes the picture, and commits to
//!   a database that somebody else keeps busy;
//! - each request has a connection of its own, which checks the database first;
//! - the background task draws pages, calls the annotator by a client that blocks, and
//!   parses, encodes and writes checkpoints of 10 MB.
//!
//! Each is alone between two awaits that wait for something: of a poll in which one
//! thing blocks after the other, a stall has the line of one.

mod broken;
mod clients;
mod documents;
mod fixed;
mod key;
mod load;
mod premises;
mod progress;

use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use stallscope::WatchExt;
use stallscope_systems::args::Version;
use stallscope_systems::planted::Planted;
use stallscope_systems::stage::{self, Observed};
use stallscope_systems::system::System;
use stallscope_systems::verdict::{RunVerdict, Told};
use stallscope_systems::{Failure, planted, say};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use load::Felt;
use premises::Premises;

const PLANTED: &[Planted] = &[
    planted!(
        "model loading at start-up",
        "broken/mod.rs",
        StartupShutdown
    ),
    planted!("blocking middleware", "broken/handlers.rs", Cpu),
    planted!("synchronous file I/O", "broken/handlers.rs", FileIo),
    planted!("CPU work in the handler", "broken/handlers.rs", Cpu),
    planted!("SQLite in the handler", "broken/handlers.rs", Database),
    planted!(
        "connection for each request",
        "broken/handlers.rs",
        Database
    ),
    planted!(
        "checkpoint parsed and freed in the task",
        "broken/task.rs",
        Cpu
    ),
    planted!("CPU work in the task", "broken/task.rs", Cpu),
    planted!("synchronous API client", "broken/task.rs", ExternalApi),
    planted!("checkpoint encoded in the task", "broken/task.rs", Cpu),
    planted!("checkpoint written in the task", "broken/task.rs", FileIo),
    planted!("blocking shutdown", "broken/mod.rs", StartupShutdown),
];

/// What a client may be asked to put up with.
const HEARTBEAT: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_millis(500);

/// What an upload is wanted for.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Wanted {
    /// All stages, not only to have it.
    deep: bool,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().is_some_and(|word| word == load::WORD) {
        return load_main(&words.next().unwrap_or_default());
    }
    let system = System {
        name: env!("CARGO_BIN_NAME"),
        planted: PLANTED,
        run,
        compare,
    };
    system.main()
}

/// The process of the clients.
fn load_main(service: &str) -> ExitCode {
    say::json_on_stdout();
    match load::main(service) {
        Ok(felt) => {
            say::json(&felt);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say!("clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(version: Version) -> Result<(Observed, Told), Failure> {
    let mut premises = Premises::new()?;
    let mut workers = Builder::new_multi_thread();
    workers.worker_threads(2).enable_all();
    let (felt, observed) = stage::watch(&mut workers, stage::tell, |stage| {
        let listener = stage.runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (tell_done, done) = oneshot::channel();
        let clients = std::thread::spawn(move || {
            let felt = load::start(address);
            let _ = tell_done.send(());
            felt
        });
        stage.runtime.block_on(async {
            match version {
                Version::Broken => {
                    let serving = broken::serve(&mut premises, listener, done);
                    serving.watched("service").await
                }
                Version::Fixed => {
                    let serving = fixed::serve(&mut premises, listener, done);
                    serving.watched("service").await
                }
            }
        })?;
        clients.join().map_err(|_| "the clients have panicked")?
    })?;
    let mut told = weigh(version, &felt);
    let checkpoint = std::fs::metadata(premises.checkpoint(0))?.len();
    told.figure("checkpoint_mb", checkpoint / 1_000_000);
    Ok((observed, told))
}

fn weigh(version: Version, felt: &Felt) -> Told {
    let mut told = Told::default();
    told.figure("uploaded", felt.uploaded);
    told.figure("processed", felt.processed);
    told.figure("upload_p50_ms", felt.upload_p50);
    told.figure("heartbeats", felt.heartbeats);
    told.figure("beat_late_p99_ms", felt.late_p99);
    told.figure("beat_late_max_ms", felt.late_max);
    told.figure("drops", felt.drops);
    told.figure("api_answers", felt.answers);
    told.figure("api_p50_ms", felt.api_p50);
    told.figure("api_p99_ms", felt.api_p99);
    told.timed(
        "all documents are taken",
        felt.uploaded == load::UPLOADS + load::IN_BACKGROUND,
    );
    told.timed(
        "all documents in the background are processed",
        felt.processed == load::IN_BACKGROUND,
    );
    match version {
        Version::Broken => {
            told.timed(
                "heartbeats are late by seconds",
                felt.late_max > Duration::from_secs(1),
            );
            told.timed(
                format!("answers take more than {ANSWER:?} at p99"),
                felt.api_p99 > ANSWER,
            );
        }
        Version::Fixed => {
            told.timed(
                format!("every heartbeat comes within {HEARTBEAT:?}"),
                felt.late_max < HEARTBEAT,
            );
            told.timed(
                format!("answers take less than {ANSWER:?} at p99"),
                felt.api_p99 < ANSWER,
            );
            told.claim("no WebSocket is given up", felt.drops == 0);
        }
    }
    told
}

fn compare(broken: &RunVerdict, fixed: &RunVerdict, told: &mut Told) {
    let less = |name: &str| fixed.number(name) < broken.number(name);
    told.claim("heartbeats are less late", less("beat_late_max_ms"));
    told.claim("answers are faster", less("api_p99_ms"));
    told.claim("other tasks wait less", less("heartbeat_late_ms"));
    told.claim(
        "what blocks is off the loop",
        fixed.number("score") >= Some(9.0),
    );
    told.claim(
        "in the broken one it is not",
        broken.number("score") < Some(7.0),
    );
}
