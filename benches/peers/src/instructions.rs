//! Instructions a poll, counted by valgrind: they repeat where times do not.
//!
//! As in the library's own `benches/poll_instructions.rs`, two runs differ in nothing but the
//! number of polls. Only the thread that polls counts, while it polls: clocks that are calibrated
//! at the start differ from run to run. What is left to other threads is seen as CPU time.

use std::process::Command;

use serde::Serialize;

use crate::contender::Failure;
use crate::contenders::Entry;
use crate::cost::{Job, Row};
use crate::job;

const TASKS: usize = 64;
const WARM: u64 = 20;
const FEW: u64 = 50;
const MANY: u64 = 550;

/// A poll's, with what tokio does for it.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Instructions {
    pub a_poll: f64,
    /// To bare.
    pub added: f64,
    /// Added, to what stallscope's like mode adds.
    pub added_to_like: Option<f64>,
}

/// Fills in what can be counted; nothing where there is no valgrind.
pub(crate) fn count(entries: &[&'static Entry], rows: &mut [Row]) -> Result<(), Failure> {
    let mut each = Vec::new();
    for entry in entries {
        let (Some(few), Some(many)) = (collected(entry, FEW)?, collected(entry, MANY)?) else {
            return Ok(());
        };
        let polls = (MANY - FEW) * TASKS as u64;
        each.push((many as f64 - few as f64) / polls as f64);
    }
    let of = |name: &str| {
        let index = entries.iter().position(|entry| entry.name == name)?;
        each.get(index)
    };
    let Some(bare) = each.first() else {
        return Ok(());
    };
    for ((row, entry), a_poll) in rows.iter_mut().zip(entries).zip(&each) {
        let added = a_poll - bare;
        let like = entry.like.mode().and_then(of).map(|like| like - bare);
        row.instructions = Some(Instructions {
            a_poll: *a_poll,
            added,
            added_to_like: like.filter(|like| *like > 1.0).map(|like| added / like),
        });
    }
    Ok(())
}

/// All instructions of one child.
fn collected(entry: &Entry, yields: u64) -> Result<Option<u64>, Failure> {
    let job = job::Job::Cost(Job {
        workers: None,
        tasks: TASKS,
        yields,
        warm_yields: WARM,
        by_poll_only: true,
    });
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*stallscope_peers::cost::round*")
        .arg(std::env::current_exe()?)
        .args(job::arguments(entry, &job)?)
        .env("HOTPATH_METRICS_SERVER_OFF", "1")
        .output();
    let Ok(output) = output else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(&output.stderr);
    let count = text
        .lines()
        .find(|line| line.contains("Collected :"))
        .and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .filter(|count| *count > 0 && output.status.success());
    match count {
        Some(count) => Ok(Some(count)),
        None => Err(format!("{} under valgrind: {text}", entry.name).into()),
    }
}
