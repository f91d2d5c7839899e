//! Reports of made-up stalls: what must hold whatever the program does.

use proptest::prelude::*;

use crate::histogram::Histogram;
use crate::ledger::Ledger;
use crate::report::escape::{Html, Markdown};
use crate::report::{Confidence, Origin, Report, SCHEMA_VERSION, trace};
use crate::severity::{Severity, Thresholds};
use crate::stall::{
    Cause, Frame, Location, Phase, Stack, Stall, StallEvent, StallId, StallKind, Task,
};

const MS: u64 = 1_000_000;

/// One process that was watched for 10 s with two workers.
pub(super) fn origin(id: u64) -> Origin {
    let json = serde_json::json!({
        "id": id, "host": format!("host-{id}"), "program": "shop", "pid": 40 + id,
        "seen_unix_ms": 1_700_000_000_000_u64, "cpus": 2,
    });
    serde_json::from_value(json).unwrap()
}

pub(super) fn report_of(id: u64, stalls: &[Stall]) -> Report {
    let mut ledger = Ledger::default();
    for stall in stalls {
        let mut stall = stall.clone();
        stall.origin = id;
        let phase = Phase::Ended;
        ledger.enter(&StallEvent { phase, stall });
    }
    let mut polls = Histogram::new();
    for stall in stalls {
        polls.record(stall.duration_ns);
        polls.record(2_000);
    }
    let watched_ns = 10_000 * MS;
    let all = ledger.at(0);
    Report {
        version: SCHEMA_VERSION,
        origins: vec![origin(id)],
        workers: 2,
        watched_ns,
        worker_ns: 2 * watched_ns,
        max_severity: ledger.max_severity(),
        counts: all.counts(),
        hotspots: all.hotspots(),
        polls: polls.summary(),
        stalls: all.into_list(),
        forgotten: ledger.forgotten(),
        ..Report::default()
    }
}

fn frame(function: &str, file: &str, line: u32) -> Frame {
    Frame {
        function: Some(function.into()),
        file: Some(file.into()),
        line: Some(line),
        ..Frame::default()
    }
}

pub(super) fn stall(
    id: u64,
    start_ms: u64,
    ms: u64,
    cause: Cause,
    stack: Option<Stack>,
    name: &str,
) -> Stall {
    let duration_ns = ms * MS;
    Stall {
        id: StallId(id),
        severity: Thresholds::default()
            .severity_of(std::time::Duration::from_nanos(duration_ns))
            .unwrap_or(Severity::Monitor),
        kind: StallKind::Poll,
        task: Some(Task {
            name: name.to_owned(),
            location: Some(Location {
                file: "src/main.rs".to_owned(),
                line: 7,
                column: 5,
            }),
            id: Some(id),
        }),
        worker: Some((id % 2) as usize),
        origin: 1,
        start_ns: start_ms * MS,
        duration_ns,
        suspended_ns: 0,
        on_cpu_ns: 0,
        waiting_ns: 0,
        off_cpu_ns: 0,
        known_polls: None,
        one_poll: None,
        runtime: None,
        thread: None,
        cause,
        stack,
        profile: None,
        ongoing: false,
    }
}

pub(super) fn stack(callee: &str, function: &str, line: u32) -> Option<Stack> {
    Some(Stack {
        frames: [
            frame(callee, "/rustc/x/library/std/src/fs.rs", 1),
            frame(function, "src/upload.rs", line),
            frame("shop::main", "src/main.rs", 3),
        ]
        .into(),
        culprit: Some(1),
        leaf: Some(0),
        users: [1, 2].into(),
        ..Stack::default()
    })
}

pub(super) fn blocked(syscall: &str) -> Cause {
    Cause::Blocked {
        syscall: syscall.to_owned(),
    }
}

/// What the golden tests are of.
pub(super) fn shop() -> Report {
    report_of(
        1,
        &[
            stall(
                1,
                100,
                250,
                blocked("read"),
                stack("std::fs::read", "shop::upload", 40),
                "upload",
            ),
            stall(
                2,
                900,
                30,
                blocked("read"),
                stack("std::fs::read", "shop::upload", 41),
                "upload",
            ),
            stall(
                3,
                1_500,
                1_200,
                Cause::OnCpu,
                stack("image::decode", "shop::thumb<T>", 9),
                "thumb",
            ),
            stall(4, 4_000, 20, Cause::Starved, None, "thumb"),
        ],
    )
}

#[test]
fn golden_terminal() {
    insta::assert_snapshot!(shop().to_string());
}

#[test]
fn golden_markdown() {
    insta::assert_snapshot!(shop().to_markdown());
}

#[test]
fn golden_json() {
    insta::assert_snapshot!(shop().to_json());
}

#[test]
fn golden_html() {
    insta::assert_snapshot!(shop().to_html());
}

#[test]
fn golden_folded_and_trace() {
    insta::assert_snapshot!(shop().to_folded());
    insta::assert_snapshot!(shop().to_chrome_trace());
}

#[test]
fn lines_of_one_function_are_one_finding() {
    let report = shop();
    let [thumb, upload, starved] = report.hotspots() else {
        panic!("{:#?}", report.hotspots());
    };
    assert_eq!(upload.counts().total(), 2);
    assert!(
        upload.culprit().contains("src/upload.rs:40"),
        "of the longest"
    );
    assert_eq!(thumb.counts().worst(), Some(Severity::High));
    assert!(!starved.is_programs());
    let moved = report_of(
        2,
        &[stall(
            1,
            0,
            80,
            blocked("read"),
            stack("std::fs::read", "shop::upload", 57),
            "upload",
        )],
    );
    let all = report.merge(&moved);
    let upload = all
        .hotspots()
        .iter()
        .find(|h| h.culprit().contains("shop::upload"))
        .unwrap();
    assert_eq!(
        upload.counts().total(),
        3,
        "of another build, with other lines"
    );
    assert_eq!(all.origins().len(), 2);
    assert_eq!(
        all.stalls()
            .iter()
            .filter(|stall| stall.origin == 2)
            .count(),
        1
    );
}

/// Where a function calls several things, what is advised is of the stack that is shown.
#[test]
fn the_advice_of_a_finding_is_of_its_longest_stall() {
    let of = |id, ms, callee| {
        let stack = stack(callee, "shop::thumb", 9);
        stall(id, 100 * id, ms, Cause::OnCpu, stack, "thumb")
    };
    let (parses, decodes) = (
        of(1, 30, "serde_json::from_str"),
        of(2, 90, "image::load_from_memory"),
    );
    for stalls in [[parses.clone(), decodes.clone()], [decodes, parses]] {
        let report = report_of(1, &stalls);
        let [finding] = report.hotspots() else {
            panic!("{:#?}", report.hotspots());
        };
        let advice = finding.advice();
        assert_eq!(advice.does, "decodes, encodes or changes pictures");
        let merged = report.merge(&report_of(2, &stalls[..1]));
        assert_eq!(merged.hotspots()[0].advice(), advice);
    }
}

#[test]
fn what_stands_for_many_places_is_not_advised_as_one_of_them() {
    let of = |id| {
        let stack = stack("std::sync::Mutex::lock", &format!("shop::f{id}"), 9);
        stall(id, 100 * id, 30, Cause::Lock, stack, "thumb")
    };
    let report = report_of(1, &(1..300).map(of).collect::<Vec<_>>());
    let mut others = report.hotspots().iter();
    let other = others.find(|h| h.culprit() == "other").unwrap();
    assert!(
        !other.advice().does.contains("lock"),
        "{:?}",
        other.advice()
    );
}

#[test]
fn nothing_is_a_report_too() {
    let empty = report_of(1, &[]);
    assert_eq!(empty.score(), 10);
    assert!(empty.to_markdown().contains("Score 10 of 10"));
    assert!(empty.to_html().contains("Nothing held a worker up"));
    assert_eq!(empty.to_folded(), "");
    let trace: serde_json::Value = serde_json::from_str(&empty.to_chrome_trace()).unwrap();
    assert_eq!(trace["traceEvents"].as_array().unwrap().len(), 1);
}

#[test]
fn many_stalls_are_told_in_bounded_space() {
    let cause = |n: u64| {
        if n.is_multiple_of(3) {
            Cause::OnCpu
        } else {
            blocked("fsync")
        }
    };
    let stalls: Vec<Stall> = (0..100_000)
        .map(|n| {
            let stack = stack("std::fs::write", &format!("shop::f{}", n % 400), 1);
            stall(n, n, 10 + n % 500, cause(n), stack, "many")
        })
        .collect();
    let report = report_of(1, &stalls);
    assert_eq!(report.counts().total(), 100_000);
    assert_eq!(report.stalls().len() as u64 + report.forgotten(), 100_000);
    let told: u64 = report.hotspots().iter().map(|h| h.counts().total()).sum();
    assert_eq!(told, 100_000);
    assert!(report.hotspots().len() <= 257);
    for form in [
        report.to_html(),
        report.to_markdown(),
        report.to_json(),
        report.to_string(),
    ] {
        assert!(form.len() < 4 << 20, "{}", form.len());
    }
    assert!(report.to_markdown().chars().count() < 65_536, "a comment");
}

#[test]
fn the_score_follows_its_rule() {
    let one = |ms: u64| report_of(1, &[stall(1, 0, ms, Cause::OnCpu, None, "x")]).score();
    // Off for the worst, and for the share of 20 s.
    assert_eq!([one(20), one(150), one(1_500), one(6_000)], [9, 7, 4, 1]);
    let starved = report_of(1, &[stall(1, 0, 6_000, Cause::Starved, None, "x")]);
    assert_eq!(starved.score(), 10);
    assert_eq!(shop().score(), 3, "HIGH 5, two findings 1, 7 % 1");
    let mut hung = stall(1, 0, 6_000, Cause::Lock, None, "x");
    hung.ongoing = true;
    let mut of_many = report_of(1, &[hung]);
    of_many.worker_ns *= 1_000;
    assert_eq!(of_many.score(), 1);
}

#[test]
fn pools_are_as_littles_law_has_it() {
    let pools = super::strategy::pools(&shop());
    let text: Vec<String> = pools
        .iter()
        .map(|pool| format!("{}: {} ({})", pool.category, pool.threads, pool.arithmetic))
        .collect();
    assert_eq!(
        text,
        [
            "Event Loop Blocking (CPU): 2 (0.10/s x 1200.0 ms = 0.12 at once; as many as CPUs (2))",
            "File I/O: 1 (0.20/s x 140.0 ms = 0.03 at once; twice that, for bursts)",
        ]
    );
}

fn any_cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        Just(Cause::OnCpu),
        Just(Cause::Lock),
        Just(Cause::Starved),
        Just(Cause::Unknown),
        "[a-z]{1,6}".prop_map(|name| blocked(&name)),
    ]
}

fn any_stall() -> impl Strategy<Value = Stall> {
    let function = prop_oneof![Just("shop::a".to_owned()), Just("shop::b".to_owned()), ".*"];
    (
        (0..50_u64, 0..9_000_u64, 10..9_000_u64),
        any_cause(),
        proptest::option::of((function, 1..9_u32)),
        prop_oneof![Just("task".to_owned()), ".*"],
    )
        .prop_map(|((id, start, ms), cause, at, name)| {
            let stack = at.and_then(|(function, line)| stack("std::fs::read", &function, line));
            stall(id, start, ms, cause, stack, &name)
        })
}

fn any_report(id: u64) -> impl Strategy<Value = Report> {
    proptest::collection::vec(any_stall(), 0..8).prop_map(move |stalls| report_of(id, &stalls))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn merging_does_not_depend_on_the_order(
        a in any_report(1), b in any_report(2), c in any_report(3),
    ) {
        prop_assert_eq!(a.merge(&b), b.merge(&a));
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
    }

    #[test]
    fn merging_loses_nothing(a in any_report(1), b in any_report(2)) {
        let all = a.merge(&b);
        prop_assert_eq!(all.stalls().len(), a.stalls().len() + b.stalls().len());
        prop_assert_eq!(all.counts().total(), a.counts().total() + b.counts().total());
        prop_assert_eq!(all.polls().count(), a.polls().count() + b.polls().count());
        prop_assert_eq!(all.polls().total(), a.polls().total() + b.polls().total());
        let in_findings: u64 = all.hotspots().iter().map(|h| h.durations().count()).sum();
        prop_assert_eq!(in_findings, all.counts().total());
        let by_severity: u64 = all.hotspots().iter().map(|h| h.counts().total()).sum();
        prop_assert_eq!(by_severity, all.counts().total());
    }

    #[test]
    fn one_more_stall_never_raises_the_score(
        stalls in proptest::collection::vec(any_stall(), 0..8), more in any_stall(),
    ) {
        let before = report_of(1, &stalls).score();
        let after = report_of(1, &[stalls, vec![more]].concat()).score();
        prop_assert!(after <= before, "{} to {}", before, after);
        prop_assert!((1..=10).contains(&after));
    }

    #[test]
    fn json_is_read_back(report in any_report(1)) {
        prop_assert_eq!(Report::from_json(&report.to_json()).unwrap(), report.clone());
        let trace: serde_json::Value = serde_json::from_str(&report.to_chrome_trace()).unwrap();
        prop_assert!(trace["traceEvents"].is_array());
    }

    #[test]
    fn what_a_program_says_cannot_leave_its_place(text in ".*") {
        let html = Html(&text).to_string();
        prop_assert!(!html.contains(['<', '>', '"', '\'']));
        let markdown = Markdown(&text).to_string();
        prop_assert!(!markdown.contains(['<', '>', '\n', '\r', '@']));
        let mut before = ' ';
        for c in markdown.chars() {
            if "`*_[]|".contains(c) {
                prop_assert_eq!(before, '\\', "{}", markdown);
            }
            // A backslash that is itself escaped escapes nothing.
            before = if before == '\\' && c == '\\' { ' ' } else { c };
        }
    }

    #[test]
    fn no_form_lets_a_name_out(name in "[<>&\"'`|\\n]{1,9}script") {
        let report = report_of(1, &[
            stall(1, 0, 200, Cause::OnCpu, stack(&name, &name, 1), &name),
        ]);
        let html = report.to_html();
        let tags = html.matches("<script").count() + html.matches("<\"").count();
        prop_assert_eq!(tags, 0, "{}", html);
        // All that is open is closed: a name neither opens nor closes anything.
        for tag in ["article", "div", "code", "pre", "svg", "table"] {
            let opened = html.matches(&format!("<{tag}")).count();
            let closed = html.matches(&format!("</{tag}>")).count();
            prop_assert_eq!(opened, closed, "{}", tag);
        }
        let markdown = report.to_markdown();
        prop_assert!(!markdown.contains("<script"));
        let rows = markdown.lines().filter(|line| line.starts_with("| 1 |")).count();
        prop_assert_eq!(rows, 1, "{}", markdown);
    }
}

fn bare(module: &str, address: u64) -> Frame {
    Frame {
        module: Some(module.into()),
        address,
        ..Frame::default()
    }
}

/// As of a stripped program: only what it calls in a library has a name.
fn stripped() -> Stack {
    Stack {
        frames: [
            Frame {
                function: Some("clock_nanosleep".into()),
                ..bare("libc.so.6", 0x99)
            },
            bare("shop", 0x2a),
            bare("shop", 0x1f),
        ]
        .into(),
        ..Stack::default()
    }
}

#[test]
fn a_stripped_program_shows_addresses_and_claims_no_line() {
    let of = |kind, stack: Stack| {
        let stall = Stall {
            kind,
            ..stall(1, 0, 200, Cause::OnCpu, Some(stack), "upload")
        };
        report_of(1, &[stall])
    };
    let report = of(StallKind::Turn, stripped());
    assert_eq!(
        report.to_folded(),
        "shop+0x1f;shop+0x2a;clock_nanosleep 200000\n"
    );
    let frames: Vec<String> = trace::path_of_users(&stripped()).collect();
    assert_eq!(frames, ["shop+0x1f", "shop+0x2a", "clock_nanosleep"]);
    let confidence = |kind, stack| of(kind, stack).hotspots[0].confidence();
    let (how, why) = confidence(StallKind::Turn, stripped());
    assert_eq!(how, Confidence::Low);
    assert!(why.ends_with("the line was not seen"), "{why}");
    let (how, why) = confidence(StallKind::Poll, stripped());
    assert_eq!(how, Confidence::Medium);
    assert!(why.ends_with("the line was not seen"), "{why}");
    // With symbols, but without line tables.
    let mut symbols = stack("std::fs::read", "shop::upload", 7).unwrap();
    let without_lines = symbols.frames.iter().map(|frame| Frame {
        file: None,
        line: None,
        ..frame.clone()
    });
    symbols.frames = without_lines.collect();
    let (how, why) = confidence(StallKind::Turn, symbols);
    assert_eq!(how, Confidence::Low);
    assert!(why.contains("the function was seen, but no line"), "{why}");
    let (how, why) = confidence(
        StallKind::Turn,
        stack("std::fs::read", "shop::upload", 7).unwrap(),
    );
    assert_eq!(how, Confidence::Medium);
    assert!(why.starts_with("the line was seen"), "{why}");
}
