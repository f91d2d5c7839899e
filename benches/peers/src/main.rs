//! What stallscope and its peers cost and detect, in the same run.
//!
//! `cargo run --release -p stallscope-peers` prints tables and writes them as JSON; see its
//! README. Each contender runs in processes of its own, which this one starts in turns.

// It is a program for people to look at.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod contender;
mod contenders;
mod cost;
mod detection;
mod instructions;
mod job;
mod proc;
mod scale;
mod show;
mod stats;
mod told;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::arguments::{Arguments, Part};
use crate::contender::Failure;
use crate::contenders::{BUILD, Entry, TABLE};
use crate::detection::Scenario;

/// How much of everything.
struct Extent {
    cost: cost::Extent,
    times: usize,
    scenarios: &'static [Scenario],
    /// How many, in how many rounds.
    tasks: &'static [(usize, usize)],
    polls: usize,
    workers: &'static [usize],
    span: Duration,
}

const FULL: Extent = Extent {
    cost: cost::Extent {
        rounds: 7,
        yields: 10_000,
        instructions: true,
    },
    times: 3,
    scenarios: &Scenario::ALL,
    tasks: &[(100, 3), (10_000, 3), (100_000, 3), (1_000_000, 1)],
    polls: 500_000,
    workers: &[1, 2, 8, 64],
    // Some work once a second.
    span: Duration::from_millis(1_100),
};

const QUICK: Extent = Extent {
    cost: cost::Extent {
        rounds: 3,
        // A debug build is for the tests.
        yields: if cfg!(debug_assertions) { 300 } else { 3_000 },
        instructions: false,
    },
    times: 1,
    scenarios: &[
        Scenario::Idle,
        Scenario::OneOfFour,
        Scenario::CurrentThread,
        Scenario::Below,
        Scenario::ManyMedium,
    ],
    tasks: &[(10_000, 1)],
    polls: 200_000,
    workers: &[64],
    span: Duration::from_millis(150),
};

/// All that is measured, as it is written to the file.
#[derive(Debug, Serialize)]
struct Measured {
    build: &'static str,
    quick: bool,
    cpus: usize,
    seconds: f64,
    cost: Option<Vec<cost::Row>>,
    detection: Option<Vec<detection::Row>>,
    tasks: Option<Vec<scale::tasks::Row>>,
    workers: Option<Vec<scale::workers::Row>>,
}

fn measure(arguments: &Arguments) -> Result<Measured, Failure> {
    let start = Instant::now();
    let extent = if arguments.quick { QUICK } else { FULL };
    let entries: Vec<&'static Entry> = TABLE
        .iter()
        .enumerate()
        .filter(|(index, entry)| *index == 0 || arguments.wants(entry.name))
        .map(|(_, entry)| entry)
        .collect();
    let mut measured = Measured {
        build: BUILD,
        quick: arguments.quick,
        cpus: std::thread::available_parallelism()?.get(),
        seconds: 0.0,
        cost: None,
        detection: None,
        tasks: None,
        workers: None,
    };
    if arguments.does(Part::Cost) {
        let rows = cost::measure(&entries, extent.cost)?;
        println!("{}\n", show::cost(&rows));
        measured.cost = Some(rows);
    }
    if arguments.does(Part::Detection) {
        let rows = detection::measure(&entries, extent.scenarios, extent.times)?;
        println!("{}\n", show::detection(&rows));
        measured.detection = Some(rows);
    }
    if arguments.does(Part::Scale) {
        let rows = scale::tasks::measure(&entries, extent.tasks, extent.polls)?;
        println!("{}\n", show::tasks(&rows));
        measured.tasks = Some(rows);
        let rows = scale::workers::measure(&entries, extent.workers, extent.span)?;
        println!("{}\n", show::workers(&rows));
        measured.workers = Some(rows);
    }
    measured.seconds = start.elapsed().as_secs_f64();
    Ok(measured)
}

fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, name, job] = &arguments[..]
        && first == job::CHILD
    {
        println!("{}", job::child(name, job)?);
        return Ok(());
    }
    let arguments = Arguments::parse(&arguments)?;
    if arguments.help {
        println!("{}", arguments::HELP);
        return Ok(());
    }
    let measured = measure(&arguments)?;
    let file = match arguments.json {
        Some(file) => file,
        None => std::env::current_exe()?.with_file_name(format!("peers-{BUILD}.json")),
    };
    std::fs::write(&file, serde_json::to_string_pretty(&measured)?)?;
    println!(
        "{} build, {} CPUs, {:.0} s; the same as JSON: {}",
        measured.build,
        measured.cpus,
        measured.seconds,
        file.display()
    );
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
