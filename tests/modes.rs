//! How much polls measure: for all of them, and for a future of its own.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::num::NonZeroU32;
use std::time::Duration;

use common::{alone, current_thread};
use stallscope::{PollTiming, Report, WatchExt, Watchdog};

const POLLS: u64 = 20_000;

async fn polled(times: u64) {
    for _ in 1..times {
        tokio::task::yield_now().await;
    }
}

fn one_in(n: u32) -> PollTiming {
    PollTiming::Sampled(NonZeroU32::new(n).unwrap())
}

fn report_of(timing: PollTiming, future: impl Future<Output = ()>) -> Report {
    current_thread().block_on(async {
        let watchdog = Watchdog::builder().poll_timing(timing).start().unwrap();
        future.await;
        watchdog.report()
    })
}

fn polls_of(report: &Report, name: &str) -> u64 {
    let mut tasks = report.tasks().iter().filter(|task| task.name() == name);
    let count = tasks.next().map_or(0, |task| task.polls().count());
    assert!(tasks.next().is_none(), "{name} twice");
    count
}

#[test]
fn each_poll_is_counted_or_none_or_about_as_many() {
    // The timing of a process is that of its most demanding watchdog.
    let _alone = alone();
    let exact = report_of(PollTiming::Exact, polled(POLLS).watched("exact"));
    assert_eq!(polls_of(&exact, "exact"), POLLS);

    let none = report_of(PollTiming::DetectOnly, polled(POLLS).watched("none"));
    assert_eq!(polls_of(&none, "none"), 0);

    let sampled = report_of(one_in(10), polled(POLLS).watched("sampled"));
    let count = polls_of(&sampled, "sampled");
    assert!(count.is_multiple_of(10), "each stands for ten: {count}");
    // Some 2,000 measured, five times the error of that.
    assert!(count.abs_diff(POLLS) < POLLS / 9, "{count}");
}

#[test]
fn a_future_has_its_own_timing() {
    let _alone = alone();
    let report = report_of(PollTiming::DetectOnly, async {
        let exact = polled(POLLS).watched("own").timing(PollTiming::Exact);
        let within = async {
            exact.await;
            polled(POLLS).watched("like all").await;
        };
        within.watched("around").await;
    });
    assert_eq!(polls_of(&report, "own"), POLLS);
    assert_eq!(polls_of(&report, "like all"), 0);
    assert_eq!(polls_of(&report, "around"), 0);

    let report = report_of(PollTiming::Exact, async {
        let none = polled(POLLS).watched("none");
        none.timing(PollTiming::DetectOnly).await;
        let sampled = polled(POLLS).watched("some").timing(one_in(10));
        // Within one that is timed each time.
        sampled.watched("around some").await;
    });
    assert_eq!(polls_of(&report, "none"), 0);
    assert_eq!(polls_of(&report, "around some"), POLLS);
    let count = polls_of(&report, "some");
    assert!(
        count != POLLS && count.abs_diff(POLLS) < POLLS / 9,
        "{count}"
    );
}

#[test]
fn without_a_watchdog_nothing_is_measured() {
    let _alone = alone();
    // So that the clock is ready.
    drop(report_of(PollTiming::Exact, async {}));
    let unwatched = polled(POLLS).watched("alone").timing(PollTiming::Exact);
    current_thread().block_on(unwatched);
    let later = report_of(PollTiming::Exact, async {
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    assert_eq!(polls_of(&later, "alone"), 0);
}

#[test]
fn deep_within_each_other_all_are_timed_that_are_told_apart() {
    let _alone = alone();
    let nested = async {
        let two = polled(POLLS).watched("inner").watched("middle");
        two.watched("outer").await;
    };
    let report = report_of(PollTiming::Exact, nested);
    for name in ["inner", "middle", "outer"] {
        assert_eq!(polls_of(&report, name), POLLS, "{name}");
    }
}
