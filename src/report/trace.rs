//! For people's own viewers: folded stacks, and a trace of stalls.

use std::collections::BTreeMap;

use serde_json::json;

use crate::escape::{self, part};
use crate::report::Report;
use crate::stall::{Frame, Stack, Stall};

impl Report {
    /// Stacks as flame graph tools read them: `outer;inner weight`, a line each.
    ///
    /// The weight is how long stalls held their threads up there, in microseconds.
    pub fn to_folded(&self) -> String {
        let mut folded: BTreeMap<String, u128> = BTreeMap::new();
        for stall in &self.stalls {
            for place in stall.places() {
                let names = path(place.stack()).map(|name| name.replace(';', ":"));
                let names: Vec<String> = names.collect();
                let us: &mut u128 = folded.entry(names.join(";")).or_default();
                *us = us.saturating_add(place.time().as_micros());
            }
        }
        let lines = folded.iter().map(|(names, us)| format!("{names} {us}\n"));
        lines.collect()
    }

    /// The stalls as a trace that Perfetto and `chrome://tracing` show: a row for
    /// each worker of each process.
    pub fn to_chrome_trace(&self) -> String {
        let events = self.stalls.iter().map(|stall| {
            json!({
                "name": stall.culprit_name(),
                "cat": stall.severity().to_string(),
                "ph": "X",
                "ts": stall.start_ns as f64 / 1e3,
                "dur": stall.duration_ns as f64 / 1e3,
                "pid": self.pid_of(stall),
                "tid": stall.worker().map_or(-1, |worker| worker as i64),
                "args": {
                    "stall": stall.to_string(),
                    "cause": stall.cause().to_string(),
                    "task": stall.task().map(|task| part(task.name()).to_string()),
                    "places": stall.places().map(|place| json!({
                        "at": stall.name_of(Some(place.stack())),
                        "cause": place.cause().to_string(),
                        "ms": place.time().as_micros() as f64 / 1e3,
                        "samples": place.samples(),
                    })).collect::<Vec<_>>(),
                },
            })
        });
        let names = self.origins.iter().map(|origin| {
            json!({
                "name": "process_name", "ph": "M", "pid": origin.pid(),
                "args": {"name": origin.named()},
            })
        });
        escape::json(json!({"traceEvents": names.chain(events).collect::<Vec<_>>()}).to_string())
    }

    fn pid_of(&self, stall: &Stall) -> u32 {
        let origin = self
            .origins
            .iter()
            .find(|origin| origin.id() == stall.origin);
        origin.map_or(0, |origin| origin.pid())
    }
}

/// The functions of a stack for people, the outermost first.
pub(crate) fn path(stack: &Stack) -> impl Iterator<Item = String> {
    stack.frames().iter().rev().map(name)
}

/// The same without what runs the user's functions: those of the user, the
/// outermost first, then all that the innermost of them called.
pub(crate) fn path_of_users(stack: &Stack) -> impl Iterator<Item = String> {
    let culprit = stack.culprit.unwrap_or(0);
    // Without symbols nobody knows whose functions they are.
    let shows_all = stack.culprit.is_none() && !stack.has_names();
    let frames = stack.frames().iter().enumerate().rev();
    let shown = frames.filter(move |(at, _)| shows_all || *at <= culprit || stack.is_users(*at));
    let mut before = None;
    shown.filter_map(move |(_, frame)| {
        let name = name(frame);
        // An async function and the blocks in it are functions of one name.
        let again = before.replace(name.clone()) == Some(name.clone());
        (!again).then_some(name)
    })
}

fn name(frame: &Frame) -> String {
    match frame.function() {
        Some(_) => frame.shown_function(),
        // To be symbolized later, elsewhere: `addr2line` takes the address as it is.
        None => part(&frame.to_string()).to_string(),
    }
}
