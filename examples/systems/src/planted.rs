//! Faults that are planted in a system, and whether a report has found them.
//!
//! A fault is a statement below a comment `// fault: NAME` in the source, or several
//! below the same comment. The source itself is read for its lines, so that they
//! stay true while code moves.

use std::ops::RangeInclusive;

use serde::Serialize;
use stallscope::{Cause, Report, RiskCategory, Severity, Stack, Stall};

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Planted {
    /// As in the comment.
    pub name: &'static str,
    /// The end of the source file's path.
    pub file: &'static str,
    /// Its text.
    pub source: &'static str,
    /// What kind of risk it should be told to be.
    pub category: RiskCategory,
    /// What its cause should have in it, like `recv`; empty for any.
    pub cause: &'static str,
}

/// A fault of a file beside this one: `planted!("reading", "broken.rs", FileIo)`.
#[macro_export]
macro_rules! planted {
    ($name:literal, $file:literal, $category:ident) => {
        $crate::planted!($name, $file, $category, "")
    };
    ($name:literal, $file:literal, $category:ident, $cause:literal) => {
        $crate::planted::Planted {
            name: $name,
            file: concat!(env!("CARGO_BIN_NAME"), "/", $file),
            source: include_str!($file),
            category: stallscope::RiskCategory::$category,
            cause: $cause,
        }
    };
}

/// What became of a fault.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Found {
    /// The fault's.
    pub name: String,
    /// Whether a stall has its line, its category and its cause, or its line and
    /// was for want of a CPU.
    pub found: bool,
    /// Where it was planted.
    pub planted: String,
    /// Where the worst such stall was seen.
    pub culprit: String,
    /// As reports call it.
    pub category: String,
    /// Of the worst such stall.
    pub cause: String,
    /// Of the worst such stall.
    pub severity: String,
    /// How many stalls there were of it.
    pub stalls: usize,
    /// How long the longest has lasted.
    pub longest_ms: f64,
}

/// Something else that was blamed on the system, above MONITOR.
#[derive(Clone, Debug, Serialize)]
pub struct Blamed {
    /// All that is known of it.
    pub stall: String,
    /// As reports call it.
    pub category: String,
}

impl Planted {
    /// The lines of the statements below the comment.
    fn places(&self) -> impl Iterator<Item = RangeInclusive<usize>> {
        let mark = format!("// fault: {}", self.name);
        let lines = self.source.lines().enumerate();
        let marked = lines.filter(move |(_, line)| line.trim() == mark);
        marked.filter_map(|(index, _)| self.statement_below(index + 1))
    }

    /// The lines of the statement that begins below this one.
    fn statement_below(&self, line: usize) -> Option<RangeInclusive<usize>> {
        let mut statement = (1..)
            .zip(self.source.lines())
            .skip(line)
            .skip_while(|(_, line)| line.trim().starts_with("//"))
            .take_while(|(_, line)| !line.trim().starts_with('}'));
        let (first, text) = statement.next()?;
        let ends = |line: &str| line.ends_with([';', '{']);
        let mut last = first;
        if !ends(text) {
            for (number, line) in statement {
                last = number;
                if ends(line) {
                    break;
                }
            }
        }
        Some(first..=last)
    }

    /// Whether a stall is at this place.
    fn is_at(&self, stall: &Stall) -> bool {
        let Some(culprit) = stall.stack().and_then(Stack::culprit) else {
            return false;
        };
        let line = culprit.line().and_then(|line| usize::try_from(line).ok());
        culprit.file().is_some_and(|file| file.ends_with(self.file))
            && line.is_some_and(|line| self.places().any(|lines| lines.contains(&line)))
    }

    /// Whether a stall is told as this fault should be.
    ///
    /// On a busy machine what it did may rightly be told to be waiting for a CPU.
    fn is_told_by(&self, stall: &Stall) -> bool {
        self.is_at(stall)
            && (is_machines(stall)
                || stall.advice().category == self.category
                    && stall.cause().to_string().contains(self.cause))
    }

    /// Whether, and how, a report has it.
    pub fn find(&self, report: &Report) -> Found {
        let planted = match self.places().next() {
            Some(lines) => format!("{}:{}", self.file, lines.start()),
            None => format!("{}: not marked", self.file),
        };
        let stalls: Vec<_> = report
            .stalls()
            .iter()
            .filter(|stall| self.is_told_by(stall))
            .collect();
        let best = |stall: &&&Stall| (!is_machines(stall), stall.duration());
        let Some(worst) = stalls.iter().max_by_key(best) else {
            return Found {
                name: self.name.to_owned(),
                planted,
                ..Found::default()
            };
        };
        Found {
            name: self.name.to_owned(),
            found: true,
            planted,
            culprit: place(worst),
            category: worst.advice().category.to_string(),
            cause: worst.cause().to_string(),
            severity: worst.severity().to_string(),
            stalls: stalls.len(),
            longest_ms: worst.duration().as_secs_f64() * 1e3,
        }
    }
}

/// What a report blames on lines of the system above MONITOR, but was not planted.
pub fn others(report: &Report, planted: &[Planted]) -> Vec<Blamed> {
    severe(report)
        .filter(|stall| stall.stack().and_then(Stack::culprit).is_some())
        .filter(|stall| !planted.iter().any(|fault| fault.is_at(stall)))
        .filter(|stall| !is_of_many_polls(stall))
        .map(blamed)
        .collect()
}

/// What a report has above MONITOR without a line: on a busy machine what is left of
/// a turn after a watched poll may be told so, and a poll that was held up itself.
pub fn without_line(report: &Report) -> Vec<Blamed> {
    severe(report)
        .filter(|stall| stall.stack().and_then(Stack::culprit).is_none())
        .map(blamed)
        .collect()
}

fn blamed(stall: &Stall) -> Blamed {
    Blamed {
        stall: stall.to_string(),
        category: stall.advice().category.to_string(),
    }
}

fn severe(report: &Report) -> impl Iterator<Item = &Stall> {
    report
        .stalls()
        .iter()
        .filter(|stall| stall.severity() > Severity::Monitor && !is_machines(stall))
}

/// Whether it is the machine's fault, not the system's.
fn is_machines(stall: &Stall) -> bool {
    matches!(stall.cause(), Cause::Starved | Cause::Suspended)
}

/// Whether it is known to be a turn of polls of which none was long. What is left to do
/// after a freeze can be one: its line is one of those it came by.
fn is_of_many_polls(stall: &Stall) -> bool {
    stall.known_polls().is_some_and(|polls| polls > 1) && stall.is_one_poll().is_none()
}

/// Function, file and line.
fn place(stall: &Stall) -> String {
    let Some(culprit) = stall.stack().and_then(Stack::culprit) else {
        return String::new();
    };
    let file = culprit.file().and_then(|file| file.rsplit('/').next());
    format!(
        "{} {}:{}",
        culprit.short_function(),
        file.unwrap_or("?"),
        culprit.line().unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_below_the_mark_is_the_fault() {
        let fault = |name, source| Planted {
            name,
            file: "a.rs",
            source,
            category: RiskCategory::Cpu,
            cause: "",
        };
        let source = "fn a() {\n    // fault: one\n    x();\n    // fault: two\n    // Why.\n    x(\n        y,\n    );\n    // fault: three\n    y();\n    // fault: one\n    z()\n}\n";
        let places = |name| fault(name, source).places().collect::<Vec<_>>();
        assert_eq!(places("one"), [3..=3, 12..=12]);
        assert_eq!(places("two"), [6..=8]);
        assert_eq!(places("three"), [10..=10]);
        assert_eq!(places("four"), []);
    }
}
