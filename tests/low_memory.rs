//! With hardly any memory left the program lives, and stalls are told of.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]

mod common;

use std::process::Command;
use std::time::Instant;

use common::{Told, ms, multi_thread};
use stallscope::{Phase, Stall, WatchExt};

const MB: u64 = 1 << 20;
const MEGABYTES: &str = "STALLSCOPE_MEGABYTES";

/// Runs a case in a process of its own, which limits itself.
fn alone(case: &str) {
    alone_with(case, 0);
}

/// The same, with so many megabytes.
fn alone_with(case: &str, megabytes: u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("cases::{case}"), "--ignored"])
        .args(["--nocapture", "--test-threads=1"])
        // Else glibc sets 64 MB of address space aside for each thread.
        .env("MALLOC_ARENA_MAX", "1")
        .env(MEGABYTES, megabytes.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "with {megabytes} MB: {:?} {text}",
        output.status
    );
}

/// Between where nothing of debug info has room and where all has.
#[test]
fn with_any_address_space_left() {
    let of_program = std::fs::metadata("/proc/self/exe").unwrap().len() / MB;
    for megabytes in (24..of_program * 2 + 40).step_by(8) {
        alone_with("address_space_left", megabytes);
    }
}

#[test]
fn with_any_memory_for_data_left() {
    for megabytes in (24..80).step_by(8) {
        alone_with("data_left", megabytes);
    }
}

#[test]
fn with_200_mb_of_address_space() {
    alone("address_space_200");
}

#[test]
fn with_less_than_debug_info_takes_names_are_left() {
    alone("names_only");
}

#[test]
fn with_nothing_to_spare_addresses_are_left() {
    alone("addresses_only");
}

fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.unwrap().split_whitespace().next().unwrap();
    kilobytes.parse::<u64>().unwrap() * 1024
}

fn limit(resource: libc::__rlimit_resource_t, bytes: u64) {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: reads a struct that lives here.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0);
}

/// Some stalls of different lines, told of to their ends.
fn stalls(before_watching: impl FnOnce()) -> (Vec<Stall>, Option<String>) {
    let runtime = multi_thread(2);
    before_watching();
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let mut all = Vec::new();
    for number in 0..3 {
        let ended = (0..20).find_map(|_| stall(&runtime, &told, number % 2 == 0));
        all.push(ended.expect("one in 20 stalls is told of"));
    }
    let why = watchdog.health().no_stacks().map(str::to_owned);
    drop(watchdog);
    // The program still has memory of its own.
    let of_the_program = vec![1_u8; 8 << 20];
    assert_eq!(std::hint::black_box(of_the_program)[7], 1);
    (all, why)
}

/// One stall at its end; none if the machine gave the watchdog no CPU for all of it.
fn stall(runtime: &tokio::runtime::Runtime, told: &Told, sleeps: bool) -> Option<Stall> {
    told.clear();
    let stall = async move {
        if sleeps {
            std::thread::sleep(ms(150));
        } else {
            drop(Command::new("sleep").arg("0.15").status());
        }
    };
    let task = runtime.spawn(stall.watched("stall"));
    runtime.block_on(task).unwrap();
    let deadline = Instant::now() + ms(5000);
    while told.of(Phase::Ended).is_empty() && Instant::now() < deadline {
        std::thread::sleep(ms(5));
    }
    let ended = told.of(Phase::Ended);
    ended.first().map(|event| event.stall.clone())
}

mod cases {
    use super::*;

    #[test]
    #[ignore = "limits the process"]
    fn address_space_200() {
        limit(libc::RLIMIT_AS, 200 * MB);
        stalls(|| ());
    }

    fn left() -> u64 {
        std::env::var(MEGABYTES).unwrap().parse::<u64>().unwrap() * MB
    }

    #[test]
    #[ignore = "limits the process"]
    fn address_space_left() {
        stalls(|| limit(libc::RLIMIT_AS, status("VmSize:") + left()));
    }

    #[test]
    #[ignore = "limits the process"]
    fn data_left() {
        stalls(|| limit(libc::RLIMIT_DATA, status("VmData:") + left()));
    }

    /// With so little left when the watchdog starts.
    fn with_left(left: u64) -> (Vec<Stall>, String) {
        let (all, why) = stalls(|| limit(libc::RLIMIT_AS, status("VmSize:") + left));
        (all, why.unwrap_or_default())
    }

    #[test]
    #[ignore = "limits the process"]
    fn names_only() {
        let (all, why) = with_left(48 * MB);
        println!("{why}");
        assert!(why.starts_with("lines are missing"), "{why}");
        let stack = all[2].stack().unwrap();
        let is_named = |frame: &stallscope::Frame| frame.function().is_some();
        assert!(stack.frames().iter().any(is_named));
    }

    #[test]
    #[ignore = "limits the process"]
    fn addresses_only() {
        let (all, why) = with_left(24 * MB);
        println!("{why}");
        assert!(why.starts_with("names and lines are missing"), "{why}");
        let frames = all
            .iter()
            .filter_map(Stall::stack)
            .flat_map(stallscope::Stack::frames);
        assert!(frames.into_iter().all(|frame| frame.address() != 0));
    }
}
