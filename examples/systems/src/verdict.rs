//! What a run has shown: a line of JSON for programs, a few lines for people.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::args::Version;
use crate::planted::{Blamed, Found, Planted, others, without_line};
use crate::say;
use crate::stage::Observed;

/// A number or a text.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Value {
    /// How many.
    Count(u64),
    /// Milliseconds, and whatever else is not whole.
    Number(f64),
    /// Anything else.
    Text(String),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Value::Count(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

impl From<Duration> for Value {
    fn from(duration: Duration) -> Self {
        Value::Number((duration.as_secs_f64() * 1e4).round() / 10.0)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Count(count) => f.pad(&count.to_string()),
            Value::Number(number) => f.pad(&format!("{number:.0}")),
            Value::Text(text) => f.pad(text),
        }
    }
}

/// Something that should hold.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// In words.
    pub claim: String,
    /// Whether it does.
    pub holds: bool,
    /// It is of times that a busy machine may make longer.
    pub timed: bool,
}

/// What a system itself has to say of a run.
#[derive(Debug, Default)]
pub struct Told {
    figures: Vec<(&'static str, Value)>,
    claims: Vec<Claim>,
}

impl Told {
    /// A figure to show; names end in their unit.
    pub fn figure(&mut self, name: &'static str, value: impl Into<Value>) {
        self.figures.push((name, value.into()));
    }

    /// Something that should hold.
    pub fn claim(&mut self, claim: impl Into<String>, holds: bool) {
        self.push(claim.into(), holds, false);
    }

    /// Something that should hold where nothing else keeps the machine busy.
    pub fn timed(&mut self, claim: impl Into<String>, holds: bool) {
        self.push(claim.into(), holds, true);
    }

    fn push(&mut self, claim: String, holds: bool, timed: bool) {
        self.claims.push(Claim {
            claim,
            holds,
            timed,
        });
    }
}

/// What one run has shown.
#[derive(Debug, Serialize)]
pub struct RunVerdict {
    kind: &'static str,
    /// Its name.
    pub system: &'static str,
    /// How it was written.
    pub version: Version,
    /// Whether all that should hold does, but for times.
    pub passed: bool,
    /// In the order in which they were told.
    #[serde(serialize_with = "as_object")]
    pub figures: Vec<(&'static str, Value)>,
    /// What was planted; nothing where it is fixed.
    pub planted: Vec<Found>,
    /// What else was blamed on the system, above MONITOR.
    pub blamed: Vec<Blamed>,
    /// What was told above MONITOR without a line.
    pub unnamed: Vec<Blamed>,
    /// What should hold.
    pub claims: Vec<Claim>,
}

fn as_object<S: Serializer>(
    figures: &[(&'static str, Value)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|(name, value)| (name, value)))
}

impl RunVerdict {
    /// Weighs what was seen from outside and what the system tells.
    pub fn new(
        system: &'static str,
        version: Version,
        planted: &[Planted],
        observed: &Observed,
        mut told: Told,
    ) -> Self {
        let planted = match version {
            Version::Broken => planted,
            Version::Fixed => &[],
        };
        let report = &observed.report;
        let found: Vec<_> = planted.iter().map(|fault| fault.find(report)).collect();
        let blamed = others(report, planted);
        for found in &found {
            told.claim(format!("{} is found", found.name), found.found);
        }
        told.claim("nothing else is blamed above MONITOR", blamed.is_empty());
        let unnamed = without_line(report);
        told.timed("whatever is above MONITOR has a line", unnamed.is_empty());
        let mut figures = vec![
            ("wall_ms", observed.wall.into()),
            ("cpu_ms", observed.cpu.into()),
            ("rss_mib", (observed.rss_kib >> 10).into()),
            ("heartbeat_late_ms", observed.late.into()),
            ("stalls", report.stalls().len().into()),
            (
                "longest_stall_ms",
                report
                    .stalls()
                    .iter()
                    .map(stallscope::Stall::duration)
                    .max()
                    .unwrap_or_default()
                    .into(),
            ),
            ("score", u64::from(report.score()).into()),
        ];
        figures.append(&mut told.figures);
        RunVerdict {
            kind: "run",
            system,
            version,
            passed: pass(&told.claims),
            figures,
            planted: found,
            blamed,
            unnamed,
            claims: told.claims,
        }
    }

    /// A figure, if it is a number.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.figures.iter().find_map(|(figure, value)| match value {
            Value::Count(count) if *figure == name => Some(*count as f64),
            Value::Number(number) if *figure == name => Some(*number),
            _ => None,
        })
    }

    /// For people.
    pub fn show(&self) {
        for found in &self.planted {
            if found.found {
                say!(
                    "  found   {}: {} {}, {}, {} times, longest {:.0} ms, at {}",
                    found.name,
                    found.severity,
                    found.category,
                    found.cause,
                    found.stalls,
                    found.longest_ms,
                    found.culprit
                );
            } else {
                say!("  MISSED  {}, planted at {}", found.name, found.planted);
            }
        }
        for blamed in &self.blamed {
            say!("  BLAMED  {} ({})", blamed.stall, blamed.category);
        }
        for unnamed in &self.unnamed {
            say!("  no line {} ({})", unnamed.stall, unnamed.category);
        }
        show(&self.claims);
    }
}

/// Times alone fail nobody: the machine may be busy with something else.
fn pass(claims: &[Claim]) -> bool {
    claims.iter().all(|claim| claim.holds || claim.timed)
}

/// Claims that do not hold stand out.
fn show(claims: &[Claim]) {
    for claim in claims {
        let verdict = match (claim.holds, claim.timed) {
            (true, _) => "holds",
            (false, true) => "LATE",
            (false, false) => "FAILS",
        };
        say!("  {verdict:<7} {}", claim.claim);
    }
}

/// Two runs side by side.
#[derive(Debug, Serialize)]
pub struct Comparison {
    kind: &'static str,
    /// Their system.
    pub system: &'static str,
    /// Whether all that should hold does, but for times.
    pub passed: bool,
    /// What should hold between the two.
    pub claims: Vec<Claim>,
}

impl Comparison {
    /// Of what should hold between them.
    pub fn new(system: &'static str, told: Told) -> Self {
        Comparison {
            kind: "comparison",
            system,
            passed: pass(&told.claims),
            claims: told.claims,
        }
    }

    /// For people, with the figures of both.
    pub fn show(&self, broken: &RunVerdict, fixed: &RunVerdict) {
        say!("  {:<24} {:>14} {:>14}", "", "broken", "fixed");
        for (name, value) in &broken.figures {
            let other = fixed.figures.iter().find(|(other, _)| other == name);
            let other = other.map(|(_, value)| value.to_string());
            say!(
                "  {name:<24} {value:>14} {:>14}",
                other.as_deref().unwrap_or("-")
            );
        }
        for (name, value) in &fixed.figures {
            if broken.figures.iter().all(|(other, _)| other != name) {
                say!("  {name:<24} {:>14} {value:>14}", "-");
            }
        }
        show(&self.claims);
    }
}
