//! Test mode: audits in all the places that people test in.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use common::{ms, spin};
use stallscope::{
    AllowBlocking, Audit, Audited, Cause, Detection, Frame, Report, Severity, Stack, StallKind,
    Why, allow_blocking, assert_no_blocking, assert_no_stalls, audit,
};

fn sleeps() {
    thread::sleep(ms(50)); // blocks
}

const fn marked_line() -> u32 {
    line!() - 4
}

/// Text of a panic.
fn panic_of(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()))
        .expect("a text")
}

fn culprit_lines(report: &Report) -> Vec<u32> {
    let culprits = report.blocking().iter().filter_map(|blocking| {
        let culprit = blocking.stack()?.culprit()?;
        culprit
            .file()?
            .ends_with("tests/audit.rs")
            .then_some(culprit.line()?)
    });
    culprits.collect()
}

fn assert_sees_the_sleep(report: &Report) {
    let [blocking] = report.blocking() else {
        panic!("{:#?}", report.blocking());
    };
    let cause = Cause::Blocked {
        syscall: "clock_nanosleep".to_owned(),
    };
    let calls = report.detection() == Some(Detection::Calls);
    // On a machine busy enough nobody has looked meanwhile.
    let unseen = !calls && blocking.cause() == Cause::Unknown;
    if !unseen {
        assert_eq!(blocking.cause(), cause);
        assert_eq!(culprit_lines(report), [marked_line()]);
    }
    let [stall] = report.stalls() else {
        panic!("{:#?}", report.stalls());
    };
    assert!(unseen || stall.cause() == cause, "{stall}");
    assert_eq!(stall.severity(), Severity::Monitor);
    assert!(
        stall.duration() >= ms(15) && stall.off_cpu() >= ms(14),
        "{stall}"
    );
}

#[tokio::test]
async fn the_line_of_most_sleeps_is_known() {
    let mut known = 0;
    for _ in 0..10 {
        let report = audit(async { sleeps() }).await.report;
        known += usize::from(culprit_lines(&report) == [marked_line()]);
    }
    assert!(known >= 5, "{known}");
}

#[tokio::test]
async fn in_a_current_thread_runtime() {
    let Audited { output, report } = audit(async {
        tokio::task::yield_now().await;
        sleeps();
        7
    })
    .await;
    assert_eq!(output, 7);
    assert_sees_the_sleep(&report);
    assert_eq!(report.polls().count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_multi_thread_runtime_as_its_root_and_as_a_task() {
    assert_sees_the_sleep(&audit(async { sleeps() }).await.report);
    let task = tokio::spawn(audit(async {
        tokio::time::sleep(ms(1)).await;
        sleeps();
    }));
    let report = task.await.unwrap().report;
    assert_sees_the_sleep(&report);
    assert!(report.stalls()[0].worker().is_some());
}

#[tokio::test(start_paused = true)]
async fn with_time_paused() {
    let hours = Duration::from_secs(7200);
    let audited = Audit::new()
        .limit(Duration::from_secs(60))
        .run(tokio::time::sleep(hours))
        .await;
    audited.report.check_no_stalls().unwrap();
    audited.report.check_no_blocking().unwrap();
    assert_sees_the_sleep(&audit(async { sleeps() }).await.report);
}

#[tokio::test]
async fn a_future_that_is_not_send() {
    let shared = Rc::new(7);
    let output = assert_no_blocking!(async {
        tokio::task::yield_now().await;
        *shared
    });
    assert_eq!(output, 7);
}

#[test]
fn outside_of_any_runtime() {
    let mut audited = pin!(audit(async { sleeps() }));
    let Poll::Ready(audited) = audited
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("nothing to wait for");
    };
    assert_sees_the_sleep(&audited.report);
}

#[tokio::test]
async fn a_local_set() {
    let local = tokio::task::LocalSet::new();
    let report = local.run_until(audit(async {
        tokio::task::spawn_local(async {}).await.unwrap();
        sleeps();
    }));
    assert_sees_the_sleep(&report.await.report);
}

#[tokio::test]
async fn a_panic_does_not_lose_the_report() {
    let unfinished = Audit::new()
        .try_run(async {
            sleeps();
            panic!("mine");
        })
        .await
        .unwrap_err();
    let text = format!("{:?}", unfinished.report.check_no_blocking());
    assert_eq!(unfinished.report.blocking().len(), 1, "{text}");
    assert!(matches!(&unfinished.why, Why::Panicked(payload) if payload.is::<&str>()));
    assert_sees_the_sleep(&unfinished.report);

    let joined = tokio::spawn(audit(async {
        sleeps();
        panic!("mine");
    }));
    let payload = joined.await.unwrap_err().into_panic();
    let text = payload.downcast_ref::<String>().unwrap();
    // On a machine busy enough nobody has looked meanwhile, which it says.
    let unseen = text.contains("too short to be seen where");
    assert!(
        text.contains("mine") && (text.contains("clock_nanosleep") || unseen),
        "{text}"
    );

    let silent = tokio::spawn(audit(async { panic!("mine") }));
    let payload = silent.await.unwrap_err().into_panic();
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"mine"));
}

#[tokio::test]
async fn one_that_never_completes_is_given_up() {
    let unfinished = Audit::new()
        .limit(ms(50))
        .try_run(async {
            sleeps();
            pending::<()>().await;
        })
        .await
        .unwrap_err();
    assert!(matches!(unfinished.why, Why::Limit(limit) if limit == ms(50)));
    assert_sees_the_sleep(&unfinished.report);
}

#[test]
fn a_spawned_task_that_is_stuck_has_its_own_name() {
    let stuck = Audit::new()
        .name("parent")
        .limit(ms(2_000))
        .block_on(|| async {
            let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
            let child = runtime.handle().clone();
            // Not to be waited for by its drop.
            std::mem::forget(runtime);
            let entered = child.enter();
            let _child = stallscope::spawn_named("child", async {
                thread::sleep(Duration::from_secs(20));
            });
            drop(entered);
            pending::<()>().await;
        })
        .unwrap_err();
    let stalls = stuck.report.stalls();
    let names: Vec<_> = stalls.iter().map(|s| s.task().unwrap().name()).collect();
    assert_eq!(names, ["child"], "{stuck}");
}

#[test]
fn the_longest_limit_is_none() {
    let audited = Audit::new().limit(Duration::MAX).block_on(|| async { 7 });
    assert_eq!(audited.unwrap().output, 7);
}

#[test]
fn one_that_is_stuck_is_told_of_from_outside() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let stuck = Audit::new()
        .name("stuck")
        .limit(ms(200))
        .on_limit(move |report| {
            count.fetch_add(report.stalls().len(), Ordering::SeqCst);
        })
        .block_on(|| async {
            thread::sleep(Duration::from_secs(20)); // stuck
        })
        .unwrap_err();
    assert!(matches!(stuck.why, Why::Limit(_)));
    assert_eq!(told.load(Ordering::SeqCst), 1);
    let [stall] = stuck.report.stalls() else {
        panic!("{:#?}", stuck.report.stalls());
    };
    assert!(stall.is_ongoing() && stall.duration() >= ms(100), "{stall}");
    assert_eq!(stall.task().unwrap().name(), "stuck");
    let text = stuck.to_string();
    assert!(text.contains("was not done within 200ms"), "{text}");
    assert!(text.contains("blocked in clock_nanosleep"), "{text}");
    assert!(text.contains("tests/audit.rs"), "{text}");
}

#[test]
fn block_on_returns_what_the_future_does() {
    let audited = Audit::new().block_on(|| async { *Rc::new(7) + 1 });
    assert_eq!(audited.unwrap().output, 8);
    let panicked = Audit::new().block_on(|| async { panic!("mine") });
    let unfinished: stallscope::Unfinished =
        panicked.map(|_: stallscope::Audited<()>| ()).unwrap_err();
    assert!(
        unfinished.to_string().contains("it panicked: mine"),
        "{unfinished}"
    );
}

#[test]
fn audits_at_the_same_time_see_their_own_future_only() {
    thread::scope(|scope| {
        for blocks in [true, false, true, false] {
            scope.spawn(move || {
                for _ in 0..5 {
                    let runtime = common::current_thread();
                    let report = runtime.block_on(audit(async {
                        for _ in 0..10 {
                            tokio::time::sleep(ms(1)).await;
                        }
                        if blocks {
                            sleeps();
                        }
                    }));
                    if blocks {
                        assert_sees_the_sleep(&report.report);
                    } else {
                        report.report.check_no_blocking().unwrap();
                        report.report.check_no_stalls().unwrap();
                    }
                }
            });
        }
    });
}

#[tokio::test]
async fn computing_is_a_stall_and_not_blocking() {
    // However long it waits for a CPU besides: long enough for a stack, which a thread that
    // computes is asked for at a tick of its CPU's clock.
    let audited = audit(async { spin(ms(300)) }).await;
    audited.report.check_no_blocking().unwrap();
    let [stall] = audited.report.stalls() else {
        panic!("{:#?}", audited.report.stalls());
    };
    assert_eq!(stall.cause(), Cause::OnCpu, "{stall}");
    assert!(stall.on_cpu() >= ms(100), "{stall}");
    let culprit = stall.stack().and_then(|stack| stack.culprit()).unwrap();
    assert!(culprit.file().unwrap().contains("tests/"), "{culprit}");
}

#[tokio::test]
async fn what_is_too_long_can_be_said() {
    assert_no_stalls!(async { sleeps() }, under: Duration::from_secs(10));
    let report = Audit::new()
        .under(ms(1))
        .run(async { thread::sleep(ms(3)) });
    assert_eq!(report.await.report.stalls().len(), 1);
    let zero = Audit::new().under(Duration::ZERO).try_run(async {}).await;
    let text = zero.unwrap_err().to_string();
    assert!(text.contains("`under`") && text.contains("10 ms"), "{text}");
}

#[tokio::test]
async fn what_is_allowed_is_listed_and_nothing_else_is() {
    let audited = audit(async {
        allow_blocking("outer", || {
            thread::sleep(ms(12));
            allow_blocking("inner", || thread::sleep(ms(12)));
        });
        tokio::task::yield_now().await;
        {
            let _guard = AllowBlocking::new("guard");
            thread::sleep(ms(12));
        }
    })
    .await;
    audited.report.check_no_blocking().unwrap();
    audited.report.check_no_stalls().unwrap();
    let mut allowed: Vec<(&str, u64, bool)> = audited
        .report
        .allowed()
        .iter()
        .map(|allowed| (allowed.reason(), allowed.count(), allowed.sleeps() > 0))
        .collect();
    allowed.sort_unstable();
    assert_eq!(
        allowed,
        [("guard", 1, true), ("inner", 1, true), ("outer", 1, true)]
    );

    let audited = audit(async {
        allow_blocking("first", || thread::sleep(ms(12)));
        sleeps();
    })
    .await;
    assert_sees_the_sleep(&audited.report);
    let text = audited.report.to_string();
    assert!(text.contains("allowed 1 times"), "{text}");
    assert!(text.contains("blocked"), "{text}");
}

#[tokio::test]
async fn a_permission_ends_with_its_poll_and_its_thread() {
    let kept = audit(async {
        let _guard = AllowBlocking::new("kept across an await");
        tokio::task::yield_now().await;
        sleeps();
    });
    assert_sees_the_sleep(&kept.await.report);

    let other = audit(async {
        let _guard = AllowBlocking::new("of this thread");
        thread::scope(|scope| {
            let there =
                scope.spawn(|| common::current_thread().block_on(audit(async { sleeps() })));
            assert_sees_the_sleep(&there.join().unwrap().report);
        });
    });
    other.await.report.check_no_blocking().unwrap();
}

#[tokio::test]
async fn what_it_spawns_is_audited_with_it() {
    let audited = audit(async {
        let task = stallscope::spawn_named("child", async {
            stallscope::spawn(async { sleeps() }).await.unwrap();
        });
        task.await.unwrap();
    })
    .await;
    assert_sees_the_sleep(&audited.report);
    assert_eq!(audited.report.blocking()[0].task().name(), "spawn");
    let names = audited.report.tasks().iter().map(|task| task.name());
    assert_eq!(names.filter(|name| *name == "child").count(), 1);
    // What is spawned elsewhere is not.
    let aside = tokio::spawn(async { stallscope::spawn(async { sleeps() }).await });
    let audited = audit(aside).await;
    audited.report.check_no_blocking().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_runtime_if_asked() {
    let elsewhere = || async {
        // A worker that has never told anything is not known to be driven.
        tokio::spawn(async {}).await.unwrap();
        tokio::time::sleep(ms(20)).await;
        tokio::spawn(async {
            thread::sleep(ms(200));
        })
        .await
        .unwrap();
    };
    let alone = audit(elsewhere()).await.report;
    assert!(alone.stalls().is_empty(), "{alone}");
    let whole = Audit::new().whole_runtime().run(elsewhere()).await.report;
    assert_eq!(whole.stalls().len(), 1, "{whole}");
    if whole.detection() == Some(Detection::Calls) {
        let whole = Audit::new().whole_runtime().run(async {
            let task = tokio::spawn(async { thread::sleep(Duration::from_micros(1)) });
            task.await.unwrap();
            tokio::task::spawn_blocking(|| thread::sleep(ms(1)))
                .await
                .unwrap();
        });
        let whole = whole.await.report;
        let text = whole.check_no_blocking().unwrap_err();
        assert_eq!(whole.blocking().len(), 1, "{text}");
        assert_eq!(whole.blocking()[0].task().name(), "a task of the runtime");
    }
}

/// What another task does to its worker; again where the machine is so busy that the thread
/// that looks got no CPU meanwhile, and found nothing.
async fn whole_runtime_of(blocks: fn()) -> Report {
    for _ in 0..50 {
        let audited = Audit::new().whole_runtime().run(async move {
            tokio::spawn(async move { blocks() }).await.unwrap();
        });
        let report = audited.await.report;
        if !report.stalls().is_empty() || !report.unsure().is_empty() {
            return report;
        }
    }
    panic!("found nothing");
}

#[tokio::test]
async fn of_another_task_a_sleep_is_seen_whole_and_where() {
    let report = whole_runtime_of(sleeps).await;
    let [stall] = report.stalls() else {
        panic!("{report}");
    };
    assert!((ms(10)..ms(60)).contains(&stall.off_cpu()), "{stall}");
    assert_eq!(culprit_lines(&report), [marked_line()]);
    assert_eq!(report.blocking()[0].task().name(), "a task of the runtime");
    report.check_no_stalls().unwrap_err();
}

#[tokio::test]
async fn of_another_task_a_call_is_told_once_however_many_came_before() {
    let report = whole_runtime_of(|| {
        for _ in 0..1_100 {
            thread::sleep(Duration::from_nanos(1));
        }
        sleeps();
    })
    .await;
    let [stall] = report.stalls() else {
        panic!("{report}");
    };
    if report.detection() == Some(Detection::Calls) {
        // By that task's own account, not by what another thread saw of it.
        assert_eq!(stall.kind(), StallKind::Poll, "{stall}");
        assert_eq!(stall.task().unwrap().name(), "a task of the runtime");
        let line = Some(marked_line());
        let at_the_line = |blocking: &&stallscope::Blocking| {
            blocking
                .stack()
                .and_then(Stack::culprit)
                .and_then(Frame::line)
                == line
        };
        let told: Vec<_> = report.blocking().iter().filter(at_the_line).collect();
        assert_eq!(told.len(), 1, "{report}");
        assert_eq!(told[0].count(), 1, "{report}");
    }
}

#[tokio::test]
async fn a_block_on_in_another_task_is_seen() {
    let report = whole_runtime_of(|| {
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let runtime = common::current_thread();
                runtime.block_on(async { tokio::time::sleep(ms(60)).await });
            });
            waits.join().unwrap();
        });
    })
    .await;
    assert_eq!(report.stalls().len(), 1, "{report}");
}

#[tokio::test]
async fn of_another_task_computing_is_not_sure() {
    let report = whole_runtime_of(|| spin(ms(60))).await;
    report.check_no_stalls().unwrap();
    report.check_no_blocking().unwrap();
    let [unsure] = report.unsure() else {
        panic!("{report}");
    };
    assert_eq!(unsure.cause(), Cause::OnCpu);
    let culprit = unsure.stack().and_then(|stack| stack.culprit());
    assert!(culprit.is_some(), "{unsure}");
    assert!(report.to_string().contains("not sure"), "{report}");
}

#[tokio::test]
async fn other_tasks_that_rest_or_may_block_are_clean() {
    let whole = Audit::new().whole_runtime().run(async {
        let rests = tokio::spawn(async {
            for _ in 0..20 {
                tokio::time::sleep(ms(3)).await;
            }
        });
        let may = tokio::spawn(async {
            allow_blocking("of another task", || thread::sleep(ms(40)));
        });
        tokio::task::spawn_blocking(|| thread::sleep(ms(40)))
            .await
            .unwrap();
        rests.await.unwrap();
        may.await.unwrap();
    });
    let report = whole.await.report;
    report.check_no_stalls().unwrap();
    report.check_no_blocking().unwrap();
}

#[tokio::test]
async fn two_audits_of_one_runtime_both_see_it() {
    let one = || {
        Audit::new().whole_runtime().run(async {
            tokio::spawn(async { sleeps() }).await.unwrap();
        })
    };
    let found = |report: &Report| !report.stalls().is_empty();
    let both = async {
        loop {
            let (first, second) = tokio::join!(one(), one());
            let both = [first.report, second.report];
            if both.iter().all(found) {
                return both;
            }
        }
    };
    for report in both.await {
        assert!(
            report.stalls().iter().any(|stall| stall.stack().is_some()),
            "{report}"
        );
        assert!(report.check_no_blocking().is_err());
    }
}

#[tokio::test]
async fn an_audit_within_an_audit_is_part_of_it() {
    let outer = loop {
        let outer = audit(async { audit(async { sleeps() }).await.report }).await;
        let cause = outer.output.blocking()[0].cause();
        // Where the thread that looks got a CPU.
        if cause != Cause::Unknown {
            break outer;
        }
    };
    assert_sees_the_sleep(&outer.output);
    assert_sees_the_sleep(&outer.report);
    // What the inner one computes to make its report is not the outer's.
    let outer = audit(async {
        let inner = audit(async {
            for _ in 0..500 {
                thread::sleep(Duration::from_micros(60));
                tokio::task::yield_now().await;
            }
        });
        inner.await.report
    });
    let outer = outer.await;
    assert!(!outer.output.blocking().is_empty());
    outer.report.check_no_stalls().unwrap();
}

#[tokio::test]
async fn tasks_that_nobody_audits_are_counted() {
    let report = audit(async {
        let mut set = tokio::task::JoinSet::new();
        set.spawn(async {});
        set.spawn(async {});
        let spawned = tokio::spawn(async {});
        stallscope::spawn(async {}).await.unwrap();
        spawned.await.unwrap();
        set.join_all().await;
        sleeps();
    })
    .await
    .report;
    assert_eq!(report.unaudited_tasks(), 3);
    let text = report.check_no_stalls().unwrap_err().to_string();
    assert!(
        text.contains("at least 3 tasks that it spawned were not audited"),
        "{text}"
    );
    let whole = Audit::new().whole_runtime().run(async {
        tokio::spawn(async {}).await.unwrap();
    });
    assert_eq!(whole.await.report.unaudited_tasks(), 0);
}

#[tokio::test]
async fn the_drop_of_a_future_is_part_of_it() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            sleeps();
        }
    }
    struct Holds(#[allow(dead_code)] Slow);
    impl Future for Holds {
        type Output = ();
        fn poll(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }
    assert_sees_the_sleep(&audit(Holds(Slow)).await.report);
    let slow = Slow;
    let given_up = Audit::new()
        .limit(ms(30))
        .try_run(async move {
            let _slow = slow;
            pending::<()>().await;
        })
        .await
        .unwrap_err();
    assert_sees_the_sleep(&given_up.report);
}

#[tokio::test]
async fn a_limit_holds_within_one_poll_too() {
    let late = Audit::new()
        .name("checkout")
        .limit(ms(50))
        .try_run(async { thread::sleep(ms(200)) })
        .await
        .unwrap_err();
    assert!(matches!(late.why, Why::Limit(_)));
    let text = late.to_string();
    assert!(text.starts_with("`checkout`, audited at "), "{text}");
    assert!(text.contains("tests/audit.rs:"), "{text}");
    // In time, though its report may take longer than the rest of the limit.
    for _ in 0..3 {
        Audit::new()
            .limit(ms(400))
            .block_on(|| async { thread::sleep(ms(30)) })
            .unwrap();
    }
}

#[test]
fn a_stuck_task_of_the_runtime_is_in_the_report() {
    let stuck = Audit::new()
        .whole_runtime()
        .limit(ms(100))
        .block_on(|| async {
            tokio::spawn(async { thread::sleep(ms(3_000)) })
                .await
                .unwrap();
        })
        .unwrap_err();
    let [stall] = stuck.report.stalls() else {
        panic!("{stuck}");
    };
    assert!(stall.is_ongoing() && stall.stack().is_some(), "{stuck}");
}

#[test]
fn a_payload_that_is_no_text_keeps_the_findings() {
    let text = panic_of(|| {
        common::current_thread().block_on(async {
            assert_no_blocking!(async {
                sleeps();
                std::panic::panic_any(42_u8);
            });
        });
    });
    assert!(text.contains("clock_nanosleep"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn block_in_place_is_legitimate() {
    for _ in 0..5 {
        let task = tokio::spawn(audit(async {
            // Long enough for another thread to take the worker over: else it was held up.
            tokio::task::block_in_place(|| thread::sleep(ms(300)));
        }));
        let report = task.await.unwrap().report;
        report.check_no_blocking().unwrap();
        report.check_no_stalls().unwrap();
    }
}

#[tokio::test]
async fn dropping_it_midway_leaves_nothing_behind() {
    let dropped = Arc::new(Mutex::new(()));
    let inner = Arc::clone(&dropped);
    let audited = tokio::time::timeout(
        ms(5),
        audit(async move {
            let _kept = inner;
            pending::<()>().await;
        }),
    );
    assert!(audited.await.is_err());
    assert_eq!(Arc::strong_count(&dropped), 1);
    assert_sees_the_sleep(&audit(async { sleeps() }).await.report);
}

#[test]
fn a_report_of_an_audit_survives_json() {
    let runtime = common::current_thread();
    let report = runtime.block_on(audit(async {
        allow_blocking("a reason", || ());
        sleeps();
    }));
    let json = report.report.to_json();
    assert_eq!(Report::from_json(&json).unwrap(), report.report);
}

#[test]
fn a_watchdogs_report_cannot_tell_of_short_blocking() {
    let runtime = common::multi_thread(1);
    let watchdog = stallscope::Watchdog::builder()
        .start_on(runtime.handle())
        .unwrap();
    let failure = watchdog.report().check_no_blocking().unwrap_err();
    assert!(failure.is_unsupported());
    assert!(failure.to_string().contains("watchdog"), "{failure}");
}

#[test]
fn it_is_armed() {
    let detection = stallscope::self_test().unwrap();
    let expected = if cfg!(feature = "interpose") {
        Detection::Calls
    } else {
        Detection::Sleeps
    };
    assert_eq!(detection, expected);
}

/// Times, lines and how it is known, which depends on the feature, are left out.
fn with_redactions(text: &str, check: impl FnOnce(&str)) {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\d+(\.\d+)? ?(ns|us|ms|s)\b", "[time]");
    settings.add_filter(r"(audit\.rs):\d+", "$1:[line]");
    settings.add_filter(r"(?m)^  sure .*$", "  sure   [how]");
    settings.add_filter(r", \[time\] waiting for a CPU, which does not count", "");
    settings.add_filter(r": \[time\] on CPU, ", ": ");
    settings.bind(|| check(text));
}

#[test]
fn the_message_says_what_where_why_and_what_to_do() {
    let runtime = common::current_thread();
    let stalls = panic_of(|| {
        runtime.block_on(async {
            assert_no_stalls!(async { sleeps() });
        });
    });
    with_redactions(&stalls, |text| {
        insta::assert_snapshot!(text, @r"
        1 poll held its thread up for too long

        MONITOR poll of [time] in `audited future`
          where  audit::sleeps tests/audit.rs:[line] (std::thread::functions::sleep)
          why    blocked in clock_nanosleep: [time] asleep
          sure   [how]
          fix    sleep with `tokio::time::sleep(..).await`
          stack
            std::thread::functions::sleep
            audit::sleeps tests/audit.rs:[line]
            audit::the_message_says_what_where_why_and_what_to_do tests/audit.rs:[line]
        ");
    });
    let blocking = panic_of(|| {
        runtime.block_on(async {
            assert_no_blocking!(async {
                allow_blocking("start-up", || thread::sleep(ms(1)));
                sleeps();
            });
        });
    });
    with_redactions(&blocking, |text| {
        insta::assert_snapshot!(text, @r"
        it blocked in 1 place

        `audited future` blocked in clock_nanosleep, [time]
          where  audit::sleeps tests/audit.rs:[line] (std::thread::functions::sleep)
          sure   [how]
          fix    sleep with `tokio::time::sleep(..).await`
          stack
            std::thread::functions::sleep
            audit::sleeps tests/audit.rs:[line]
            audit::the_message_says_what_where_why_and_what_to_do tests/audit.rs:[line]

        allowed:
          once at tests/audit.rs:[line]: start-up
        ");
    });
    let limit = panic_of(|| {
        let audit = Audit::new().name("checkout").limit(ms(30));
        runtime.block_on(audit.run(pending::<()>()));
    });
    with_redactions(&limit, |text| {
        insta::assert_snapshot!(text, @"`checkout`, audited at tests/audit.rs:[line], did not complete: it was not done within [time]");
    });
}

#[test]
fn a_failed_assertion_points_at_its_caller() {
    static PLACE: Mutex<Option<(String, u32)>> = Mutex::new(None);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(|at| (at.file().to_owned(), at.line()));
        if thread::current().name() == Some("a_failed_assertion_points_at_its_caller") {
            *PLACE.lock().unwrap() = place;
        } else {
            before(info);
        }
    }));
    let runtime = common::current_thread();
    let line = line!() + 2;
    let _ = panic_of(|| {
        runtime.block_on(async { assert_no_blocking!(async { sleeps() }) });
    });
    let place = || PLACE.lock().unwrap().take();
    assert_eq!(place(), Some((file!().to_owned(), line)));
    let line = line!() + 3;
    let audit = || Audit::new().limit(ms(30));
    let _ = panic_of(|| {
        runtime.block_on(async { audit().run(pending::<()>()).await });
    });
    assert_eq!(place(), Some((file!().to_owned(), line)));
}
