//! The report in Markdown: fits a pull request's comment.

use std::fmt::{self, Write as _};

use crate::report::escape::{Block, Code, Markdown, MarkdownProse};
use crate::report::show::Short;
use crate::report::{Hotspot, Report, score, strategy};
use crate::severity::Severity;
use crate::stall::Stack;

/// Findings told in full, and rows of the table: a comment on a pull request has at
/// most 65,536 characters.
const MAX_FINDINGS: usize = 15;
const MAX_ROWS: usize = 50;
const MAX_TASKS: usize = 8;
const MAX_WORKERS: usize = 64;

impl Report {
    /// The report in Markdown.
    ///
    /// What comes from the program, names and paths, is escaped.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.write_markdown(&mut text);
        text
    }

    fn write_markdown(&self, out: &mut String) -> fmt::Result {
        let score = score::score(self);
        writeln!(out, "# Event loop audit\n")?;
        writeln!(
            out,
            "**Score {} of 10**: {}. {} in {} on {}.\n",
            score.value,
            score::meaning(score.value),
            plural(self.counts.total(), "stall"),
            Short(self.watched_for()),
            plural(self.workers as u64, "worker"),
        )?;
        for (points, reason) in &score.deductions {
            writeln!(out, "- minus {points}: {reason}")?;
        }
        if let Some(left_out) = &score.left_out {
            writeln!(out, "- {left_out}")?;
        }
        self.write_hotspots(out)?;
        self.write_when(out)?;
        for (number, hotspot) in self.hotspots.iter().take(MAX_FINDINGS).enumerate() {
            write_finding(out, number + 1, hotspot)?;
        }
        if self.hotspots.len() > MAX_FINDINGS {
            writeln!(
                out,
                "\n{} more findings are in the other forms.",
                self.hotspots.len() - MAX_FINDINGS
            )?;
        }
        self.write_strategy(out)?;
        self.write_loop_health(out)
    }

    fn write_hotspots(&self, out: &mut String) -> fmt::Result {
        if self.hotspots.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n## Hotspots\n")?;
        writeln!(
            out,
            "| # | severity | where | operation | stalls | longest | in all | fix |"
        )?;
        writeln!(out, "|---|---|---|---|---:|---:|---:|---|")?;
        for (number, hotspot) in self.hotspots.iter().take(MAX_ROWS).enumerate() {
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                number + 1,
                worst(hotspot),
                Code(&hotspot.culprit),
                Markdown(operation(hotspot)),
                hotspot.counts.total(),
                Short(hotspot.max()),
                Short(hotspot.total()),
                hotspot.advice.complexity,
            )?;
        }
        Ok(())
    }

    fn write_when(&self, out: &mut String) -> fmt::Result {
        for (title, hotspots) in groups(self) {
            writeln!(out, "\n**{title}**\n")?;
            for hotspot in hotspots.iter().take(MAX_FINDINGS) {
                writeln!(
                    out,
                    "- {}: {}",
                    Code(&hotspot.culprit),
                    MarkdownProse(&hotspot.advice.short)
                )?;
            }
        }
        Ok(())
    }

    fn write_strategy(&self, out: &mut String) -> fmt::Result {
        let pools = strategy::pools(self);
        if pools.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n## Threads for it\n")?;
        for pool in pools {
            let queue = if pool.queue {
                "; more than that arrives: a queue that refuses, or fewer arrivals"
            } else {
                ""
            };
            writeln!(
                out,
                "- {}: {} ({}{queue})",
                pool.category,
                plural(pool.threads as u64, "thread"),
                pool.arithmetic,
            )?;
        }
        Ok(())
    }

    fn write_loop_health(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "\n## The loop\n")?;
        writeln!(out, "| | count | p50 | p99 | max |")?;
        writeln!(out, "|---|---:|---:|---:|---:|")?;
        for (name, summary) in [("polls", &self.polls), ("lag", &self.lag)] {
            writeln!(
                out,
                "| {name} | {} | {} | {} | {} |",
                summary.count(),
                Short(summary.p50()),
                Short(summary.p99()),
                Short(summary.max()),
            )?;
        }
        writeln!(out, "\n{}", load(self))?;
        if let Some(reason) = self.health.no_stacks() {
            writeln!(out, "\nSome stacks are missing: {}.", Markdown(reason))?;
        }
        Ok(())
    }
}

/// The findings by when to fix them.
pub(crate) fn groups(report: &Report) -> Vec<(&'static str, Vec<&Hotspot>)> {
    let title = |hotspot: &Hotspot| match hotspot.counts.worst() {
        Some(Severity::High | Severity::Critical) => "Fix now",
        Some(Severity::Medium) => "Fix soon",
        Some(Severity::Monitor) | None => "Monitor",
    };
    ["Fix now", "Fix soon", "Monitor"]
        .into_iter()
        .map(|group| {
            let of_group = report.hotspots.iter().filter(|h| title(h) == group);
            (group, of_group.collect())
        })
        .filter(|(_, hotspots): &(_, Vec<_>)| !hotspots.is_empty())
        .collect()
}

/// What waits, in a sentence.
pub(crate) fn load(report: &Report) -> String {
    let starved = report.hotspots.iter().filter(|h| !h.is_programs());
    let starved = starved.fold(0_u64, |all, h| all.saturating_add(h.counts.total()));
    format!(
        "{} waiting in the shared queue, {} alive; {} for want of a CPU.",
        plural(report.health.global_queue_depth as u64, "task"),
        report.health.alive_tasks,
        plural(starved, "stall"),
    )
}

pub(crate) fn plural(number: u64, of: &str) -> String {
    match number {
        1 => format!("1 {of}"),
        _ => format!("{number} {of}s"),
    }
}

pub(crate) fn worst(hotspot: &Hotspot) -> String {
    let worst = hotspot.counts.worst();
    worst.map(|worst| worst.to_string()).unwrap_or_default()
}

/// What was called, or why it does not return.
pub(crate) fn operation(hotspot: &Hotspot) -> String {
    let leaf = hotspot.stack().and_then(Stack::leaf);
    match leaf {
        Some(leaf) => format!("{} ({})", leaf.shown_function(), hotspot.cause),
        None => hotspot.cause.to_string(),
    }
}

/// Two to four sentences, with what was measured.
pub(crate) fn problem(hotspot: &Hotspot) -> String {
    let times = hotspot.counts.total();
    let mut text = format!(
        "It {}. It held its thread up {}, for {} in all, the longest for {}.",
        hotspot.advice.does,
        match times {
            1 => "once".to_owned(),
            _ => format!("{times} times"),
        },
        Short(hotspot.total()),
        Short(hotspot.max()),
    );
    let workers = hotspot.workers.len();
    if workers > 0 {
        let shown = hotspot.workers().take(MAX_WORKERS);
        let shown: Vec<String> = shown.map(|worker| worker.to_string()).collect();
        let _ = write!(
            text,
            " Meanwhile nothing else ran on worker{} {}",
            if workers == 1 { "" } else { "s" },
            shown.join(", ")
        );
        match workers.checked_sub(MAX_WORKERS) {
            None | Some(0) => text.push('.'),
            Some(more) => {
                let _ = write!(text, " and {more} more.");
            }
        }
    }
    if let Some(holder) = hotspot.held_by() {
        let _ = write!(text, " The lock was held by {holder}: shorten that first.");
    }
    if !hotspot.is_programs() {
        text.push_str(" The code is not to blame for it.");
    }
    text
}

/// How to see it, and what language that is in.
pub(crate) fn verify(hotspot: &Hotspot) -> (&'static str, String) {
    if hotspot.is_programs() {
        ("rust", test_of(hotspot))
    } else {
        let pressure = "grep some /proc/pressure/cpu  # rises while more want CPUs than there are";
        ("sh", pressure.to_owned())
    }
}

/// A test that fails until it is fixed.
fn test_of(hotspot: &Hotspot) -> String {
    let function = hotspot
        .stack()
        .and_then(Stack::culprit)
        .map_or_else(|| "the_future".to_owned(), |frame| frame.short_function());
    let function = function.rsplit("::").next().unwrap_or_default().to_owned();
    let function: String = function
        .chars()
        .filter(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    let function = if function.is_empty() {
        "the_future".to_owned()
    } else {
        function
    };
    format!(
        "#[tokio::test]\nasync fn {function}_does_not_block() {{\n    \
         // Await what leads to `{function}`.\n    \
         stallscope::assert_no_stalls!(handler(), under: Duration::from_millis(10));\n}}"
    )
}

fn write_finding(out: &mut String, number: usize, hotspot: &Hotspot) -> fmt::Result {
    let advice = &hotspot.advice;
    writeln!(
        out,
        "\n## {number}. \\[SEVERITY: {}\\] {}\n",
        worst(hotspot),
        Code(&hotspot.culprit)
    )?;
    let tasks: Vec<String> = hotspot
        .tasks()
        .take(MAX_TASKS)
        .map(|(name, _)| Code(name).to_string())
        .collect();
    write!(out, "- **Location**: {}", Code(&hotspot.culprit))?;
    if !tasks.is_empty() {
        write!(out, ", in {}", tasks.join(", "))?;
    }
    writeln!(out)?;
    writeln!(out, "- **Risk category**: {}", advice.category)?;
    writeln!(
        out,
        "- **The problem**: {}",
        MarkdownProse(problem(hotspot))
    )?;
    let durations = &hotspot.durations;
    let (confidence, reason) = hotspot.confidence();
    writeln!(
        out,
        "- **Blocking duration**: {}, min {}, p50 {}, p99 {}, max {}, total {}; confidence {confidence}: {reason}",
        plural(durations.count(), "stall"),
        Short(durations.min()),
        Short(durations.p50()),
        Short(durations.p99()),
        Short(durations.max()),
        Short(durations.total()),
    )?;
    let (language, how) = verify(hotspot);
    let what = match language {
        "rust" => "a test that fails until it is fixed",
        _ => "a command",
    };
    writeln!(out, "- **How to verify**: {what}:\n")?;
    writeln!(out, "{}\n", Block(language, &how))?;
    writeln!(out, "- **The fix**: {}\n", MarkdownProse(&advice.short))?;
    writeln!(out, "{}\n", Block("rust", &advice.fix))?;
    writeln!(out, "- **Trade-off**: {}", MarkdownProse(&advice.trade_off))
}
