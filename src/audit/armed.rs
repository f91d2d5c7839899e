//! Whether audits find anything at all, in this very process and build.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::audit::builder::Audit;
use crate::audit::verdict::Failure;
use crate::blocking::Detection;
use crate::os;
use crate::report::Report;

/// Proves that audits find what they should, and nothing else, in this process and build.
///
/// It audits a future that sleeps for 15 ms, one that computes as long and one
/// that does neither. A suite that asserts that nothing blocks should call it
/// once, or it could pass because nothing is seen.
///
/// Takes some 30 ms, and up to a second in the first call of a debug build.
/// Needs no runtime.
///
/// # Errors
/// If something was missed or reported falsely, with what. Where the platform
/// cannot tell of blocking there is no error: the result is [`Detection::Nothing`].
///
/// ```
/// # if cfg!(target_os = "linux") {
/// assert_ne!(stallscope::self_test().unwrap(), stallscope::Detection::Nothing);
/// # }
/// ```
pub fn self_test() -> Result<Detection, Failure> {
    let clean = audit_of(|| {
        std::hint::black_box(vec![1_u8; 64]);
    });
    if let Some(findings) = clean.findings() {
        return Err(failure("a future that does nothing", &findings));
    }
    let computes = audit_of(compute);
    if computes.stalls().is_empty() {
        return Err(failure(
            "a poll that computes for 15 ms",
            "no stall was found",
        ));
    }
    let sleeps = audit_of(sleep);
    let detection = sleeps.detection().unwrap_or(Detection::Nothing);
    if detection != os::DETECTION {
        let found = format!("detection is by {detection}, not by {}", os::DETECTION);
        return Err(failure("a poll that sleeps", &found));
    }
    if detection != Detection::Nothing && sleeps.blocking().is_empty() {
        return Err(failure(
            "a poll that sleeps for 15 ms",
            "no blocking was found",
        ));
    }
    if computes
        .check_no_blocking()
        .is_err_and(|failure| !failure.is_unsupported())
    {
        return Err(failure("a poll that computes", "blocking was found"));
    }
    Ok(detection)
}

fn failure(of: &str, found: &str) -> Failure {
    Failure::new(format!("audits do not work here: of {of}, {found}"))
}

#[inline(never)]
fn sleep() {
    std::thread::sleep(Duration::from_millis(15));
}

#[inline(never)]
fn compute() {
    let computed = || os::usage().0.map(|usage| usage.cpu_ns);
    let (start, start_ns) = (Instant::now(), computed());
    let enough = |now: Option<u64>| match now.zip(start_ns) {
        Some((now, start)) => now - start > 15_000_000,
        None => start.elapsed() > Duration::from_millis(15),
    };
    while !enough(computed()) {}
}

fn audit_of(body: fn()) -> Report {
    let mut future = pin!(
        Audit::new()
            .name("self-test")
            .try_run(async move { body() })
    );
    let mut cx = Context::from_waker(Waker::noop());
    match future.as_mut().poll(&mut cx) {
        Poll::Ready(Ok(audited)) => audited.report,
        Poll::Ready(Err(unfinished)) => *unfinished.report,
        Poll::Pending => Report::default(),
    }
}
