//! Three lines block, of two kinds; moved off the thread, none does.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod common;

use common::{both, figure};

#[test]
fn three_lines_are_found_and_none_when_they_are_moved_off() {
    let verdicts = both(env!("CARGO_BIN_EXE_image_assessment"));
    verdicts.tell_of(&[
        ("reading", "File I/O"),
        ("decoding", "Event Loop Blocking (CPU)"),
        ("encoding", "Event Loop Blocking (CPU)"),
    ]);
    for verdict in [&verdicts.broken, &verdicts.fixed] {
        assert_eq!(figure(verdict, "assessed"), 3.0);
        assert!(figure(verdict, "wall_ms") > 1_000.0);
    }
    // Three pictures are decoded, each in a poll of its own.
    assert!(figure(&verdicts.broken, "stalls") >= 3.0);
    assert!(
        figure(&verdicts.broken, "longest_stall_ms") > figure(&verdicts.fixed, "longest_stall_ms")
    );
}
