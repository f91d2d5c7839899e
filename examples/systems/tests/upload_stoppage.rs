//! The job stops at an upload, which is told while it is stuck; with timeouts and
//! another thread it completes.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::{both, figure};

#[test]
fn the_upload_is_told_while_the_job_is_stuck() {
    let verdicts = both(env!("CARGO_BIN_EXE_upload_stoppage"));
    verdicts.tell_of(&[("uploading", "External API")]);
    let (broken, fixed) = (&verdicts.broken, &verdicts.fixed);
    let uploading = &broken["planted"][0];
    assert_eq!(uploading["severity"], "CRITICAL");
    assert!(uploading["cause"].as_str().unwrap().contains("recv"));

    // One hangs, one never answers.
    assert_eq!(figure(broken, "told_while_stuck"), 2.0);
    assert!(figure(broken, "told_after_ms") >= 5_000.0);
    assert!(figure(broken, "waiting_then") >= 1.0);
    // A batch of 5 cannot use up 10 permits.
    assert!(figure(broken, "permits_then") >= 5.0);
    assert_eq!(figure(broken, "peak_uploads"), 1.0);
    assert!(figure(broken, "completed") < 20.0);

    assert_eq!(figure(fixed, "completed"), 20.0);
    assert!(figure(fixed, "peak_uploads") > 1.0);
    assert!(figure(fixed, "peak_in_progress") <= 5.0);
    // Four items had to be tried again, one of them twice.
    assert!(figure(fixed, "attempts") >= 25.0);
}
