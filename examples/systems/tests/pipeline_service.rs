//! Answers wait for the first stage where each run makes what it needs; where that is
//! shared, they come before the run begins.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::{both, figure};

#[test]
fn a_run_that_makes_its_own_executors_keeps_its_client_waiting() {
    let verdicts = both(env!("CARGO_BIN_EXE_pipeline_service"));
    verdicts.tell_of(&[
        ("executor made for each run", "Event Loop Blocking (CPU)"),
        ("commit on the event loop", "Database"),
        ("synchronous client", "External API"),
    ]);
    let (broken, fixed) = (&verdicts.broken, &verdicts.fixed);
    for verdict in [broken, fixed] {
        assert_eq!(figure(verdict, "accepted"), 25.0);
    }
    // Three stages, five runs and then twenty.
    assert_eq!(figure(broken, "executors_made"), 75.0);
    assert_eq!(figure(broken, "answered_after_first_stage"), 25.0);
    // Each of these polls blocks in it, and only there.
    assert!(broken["planted"][2]["stalls"].as_u64().unwrap() > 25);

    assert_eq!(figure(fixed, "executors_made"), 3.0);
    // However busy the machine is: nearly all.
    assert!(figure(fixed, "answered_before_first_stage") > 20.0);
    assert!(figure(fixed, "answer_p50_ms") * 5.0 < figure(broken, "answer_p50_ms"));
    assert!(figure(fixed, "answer_p95_ms") < figure(broken, "answer_p95_ms"));
    assert!(figure(fixed, "heartbeat_late_ms") < figure(broken, "heartbeat_late_ms"));
    assert!(figure(fixed, "score") >= 9.0);
}
