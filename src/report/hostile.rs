//! Reports whose texts and numbers are chosen to do harm.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::audit::Why;
use crate::blocking::{Allowed, Blocking, Detection};
use crate::escape::is_hidden;
use crate::live::{LiveTask, TaskState};
use crate::report::tests::{blocked, origin, report_of, shop, stack, stall};
use crate::report::{Report, TaskPolls};
use crate::stall::{Cause, Location, Phase, StallEvent};

/// Each kind of character that is not to come through, and what forges a line.
const HOSTILE: &str = "a\nstarted CRITICAL\r\n\t\0\x07\x1b[31m\x1b]0;t\x07\x7f\u{85}\u{9b}31m\
    \u{200e}\u{202e}gnp\u{202c}\u{2066}\u{2069}\u{61c}\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}\
    \u{180e}\u{115f}\u{3164}\u{fe0f}\u{e0041}\u{2028}\u{2029}\u{e000}\u{ffff}z";

/// A report with something in each of its lists.
fn full() -> Report {
    let mut ongoing = stall(9, 5_000, 40, blocked("read"), None, "upload");
    ongoing.ongoing = true;
    let mut report = shop();
    report.stalls.push(ongoing.clone());
    report.health.ongoing = vec![ongoing];
    report.health.no_stacks = Some("no /proc".to_owned());
    report.tasks = vec![task_polls("upload")];
    report.blocking = vec![blocking("upload"), blocking("thumb")];
    report.allowed = vec![allowed("start-up")];
    report.detection = Some(Detection::Calls);
    report
}

fn location() -> Location {
    Location {
        file: "src/main.rs".to_owned(),
        line: 3,
        column: 1,
    }
}

fn task_polls(name: &str) -> TaskPolls {
    TaskPolls {
        name: name.to_owned(),
        location: Some(location()),
        polls: shop().polls,
        delays: shop().polls,
        stalls: shop().counts,
    }
}

fn blocking(name: &str) -> Blocking {
    let stall = stall(1, 0, 5, blocked("read"), None, name);
    Blocking {
        task: stall.task.unwrap(),
        cause: stall.cause,
        stack: stack("std::fs::read", "shop::upload", 40),
        count: 2,
        sleeps: 1,
        total_ns: 5,
        max_ns: 4,
    }
}

fn allowed(reason: &str) -> Allowed {
    Allowed {
        reason: reason.to_owned(),
        location: location(),
        count: 1,
        sleeps: 1,
        total_ns: 7,
    }
}

/// A report with each text in it replaced that may be any.
fn with_texts(report: &Report, text: &str) -> Report {
    let mut json: Value = serde_json::from_str(&report.to_json()).unwrap();
    let mut free = paths(&json);
    free.retain(|path| {
        let Some(place) = json.pointer_mut(path).filter(|value| value.is_string()) else {
            return false;
        };
        let before = std::mem::replace(place, Value::from("any"));
        let is_free = Report::from_json(&json.to_string()).is_ok();
        *json.pointer_mut(path).unwrap() = before;
        is_free
    });
    assert!(free.len() > 60, "{}", free.len());
    for path in free {
        // Code keeps its lines: it stands in a block that it cannot end.
        let text = if path.ends_with("/fix") {
            text.replace(['\n', '\r'], " ")
        } else {
            text.to_owned()
        };
        *json.pointer_mut(&path).unwrap() = Value::from(text);
    }
    Report::from_json(&json.to_string()).unwrap()
}

fn paths(json: &Value) -> Vec<String> {
    fn add(json: &Value, at: &str, paths: &mut Vec<String>) {
        match json {
            Value::Object(fields) => {
                for (name, value) in fields {
                    add(value, &format!("{at}/{name}"), paths);
                }
            }
            Value::Array(list) => {
                for (number, value) in list.iter().enumerate() {
                    add(value, &format!("{at}/{number}"), paths);
                }
            }
            _ => paths.push(at.to_owned()),
        }
    }
    let mut all = Vec::new();
    add(json, "", &mut all);
    all
}

/// All that is written of a report for people, by what it is.
fn forms(report: &Report) -> Vec<(&'static str, String)> {
    let mut lines = String::new();
    for stall in &report.stalls {
        for phase in [Phase::Started, Phase::Ended] {
            let stall = stall.clone();
            writeln!(lines, "{}", StallEvent { phase, stall }).unwrap();
        }
        writeln!(lines, "{}\n{}", stall.cause(), stall.culprit_name()).unwrap();
        let live = LiveTask {
            task: stall.task.clone().unwrap(),
            state: TaskState::Waiting,
            age_ns: 1,
            since_ns: 1,
            polls: 1,
            busy_ns: 1,
        };
        writeln!(lines, "{live}").unwrap();
    }
    for origin in &report.origins {
        writeln!(lines, "{origin}").unwrap();
    }
    let stacks = report.stalls.iter().filter_map(|stall| stall.stack());
    let stacks = stacks.map(|stack| stack.to_string()).collect();
    let failure = |of: Result<(), crate::audit::Failure>| of.unwrap_err().to_string();
    vec![
        ("lines", lines),
        ("stacks", stacks),
        ("text", report.to_string()),
        ("terminal", report.terminal().to_string()),
        ("markdown", report.to_markdown()),
        ("html", report.to_html()),
        ("folded", report.to_folded()),
        ("trace", report.to_chrome_trace()),
        ("json", report.to_json()),
        ("no stalls", failure(report.check_no_stalls())),
        ("no blocking", failure(report.check_no_blocking())),
        ("findings", report.findings().unwrap()),
    ]
}

#[test]
fn no_form_lets_a_character_through_that_is_not_seen() {
    let report = with_texts(&full(), HOSTILE);
    let harmless = with_texts(&full(), "az");
    for ((form, text), (_, expected)) in forms(&report).iter().zip(forms(&harmless)) {
        let hidden: Vec<char> = text
            .chars()
            .filter(|c| *c != '\n' && is_hidden(*c))
            .collect();
        assert!(hidden.is_empty(), "{form}: {hidden:?}");
        let forged = text
            .lines()
            .find(|line| line.starts_with("started CRITICAL"));
        assert_eq!(forged, None, "{form}");
        if !["text", "terminal"].contains(form) {
            // These break lines between words. No text makes a line more elsewhere.
            assert_eq!(
                text.lines().count(),
                expected.lines().count(),
                "{form}: {text}"
            );
        }
        // What is hidden is said.
        assert!(text.contains("202e"), "{form}: {text}");
    }
    let json = report.to_json();
    assert_eq!(
        Report::from_json(&json).unwrap(),
        report,
        "it keeps all of it"
    );
}

#[test]
fn no_text_makes_a_line_long() {
    let report = with_texts(&full(), &"x\u{202e}y".repeat(20_000));
    for (form, text) in forms(&report) {
        let longest = text.lines().map(str::len).max().unwrap();
        match form {
            // Numbers and names of ours beside four texts at most.
            "lines" | "stacks" | "no stalls" | "no blocking" | "findings" => {
                assert!(longest < 1_500, "{form}: {longest}");
            }
            "text" | "terminal" => assert!(longest < 2_500, "{form}: {longest}"),
            // A line may have many texts, each of which has a bound.
            "markdown" | "html" | "folded" | "trace" => {
                assert!(text.len() < 500_000, "{form}: {}", text.len());
            }
            _ => {}
        }
    }
}

#[test]
fn errors_and_panics_are_escaped_too() {
    let panicked = Why::Panicked(Box::new(format!("left: 1\nright: {HOSTILE}")));
    let text = panicked.to_string();
    assert!(
        text.starts_with("it panicked: left: 1\n    right: a\n    started"),
        "{text}"
    );
    let json = json!({"version": 1, HOSTILE: 1}).to_string();
    let unknown = full()
        .to_json()
        .replace("\"calls\"", &json!(HOSTILE).to_string());
    for error in [
        Report::from_json(&json).unwrap_err(),
        Report::from_json(&unknown).unwrap_err(),
        HOSTILE.parse::<crate::Severity>().unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(!text.contains(is_hidden), "{text:?}");
    }
    assert!(!text.contains(|c| c != '\n' && is_hidden(c)), "{text:?}");
}

#[test]
fn no_number_makes_merging_overflow() {
    let json: Value = serde_json::from_str(&full().to_json()).unwrap();
    for number in [u64::MAX, u64::MAX / 2 + 1, 1 << 40, 1, 0] {
        let mut json = json.clone();
        for path in paths(&json) {
            let Some(place) = json.pointer_mut(&path).filter(|value| value.is_number()) else {
                continue;
            };
            let before = std::mem::replace(place, Value::from(number));
            if Report::from_json(&json.to_string()).is_err() {
                *json.pointer_mut(&path).unwrap() = before;
            }
        }
        let report = Report::from_json(&json.to_string()).unwrap();
        let twice = report.merge(&report);
        let all = twice.merge(&shop()).merge(&twice);
        for report in [&report, &twice, &all] {
            assert!(forms(report).iter().all(|(_, text)| !text.is_empty()));
            let _ = report.score();
            for hotspot in report.hotspots() {
                let _ = hotspot.confidence();
            }
        }
    }
}

/// So many findings, watched futures and so on, with a name that begins so.
fn many(name: &str, id: u64, number: u64) -> Report {
    let mut report = full();
    let hotspot = report.hotspots.remove(0);
    let task = report.tasks[0].clone();
    let mut json = serde_json::to_value(&hotspot).unwrap();
    for n in 0..number {
        json["fingerprint"] = Value::from(format!("{name}{n}"));
        json["cause"] = Value::from(if n % 7 == 0 { "starved" } else { "on_cpu" });
        let one = serde_json::from_value(json.clone()).unwrap();
        report.hotspots.push(one);
        report.tasks.push(TaskPolls {
            name: format!("{name}{n}"),
            ..task.clone()
        });
        report.blocking.push(blocking(&format!("{name}{n}")));
        report.allowed.push(allowed(&format!("{name}{n}")));
        report.origins.push(origin(id * 1_000_000 + n));
        let mut stall = stall(n, n, 10 + n % 90, Cause::OnCpu, None, name);
        stall.origin = id;
        report.stalls.push(stall);
    }
    report
}

#[test]
fn merging_is_linear_and_what_comes_of_it_bounded() {
    const MANY: u64 = 20_000;
    let (a, b) = (many("a", 1, MANY), many("b", 2, MANY));
    let start = Instant::now();
    let all = a.merge(&b);
    // Far above what it takes, and far below what looking for each among all does.
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(all, b.merge(&a));

    let both = |of: fn(&Report) -> u64| of(&a) + of(&b);
    assert_eq!(all.stalls.len(), 10_000);
    let stalls = |report: &Report| report.stalls.len() as u64 + report.forgotten;
    assert_eq!(stalls(&all), both(stalls));
    assert!(all.stalls.iter().any(|stall| stall.ongoing), "in progress");
    let shortest = all.stalls.iter().filter(|stall| stall.origin == 2);
    assert!(shortest.map(|stall| stall.duration_ns).min() > Some(10_000_000));

    assert_eq!(all.hotspots.len(), 1_002);
    let held = |report: &Report| report.hotspots.iter().map(|h| h.counts.total()).sum();
    assert_eq!(held(&all), both(held));
    let timed = |report: &Report| report.hotspots.iter().map(|h| h.durations.count()).sum();
    assert_eq!(timed(&all), both(timed));
    let programs = |report: &Report| {
        let programs = report.hotspots.iter().filter(|h| h.is_programs());
        programs.map(|h| h.counts.total()).sum()
    };
    assert_eq!(
        programs(&all),
        both(programs),
        "the rest is told apart by blame"
    );

    assert_eq!(all.tasks.len(), 1_001);
    let polls = |report: &Report| report.tasks.iter().map(|task| task.polls.count()).sum();
    assert_eq!(polls(&all), both(polls));
    assert_eq!(all.health.folded_names, 2 * MANY + 1 - 1_000);
    assert_eq!(all.blocking.len(), 1_001);
    let calls = |report: &Report| report.blocking.iter().map(|blocking| blocking.count).sum();
    assert_eq!(calls(&all), both(calls));
    assert_eq!(all.allowed.len(), 1_001);
    let uses = |report: &Report| report.allowed.iter().map(|allowed| allowed.count).sum();
    assert_eq!(uses(&all), both(uses));
    assert_eq!(all.origins.len(), 1_001);
    let processes: u64 = all.origins.iter().map(|origin| origin.processes()).sum();
    assert_eq!(processes, 2 * MANY + 1);
    assert!(
        all.origins.iter().any(|origin| origin.id() == 1),
        "stalls are of it"
    );

    // And again: the rest takes in what is left out then.
    let more = all.merge(&many("c", 3, MANY));
    assert_eq!(more.hotspots.len(), 1_002);
    assert_eq!(held(&more), held(&all) + held(&a));
    assert_eq!(
        (more.tasks.len(), more.blocking.len(), more.allowed.len()),
        (1_001, 1_001, 1_001)
    );
    assert_eq!(polls(&more), polls(&all) + polls(&a));
    assert_eq!(more.origins.len(), 1_001);
    assert_eq!(Report::from_json(&more.to_json()).unwrap(), more);
}

#[test]
fn names_of_one_finding_stay_bounded_as_it_is_merged() {
    let report = |id: u64| {
        let stalls: Vec<_> = (0..30)
            .map(|n| {
                let stack = stack("std::fs::read", "shop::upload", 40);
                stall(n, n, 20, blocked("read"), stack, &format!("{id}-{n}"))
            })
            .collect();
        report_of(id, &stalls)
    };
    let (a, b) = (report(1), report(2));
    let all = a.merge(&b);
    assert_eq!(all, b.merge(&a));
    let [hotspot] = all.hotspots() else {
        panic!("{:#?}", all.hotspots());
    };
    assert_eq!(hotspot.tasks().count(), 33);
    assert_eq!(hotspot.tasks().map(|(_, count)| count).sum::<u64>(), 60);
    assert_eq!(
        hotspot.tasks().find(|(name, _)| *name == "other"),
        Some(("other", 28))
    );
}

#[test]
fn each_link_of_the_html_leads_somewhere() {
    let html = many("a", 1, 2_000).to_html();
    let links: Vec<&str> = html.split("href=\"#").skip(1).collect();
    assert_eq!(links.len(), 50);
    for link in links {
        let id = link.split('"').next().unwrap();
        assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
    }
    assert_eq!(html.matches("<tr>").count(), 1 + 1_000);
    assert!(html.contains("<p>1002 findings more are in the JSON.</p>"));
    assert!(html.contains("<p>1952 findings more are not told in full.</p>"));
}
