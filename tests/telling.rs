//! What is told of stalls: tracing events, reports, health.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Told, alone, current_thread, from_20_ms, ms, multi_thread};
use stallscope::{Phase, Report, Severity, Stall, StallEvent, WatchExt, Watchdog};
use tracing::field::{Field, Visit};
use tracing::{Instrument, Level};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// One event as a subscriber gets it.
#[derive(Clone, Debug, Default)]
struct Seen {
    level: Option<Level>,
    target: String,
    fields: Vec<(String, String)>,
    parent: Option<&'static str>,
}

impl Seen {
    fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields
            .push((field.name().to_owned(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields
            .push((field.name().to_owned(), value.to_owned()));
    }
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Seen>>>);

impl<S> Layer<S> for Capture
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        let mut seen = Seen {
            level: Some(*event.metadata().level()),
            target: event.metadata().target().to_owned(),
            parent: context.event_span(event).map(|span| span.name()),
            ..Seen::default()
        };
        event.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }
}

impl Capture {
    fn of_stallscope(&self) -> Vec<Seen> {
        let mut all = self.0.lock().unwrap().clone();
        all.retain(|seen| seen.target == "stallscope");
        all
    }
}

#[test]
fn a_stall_is_an_event_with_documented_fields_in_the_span_of_its_task() {
    let _alone = alone();
    let capture = Capture::default();
    let subscriber = tracing_subscriber::registry().with(capture.clone());
    tracing::subscriber::with_default(subscriber, || {
        let runtime = multi_thread(2);
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        // The span is made here, where the subscriber is; it is entered on a
        // worker, which has none.
        let future = async { std::thread::sleep(ms(400)) }.watched("thumbnail");
        let dispatch = tracing::dispatcher::get_default(Clone::clone);
        let span = tracing::info_span!("request", id = 7);
        let task =
            tracing::instrument::WithSubscriber::with_subscriber(future.instrument(span), dispatch);
        runtime.block_on(runtime.spawn(task)).unwrap();
        told.wait_for_end();
        drop(watchdog);
    });
    let (seen, stacks): (Vec<_>, Vec<_>) = capture
        .of_stallscope()
        .into_iter()
        .partition(|seen| seen.field("phase").is_some());
    let phases: Vec<_> = seen.iter().map(|seen| seen.field("phase")).collect();
    assert_eq!(
        phases,
        [Some("started"), Some("escalated"), Some("ended")],
        "{seen:#?}"
    );
    let levels: Vec<_> = seen.iter().map(|seen| seen.level).collect();
    assert_eq!(
        levels,
        [Some(Level::DEBUG), Some(Level::INFO), Some(Level::INFO)]
    );
    for seen in &seen {
        // Once the task is over, its span may be too.
        if seen.field("phase") != Some("ended") {
            assert_eq!(seen.parent, Some("request"), "{seen:#?}");
        }
        assert_eq!(seen.field("task"), Some("thumbnail"));
        assert_eq!(seen.field("kind"), Some("poll"));
        assert!(seen.field("location").unwrap().contains("telling.rs:"));
        assert!(seen.field("task_id").is_some() && seen.field("worker").is_some());
        let duration: f64 = seen.field("duration_ms").unwrap().parse().unwrap();
        assert!(duration >= 20.0);
        assert_eq!(seen.field("suppressed"), None);
    }
    let ids: Vec<_> = seen.iter().map(|seen| seen.field("stall_id")).collect();
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]));
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    {
        let ended = seen.last().unwrap();
        let culprit = ended.field("culprit").unwrap();
        assert!(culprit.contains("tests/telling.rs:"), "{culprit}");
        assert_eq!(ended.field("leaf"), Some("std::thread::functions::sleep"));
        assert_eq!(ended.field("cause"), Some("blocked in clock_nanosleep"));
        let stack = stacks.last().unwrap();
        assert_eq!(stack.level, Some(Level::DEBUG));
        assert_eq!(stack.field("stall_id"), ids[0]);
        assert!(stack.field("stack").unwrap().contains("tests/telling.rs:"));
    }
}

/// What is told of twenty stalls of 250 ms each, one right after the other.
fn twenty_stalls() -> (Capture, usize, Report) {
    let capture = Capture::default();
    let subscriber = tracing_subscriber::registry().with(capture.clone());
    let (events, report) = tracing::subscriber::with_default(subscriber, || {
        let runtime = multi_thread(1);
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        let often = async {
            for _ in 0..20 {
                std::thread::sleep(ms(250));
                tokio::task::yield_now().await;
            }
        };
        runtime
            .block_on(runtime.spawn(often.watched("often")))
            .unwrap();
        // Until the last is told, too.
        std::thread::sleep(ms(100));
        let count = |all: &[StallEvent], phase| all.iter().filter(|e| e.phase == phase).count();
        told.wait_for(|all| count(all, Phase::Ended) == count(all, Phase::Started));
        let report = watchdog.report();
        drop(watchdog);
        (told.of(Phase::Started).len(), report)
    });
    (capture, events, report)
}

#[test]
fn a_culprit_with_many_stalls_is_told_now_and_then_and_counted() {
    let _alone = alone();
    // Callbacks get all of them. But a machine that stands still for as long as a stall
    // may make one of two.
    let mut tries = (0..5).map(|_| twenty_stalls());
    let all = tries.find(|(_, events, _)| *events == 20);
    let (capture, _, report) = all.unwrap();
    let seen = capture.of_stallscope();
    let started = seen
        .iter()
        .filter(|seen| seen.field("phase") == Some("started"))
        .count();
    assert!((5..20).contains(&started), "{started}");
    let suppressed: usize = seen
        .iter()
        .filter_map(|seen| seen.field("suppressed"))
        .map(|count| count.parse::<usize>().unwrap())
        .sum();
    assert_eq!(started + suppressed, 20, "{seen:#?}");
    assert_eq!(report.counts().total(), 20);
    let hotspots = report.hotspots();
    let total: Duration = hotspots.iter().map(|hotspot| hotspot.total()).sum();
    let duration: Duration = report.stalls().iter().map(Stall::duration).sum();
    assert!(duration >= ms(5_000), "{hotspots:#?}");
    // Where there are places, they have all of the time that was seen.
    let places = report.stalls().iter().flat_map(Stall::places);
    let seen: Duration = places.map(|place| place.time()).sum();
    assert!(total >= seen && total >= ms(500), "{seen:?} {hotspots:#?}");
    // By its line where stacks are to be had, else by the future's name.
    let culprit = hotspots[0].culprit();
    assert!(
        culprit.contains("often") || culprit.contains("telling.rs"),
        "{culprit}"
    );
    assert!(hotspots[0].max() >= ms(200));
}

#[test]
fn a_report_has_polls_lag_and_stalls_and_survives_json() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let mixed = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        std::thread::sleep(ms(300));
    };
    runtime
        .block_on(runtime.spawn(mixed.watched("mixed")))
        .unwrap();
    told.wait_for_end();
    std::thread::sleep(ms(60));
    let report = watchdog.report();
    assert_eq!(report.max_severity(), Some(Severity::Medium));
    assert_eq!((report.counts().total(), report.stalls().len()), (1, 1));
    let task = report
        .tasks()
        .iter()
        .find(|task| task.name() == "mixed")
        .unwrap();
    assert_eq!(task.polls().count(), 101);
    assert!(task.polls().max() >= ms(120) && task.polls().p50() < ms(120));
    assert_eq!(task.stalls().of(Severity::Medium), 1);
    assert!(task.location().unwrap().file().ends_with("telling.rs"));
    assert!(report.polls().count() >= 101);
    assert!(report.lag().count() > 0);
    assert!(report.watched_for() >= ms(120));

    assert_eq!(Report::from_json(&report.to_json()).unwrap(), report);
    assert!(Report::from_json("{}").unwrap_err().is_json());
    let later = report
        .to_json()
        .replacen("\"version\": 1", "\"version\": 99", 1);
    assert!(
        Report::from_json(&later)
            .unwrap_err()
            .to_string()
            .contains("newer")
    );

    let text = report.to_string();
    for part in [
        "1 stall in",
        "MEDIUM 1",
        "mixed",
        "event loop lag",
        "held up by",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
}

#[test]
fn health_tells_what_goes_on_at_the_moment() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let builder = Watchdog::builder().thresholds(stallscope::Thresholds {
        high: ms(150),
        ..from_20_ms()
    });
    let watchdog = told.watch_with(builder, &runtime);
    assert!(watchdog.health().is_healthy());
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let stuck = async move { wait.recv().is_err() };
    let task = runtime.spawn(stuck.watched("stuck"));
    told.wait_for(|all| all.iter().any(|e| e.stall.severity() >= Severity::High));
    let health = watchdog.health();
    assert!(health.is_watching() && !health.is_healthy());
    assert_eq!(health.ongoing()[0].task().unwrap().name(), "stuck");
    let report = watchdog.report();
    assert!(report.to_string().contains("now: HIGH poll"), "{report}");
    // What never ends counts as what is over does, with its duration until now.
    assert_eq!(report.counts().total(), 1);
    assert_eq!(report.tasks()[0].stalls().total(), 1);
    assert!(report.hotspots()[0].total() >= ms(100), "{report}");
    // Where it is goes on to be seen, though nothing more is told of it.
    let seen = || {
        let report = watchdog.report();
        let mut stalls = report.stalls().iter().filter(|stall| stall.is_ongoing());
        stalls.next().unwrap().seen()
    };
    let begun = Instant::now();
    while seen() < ms(400) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", seen());
        std::thread::sleep(ms(10));
    }
    drop(release);
    runtime.block_on(task).unwrap();
    told.wait_for_end();
    assert!(watchdog.health().is_healthy());
    assert_eq!(watchdog.health().ongoing(), []);
}

#[test]
fn lag_shows_a_stall_of_the_only_worker_in_full() {
    let _alone = alone();
    let runtime = current_thread();
    let watchdog = Watchdog::builder().start_on(runtime.handle()).unwrap();
    runtime.block_on(async {
        tokio::time::sleep(ms(60)).await;
        std::thread::sleep(ms(400));
        tokio::time::sleep(ms(60)).await;
    });
    let lag = watchdog.report().lag().clone();
    // The stall swallowed some 20 samples, which a sampler that waits with the
    // rest would have left out.
    assert!(lag.max() >= ms(350), "{lag:?}");
    assert!(lag.p90() >= ms(100), "{lag:?}");
    assert!(lag.count() >= 20, "{lag:?}");
}

#[test]
fn paused_time_is_left_alone() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let watchdog = Watchdog::start().unwrap();
        let before = tokio::time::Instant::now();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(before.elapsed(), Duration::from_secs(3_600));
        assert_eq!(watchdog.report().lag().count(), 0);
    });
}

#[test]
fn the_names_of_a_process_are_bounded() {
    let watchdog_runtime = current_thread();
    let names = 2_000;
    let folded = (0..names)
        .map(|n| async {}.watched(format!("name {n}")).name())
        .filter(|name| name == "other")
        .count();
    assert!(folded >= names - 256, "{folded}");
    let watchdog = Watchdog::builder()
        .start_on(watchdog_runtime.handle())
        .unwrap();
    assert!(watchdog.health().folded_names() >= folded as u64);
}

/// A stopped and continued process: the stop is nobody's stall.
#[cfg(target_os = "linux")]
mod stopped {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    /// Not a test: what the test below stops and continues.
    #[test]
    #[ignore = "runs in a process of its own"]
    fn works_and_is_stopped() {
        let runtime = multi_thread(2);
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        let busy = (0..4).map(|_| {
            let short = async {
                loop {
                    common::spin(Duration::from_micros(50));
                    tokio::time::sleep(ms(1)).await;
                }
            };
            runtime.spawn(short.watched("short"))
        });
        let busy: Vec<_> = busy.collect();
        println!("\nready");
        std::thread::sleep(ms(5_000));
        common::stop(busy);
        let health = watchdog.health();
        let lag = watchdog.report().lag().clone();
        drop(watchdog);
        println!("\nstalls {:?}", told.all());
        println!("gap {}", health.time_in_gaps().as_millis());
        println!("lag {}", lag.max().as_millis());
    }

    #[test]
    fn a_stop_is_nobodys_stall() {
        let _alone = alone();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "stopped::works_and_is_stopped",
                "--ignored",
                "--nocapture",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line_after = |word: &str| loop {
            let line = lines.next().expect("more to come").unwrap();
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        };
        line_after("ready");
        let signal = |name: &str| {
            let id = child.id().to_string();
            assert!(
                Command::new("kill")
                    .args([name, id.as_str()])
                    .status()
                    .unwrap()
                    .success()
            );
        };
        std::thread::sleep(ms(500));
        signal("-STOP");
        std::thread::sleep(ms(3_000));
        signal("-CONT");
        assert_eq!(line_after("stalls"), "[]");
        let gap: u64 = line_after("gap").parse().unwrap();
        assert!(gap >= 2_900, "{gap}");
        let lag: u64 = line_after("lag").parse().unwrap();
        assert!(lag < 2_000, "the stop counts as lag: {lag} ms");
        assert!(child.wait().unwrap().success());
    }
}
