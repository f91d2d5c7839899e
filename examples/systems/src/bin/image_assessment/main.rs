//! An image assessment service: for each picture it asks whether the assessor
//! knows it, reserves the tokens it will cost, and sends it in base64.
//!
//! `cargo run --release -p stallscope-systems --bin image_assessment`
//!
//! Planted, all in `broken.rs` but for the decoding, which is in `tokens.rs`:
//!
//! | fault | what it is told to be |
//! |---|---|
//! | `reading` a picture from disk | File I/O |
//! | `decoding` it, for the tokens it will cost | Event Loop Blocking (CPU) |
//! | `encoding` it in base64 | Event Loop Blocking (CPU) |
//!
//! All pictures are assessed at once, each in a task of its own, on one worker, as
//! in a container with one CPU: what blocks in one of them holds up all. The fixed
//! version moves all three to `spawn_blocking`.

mod assessor;
mod broken;
mod fixed;
mod tokens;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use stallscope::spawn_named;
use stallscope_systems::args::Version;
use stallscope_systems::pictures::{Folder, forget, picture};
use stallscope_systems::server::Server;
use stallscope_systems::stage::{Observed, tell, watch};
use stallscope_systems::system::System;
use stallscope_systems::verdict::{RunVerdict, Told};
use stallscope_systems::{Failure, planted, say};
use tokio::runtime::Builder;

use crate::assessor::Assessor;

const PICTURES: u32 = 3;
/// 8 megapixels, as from a camera.
const SIZE: (u32, u32) = (3_200, 2_400);

fn main() -> ExitCode {
    System {
        name: env!("CARGO_BIN_NAME"),
        planted: &[
            planted!("reading", "broken.rs", FileIo),
            planted!("decoding", "tokens.rs", Cpu),
            planted!("encoding", "broken.rs", Cpu),
        ],
        run,
        compare,
    }
    .main()
}

fn make(folder: &Folder) -> Result<Vec<PathBuf>, Failure> {
    (1..=PICTURES)
        .map(|number| {
            let path = folder.path().join(format!("scan-{number}.png"));
            picture(SIZE.0, SIZE.1, number).save(&path)?;
            // Read from disk, as a picture is that was made yesterday.
            forget(&path)?;
            Ok(path)
        })
        .collect()
}

fn run(version: Version) -> Result<(Observed, Told), Failure> {
    say!("making {PICTURES} pictures of 12 megapixels");
    let folder = Folder::new("image-assessment")?;
    let pictures = make(&folder)?;
    let server = Server::start("assessor", assessor::router())?;
    let assessor = Assessor::new(server.url(""));
    let mut runtime = Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all();
    let (assessed, observed) = watch(&mut runtime, tell, |stage| {
        Ok(stage.runtime.block_on(async {
            let tasks: Vec<_> = pictures
                .into_iter()
                .map(|picture| match version {
                    Version::Broken => {
                        spawn_named("assess", broken::assess(assessor.clone(), picture))
                    }
                    Version::Fixed => {
                        spawn_named("assess", fixed::assess(assessor.clone(), picture))
                    }
                })
                .collect();
            let mut assessed = 0_u64;
            for task in tasks {
                match task.await.unwrap_or_else(|error| Err(error.into())) {
                    Ok(verdict) => {
                        assessed += 1;
                        say!("  {verdict}");
                    }
                    Err(error) => say!("  not assessed: {error}"),
                }
            }
            assessed
        }))
    })?;
    let mut told = Told::default();
    told.figure("assessed", assessed);
    told.claim("each picture is assessed", assessed == u64::from(PICTURES));
    let least = assessor::TAKES;
    told.claim("it takes as long as the assessor", observed.wall > least);
    if version == Version::Fixed && !cfg!(debug_assertions) {
        let most = Duration::from_secs(2);
        told.timed("it takes less than 2 s", observed.wall < most);
    }
    Ok((observed, told))
}

fn compare(broken: &RunVerdict, fixed: &RunVerdict, told: &mut Told) {
    let less = |name| fixed.number(name) < broken.number(name);
    told.timed("fixed is faster", less("wall_ms"));
    told.claim("fixed stalls for less", less("longest_stall_ms"));
    told.claim("fixed holds up others for less", less("heartbeat_late_ms"));
}
