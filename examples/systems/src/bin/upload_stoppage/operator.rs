//! Who is told while the job is stuck, looks, and ends it when enough is known.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stallscope::{Phase, Severity, Stack, StallEvent};
use stallscope_systems::server::Server;
use stallscope_systems::usage::Usage;
use stallscope_systems::{Failure, say};

use crate::board::{Board, Step};
use crate::{BATCH, PERMITS};

/// Stoppages to look at; at the last, which would never end, the store is stopped.
const STOPPAGES: usize = 2;
/// When the store is stopped in any case.
const PATIENCE: Duration = Duration::from_secs(35);

/// What could be seen while the job was stuck.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    /// Since the job began.
    pub(crate) after: Duration,
    /// Whether the library told the line and the cause then.
    pub(crate) has_line: bool,
    /// Items that could go on, but are not polled.
    pub(crate) waiting: usize,
    /// What the semaphore had left.
    pub(crate) permits: usize,
    pub(crate) usage: Usage,
}

/// A thread, since no task of the runtime could do it.
#[derive(Debug)]
pub(crate) struct Operator(JoinHandle<Vec<Diagnosis>>);

impl Operator {
    /// Is told of stalls until nobody tells any more.
    pub(crate) fn start(
        events: Receiver<StallEvent>,
        store: Server,
        board: Arc<Board>,
    ) -> Result<Self, Failure> {
        let thread = std::thread::Builder::new()
            .name("operator".to_owned())
            .spawn(move || attend(&events, store, &board))?;
        Ok(Operator(thread))
    }

    /// What it has seen.
    pub(crate) fn end(self) -> Result<Vec<Diagnosis>, Failure> {
        self.0.join().map_err(|_| "the operator has failed".into())
    }
}

fn attend(events: &Receiver<StallEvent>, store: Server, board: &Board) -> Vec<Diagnosis> {
    let give_up = Instant::now() + PATIENCE;
    let mut store = Some(store);
    let mut diagnoses = Vec::new();
    loop {
        let event = match events.recv_timeout(give_up.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Disconnected) => return diagnoses,
            Err(RecvTimeoutError::Timeout) => {
                drop(store.take());
                match events.recv() {
                    Ok(event) => event,
                    Err(_) => return diagnoses,
                }
            }
        };
        if event.phase == Phase::Escalated && event.stall.severity() == Severity::Critical {
            diagnoses.push(diagnose(&event, board));
            if diagnoses.len() == STOPPAGES {
                say!("  the store is stopped: its connections close, and the job goes on");
                drop(store.take());
            }
        }
    }
}

fn diagnose(event: &StallEvent, board: &Board) -> Diagnosis {
    let stall = &event.stall;
    let now = Instant::now();
    let mut waiting = 0;
    let mut uploading = 0;
    for (item, step) in board.items() {
        match step {
            Step::Uploading { since } => {
                uploading += 1;
                say!("    item {item} has been uploading for {:.1?}", now - since);
            }
            Step::Generating { until } if until < now => {
                waiting += 1;
                say!(
                    "    item {item} waits: it could go on since {:.1?}",
                    now - until
                );
            }
            _ => {}
        }
    }
    let permits = board.permits.available_permits();
    say!(
        "    semaphore: {permits} of {PERMITS} permits left, {} in use; a batch is {BATCH}",
        waiting + uploading
    );
    let usage = Usage::now();
    say!(
        "    process: {:.1?} of CPU time so far, {} MiB resident",
        usage.cpu,
        usage.rss_kib >> 10
    );
    Diagnosis {
        after: board.begun.elapsed(),
        has_line: stall.stack().and_then(Stack::culprit).is_some()
            && stall.cause().to_string().contains("recv"),
        waiting,
        permits,
        usage,
    }
}
