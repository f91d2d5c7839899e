//! Results come as they are there, within the limit; saving them holds up the rest.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::{both, figure};

#[test]
fn saving_in_the_body_of_the_stream_is_found() {
    let verdicts = both(env!("CARGO_BIN_EXE_streaming_batch"));
    verdicts.tell_of(&[("saving", "Event Loop Blocking (CPU)")]);
    for verdict in [&verdicts.broken, &verdicts.fixed] {
        assert_eq!(figure(verdict, "results"), 10.0);
        assert_eq!(figure(verdict, "pictures"), 9.0);
        assert_eq!(figure(verdict, "refused"), 0.0);
        let peak = figure(verdict, "peak_in_flight");
        assert!((2.0..=5.0).contains(&peak), "{peak}");
        // Ten prompts, one tried again once, one twice.
        assert_eq!(figure(verdict, "requests"), 13.0);
    }
    let fixed = &verdicts.fixed;
    assert!(figure(fixed, "first_result_ms") < figure(fixed, "last_result_ms"));
    assert!(figure(fixed, "last_result_ms") < figure(fixed, "sequential_ms"));
}
