//! What the attribute costs a suite, in the profile that this is built in: CPU time of the
//! process, which others do not disturb.
//!
//! `scripts/test_cost.sh` prints it for the dev profile with and without optimized
//! dependencies.

#![allow(clippy::unwrap_used)]

use std::panic::catch_unwind;
use std::time::Duration;

use cpu_time::ProcessTime;

const RUNS: u32 = 500;

#[stallscope::test]
#[ignore = "a subject"]
async fn clean() {
    tokio::task::yield_now().await;
}

#[stallscope::test]
#[ignore = "a subject"]
async fn sleeps() {
    std::thread::sleep(Duration::from_millis(15));
}

fn bare() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::task::yield_now().await });
}

fn each(test: fn(), runs: u32) -> Duration {
    let start = ProcessTime::now();
    for _ in 0..runs {
        test();
    }
    start.elapsed() / runs
}

/// What a test takes that fails.
fn found() -> Duration {
    let start = ProcessTime::now();
    assert!(catch_unwind(sleeps).is_err());
    start.elapsed()
}

#[test]
#[ignore = "a measurement"]
fn what_a_test_costs() {
    println!("without the attribute   {:>9.1?} a test", each(bare, RUNS));
    println!("first of a process      {:>9.1?}", each(clean, 1));
    println!("clean                   {:>9.1?} a test", each(clean, RUNS));
    println!("first finding           {:>9.1?}", found());
    println!("each finding after it   {:>9.1?}", found());
}
