//! Stalls on real runtimes: seen, told once, and nothing told that is none.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Told, alone, current_thread, from_20_ms, keep_busy, ms, multi_thread, spin, stop};
use stallscope::{Cause, Confidence, Phase, Severity, StallKind, WatchExt, Watchdog};

#[derive(Clone, Copy, Debug)]
enum Way {
    Sleep,
    Spin,
}

fn block(way: Way, duration: Duration) {
    match way {
        Way::Sleep => std::thread::sleep(duration),
        // However long it has to wait for a CPU besides.
        Way::Spin => spin(duration),
    }
}

/// One worker blocked, again and again, with nothing wrapped: for longer than a watchdog has
/// to wait for a CPU where others want all of them. Of two looks at a stall one is not enough.
fn recall(workers: usize, way: Way, busy: bool) {
    const STALLS: usize = 30;
    const LASTING: Duration = ms(250);
    quietest(3, || {
        let runtime = multi_thread(workers);
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        let tasks = if busy {
            keep_busy(&runtime, 16, Duration::from_micros(50))
        } else {
            Vec::new()
        };
        let (mut seen, mut while_stuck) = (0, 0);
        for _ in 0..STALLS {
            let task = runtime.spawn(async move {
                let start = Instant::now();
                block(way, LASTING);
                (start, Instant::now())
            });
            let (start, end) = runtime.block_on(task).unwrap();
            let deadline = Instant::now() + Duration::from_secs(2);
            let started = loop {
                let told = told.timed();
                let started = told
                    .iter()
                    .find(|(at, event)| event.phase == Phase::Started && start <= *at);
                if started.is_some() || Instant::now() > deadline {
                    break started.map(|(at, _)| *at);
                }
                std::thread::sleep(ms(1));
            };
            // Long enough for the end to be told: the next one is another.
            std::thread::sleep(ms(15));
            seen += usize::from(started.is_some());
            while_stuck += usize::from(started.is_some_and(|at| at <= end));
        }
        stop(tasks);
        drop(watchdog);
        // Where all workers spin and there are more of them than CPUs, a stall
        // has had a part of a CPU only, and so has whoever tells of it.
        let at_once = if busy && matches!(way, Way::Spin) {
            0
        } else {
            STALLS
        };
        (seen == STALLS && while_stuck >= at_once)
            .then_some(())
            .ok_or(format!(
                "{seen} and {while_stuck} while stuck of {STALLS}: \
                 {workers} workers, {way:?}, busy: {busy}"
            ))
    });
}

#[test]
fn every_stall_of_one_of_several_idle_workers_is_seen() {
    let _alone = alone();
    for workers in [2, 4, 8] {
        for way in [Way::Sleep, Way::Spin] {
            recall(workers, way, false);
        }
    }
}

#[test]
fn every_stall_of_one_of_several_busy_workers_is_seen() {
    let _alone = alone();
    for workers in [2, 4, 8] {
        for way in [Way::Sleep, Way::Spin] {
            recall(workers, way, true);
        }
    }
}

#[test]
fn idle_runtimes_tell_nothing() {
    let _alone = alone();
    let told = Told::default();
    let runtimes = [multi_thread(4), current_thread()];
    let watchdogs: Vec<_> = runtimes.iter().map(|runtime| told.watch(runtime)).collect();
    std::thread::sleep(ms(1_000));
    drop(watchdogs);
    assert_eq!(told.all(), []);
}

#[test]
fn yielding_and_short_polls_tell_nothing() {
    let _alone = alone();
    for (workers, tasks, poll_us) in [
        (2, 64, 0),
        (4, 64, 0),
        (2, 16, 50),
        (2, 16, 200),
        (4, 16, 200),
    ] {
        let runtime = multi_thread(workers);
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        let busy = keep_busy(&runtime, tasks, Duration::from_micros(poll_us));
        std::thread::sleep(ms(1_500));
        stop(busy);
        drop(watchdog);
        // That others had the CPUs for long is true, and no stall of these polls.
        let mut blamed = told.all();
        blamed.retain(|event| event.stall.cause() != Cause::Starved);
        assert_eq!(
            blamed,
            [],
            "{workers} workers, {tasks} tasks of {poll_us} us"
        );
    }
}

#[test]
fn many_medium_polls_are_never_called_one_long_poll() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let busy: Vec<_> = (0..16)
        .map(|_| {
            let medium = async {
                loop {
                    spin(Duration::from_micros(500));
                    tokio::task::yield_now().await;
                }
            };
            runtime.spawn(medium.watched("medium"))
        })
        .collect();
    std::thread::sleep(ms(1_500));
    stop(busy);
    drop(watchdog);
    for event in told.all() {
        if event.stall.cause() == Cause::Starved {
            // A poll of half a millisecond that others keep off the CPU is one for long.
            continue;
        }
        assert_eq!(event.stall.kind(), StallKind::Turn, "{event}");
        // Each look may have found the same of the tasks by chance, but not all looks.
        assert!(
            event.stall.is_one_poll() < Some(Confidence::Medium),
            "{event}"
        );
    }
    // A turn is 61 polls at most; those since the second look at it are known.
    #[cfg(target_os = "linux")]
    for event in told.of(Phase::Ended) {
        let polls = event.stall.known_polls().unwrap();
        assert!(polls <= 61, "{polls}: {event}");
        if event.stall.duration() > ms(40) {
            assert!(polls >= 2, "{polls}: {event}");
        }
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn an_unwrapped_turn_that_computes_is_told_from_many_polls_by_its_tasks() {
    let _alone = alone();
    let runtime = multi_thread(1);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    runtime
        .block_on(runtime.spawn(async { spin(ms(400)) }))
        .unwrap();
    told.wait_for_end();
    let tasks: Vec<_> = (0..40)
        .map(|_| runtime.spawn(async { spin(ms(10)) }))
        .collect();
    for task in tasks {
        runtime.block_on(task).unwrap();
    }
    std::thread::sleep(ms(50));
    drop(watchdog);
    let ended = told.of(Phase::Ended);
    let one = &ended[0].stall;
    assert!(one.duration() >= ms(390), "{one}");
    assert_eq!(one.is_one_poll(), Some(Confidence::Medium), "{one}");
    assert!(one.known_polls() <= Some(1), "{one}");
    let many = &ended.last().unwrap().stall;
    assert!(many.duration() >= ms(200), "{many}");
    assert_eq!(many.is_one_poll(), None, "{many}");
    assert!(many.known_polls() >= Some(5), "{many}");
}

#[cfg(target_os = "linux")]
#[test]
fn one_sleep_of_an_unwrapped_turn_is_one_poll() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    runtime
        .block_on(runtime.spawn(async { std::thread::sleep(ms(400)) }))
        .unwrap();
    told.wait_for_end();
    // Many short sleeps in one poll, which could be of many polls.
    let naps = async { (0..200).for_each(|_| std::thread::sleep(ms(2))) };
    runtime.block_on(runtime.spawn(naps)).unwrap();
    std::thread::sleep(ms(50));
    drop(watchdog);
    let ended = told.of(Phase::Ended);
    let [one, many] = &ended[..] else {
        panic!("{ended:#?}");
    };
    assert!(one.stall.is_one_poll() >= Some(Confidence::Medium), "{one}");
    assert_eq!(many.stall.is_one_poll(), None, "{many}");
    assert_eq!(one.stall.kind(), StallKind::Turn);
}

/// A machine that is busy otherwise can make any single measurement late.
fn quietest<T>(tries: usize, mut measure: impl FnMut() -> Result<T, String>) -> T {
    let mut problems = Vec::new();
    for _ in 0..tries {
        match measure() {
            Ok(value) => return value,
            Err(problem) => problems.push(problem),
        }
    }
    panic!("{problems:#?}")
}

#[test]
fn a_turn_is_told_while_it_lasts_and_its_duration_is_right() {
    let _alone = alone();
    quietest(5, || {
        let runtime = multi_thread(2);
        let told = Told::default();
        let _watchdog = told.watch(&runtime);
        let (start, end) = runtime.block_on(runtime.spawn(sleep(ms(300)))).unwrap();
        told.wait_for_end();
        let timed = told.timed();
        let stall = &timed.last().unwrap().1.stall;
        assert_eq!(stall.kind(), StallKind::Turn);
        assert_eq!(stall.severity(), Severity::Medium);
        assert!(stall.worker().is_some());
        is_told_in_time(&timed, end)?;
        let error = stall.duration().abs_diff(end - start);
        (error <= ms(5)).then_some(()).ok_or(format!("{stall}"))
    });
}

type Span = (Instant, Instant);

/// Blocks for so long at least, and says from when to when it was.
async fn sleep(time: Duration) -> Span {
    let start = Instant::now();
    std::thread::sleep(time);
    (start, Instant::now())
}

/// Whether a stall has its three events, two of them while it lasts. A watchdog that has no
/// CPU for so long cannot tell.
fn is_told_in_time(
    timed: &[(Instant, stallscope::StallEvent)],
    end: Instant,
) -> Result<(), String> {
    let phases: Vec<_> = timed.iter().map(|(_, event)| event.phase).collect();
    let in_time = timed.iter().filter(|(at, _)| *at < end).count();
    let whole = phases == [Phase::Started, Phase::Escalated, Phase::Ended];
    (whole && in_time == 2)
        .then_some(())
        .ok_or_else(|| format!("{in_time} in time of {timed:#?}"))
}

#[test]
fn a_watched_poll_is_told_exactly_on_every_kind_of_thread() {
    let _alone = alone();
    type Run = fn(&tokio::runtime::Runtime, stallscope::Watched<SleepFuture>) -> Span;
    type SleepFuture = std::pin::Pin<Box<dyn Future<Output = Span> + Send>>;
    let spawned: Run = |runtime, future| runtime.block_on(runtime.spawn(future)).unwrap();
    let root: Run = |runtime, future| runtime.block_on(future);
    let local: Run = |runtime, future| {
        let set = tokio::task::LocalSet::new();
        set.block_on(runtime, async { tokio::task::spawn_local(future).await })
            .unwrap()
    };
    let cases = [
        ("spawned", multi_thread(2), spawned, true),
        ("root", multi_thread(2), root, false),
        ("spawned, current", current_thread(), spawned, true),
        ("root, current", current_thread(), root, true),
        ("local", current_thread(), local, true),
    ];
    for (name, runtime, run, on_worker) in cases {
        quietest(5, || {
            let told = Told::default();
            let _watchdog = told.watch(&runtime);
            let future: SleepFuture = Box::pin(sleep(ms(300)));
            let (start, end) = run(&runtime, future.watched("thumbnail"));
            told.wait_for(|all| {
                let is_over = |event: &stallscope::StallEvent| {
                    event.phase == Phase::Ended && event.stall.kind() == StallKind::Poll
                };
                all.iter().any(is_over)
            });
            let mut timed = told.timed();
            // A turn before it is one of its own, if the machine has made it a long one.
            timed.retain(|(_, event)| event.stall.kind() == StallKind::Poll);
            let stall = &timed.last().unwrap().1.stall;
            assert_eq!(stall.worker().is_some(), on_worker, "{name}");
            let task = stall.task().unwrap();
            assert_eq!(task.name(), "thumbnail");
            assert_eq!(task.location().unwrap().file(), file!());
            is_told_in_time(&timed, end)?;
            let error = stall.duration().abs_diff(end - start);
            (error <= ms(1))
                .then_some(())
                .ok_or(format!("{name}: {stall}"))
        });
    }
}

#[test]
fn without_exact_timing_a_poll_is_seen_from_the_first_tick_on() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let builder = Watchdog::builder()
        .thresholds(from_20_ms())
        .poll_timing(stallscope::PollTiming::DetectOnly);
    let watchdog = told.watch_with(builder, &runtime);
    runtime
        .block_on(runtime.spawn(async { std::thread::sleep(ms(200)) }.watched("untimed")))
        .unwrap();
    told.wait_for_end();
    drop(watchdog);
    let ended = &told.of(Phase::Ended)[0].stall;
    assert_eq!((ended.kind(), told.all().len()), (StallKind::Poll, 3));
    assert_eq!(ended.task().unwrap().name(), "untimed");
    assert!(ended.duration() >= ms(100), "{ended}");
}

#[test]
fn an_unwrapped_stall_of_a_current_thread_runtime_is_told_once() {
    let _alone = alone();
    let runtime = current_thread();
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let stall = |duration| {
        runtime.block_on(async {
            tokio::time::sleep(ms(30)).await;
            std::thread::sleep(duration);
            let over = Instant::now();
            tokio::time::sleep(ms(30)).await;
            over
        })
    };
    // The first stack of a debug build takes half a second; without any, the
    // stall is told when it is over.
    stall(ms(200));
    std::thread::sleep(ms(2_000));
    told.clear();
    let over = stall(ms(1_000));
    drop(watchdog);
    // A machine may hold up the rest of it, too: but not for so long.
    let long = |event: &stallscope::StallEvent| event.stall.duration() >= ms(500);
    let mut ended = told.of(Phase::Ended);
    ended.retain(long);
    assert_eq!(ended.len(), 1, "{ended:#?}");
    assert!(ended[0].stall.duration() >= ms(900), "{}", ended[0]);
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let of_it =
            |(_, event): &&(_, stallscope::StallEvent)| event.stall.id() == ended[0].stall.id();
        let timed = told.timed();
        let (at, started) = timed.iter().find(of_it).unwrap();
        assert_eq!(started.phase, Phase::Started);
        assert!(*at < over, "not while it was stuck: {started}");
        let culprit = ended[0].stall.stack().and_then(|stack| stack.culprit());
        let file = culprit.and_then(|culprit| culprit.file()).unwrap();
        assert!(file.ends_with("tests/detection.rs"), "{file}");
    }
    #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
    let _ = over;
}

#[test]
fn a_stall_ends_when_its_current_thread_runtime_is_left() {
    let _alone = alone();
    let runtime = current_thread();
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    for _ in 0..2 {
        told.clear();
        // The last poll: tokio tells nothing of its end.
        runtime.block_on(async {
            tokio::time::sleep(ms(30)).await;
            std::thread::sleep(ms(300));
        });
        std::thread::sleep(ms(2_000));
    }
    runtime.block_on(tokio::task::yield_now());
    drop(watchdog);
    let ended = told.of(Phase::Ended);
    assert_eq!(ended.len(), 1, "{ended:#?}");
    let duration = ended[0].stall.duration();
    assert!(ms(290) <= duration && duration < ms(1_500), "{duration:?}");
}

#[test]
fn a_current_thread_runtime_that_nobody_drives_tells_nothing() {
    let _alone = alone();
    let runtime = current_thread();
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    std::thread::sleep(ms(300));
    for _ in 0..3 {
        runtime.block_on(async { tokio::task::yield_now().await });
        // Its thread sleeps, computes, drives another runtime.
        std::thread::sleep(ms(400));
        spin(ms(200));
        multi_thread(1).block_on(async { tokio::time::sleep(ms(200)).await });
    }
    drop(watchdog);
    assert_eq!(told.all(), []);
}

#[test]
fn legitimate_blocking_tells_nothing() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let in_place = async { tokio::task::block_in_place(|| std::thread::sleep(ms(300))) };
    let wrapped = runtime.spawn(in_place.watched("in place"));
    let bare = runtime.spawn(async {
        tokio::task::block_in_place(|| std::thread::sleep(ms(300)));
    });
    let pool = runtime.spawn_blocking(|| std::thread::sleep(ms(300)));
    runtime.block_on(async {
        wrapped.await.unwrap();
        bare.await.unwrap();
        pool.await.unwrap();
    });
    drop(watchdog);
    assert_eq!(told.all(), []);
}

#[test]
fn a_runtime_that_is_dropped_tells_nothing() {
    let _alone = alone();
    for runtime in [multi_thread(2), current_thread()] {
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        runtime.block_on(async { tokio::task::yield_now().await });
        runtime.shutdown_background();
        std::thread::sleep(ms(300));
        assert!(watchdog.health().is_runtime_gone());
        drop(watchdog);
        assert_eq!(told.all(), []);
    }
}

#[test]
fn dropping_the_watchdog_tells_what_is_open_and_is_prompt() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    // Disconnected also where this test fails: nothing hangs then.
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let task = runtime.spawn(async move {
        let _ = wait.recv();
    });
    told.wait_for(|all| !all.is_empty());
    drop(watchdog);
    // It neither waited for the stall to end, nor forgot to tell.
    let last = told.all().pop().unwrap();
    assert_eq!(last.phase, Phase::Ended);
    assert!(last.stall.is_ongoing());
    drop(release);
    runtime.block_on(task).unwrap();
}

#[test]
fn two_watchdogs_of_one_runtime_tell_of_each_stall_once_each() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = [Told::default(), Told::default()];
    let watchdogs = [told[0].watch(&runtime), told[1].watch(&runtime)];
    runtime
        .block_on(runtime.spawn(async { std::thread::sleep(ms(80)) }.watched("both")))
        .unwrap();
    let ids = told.each_ref().map(|told| {
        told.wait_for_end();
        let phases: Vec<_> = told.all().iter().map(|event| event.phase).collect();
        assert_eq!(phases, [Phase::Started, Phase::Ended]);
        told.all()[0].stall.id()
    });
    assert_ne!(ids[0], ids[1]);
    drop(watchdogs);
}

#[test]
fn other_runtimes_are_not_seen() {
    let _alone = alone();
    let (watched, other) = (multi_thread(1), multi_thread(1));
    let told = Told::default();
    let watchdog = told.watch(&watched);
    other
        .block_on(other.spawn(async { std::thread::sleep(ms(100)) }.watched("elsewhere")))
        .unwrap();
    std::thread::sleep(ms(30));
    drop(watchdog);
    assert_eq!(told.all(), []);
}

#[test]
fn a_watchdog_that_starts_during_a_stall_sees_the_rest_of_it() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let polled = Arc::new(AtomicBool::new(false));
    let begun = Arc::clone(&polled);
    let before = Instant::now();
    let task = runtime.spawn(
        async move {
            begun.store(true, Ordering::Relaxed);
            std::thread::sleep(ms(400));
            Instant::now()
        }
        .watched("earlier"),
    );
    while !polled.load(Ordering::Relaxed) {
        std::thread::sleep(ms(1));
    }
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let watched_since = Instant::now();
    let end = runtime.block_on(task).unwrap();
    told.wait_for_end();
    drop(watchdog);
    let started = &told.of(Phase::Started)[0].stall;
    assert_eq!(started.task().unwrap().name(), "earlier");
    let ended = &told.of(Phase::Ended)[0].stall;
    let over = Instant::now();
    assert!(
        ended.duration() >= end - watched_since && ended.duration() <= over - before,
        "{ended}"
    );
}

#[test]
fn polls_outside_of_tokio_are_seen() {
    let _alone = alone();
    let runtime = multi_thread(1);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let mut future = Box::pin(async { std::thread::sleep(ms(60)) }.watched("outside"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_ready());
    told.wait_for_end();
    drop(watchdog);
    let stall = &told.of(Phase::Ended)[0].stall;
    assert_eq!(stall.task().unwrap().name(), "outside");
    assert_eq!((stall.worker(), stall.task().unwrap().id()), (None, None));
}

#[test]
fn a_callback_that_panics_or_dawdles_does_not_stop_detection() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let seen = told.clone();
    let watchdog = Watchdog::builder()
        .thresholds(from_20_ms())
        .on_stall(move |event| {
            seen.push(event);
            if event.phase == Phase::Started {
                std::panic::resume_unwind(Box::new("the callback's own"));
            }
            std::thread::sleep(ms(150));
        })
        .start_on(runtime.handle())
        .unwrap();
    std::thread::sleep(ms(50));
    for _ in 0..3 {
        runtime
            .block_on(runtime.spawn(async { std::thread::sleep(ms(250)) }))
            .unwrap();
        // A worker that finds more to do before it parks makes one turn of both.
        std::thread::sleep(ms(20));
    }
    told.wait_for(|all| all.iter().filter(|e| e.phase == Phase::Ended).count() == 3);
    // The last callback is still running; the report has everything all the same.
    assert_eq!(watchdog.report().counts().total(), 3);
    let health = watchdog.health();
    assert_eq!(health.callback_panics(), 3);
    assert!(health.slow_callbacks() >= 2);
    assert!(health.is_healthy());
}
