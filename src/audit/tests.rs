//! What is made of a poll's account, by tables.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::audit::findings;
use crate::audit::measure::Spent;
use crate::audit::session::{Call, Noted, Session, Sighting, TaskName, Wanted};
use crate::blocking::Detection;
use crate::os::{self, Doing, Usage};
use crate::report::Report;
use crate::severity::Thresholds;
use crate::stall::Cause;

const MS: u64 = 1_000_000;

fn session() -> Session {
    let name = Arc::new(TaskName {
        name: "made up".to_owned(),
        location: Location::caller(),
    });
    let wanted = Wanted {
        thresholds: Thresholds::default(),
        floor: Duration::from_millis(10),
        limit: None,
        on_limit: None,
        allowed: Vec::new(),
        completed: Arc::default(),
    };
    Session::new(name, wanted, None)
}

/// A poll of 20 ms: asleep for 15 of them, once.
fn noted(session: &Session) -> Noted {
    Noted {
        thread: 1,
        seq: 1,
        name: Arc::clone(&session.name),
        worker: Some(0),
        start_ns: 0,
        spent: Spent {
            wall_ns: 20 * MS,
            usage: Usage {
                sleeps: 1,
                major_faults: 0,
                cpu_ns: 5 * MS,
                others_ns: 0,
                wait_ns: 0,
            },
        },
        measured: true,
        handed_over: false,
        panicked: false,
        calls: Vec::new(),
    }
}

fn report(change: impl FnOnce(&mut Noted), sighting: Option<Doing>) -> Report {
    let session = session();
    let mut noted = noted(&session);
    change(&mut noted);
    session.note(noted, Vec::new());
    if let Some(doing) = sighting {
        session.see(Sighting {
            thread: 1,
            seq: 1,
            doing,
            addresses: Vec::new(),
            seen: 1,
        });
    }
    findings::report(&session, &[])
}

/// How many stalls, and how many places that blocked.
fn found(change: impl FnOnce(&mut Noted)) -> (usize, usize) {
    let report = report(change, None);
    (report.stalls().len(), report.blocking().len())
}

/// Where calls are seen, a short sleep without one is not blamed.
const SLEEPS: usize = match os::DETECTION {
    Detection::Sleeps => 1,
    _ => 0,
};

/// One that is long is blamed wherever sleeps are counted.
const LONG_SLEEPS: usize = match os::DETECTION {
    Detection::Nothing => 0,
    _ => 1,
};

#[test]
fn a_long_sleep_is_a_stall_and_blocks() {
    assert_eq!(found(|_| ()), (1, LONG_SLEEPS));
}

#[test]
fn waiting_for_a_cpu_is_neither() {
    let waits = |noted: &mut Noted| {
        noted.spent.usage.sleeps = 0;
        noted.spent.usage.wait_ns = 15 * MS;
    };
    assert_eq!(found(waits), (0, 0));
    let computes = |noted: &mut Noted| {
        noted.spent.usage.sleeps = 0;
        noted.spent.usage.cpu_ns = 12 * MS;
    };
    assert_eq!(found(computes), (1, 0));
    assert_eq!(report(computes, None).stalls()[0].cause(), Cause::OnCpu);
}

#[test]
fn a_worker_that_was_handed_over_was_not_held_up() {
    assert_eq!(found(|noted| noted.handed_over = true), (0, 0));
}

#[test]
fn a_short_sleep_counts_unless_another_thread_may_be_the_reason() {
    let short = |off_ns: u64, others_ns: u64| {
        move |noted: &mut Noted| {
            noted.spent.wall_ns = 5 * MS + off_ns;
            noted.spent.usage.others_ns = others_ns;
        }
    };
    assert_eq!(found(short(50_000, 0)), (0, SLEEPS), "a timer");
    assert_eq!(found(short(9_000, 0)), (0, 0), "the kernel's own");
    assert_eq!(found(short(4 * MS, MS)), (0, 0), "perhaps a lock");
    assert_eq!(found(short(10 * MS, MS)), (1, LONG_SLEEPS), "for long");
}

#[test]
fn what_is_seen_decides() {
    let short = |noted: &mut Noted| {
        noted.spent.wall_ns = 6 * MS;
        noted.spent.usage.others_ns = MS;
    };
    let syscall = |name: &str| (0..400).find(|number| os::syscall_name(*number) == Some(name));
    for (name, blocks) in [
        ("fsync", true),
        ("recvfrom", true),
        ("mmap", false),
        ("madvise", false),
    ] {
        let Some(number) = syscall(name) else {
            continue;
        };
        let report = report(short, Some(Doing::Blocked(number)));
        assert_eq!(!report.blocking().is_empty(), blocks, "{name}");
    }
    assert_eq!(report(short, Some(Doing::Faulting)).blocking().len(), 0);
    let from_disk = |noted: &mut Noted| {
        short(noted);
        noted.spent.usage.major_faults = 1;
    };
    let report = report(from_disk, Some(Doing::Faulting));
    assert_eq!(report.blocking()[0].cause(), Cause::PageFault);
}

#[test]
fn a_call_counts_whether_it_slept_or_not() {
    let called = |noted: &mut Noted| {
        noted.spent.wall_ns = MS;
        noted.spent.usage.sleeps = 0;
        noted.spent.usage.cpu_ns = MS;
        noted.calls.push(Call {
            name: "open64",
            addresses: Vec::new(),
            wall_ns: 20_000,
            wait_ns: 0,
            sleeps: 0,
        });
    };
    assert_eq!(found(called), (0, 1));
    let locked = |wall_ns: u64| {
        move |noted: &mut Noted| {
            noted.spent.wall_ns = wall_ns;
            noted.spent.usage.cpu_ns = 0;
            noted.spent.usage.others_ns = MS;
            noted.calls.push(Call {
                name: "pthread_mutex_lock",
                addresses: Vec::new(),
                wall_ns,
                wait_ns: 0,
                sleeps: 1,
            });
        }
    };
    assert_eq!(found(locked(2 * MS)), (0, 0), "an accident of timing");
    assert_eq!(found(locked(15 * MS)), (1, 1));
    assert_eq!(
        report(locked(15 * MS), None).stalls()[0].cause(),
        Cause::Lock
    );
}

#[test]
fn the_message_of_a_panic_is_not_the_futures() {
    let panics = |cpu_ns: u64, off_ns: u64| {
        move |noted: &mut Noted| {
            noted.panicked = true;
            noted.spent.usage.cpu_ns = cpu_ns;
            noted.spent.wall_ns = cpu_ns + off_ns;
            noted.spent.usage.major_faults = 3;
        }
    };
    assert_eq!(found(panics(500 * MS, MS)), (0, 0));
    assert_eq!(found(panics(500 * MS, 15 * MS)), (1, LONG_SLEEPS));
}

#[test]
fn without_an_account_the_clock_decides() {
    let unmeasured = |noted: &mut Noted| {
        noted.measured = false;
        noted.spent.usage = Usage::default();
    };
    assert_eq!(found(unmeasured), (1, 0));
    let report = report(unmeasured, None);
    assert_eq!(report.detection(), Some(Detection::Nothing));
    assert!(report.check_no_blocking().unwrap_err().is_unsupported());
}

/// The report of many polls: how long each slept.
fn report_of(sleeps_ns: impl IntoIterator<Item = u64>) -> Report {
    let session = session();
    for (seq, off_ns) in (1..).zip(sleeps_ns) {
        let mut noted = noted(&session);
        noted.seq = seq;
        noted.spent.usage.cpu_ns = 1_000;
        noted.spent.wall_ns = 1_000 + off_ns;
        session.note(noted, Vec::new());
    }
    findings::report(&session, &[])
}

#[test]
fn a_stall_is_found_after_any_number_of_short_sleeps() {
    let report = report_of([60_000; 1_100].into_iter().chain([300 * MS]));
    assert_eq!(report.stalls().len(), 1);
    assert!(report.check_no_stalls().is_err());
    let report = report_of([300 * MS].into_iter().chain([60_000; 1_100]));
    assert_eq!(report.stalls().len(), 1, "nor is an early one forgotten");
    assert_eq!(report.forgotten(), 101);
}

#[test]
fn of_many_stalls_all_are_counted_and_the_longest_kept() {
    let report = report_of((0..2_500).map(|n| (11 + n % 30) * MS));
    assert_eq!(report.counts().total(), 2_500);
    assert_eq!((report.stalls().len(), report.forgotten()), (1_000, 1_500));
    let shortest = report.stalls().iter().map(|stall| stall.duration()).min();
    assert!(shortest > Some(Duration::from_millis(28)), "{shortest:?}");
    let text = report.check_no_stalls().unwrap_err().to_string();
    assert!(text.starts_with("2500 polls"), "{text}");
}

#[test]
fn what_can_be_in_no_finding_takes_nobodys_place() {
    let report = report_of([5_000; 3_000].into_iter().chain([50_000]));
    assert_eq!(report.forgotten(), 0);
    assert_eq!(report.blocking().len(), SLEEPS);
}

#[test]
fn a_sleep_beside_a_call_is_another() {
    let Some(sleep) = (0..400).find(|number| os::syscall_name(*number) == Some("clock_nanosleep"))
    else {
        return;
    };
    let called = |noted: &mut Noted| {
        noted.calls.push(Call {
            name: "open64",
            addresses: Vec::new(),
            wall_ns: 20_000,
            wait_ns: 0,
            sleeps: 0,
        });
    };
    let report = report(called, Some(Doing::Blocked(sleep)));
    let mut causes: Vec<String> = report
        .blocking()
        .iter()
        .map(|blocking| blocking.cause().to_string())
        .collect();
    causes.sort();
    assert_eq!(causes, ["blocked in clock_nanosleep", "blocked in open64"]);
}
