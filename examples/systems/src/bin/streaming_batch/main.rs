//! A batch of prompts whose pictures are streamed as they are generated.
//!
//! `cargo run --release -p stallscope-systems --bin streaming_batch`
//!
//! Ten prompts, at most five at once, each result shown and saved as soon as it is
//! there. An error is a result, and does not stop the batch; trying again is the
//! client's business. The generator fails for one of the ten, is down for a moment
//! for another, and refuses a sixth request at once.
//!
//! Planted, in `save.rs`:
//!
//! | fault | what it is told to be |
//! |---|---|
//! | `saving` each picture in the body of the stream | Event Loop Blocking (CPU) |
//!
//! While a picture is saved, no other request is looked after: those that are
//! answered keep their permits, and the next ones wait. The fixed version saves
//! in `spawn_blocking`, after the permit is given back.

mod broken;
mod client;
mod fixed;
mod generator;
mod save;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use stallscope::WatchExt;
use stallscope_systems::args::Version;
use stallscope_systems::pictures::Folder;
use stallscope_systems::server::Server;
use stallscope_systems::stage::{Observed, tell, watch};
use stallscope_systems::system::System;
use stallscope_systems::verdict::{RunVerdict, Told};
use stallscope_systems::{Failure, planted, say};
use tokio::runtime::Builder;

use crate::client::Client;
use crate::generator::Generator;

/// Prompts of one batch.
const PROMPTS: usize = 10;
/// How many may be in progress, which is what the generator allows.
const AT_ONCE: usize = 5;

/// What became of a prompt.
type Saved = Result<PathBuf, Failure>;

/// When each result came, and how many of them are pictures.
#[derive(Debug)]
struct Batch {
    begun: Instant,
    bar: ProgressBar,
    results: Vec<Duration>,
    pictures: usize,
}

impl Batch {
    /// With a bar, if standard error is a terminal.
    fn new() -> Self {
        Batch {
            begun: Instant::now(),
            bar: ProgressBar::new(PROMPTS as u64),
            results: Vec::new(),
            pictures: 0,
        }
    }

    fn add(&mut self, result: &Saved) {
        self.results.push(self.begun.elapsed());
        self.pictures += usize::from(result.is_ok());
        self.bar.inc(1);
    }

    fn first(&self) -> Duration {
        self.results.first().copied().unwrap_or_default()
    }

    fn last(&self) -> Duration {
        self.results.last().copied().unwrap_or_default()
    }
}

fn main() -> ExitCode {
    System {
        name: env!("CARGO_BIN_NAME"),
        planted: &[planted!("saving", "save.rs", Cpu)],
        run,
        compare,
    }
    .main()
}

fn prompts() -> Vec<String> {
    (1..=PROMPTS)
        .map(|number| format!("prompt-{number}"))
        .collect()
}

/// One after the other, for comparison.
async fn one_by_one(client: Client, folder: PathBuf) -> Batch {
    let mut batch = Batch::new();
    for prompt in prompts() {
        let result = fixed::generate_and_save(&client, &prompt, &folder).await;
        batch.add(&result);
    }
    batch
}

fn sequential(generator: &str, folder: &Path) -> Result<Duration, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let client = Client::new(generator, AT_ONCE);
    let batch = runtime.block_on(one_by_one(client, folder.to_owned()));
    batch.bar.finish_and_clear();
    Ok(batch.last())
}

fn run(version: Version) -> Result<(Observed, Told), Failure> {
    let folder = Folder::new("streaming-batch")?;
    let generator = Arc::new(Generator::new()?);
    let server = Server::start("generator", Arc::clone(&generator).router())?;
    let url = server.url("/generate");
    let sequential = sequential(&url, folder.path())?;
    generator.restart();

    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    let (batch, observed) = watch(&mut runtime, tell, |stage| {
        let client = Client::new(&url, AT_ONCE);
        let folder = folder.path().to_owned();
        let batch = match version {
            Version::Broken => stage
                .runtime
                .spawn(broken::batch(client, folder).watched("batch")),
            Version::Fixed => stage
                .runtime
                .spawn(fixed::batch(client, folder).watched("batch")),
        };
        Ok(stage.runtime.block_on(batch)?)
    })?;
    batch.bar.finish_and_clear();
    let saved = std::fs::read_dir(folder.path())?.count();

    let mut told = Told::default();
    told.figure("results", batch.results.len());
    told.figure("pictures", batch.pictures);
    told.figure("first_result_ms", batch.first());
    told.figure("last_result_ms", batch.last());
    told.figure("sequential_ms", sequential);
    told.figure("peak_in_flight", generator.peak());
    told.figure("refused", generator.refused());
    told.figure("requests", generator.requests());
    told.claim("each prompt has a result", batch.results.len() == PROMPTS);
    told.claim(
        "9 of 10 succeed, and are saved",
        batch.pictures == PROMPTS - 1 && saved == PROMPTS - 1,
    );
    told.claim(
        "never more than 5 are in flight",
        generator.peak() <= AT_ONCE,
    );
    told.claim("none is refused", generator.refused() == 0);
    if version == Version::Fixed {
        told.timed(
            "the first result comes long before the last",
            batch.first() * 2 < batch.last(),
        );
        told.claim("it is faster than one by one", batch.last() < sequential);
    }
    say!(
        "  {} of {PROMPTS} in {:.1?}, the first after {:.1?}; one by one {sequential:.1?}",
        batch.pictures,
        batch.last(),
        batch.first()
    );
    Ok((observed, told))
}

fn compare(broken: &RunVerdict, fixed: &RunVerdict, told: &mut Told) {
    let less = |name| fixed.number(name) < broken.number(name);
    told.timed("fixed is faster", less("last_result_ms"));
    told.claim("fixed stalls for less", less("longest_stall_ms"));
}
