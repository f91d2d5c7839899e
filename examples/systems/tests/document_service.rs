//! Twelve lines of a service that freezes are found, each with its kind; with all of
//! it off the loop, its clients feel the difference.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::{both, figure};

const CPU: &str = "Event Loop Blocking (CPU)";

#[test]
fn all_that_blocks_in_a_service_is_found_while_it_is_under_load() {
    let verdicts = both(env!("CARGO_BIN_EXE_document_service"));
    verdicts.tell_of(&[
        ("model loading at start-up", "Startup/Shutdown"),
        ("blocking middleware", CPU),
        ("synchronous file I/O", "File I/O"),
        ("CPU work in the handler", CPU),
        ("SQLite in the handler", "Database"),
        ("connection for each request", "Database"),
        ("checkpoint parsed and freed in the task", CPU),
        ("CPU work in the task", CPU),
        ("synchronous API client", "External API"),
        ("checkpoint encoded in the task", CPU),
        ("checkpoint written in the task", "File I/O"),
        ("blocking shutdown", "Startup/Shutdown"),
    ]);
    let (broken, fixed) = (&verdicts.broken, &verdicts.fixed);
    for verdict in [broken, fixed] {
        assert_eq!(figure(verdict, "uploaded"), 55.0);
        assert!(figure(verdict, "checkpoint_mb") >= 10.0);
    }
    assert_eq!(figure(fixed, "processed"), 5.0);
    // Once at start-up and once at shutdown, once for each document.
    let stalls = |at: usize| broken["planted"][at]["stalls"].as_u64().unwrap();
    assert_eq!(stalls(0), 1);
    assert_eq!(stalls(11), 1);
    assert!(
        stalls(8) > 25,
        "five documents, fifteen stages: {}",
        stalls(8)
    );

    assert!(figure(broken, "beat_late_p99_ms") > 2.0 * figure(fixed, "beat_late_p99_ms"));
    assert!(figure(broken, "api_p50_ms") > 2.0 * figure(fixed, "api_p50_ms"));
    assert_eq!(figure(fixed, "drops"), 0.0);
    assert!(figure(fixed, "score") >= 9.0);
    assert!(figure(broken, "score") < 7.0);
}
