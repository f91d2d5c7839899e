//! The report for a terminal, or a log.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use crate::escape::{Visible, part, prose, sentence};
use crate::histogram::Summary;
use crate::os;
use crate::report::{Hotspot, Report, score};
use crate::severity::Severity;
use crate::stall::{Frame, Stack};

/// Columns where nobody tells how many there are.
const COLUMNS: usize = 100;
/// What numbers take of a line, and what is left for names at least.
const NUMBERS: usize = 63;
const NARROWEST: usize = 20;
/// Rows of each table; what is left out is said.
const MAX_ROWS: usize = 20;
/// Findings that are told what to do about.
const MAX_FIXES: usize = 5;

/// How it is shown.
#[derive(Clone, Copy, Debug)]
struct Style {
    columns: usize,
    colour: bool,
}

impl Style {
    const PLAIN: Style = Style {
        columns: COLUMNS,
        colour: false,
    };

    /// As fits standard output: see <https://no-color.org>.
    fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let columns = set("COLUMNS").and_then(|columns| columns.to_str()?.parse().ok());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Style {
            columns: columns.or_else(os::terminal_columns).unwrap_or(COLUMNS),
            colour: std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb,
        }
    }

    fn paint(self, severity: Severity, text: &str) -> String {
        let code = match severity {
            Severity::Critical => "1;31",
            Severity::High => "31",
            Severity::Medium => "33",
            Severity::Monitor => "36",
        };
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

impl Report {
    /// The report for standard output: as wide as the terminal is, and in colour if
    /// it is one and `NO_COLOR` is not set.
    ///
    /// `Display` itself is plain, and made for 100 columns.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let watchdog = stallscope::Watchdog::start().unwrap();
    /// println!("{}", watchdog.report().terminal());
    /// # }
    /// ```
    pub fn terminal(&self) -> impl fmt::Display + '_ {
        Shown {
            report: self,
            style: Style::of_stdout(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let style = Style::PLAIN;
        fmt::Display::fmt(
            &Shown {
                report: self,
                style,
            },
            f,
        )
    }
}

/// A duration in at most 8 characters.
pub(crate) struct Short(pub(crate) Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0.as_nanos() {
            0 => "0".to_owned(),
            1..1_000 => format!("{} ns", self.0.as_nanos()),
            1_000..1_000_000 => format!("{:.1} us", self.0.as_secs_f64() * 1e6),
            1_000_000..1_000_000_000 => format!("{:.1} ms", self.0.as_secs_f64() * 1e3),
            _ => format!("{:.2} s", self.0.as_secs_f64()),
        };
        f.pad(&text)
    }
}

struct Shown<'a> {
    report: &'a Report,
    style: Style,
}

/// Of what is not sure so many are shown.
const MAX_UNSURE: usize = 5;

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        self.headline(f)?;
        for stall in report.stalls.iter().filter(|stall| stall.is_ongoing()) {
            writeln!(f, "  now: {stall}")?;
        }
        let width = self.name_width();
        self.hotspots(f, width)?;
        self.fixes(f)?;
        self.polls(f, width)?;
        self.blocking(f, width)?;
        if report.forgotten > 0 {
            write!(
                f,
                "\n  {} older stalls are in the sums only",
                report.forgotten
            )?;
        }
        for stall in report.unsure.iter().take(MAX_UNSURE) {
            write!(f, "\n  not sure, in one poll or in many: {stall}")?;
        }
        if report.unaudited > 0 {
            write!(
                f,
                "\n  tasks that were spawned and not audited, at least: {}",
                report.unaudited
            )?;
        }
        if let Some(reason) = report.health.no_stacks() {
            write!(f, "\n  some stacks are missing: {}", sentence(reason))?;
        }
        Ok(())
    }
}

impl Shown<'_> {
    fn headline(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        let plural = |number: usize| if number == 1 { "" } else { "s" };
        let stalls = report.counts.total();
        write!(
            f,
            "{stalls} stall{} in {} on {} worker{}",
            plural(usize::try_from(stalls).unwrap_or(usize::MAX)),
            Short(report.watched_for()),
            report.workers,
            plural(report.workers),
        )?;
        for severity in Severity::ALL.into_iter().rev() {
            let count = report.counts.of(severity);
            if count > 0 {
                let name = self.style.paint(severity, &severity.to_string());
                write!(f, ", {name} {count}")?;
            }
        }
        writeln!(f, "; score {} of 10", score::score(report).value)
    }

    /// As wide as the longest name, as far as there is room.
    fn name_width(&self) -> usize {
        let report = self.report;
        let names = report.hotspots.iter().map(|hotspot| &hotspot.culprit);
        let names = names.chain(report.tasks.iter().map(|task| &task.name));
        let room = self.style.columns.saturating_sub(NUMBERS).max(NARROWEST);
        let longest = names.map(|name| elide(name, room).chars().count());
        let longest = longest.chain(["event loop lag".len()]).max();
        longest.unwrap_or(0).min(room)
    }

    fn hotspots(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let hotspots = &self.report.hotspots;
        if hotspots.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n  {:<width$} {:>10} {:>9} {:>9}  worst",
            "held up by", "stalls", "longest", "in all"
        )?;
        for hotspot in hotspots.iter().take(MAX_ROWS) {
            let worst = hotspot.counts.worst();
            writeln!(
                f,
                "  {:<width$} {:>10} {:>9} {:>9}  {}",
                elide(&hotspot.culprit, width),
                hotspot.counts.total(),
                Short(hotspot.max()),
                Short(hotspot.total()),
                worst
                    .map(|worst| self.style.paint(worst, &worst.to_string()))
                    .unwrap_or_default(),
            )?;
        }
        left_out(f, hotspots.len())
    }

    fn fixes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hotspots = &self.report.hotspots;
        if hotspots.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n  what to do")?;
        for hotspot in hotspots.iter().take(MAX_FIXES) {
            self.fix(f, hotspot)?;
        }
        Ok(())
    }

    fn fix(&self, f: &mut fmt::Formatter<'_>, hotspot: &Hotspot) -> fmt::Result {
        let columns = self.style.columns.max(40);
        writeln!(f, "  - {}", elide(&hotspot.culprit, columns - 4))?;
        let mut line = String::new();
        let mut advice = prose(&hotspot.advice.short);
        if let Some(holder) = hotspot.held_by() {
            advice = format!("it was held by {holder}; {advice}");
        }
        for word in advice.split(' ') {
            let word = elide(word, columns - 4);
            if !line.is_empty() && line.chars().count() + word.chars().count() + 5 > columns {
                writeln!(f, "    {line}")?;
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&word);
        }
        writeln!(f, "    {line}")
    }

    fn polls(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let report = self.report;
        writeln!(
            f,
            "\n  {:<width$} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "polls of", "count", "p50", "p99", "p99.9", "max", "in all"
        )?;
        for task in report.tasks.iter().take(MAX_ROWS) {
            summary_row(f, &elide(&task.name, width), width, &task.polls)?;
            writeln!(f)?;
            if task.delays.count() > 0 {
                summary_row(f, "  woken to polled", width, &task.delays)?;
                writeln!(f)?;
            }
        }
        left_out(f, report.tasks.len())?;
        if report.detection.is_none() {
            // A stall counts for each sample that it has kept from being taken: a sum of
            // these is no time that has passed.
            cells(f, "event loop lag", width, &report.lag, false)?;
        }
        if report.blocking_waits.count() > 0 {
            writeln!(f)?;
            summary_row(f, "blocking pool", width, &report.blocking_waits)?;
        }
        Ok(())
    }

    /// What only an audit knows.
    fn blocking(&self, f: &mut fmt::Formatter<'_>, width: usize) -> fmt::Result {
        let report = self.report;
        if !report.blocking.is_empty() {
            writeln!(
                f,
                "\n  {:<width$} {:>10} {:>9} {:>9} {:>9}",
                "blocked", "count", "sleeps", "longest", "in all"
            )?;
        }
        for blocking in report.blocking.iter().take(MAX_ROWS) {
            let culprit = blocking.stack().and_then(Stack::culprit);
            let place = culprit.map_or_else(|| blocking.task.name.clone(), Frame::short);
            writeln!(
                f,
                "  {:<width$} {:>10} {:>9} {:>9} {:>9}  {}",
                elide(&place, width),
                blocking.count,
                blocking.sleeps,
                Short(blocking.max()),
                Short(blocking.total()),
                blocking.cause,
            )?;
        }
        left_out(f, report.blocking.len())?;
        for allowed in report.allowed.iter().take(MAX_ROWS) {
            writeln!(
                f,
                "  allowed {} times, {} in all, at {}: {}",
                allowed.count,
                Short(allowed.total()),
                allowed.location,
                part(&allowed.reason)
            )?;
        }
        left_out(f, report.allowed.len())
    }
}

fn summary_row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    width: usize,
    summary: &Summary,
) -> fmt::Result {
    cells(f, name, width, summary, true)
}

fn cells(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    width: usize,
    summary: &Summary,
    has_total: bool,
) -> fmt::Result {
    write!(f, "  {name:<width$} {:>10}", summary.count())?;
    for duration in [summary.p50(), summary.p99(), summary.p99_9(), summary.max()] {
        write!(f, " {:>9}", Short(duration))?;
    }
    if has_total {
        write!(f, " {:>9}", Short(summary.total()))?;
    }
    Ok(())
}

fn left_out(f: &mut fmt::Formatter<'_>, all: usize) -> fmt::Result {
    match all.checked_sub(MAX_ROWS) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(f, "  and {more} more"),
    }
}

/// At most so many characters: of what is longer, beginning and end.
fn elide(text: &str, width: usize) -> String {
    Visible::within(text, width).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(elide("short", 9), "short");
        assert_eq!(
            elide("a::very::long::name src/x.rs:7", 16),
            "a::ve\u{2026}src/x.rs:7"
        );
        assert_eq!(elide("ab\x1b[31m", 20), "ab\\u{1b}[31m");
    }

    #[test]
    fn colour_is_for_terminals_only() {
        let colour = Style {
            columns: 80,
            colour: true,
        };
        assert_eq!(colour.paint(Severity::High, "HIGH"), "\x1b[31mHIGH\x1b[0m");
        assert_eq!(Style::PLAIN.paint(Severity::High, "HIGH"), "HIGH");
        // Tests' standard output is captured, or a pipe.
        if !std::io::stdout().is_terminal() {
            assert!(!Style::of_stdout().colour);
        }
    }

    #[test]
    fn it_fits_narrow_terminals() {
        let report = Report::default();
        for columns in [0, 20, 80, 200] {
            let style = Style {
                columns,
                colour: false,
            };
            let shown = Shown {
                report: &report,
                style,
            };
            assert!(shown.to_string().lines().all(|line| line.len() <= 90));
        }
    }
}
