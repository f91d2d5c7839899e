//! The advice for stacks of real programs: each of `stacks.txt` as a test.

use crate::advice::choice::choose;
use crate::advice::kinds::ALL;
use crate::stall::{Cause, Frame};

const STACKS: &str = include_str!("stacks.txt");

/// A stack of a program, and the kind of advice that is right for it.
struct Case {
    title: &'static str,
    cause: Cause,
    expected: &'static str,
    frames: Vec<Frame>,
    culprit: Option<usize>,
}

fn cause_of(text: &str) -> Cause {
    match text {
        "on CPU" => Cause::OnCpu,
        "lock" => Cause::Lock,
        "page fault" => Cause::PageFault,
        "starved" => Cause::Starved,
        "suspended" => Cause::Suspended,
        "unknown" => Cause::Unknown,
        blocked => Cause::Blocked {
            syscall: blocked
                .strip_prefix("blocked in ")
                .unwrap_or_else(|| panic!("no cause: {blocked}"))
                .to_owned(),
        },
    }
}

/// `  function @ file`; `>` instead of the first space is the culprit.
fn frame_of(line: &str) -> Frame {
    let (function, file) = line[2..].rsplit_once(" @ ").unwrap_or((&line[2..], "-"));
    let file = file.replace("/stallscope/", concat!(env!("CARGO_MANIFEST_DIR"), "/"));
    Frame {
        function: (function != "?").then(|| function.into()),
        file: (file != "-").then(|| file.into()),
        ..Frame::default()
    }
}

fn cases() -> Vec<Case> {
    let blocks = STACKS
        .split("\n\n")
        .filter(|block| !block.starts_with("//"));
    let mut tails: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut cases = Vec::new();
    for block in blocks {
        let mut lines = block.trim_matches('\n').lines();
        let title = lines.next().unwrap_or_default();
        if let Some(tail) = title.strip_prefix("tail ") {
            tails.push((tail, lines.collect()));
            continue;
        }
        let mut value = |key: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(key)
                .unwrap_or_else(|| panic!("{title}: {line} instead of {key}"))
        };
        let cause = cause_of(value("cause: "));
        let expected = value("advice: ");
        let mut frames: Vec<&str> = lines.collect();
        if let Some(tail) = frames.last().and_then(|line| line.strip_prefix("+ ")) {
            frames.pop();
            let (_, rest) = tails.iter().find(|(name, _)| *name == tail).unwrap();
            frames.extend(rest);
        }
        cases.push(Case {
            title,
            cause,
            expected,
            culprit: frames.iter().position(|line| line.starts_with('>')),
            frames: frames.into_iter().map(frame_of).collect(),
        });
    }
    cases
}

#[test]
fn each_stack_has_the_advice_that_is_right_for_it() {
    let cases = cases();
    assert!(cases.len() >= 120, "{}", cases.len());
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let choice = choose(&case.cause, &case.frames, case.culprit);
            let by_library = if choice.by_library {
                " by a library"
            } else {
                ""
            };
            let advised = format!("{}{by_library}", choice.kind.name);
            (advised != case.expected).then(|| {
                format!(
                    "{}, {}: {advised}, not {}",
                    case.title, case.cause, case.expected
                )
            })
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn each_kind_has_a_stack() {
    let cases = cases();
    for kind in ALL {
        let shown = cases
            .iter()
            .any(|case| case.expected.split(" by ").next() == Some(kind.name));
        assert!(shown, "no stack of `{}`", kind.name);
    }
}

/// What is not known of the whole stack is not guessed from half of a name.
#[test]
fn what_a_cause_alone_says() {
    for case in cases() {
        let kind = choose(&Cause::Starved, &case.frames, case.culprit).kind;
        assert_eq!(kind.name, "starved", "{}", case.title);
    }
    for (cause, expected) in [
        ("on CPU", "unseen_compute"),
        ("lock", "unseen_lock"),
        ("blocked in futex", "unseen"),
        ("page fault", "fault"),
        ("suspended", "suspended"),
        ("unknown", "unseen"),
        ("blocked in connect", "socket"),
        ("blocked in fsync", "disk"),
        ("blocked in strange", "unseen"),
    ] {
        assert_eq!(
            choose(&cause_of(cause), &[], None).kind.name,
            expected,
            "{cause}"
        );
    }
}
