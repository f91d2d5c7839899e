//! Tests with the attribute, in all the forms that tests have.
//!
//! Those of [`subjects`] are not for themselves: others run them, in a process each as
//! nextest does, and read what they print.

#![cfg(all(
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::num::ParseIntError;
use std::process::Command;
use std::time::{Duration, Instant};

use cpu_time::ThreadTime;
use tokio::runtime::{Handle, RuntimeFlavor};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// For long enough to be seen from outside while all CPUs are busy.
fn load() {
    std::thread::sleep(ms(200));
}

/// By its thread's own clock: others may have the CPU meanwhile.
fn compute() {
    let start = ThreadTime::now();
    while start.elapsed() < ms(200) {
        std::hint::black_box(0);
    }
}

const ALLOWED: &[(&str, &str)] = &[
    ("attribute::load", "reads the fixtures, once"),
    ("attribute::not_there", "is gone"),
];

#[stallscope::test]
async fn runs_on_one_thread_by_default() {
    assert_eq!(
        Handle::current().runtime_flavor(),
        RuntimeFlavor::CurrentThread
    );
    tokio::time::sleep(ms(1)).await;
}

#[stallscope::test(flavor = "multi_thread", worker_threads = 3)]
async fn runs_on_as_many_threads_as_are_asked_for() {
    assert_eq!(Handle::current().metrics().num_workers(), 3);
    tokio::spawn(async {}).await.unwrap();
}

#[stallscope::test(flavor = "local")]
async fn runs_in_a_local_runtime() {
    let not_send = std::rc::Rc::new(7);
    let task = tokio::task::spawn_local(async move { *not_send });
    assert_eq!(task.await.unwrap(), 7);
}

#[stallscope::test(start_paused = true)]
async fn a_day_of_paused_time_is_over_at_once() {
    let start = Instant::now();
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[stallscope::test(name = "of its own")]
async fn a_runtime_has_a_name() {
    assert_eq!(Handle::current().name(), Some("of its own"));
}

#[stallscope::test]
async fn returns_a_result() -> Result<(), ParseIntError> {
    let answer: u32 = "42".parse()?;
    assert_eq!(answer, 42);
    Ok(())
}

/// It has attributes above.
#[ignore = "one that is left out is not run"]
#[stallscope::test]
/// And below.
#[allow(clippy::unreachable)]
async fn keeps_its_attributes() {
    #![allow(clippy::assertions_on_constants)]
    unreachable!();
}

#[stallscope::test]
#[should_panic(expected = "as it should")]
async fn panics_as_it_should() {
    tokio::task::yield_now().await;
    panic!("as it should");
}

#[stallscope::test]
#[should_panic]
#[allow(clippy::unused_unit)]
async fn panics_at_once() -> () {
    panic!();
}

#[stallscope::test(under = "10s", crate = "stallscope")]
async fn what_is_under_the_limit_is_no_stall() {
    load();
}

#[stallscope::test(allow = ["attribute::load"])]
async fn an_allowed_function_may_sleep() {
    load();
}

#[stallscope::test(allow = [("crate::compute", "is fast enough when optimized")])]
async fn an_allowed_function_may_compute() {
    compute();
}

#[stallscope::test(no_blocking, allow = ALLOWED)]
async fn what_is_allowed_may_block() {
    load();
}

macro_rules! test_of {
    ($name:ident, $body:block) => {
        #[stallscope::test]
        async fn $name() $body
    };
}

test_of!(is_made_by_a_macro, {
    assert_eq!(1 + 1, 2);
});

/// Subjects of other tests.
mod subjects {
    use super::{ALLOWED, compute, load, ms};

    #[stallscope::test]
    #[ignore = "a subject"]
    async fn is_clean() {}

    #[stallscope::test]
    #[ignore = "a subject"]
    async fn sleeps() {
        load();
    }

    #[stallscope::test(under = "1s", no_blocking)]
    #[ignore = "a subject"]
    async fn blocks() {
        load();
    }

    #[stallscope::test]
    #[ignore = "a subject"]
    async fn fails_and_sleeps() -> Result<(), String> {
        load();
        Err("its own error".to_owned())
    }

    #[stallscope::test]
    #[ignore = "a subject"]
    async fn panics_and_sleeps() {
        load();
        panic!("its own panic");
    }

    #[stallscope::test]
    #[should_panic(expected = "its own panic")]
    #[ignore = "a subject"]
    async fn panics_as_it_should_and_sleeps() {
        load();
        panic!("its own panic");
    }

    #[stallscope::test]
    #[should_panic]
    #[ignore = "a subject"]
    async fn should_panic_and_sleeps() {
        load();
    }

    #[stallscope::test(allow = ALLOWED)]
    #[ignore = "a subject"]
    async fn sleeps_where_it_may_and_computes() {
        load();
        compute();
    }

    #[stallscope::test(flavor = "multi_thread", whole_runtime)]
    #[ignore = "a subject"]
    async fn spawns_what_sleeps() {
        tokio::spawn(async { std::thread::sleep(ms(300)) })
            .await
            .unwrap();
        // A task that nobody audits is seen by a look from outside.
        tokio::time::sleep(ms(50)).await;
    }

    #[stallscope::test(flavor = "multi_thread")]
    #[ignore = "a subject"]
    async fn spawns_what_sleeps_unseen() {
        tokio::spawn(async { std::thread::sleep(ms(300)) })
            .await
            .unwrap();
    }
}

/// Runs a subject in a process of its own: whether it passes, and what it prints.
fn run(subject: &str, findings: Option<&str>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--show-output"]);
    command.arg(format!("subjects::{subject}"));
    command.env_remove("STALLSCOPE_FINDINGS");
    command.env("RUST_BACKTRACE", "0");
    if let Some(findings) = findings {
        command.env("STALLSCOPE_FINDINGS", findings);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("running 1 test"), "{text}");
    (output.status.success(), text)
}

fn assert_fails(subject: &str, parts: &[&str]) {
    let (passes, text) = run(subject, None);
    assert!(!passes, "{text}");
    assert_contains(&text, parts);
}

fn assert_contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

const FOUND: &str = "1 poll held its thread up for too long";

#[test]
fn a_stall_fails_its_test_with_its_place() {
    assert_fails(
        "sleeps",
        &[
            FOUND,
            "in `attribute::subjects::sleeps`",
            "where  attribute::load ",
            "blocked in clock_nanosleep",
            "to let it stand for now, say why in `allow`:\n  (\"attribute::load\", \"..\"),",
            // The panic is the test's, at its attribute.
            "attribute.rs:",
        ],
    );
    let (passes, text) = run("is_clean", None);
    assert!(passes, "{text}");
    assert!(!text.contains("attribute::"), "{text}");
}

#[test]
fn blocking_fails_its_test_where_it_is_to_have_none() {
    assert_fails("blocks", &["it blocked in 1 place", "attribute::load "]);
}

#[test]
fn an_error_of_its_own_is_told_beside() {
    assert_fails("fails_and_sleeps", &["its own error", FOUND]);
}

#[test]
fn a_panic_of_its_own_is_told_beside() {
    assert_fails(
        "panics_and_sleeps",
        &[
            "its own panic",
            "besides, of `attribute::subjects::panics_and_sleeps`: 1 poll held",
        ],
    );
}

#[test]
fn an_expected_panic_excuses_no_stall() {
    assert_fails(
        "panics_as_it_should_and_sleeps",
        &[FOUND, "it panicked as it should, but without this"],
    );
    // Nor is a stall the panic that was expected.
    assert_fails("should_panic_and_sleeps", &[FOUND]);
}

#[test]
fn what_is_not_allowed_counts_by_itself() {
    let (passes, text) = run("sleeps_where_it_may_and_computes", None);
    assert!(!passes, "{text}");
    assert_contains(&text, &[FOUND, "attribute::compute", "computed"]);
    assert!(!text.contains("where  attribute::load"), "{text}");
}

#[test]
fn the_whole_runtime_counts_where_it_is_asked_for() {
    assert_fails(
        "spawns_what_sleeps",
        &["attribute::subjects::spawns_what_sleeps"],
    );
    let (passes, text) = run("spawns_what_sleeps_unseen", None);
    assert!(passes, "{text}");
}

#[test]
fn findings_can_be_warnings() {
    let (passes, text) = run("sleeps", Some("warn"));
    assert!(passes, "{text}");
    assert_contains(
        &text,
        &["warning: `attribute::subjects::sleeps`: 1 poll held its thread up"],
    );
    let (passes, text) = run("sleeps_where_it_may_and_computes", Some("warn"));
    assert!(passes, "{text}");
    assert_contains(
        &text,
        &[
            "allowed in `attribute::subjects::sleeps_where_it_may_and_computes` once, ",
            "in all: `attribute::load`: reads the fixtures, once",
            "warning: ",
        ],
    );
    assert!(!text.contains("attribute::not_there"), "{text}");
    // What the tests assert themselves is no warning.
    let (passes, text) = run("panics_and_sleeps", Some("warn"));
    assert!(!passes, "{text}");
    let (passes, text) = run("panics_as_it_should_and_sleeps", Some("warn"));
    assert!(passes, "{text}");
    assert_contains(&text, &["warning: ", FOUND]);
}

#[test]
fn tests_can_be_left_without_an_audit() {
    let (passes, text) = run("sleeps", Some("off"));
    assert!(passes, "{text}");
    assert!(!text.contains("held its thread"), "{text}");
    let (passes, text) = run("fails_and_sleeps", Some("off"));
    assert!(!passes, "{text}");
}

#[test]
fn a_word_that_is_none_of_these_fails_all_tests() {
    let (passes, text) = run("is_clean", Some("wrn"));
    assert!(!passes, "{text}");
    assert_contains(
        &text,
        &["STALLSCOPE_FINDINGS is \"wrn\"; it can be `fail`, `warn` or `off`"],
    );
    // A panic for it would be the one that is expected.
    let (passes, text) = run("should_panic_and_sleeps", Some("wrn"));
    assert!(!passes, "{text}");
}
