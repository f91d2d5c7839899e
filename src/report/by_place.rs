//! Stalls with several places: each form counts time by place.

use std::sync::Arc;

use crate::advice;
use crate::profile::{Profile, SeenPlace};
use crate::report::tests::{blocked, report_of, stack, stall};
use crate::report::{Confidence, Report};
use crate::severity::{Severity, Thresholds};
use crate::stall::{Cause, Phase, Stall, StallEvent, StallKind};

const MS: u64 = 1_000_000;

/// A poll of so long, with so many milliseconds at lines 1, 2, .. of functions a, b, ..
fn sampled(id: u64, ms: u64, times: &[u64]) -> Stall {
    let severity_of = |ms| Thresholds::default().severity_of(std::time::Duration::from_millis(ms));
    let at = |number: u32| {
        let name = ["a", "b", "c", "d"][number as usize];
        stack("std::fs::read", &format!("shop::{name}"), number + 1)
    };
    let places = (0..).zip(times).map(|(number, ms)| SeenPlace {
        held_by: None,
        stack: at(number).filter(|_| number > 0),
        time_ns: ms * MS,
        samples: 2,
        cause: blocked("read"),
        severity: severity_of(*ms),
    });
    let counted = times.iter().filter(|ms| severity_of(**ms).is_some());
    let rest = ms - counted.sum::<u64>();
    Stall {
        profile: Some(Arc::new(Profile {
            places: places.collect(),
            seen_ns: times.iter().sum::<u64>() * MS,
            rest_ns: rest * MS,
            bounds_ns: [10, 100, 1_000, 5_000].map(|ms: u64| ms * MS),
        })),
        ..stall(id, 0, ms, blocked("read"), at(0), "upload")
    }
}

fn with_profile(mut stall: Stall, change: impl FnOnce(&mut Profile)) -> Stall {
    change(Arc::make_mut(stall.profile.as_mut().unwrap()));
    stall
}

/// Where, how often, how long and how bad.
fn findings(stalls: &[Stall]) -> Vec<(String, u64, u64, Option<Severity>)> {
    let report = report_of(1, stalls);
    let findings = report.hotspots.iter().map(|hotspot| {
        let ms = hotspot.total().as_millis() as u64;
        let name = hotspot
            .culprit
            .replace("shop::", "")
            .replace(" src/upload.rs", "");
        (
            name,
            hotspot.counts.total(),
            ms / 10 * 10,
            hotspot.counts.worst(),
        )
    });
    findings.collect()
}

fn finding(
    name: &str,
    count: u64,
    ms: u64,
    severity: Severity,
) -> (String, u64, u64, Option<Severity>) {
    (name.to_owned(), count, ms, Some(severity))
}

#[test]
fn findings_count_each_place_with_its_own_time_and_severity() {
    assert_eq!(
        findings(&[sampled(1, 5_100, &[4_900, 200])]),
        [
            finding("a:1", 1, 4_900, Severity::High),
            finding("b:2", 1, 200, Severity::Medium)
        ]
    );
    assert_eq!(
        findings(&[sampled(1, 1_050, &[950, 100]), sampled(2, 200, &[200])]),
        [
            finding("a:1", 2, 1_150, Severity::Medium),
            finding("b:2", 1, 100, Severity::Medium)
        ]
    );
    // What would not be a stall by itself is none here.
    assert_eq!(
        findings(&[sampled(1, 505, &[500, 5])]),
        [finding("a:1", 1, 500, Severity::Medium)]
    );
    // What is left is told if it is much.
    let name = "upload (src/main.rs:7)";
    assert_eq!(
        findings(&[sampled(1, 500, &[300])]),
        [
            finding("a:1", 1, 300, Severity::Medium),
            finding(name, 1, 200, Severity::Medium)
        ]
    );
    // Several lines of one function are one stall of it, as severe as all of them.
    let mut lines = sampled(1, 130, &[70, 40, 5]);
    let profile = Arc::make_mut(lines.profile.as_mut().unwrap());
    profile.places[1].stack = stack("std::fs::write", "shop::a", 8);
    assert_eq!(
        findings(&[lines]),
        [finding("a:1", 1, 110, Severity::Medium)]
    );
    // Not one of many short ones may be blamed.
    assert_eq!(
        findings(&[sampled(1, 20, &[8, 7, 5])]),
        [finding(name, 1, 20, Severity::Monitor)]
    );
}

#[test]
fn where_little_was_seen_no_line_is_blamed() {
    let half = sampled(1, 375, &[188]);
    let less = sampled(2, 375, &[57]);
    let once = |one_poll| Stall {
        kind: StallKind::Turn,
        one_poll,
        ..with_profile(sampled(3, 40, &[40]), |profile| {
            profile.places[0].samples = 1
        })
    };
    let twice = Stall {
        kind: StallKind::Turn,
        ..sampled(4, 40, &[40])
    };
    for (stall, blames) in [
        (&half, true),
        (&less, false),
        (&once(None), false),
        (&once(Some(Confidence::Low)), true),
        (&twice, true),
    ] {
        let names = findings(std::slice::from_ref(stall));
        assert_eq!(
            names.iter().any(|finding| finding.0 == "a:1"),
            blames,
            "{stall}"
        );
        let neutral = advice::of(&stall.cause(), None);
        assert_eq!(stall.advice() != neutral, blames, "{stall}");
        let report = report_of(1, std::slice::from_ref(stall));
        if !blames {
            assert_ne!(report.hotspots[0].confidence().0, Confidence::High);
            assert_eq!(report.hotspots[0].advice, neutral);
        }
        assert_eq!(stall.stack().unwrap().culprit().unwrap().line(), Some(1));
    }
    // Waiting for a CPU is not to be seen anywhere.
    let waited = Stall {
        waiting_ns: 300 * MS,
        ..with_profile(less, |profile| profile.rest_ns = 18 * MS)
    };
    assert_eq!(findings(&[waited])[0].0, "a:1");
}

#[test]
fn a_line_names_the_shares() {
    let shown = |stall: &Stall| {
        let text = StallEvent {
            phase: Phase::Ended,
            stall: stall.clone(),
        };
        text.to_string()
            .split_once(" on worker ")
            .unwrap()
            .1
            .to_owned()
    };
    let turn = |stall: Stall, known_polls| Stall {
        kind: StallKind::Turn,
        task: None,
        known_polls: Some(known_polls),
        ..stall
    };
    let one_sample = |stall| with_profile(stall, |profile| profile.places[0].samples = 1);
    let computing = |stall| with_profile(stall, |profile| profile.places[1].cause = Cause::OnCpu);
    let hostile = with_profile(sampled(1, 500, &[300, 200]), |profile| {
        profile.places[1].stack = stack("x", "shop::\n\u{202e}evil", 2);
    });
    for (stall, expected) in [
        (
            sampled(1, 500, &[480]),
            "1: blocked in read at shop::a src/upload.rs:1 (std::fs::read)",
        ),
        (
            sampled(1, 500, &[300, 200]),
            "1: blocked in read at shop::a src/upload.rs:1 (60 %), shop::b src/upload.rs:2 (40 %)",
        ),
        (
            computing(sampled(1, 500, &[300, 200])),
            "1: blocked in read at shop::a src/upload.rs:1 (60 %), shop::b src/upload.rs:2 (40 %, on CPU)",
        ),
        (
            sampled(1, 500, &[470, 20]),
            "1: blocked in read at shop::a src/upload.rs:1 (std::fs::read)",
        ),
        (
            sampled(1, 500, &[300]),
            "1: blocked in read at shop::a src/upload.rs:1 (60 %)",
        ),
        (
            sampled(1, 500, &[50]),
            "1: blocked in read at shop::a src/upload.rs:1 (10 %); only 50.0ms of it seen",
        ),
        (
            one_sample(turn(sampled(1, 50, &[50]), 0)),
            "1: blocked in read, seen at shop::a src/upload.rs:1 (std::fs::read)",
        ),
        (
            hostile,
            "1: blocked in read at shop::a src/upload.rs:1 (60 %), shop::\\n\\u{202e}evil src/upload.rs:2 (40 %)",
        ),
    ] {
        assert_eq!(shown(&stall), expected);
    }
    let text = |polls| one_sample(turn(sampled(1, 50, &[50]), polls)).to_string();
    assert!(
        text(0).starts_with("MONITOR turn of 50.0ms, at least 1 poll on worker 1"),
        "{}",
        text(0)
    );
    assert!(
        text(3).starts_with("MONITOR turn of 50.0ms, at least 3 polls on worker 1"),
        "{}",
        text(3)
    );
}

#[test]
fn a_stall_that_was_not_sampled_is_at_its_stack_throughout() {
    let one = stall(
        1,
        0,
        250,
        blocked("read"),
        stack("std::fs::read", "shop::a", 1),
        "upload",
    );
    let places: Vec<_> = one.places().collect();
    assert_eq!(places.len(), 1);
    assert_eq!(
        (places[0].time(), places[0].severity()),
        (one.duration(), Some(Severity::Medium))
    );
    assert_eq!(one.seen(), one.duration());
    let none = stall(1, 0, 250, blocked("read"), None, "upload");
    assert_eq!((none.places().count(), none.seen().as_nanos()), (0, 0));
}

#[test]
fn every_form_counts_by_place_and_json_keeps_them() {
    let report = report_of(1, &[sampled(1, 5_100, &[4_900, 200])]);
    assert_eq!(
        report.to_folded(),
        "shop::main;shop::a;std::fs::read 4900000\nshop::main;shop::b;std::fs::read 200000\n"
    );
    let html = report.to_html();
    assert!(html.contains("shop::a 4.90 s, 96 %") && html.contains("shop::b 200.0 ms, 4 %"));
    let markdown = report.to_markdown();
    assert!(markdown.contains("SEVERITY: HIGH") && markdown.contains("SEVERITY: MEDIUM"));
    assert!(
        !markdown.contains("SEVERITY: CRITICAL"),
        "no place had the worker for 5 s"
    );
    let trace: serde_json::Value = serde_json::from_str(&report.to_chrome_trace()).unwrap();
    let places = &trace["traceEvents"][1]["args"]["places"];
    assert_eq!(
        (&places[0]["ms"], &places[1]["ms"]),
        (&4_900.0.into(), &200.0.into())
    );
    let read = Report::from_json(&report.to_json()).unwrap();
    assert_eq!(read, report);
    assert_eq!(read.stalls[0].places().count(), 2);
    // Of a version that did not sample.
    let mut json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    json["stalls"][0].as_object_mut().unwrap().remove("profile");
    let old = Report::from_json(&json.to_string()).unwrap();
    assert_eq!(old.stalls[0].places().count(), 1);

    let merged = report.merge(&report_of(2, &[sampled(1, 300, &[100, 200])]));
    let totals: Vec<u64> = merged
        .hotspots
        .iter()
        .map(|h| h.total().as_millis() as u64 / 10)
        .collect();
    assert_eq!(totals, [500, 40]);
}

#[test]
fn starved_stalls_are_counted_whole() {
    let starved = Stall {
        cause: Cause::Starved,
        ..sampled(1, 500, &[100, 100])
    };
    assert_eq!(
        findings(&[starved]),
        [finding("a:1", 1, 500, Severity::Medium)]
    );
}
