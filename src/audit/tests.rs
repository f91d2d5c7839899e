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
    };
    Session::new(name, wanted)
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
    findings::report(&session, &[], Vec::new())
}

/// How many stalls, and how many places that blocked.
fn found(change: impl FnOnce(&mut Noted)) -> (usize, usize) {
    let report = report(change, None);
    (report.stalls().len(), report.blocking().len())
}

/// Where calls are seen, a sleep without one is not blamed.
const SLEEPS: usize = match os::DETECTION {
    Detection::Sleeps => 1,
    _ => 0,
};

#[test]
fn a_long_sleep_is_a_stall_and_blocks() {
    assert_eq!(found(|_| ()), (1, SLEEPS));
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
    assert_eq!(found(short(10 * MS, MS)), (1, SLEEPS), "for long");
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
    assert_eq!(found(panics(500 * MS, 15 * MS)), (1, SLEEPS));
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
