//! What `#[stallscope::test]` expands to calls, which is not for direct use.
//!
//! The expansion builds the runtime, as which of its settings there are depends on
//! tokio's features in the crate that is tested. And it prints what does not fail a
//! test: so that is the test's own output, which its harness shows, captures and puts
//! beside the right test. A library that printed by itself, or told it as an event
//! without anybody who subscribes, would lose it.

#![allow(clippy::panic, reason = "a failed test is told by a panic")]

use std::any::Any;
use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::process::Termination;
use std::time::Duration;

pub use std::eprintln;
pub use tokio;

use crate::audit::allowance;
use crate::audit::builder::Audit;
use crate::audit::future::{Audited, Unfinished, Why};
use crate::audit::verdict::count_times;
use crate::blocking::Blocking;
use crate::escape::part;
use crate::report::{Report, Short};
use crate::stall::Stall;

/// What becomes of findings.
const VARIABLE: &str = "STALLSCOPE_FINDINGS";
/// So many places are shown as entries of an allow-list.
const MAX_ENTRIES: usize = 20;

/// A body of a test, without its type, so that a suite has one copy of the runtime's code.
pub type Body<'a, T> = Pin<&'a mut (dyn Future<Output = T> + 'a)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum OnFindings {
    Fail,
    Warn,
    /// The test is not audited at all.
    Off,
}

impl OnFindings {
    fn wanted() -> Result<Self, String> {
        let Some(value) = std::env::var_os(VARIABLE) else {
            return Ok(OnFindings::Fail);
        };
        match value.to_str() {
            Some("fail" | "") => Ok(OnFindings::Fail),
            Some("warn") => Ok(OnFindings::Warn),
            Some("off") => Ok(OnFindings::Off),
            _ => Err(format!(
                "the environment variable {VARIABLE} is {value:?}; it can be `fail`, `warn` or `off`"
            )),
        }
    }
}

/// A test with its attribute's arguments.
#[derive(Debug)]
pub struct Test {
    name: &'static str,
    audit: Audit,
    no_blocking: bool,
}

/// How the body of a test ended, and what there is to say against it.
struct Ended<T> {
    outcome: Result<T, Box<dyn Any + Send>>,
    findings: Option<String>,
    /// Whether that fails the test.
    fails: bool,
    /// What was made use of, where that is asked for.
    allowed: Vec<String>,
}

impl Test {
    /// A test of this name, with the defaults.
    pub fn new(name: &'static str) -> Self {
        Test {
            name,
            audit: Audit::new().name(name),
            no_blocking: false,
        }
    }

    /// `Audit::under`.
    #[must_use]
    pub fn under(mut self, under: Duration) -> Self {
        self.audit = self.audit.under(under);
        self
    }

    /// Functions, each with the reason.
    #[must_use]
    #[track_caller]
    pub fn allow(mut self, functions: &[(&str, &str)]) -> Self {
        for (function, reason) in functions {
            self.audit = self.audit.allow(function, *reason);
        }
        self
    }

    /// `Audit::whole_runtime`.
    #[must_use]
    pub fn whole_runtime(mut self) -> Self {
        self.audit = self.audit.whole_runtime();
        self
    }

    /// Fails for blocking of any length, too.
    #[must_use]
    pub const fn no_blocking(mut self) -> Self {
        self.no_blocking = true;
        self
    }

    /// Runs a body to its end, and panics if there is something against it.
    ///
    /// `drive` has a runtime run a future, `tell` prints.
    #[track_caller]
    pub fn run<T: Termination>(
        self,
        body: Body<'_, T>,
        drive: impl FnOnce(Body<'_, ()>) -> io::Result<()>,
        tell: fn(&str),
    ) -> T {
        let name = self.name;
        let ended = self.end(body, drive);
        for allowed in &ended.allowed {
            tell(allowed);
        }
        match (ended.outcome, ended.findings) {
            (outcome, None) => outcome.unwrap_or_else(|payload| resume_unwind(payload)),
            (Ok(output), Some(findings)) if ended.fails => {
                // Its own error, which the harness would tell, would be lost by the panic.
                let _ = output.report();
                panic!("{findings}");
            }
            (Ok(output), Some(findings)) => {
                tell(&format!("warning: `{name}`: {findings}"));
                output
            }
            (Err(payload), Some(findings)) => {
                tell(&format!("besides, of `{name}`: {findings}"));
                resume_unwind(payload)
            }
        }
    }

    /// Runs a body that is expected to panic.
    ///
    /// A panic for what there is against it would make such a test pass: so it fails
    /// by returning.
    #[track_caller]
    pub fn run_to_panic(
        self,
        body: Body<'_, ()>,
        drive: impl FnOnce(Body<'_, ()>) -> io::Result<()>,
        tell: fn(&str),
    ) {
        let name = self.name;
        let ended = self.end(body, drive);
        for allowed in &ended.allowed {
            tell(allowed);
        }
        match ended.findings {
            Some(findings) if ended.fails => {
                let why = match ended.outcome {
                    Ok(()) => "",
                    Err(_) => {
                        "\n\nit panicked as it should, but without this: so that it fails, \
                         it does as if it had not panicked"
                    }
                };
                tell(&format!("`{name}`: {findings}{why}"));
                return;
            }
            Some(findings) => tell(&format!("warning: `{name}`: {findings}")),
            None => {}
        }
        ended
            .outcome
            .unwrap_or_else(|payload| resume_unwind(payload));
    }

    #[track_caller]
    fn end<T>(
        self,
        body: Body<'_, T>,
        drive: impl FnOnce(Body<'_, ()>) -> io::Result<()>,
    ) -> Ended<T> {
        let (on_findings, misread) = match OnFindings::wanted() {
            Ok(wanted) => (wanted, None),
            Err(misread) => (OnFindings::Fail, Some(misread)),
        };
        if on_findings == OnFindings::Off {
            let mut output = None;
            let driven = drive(pin!(async { output = Some(body.await) }));
            return match output {
                Some(output) => Ended {
                    outcome: Ok(output),
                    findings: None,
                    fails: false,
                    allowed: Vec::new(),
                },
                None => Ended::not_begun(not_driven(driven)),
            };
        }
        let (name, no_blocking) = (self.name, self.no_blocking);
        let auditing = self.audit.try_run(body);
        let mut ended = None;
        let driven = drive(pin!(async { ended = Some(auditing.await) }));
        let (outcome, report) = match ended {
            None => return Ended::not_begun(not_driven(driven)),
            Some(Ok(Audited { output, report })) => (Ok(output), report),
            Some(Err(Unfinished {
                why: Why::Panicked(payload),
                report,
                ..
            })) => (Err(payload), *report),
            Some(Err(unfinished)) => return Ended::not_begun(unfinished.to_string()),
        };
        let warns = on_findings == OnFindings::Warn;
        let against = against(&report, no_blocking);
        let findings: Vec<String> = misread.into_iter().chain(against).collect();
        Ended {
            outcome,
            findings: (!findings.is_empty()).then(|| findings.join("\n\n")),
            fails: !warns,
            allowed: if warns {
                allowed(&report, name)
            } else {
                Vec::new()
            },
        }
    }
}

impl<T> Ended<T> {
    /// A test that was not run fails, whatever becomes of findings.
    fn not_begun(why: String) -> Self {
        Ended {
            outcome: Err(Box::new(why.clone())),
            findings: Some(why),
            fails: true,
            allowed: Vec::new(),
        }
    }
}

fn not_driven(driven: io::Result<()>) -> String {
    match driven {
        Err(error) => format!("its runtime could not be built: {error}"),
        Ok(()) => "its runtime gave it up".to_owned(),
    }
}

/// What there is to say against a test, and how it could be let stand.
fn against(report: &Report, no_blocking: bool) -> Option<String> {
    let stalls = report.check_no_stalls().err();
    let blocking = no_blocking
        .then(|| report.check_no_blocking().err())
        .flatten();
    let texts: Vec<String> = [&stalls, &blocking]
        .into_iter()
        .flatten()
        .map(ToString::to_string)
        .collect();
    if texts.is_empty() {
        return None;
    }
    let mut text = texts.join("\n\n");
    let stacks_of_stalls = report.stalls().iter().map(Stall::stack);
    let stacks_of_blocking = report.blocking().iter().map(Blocking::stack);
    let mut entries: Vec<String> = Vec::new();
    let stacks = stacks_of_stalls.chain(stacks_of_blocking.filter(|_| no_blocking));
    for path in stacks.flatten().filter_map(allowance::path_of) {
        if !entries.contains(&path) && entries.len() < MAX_ENTRIES {
            entries.push(path);
        }
    }
    if !entries.is_empty() {
        text.push_str("\n\nto let it stand for now, say why in `allow`:");
    }
    for path in entries {
        let _ = write!(text, "\n  ({path:?}, \"..\"),");
    }
    Some(text)
}

fn allowed(report: &Report, name: &str) -> Vec<String> {
    let uses = report.allowed().iter().map(|allowed| {
        format!(
            "allowed in `{name}` {}, {} in all: {}",
            count_times(allowed.count()),
            Short(allowed.total()),
            part(allowed.reason()),
        )
    });
    uses.collect()
}
