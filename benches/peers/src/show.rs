//! The tables, as Markdown.

use std::fmt::Write as _;

use comfy_table::Table;
use comfy_table::presets::ASCII_MARKDOWN;

use crate::detection::{self, Scenario, Score};
use crate::stats::Spread;
use crate::{cost, scale};

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header);
    table
}

fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|title| (*title).to_owned()).collect()
}

/// All of it to stallscope's like mode, and what is added to bare to what that adds.
fn to_like(cost: &cost::Measured) -> String {
    match (cost.cpu_to_like, cost.added_to_like) {
        (Some(all), Some(added)) => format!("{all}; {added:.1}"),
        (Some(all), None) => all.to_string(),
        (None, _) => "-".to_owned(),
    }
}

pub(crate) fn cost(rows: &[cost::Row]) -> String {
    let mut table = table(titles(&[
        "CPU time to bare: min median max",
        "polls are",
        "2 workers",
        "current-thread",
        "ns a poll",
        "to stallscope's like; added, 2 workers",
        "current-thread",
        "instructions a poll",
        "added",
        "added, to like",
    ]));
    for row in rows {
        let (multi, current) = (&row.multi_thread, &row.current_thread);
        let mut cells = vec![
            row.contender.to_owned(),
            row.like.to_owned(),
            multi.cpu_to_bare.to_string(),
            current.cpu_to_bare.to_string(),
            format!(
                "{:.0} / {:.0}",
                multi.ns_a_poll.median, current.ns_a_poll.median
            ),
            to_like(multi),
            to_like(current),
        ];
        match &row.instructions {
            Some(counted) => cells.extend([
                format!("{:.0}", counted.a_poll),
                // Rounded to a whole one, and never to -0.
                format!("{:.0}", counted.added.round() + 0.0),
                counted
                    .added_to_like
                    .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            ]),
            None => cells.extend(titles(&["not counted", "", ""])),
        }
        table.add_row(cells);
    }
    let mut text = table.to_string();
    text.push_str("\n\nat a poll:\n");
    for row in rows {
        let _ = writeln!(text, "- {}: {}", row.contender, row.at_a_poll);
    }
    text
}

pub(crate) fn detection(rows: &[detection::Row]) -> String {
    let mut header = titles(&["told: late by (most), wrong by"]);
    let scored = rows.iter().find(|row| row.cannot.is_none());
    let scores = scored.map_or(&[][..], |row| &row.scores);
    header.extend(
        scores
            .iter()
            .map(|(scenario, _)| scenario.title().to_owned()),
    );
    header.push("false".to_owned());
    let mut table = table(header);
    let mut silent = String::new();
    for row in rows {
        if let Some(why) = row.cannot {
            let _ = writeln!(silent, "- {}: {why}", row.contender);
            continue;
        }
        let mut cells = vec![row.contender.to_owned()];
        cells.extend(
            row.scores
                .iter()
                .map(|(scenario, score)| cell(*scenario, score)),
        );
        let wrong: usize = row
            .scores
            .iter()
            .map(|(_, score)| score.false_reports)
            .sum();
        cells.push(wrong.to_string());
        table.add_row(cells);
    }
    format!("{table}\n\nnot told to a program:\n{silent}")
}

fn cell(scenario: Scenario, score: &Score) -> String {
    if !scenario.has_stalls() {
        let mut text = match score.false_reports {
            0 => "silent".to_owned(),
            wrong => format!("{wrong} false"),
        };
        if score.held_loops > 0 {
            let _ = write!(text, "; the loop, rightly: {}", score.held_loops);
        }
        return text;
    }
    let of = |values: &[f64]| Spread::of(values.iter().copied());
    let mut text = format!("{} of {}", score.told, score.stalls);
    if score.told > 0 {
        match of(&score.latency_ms) {
            Some(late) => {
                let _ = write!(text, ", {:+.1} ({:+.1}) ms", late.median, late.max);
            }
            None => text.push_str(", afterwards"),
        }
        if let Some(wrong) = of(&score.duration_error_ms) {
            let _ = write!(text, ", ±{:.1}", wrong.median);
        }
    }
    text
}

pub(crate) fn tasks(rows: &[scale::tasks::Row]) -> String {
    let mut header = titles(&["live tasks: CPU time a poll to bare, bytes a task more than bare"]);
    let numbers = rows.first().map_or(&[][..], |row| &row.scales);
    header.extend(numbers.iter().map(|scale| scale.tasks.to_string()));
    let mut table = table(header);
    for row in rows {
        let mut cells = vec![row.contender.to_owned()];
        cells.extend(row.scales.iter().map(|scale| {
            // Pages are 4 KiB, and allocators take many at once.
            if scale.tasks < 10_000 {
                scale.cpu_to_bare.to_string()
            } else {
                format!("{}, {:+.0} B", scale.cpu_to_bare, scale.bytes_added)
            }
        }));
        table.add_row(cells);
    }
    table.to_string()
}

pub(crate) fn workers(rows: &[scale::workers::Row]) -> String {
    let mut numbers: Vec<usize> = rows.iter().map(|row| row.workers).collect();
    numbers.dedup();
    let mut header =
        titles(&["own threads: % of a CPU busy / idle, wakeups a second idle (whole process)"]);
    header.extend(numbers.iter().map(|number| match number {
        1 => "1 worker".to_owned(),
        number => format!("{number} workers"),
    }));
    let mut table = table(header);
    let mut names: Vec<&str> = Vec::new();
    for row in rows {
        if !names.contains(&row.contender) {
            names.push(row.contender);
        }
    }
    for name in names {
        let mut cells = vec![name.to_owned()];
        for row in rows.iter().filter(|row| row.contender == name) {
            cells.push(format!(
                "{:.2} / {:.2}, {:.0} ({:.0})",
                row.taken.busy.cpu_percent,
                row.taken.idle.cpu_percent,
                row.taken.idle.wakeups,
                row.taken.idle_process.wakeups,
            ));
        }
        table.add_row(cells);
    }
    table.to_string()
}
