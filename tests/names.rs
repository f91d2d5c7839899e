//! Names that come from outside: whatever is in them, a log stays a log.
#![allow(missing_docs, clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stallscope::{WatchExt, Watchdog};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What forges a line, drives a terminal, or shows what is not there.
const HOSTILE: &str =
    "upload\nERROR stallscope: forged\r\n\0\x1b[2J\u{9b}31m\u{202e}\u{200b}\u{2028}";

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes fields as they come: not every subscriber escapes what it prints.
struct Fields(Log);

impl<S: tracing::Subscriber> Layer<S> for Fields {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut Line(self.0.clone()));
    }
}

struct Line(Log);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        io::Write::write_fmt(&mut self.0, format_args!("{field}={value:?}\n")).unwrap();
    }
}

/// What is told of a stall in a future of this name, and of one that is stuck: the log,
/// the callback's lines, and the text of tasks and report.
fn told_of(name: &str) -> [String; 3] {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_writer(move || writer.clone());
    let subscriber = tracing_subscriber::registry()
        .with(lines.with_filter(tracing::level_filters::LevelFilter::DEBUG))
        .with(Fields(log.clone()));
    let events = Arc::new(Mutex::new(String::new()));
    let lines = Arc::clone(&events);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let watchdog = tracing::subscriber::with_default(subscriber, || {
        Watchdog::builder()
            .track(true)
            .stuck_after(Some(Duration::from_millis(20)))
            .on_stall(move |event| lines.lock().unwrap().push_str(&format!("{event}\n")))
            .start_on(runtime.handle())
            .unwrap()
    });
    let report = runtime.block_on(async {
        let stuck = tokio::spawn(std::future::pending::<()>().watched(name.to_owned()));
        let stalls = async { std::thread::sleep(Duration::from_millis(150)) };
        stallscope::spawn_named(name.to_owned(), stalls)
            .await
            .unwrap();
        let is_told = || {
            let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            let log = log.contains("stuck: ") && log.contains("started");
            log && events.lock().unwrap().contains("ended")
        };
        let begin = Instant::now();
        while !is_told() && begin.elapsed() < Duration::from_secs(20) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let tasks: Vec<String> = watchdog.tasks().iter().map(ToString::to_string).collect();
        stuck.abort();
        let report = watchdog.report();
        let text = format!("{}\n{report}", tasks.join("\n"));
        // Data is as it came.
        assert!(
            report
                .tasks()
                .iter()
                .any(|task| task.name().starts_with("upload"))
        );
        text
    });
    drop(watchdog);
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let events = events.lock().unwrap().clone();
    [log, events, report]
}

#[test]
fn a_name_forges_no_line() {
    let told = told_of(HOSTILE);
    let [log, events, report] = &told;
    for text in &told {
        let hidden = |c: char| c.is_control() || "\u{202e}\u{200b}\u{2028}".contains(c);
        let hidden: Vec<char> = text.chars().filter(|c| *c != '\n' && hidden(*c)).collect();
        assert!(hidden.is_empty(), "{hidden:?} in {text}");
        assert!(
            !text.lines().any(|line| line.starts_with("ERROR")),
            "{text}"
        );
        assert!(
            text.contains("upload\\n"),
            "it is said what there was: {text}"
        );
    }
    assert!(log.contains("started") && log.contains("stuck: "), "{log}");
    let phases = ["started ", "escalated ", "ended "];
    let mut lines = events.lines();
    assert!(
        lines.all(|line| phases.iter().any(|phase| line.starts_with(phase))),
        "{events}"
    );
    assert!(report.contains("future made at"), "{report}");
}

#[test]
fn a_name_of_ten_mebibytes_makes_no_long_line() {
    let name = format!("upload {}\u{202e}", "x".repeat(10 << 20));
    for text in told_of(&name) {
        let longest = text.lines().map(str::len).max().unwrap();
        assert!(longest < 1_000, "{longest}");
        assert!(
            text.contains("upload xxx") && text.contains('\u{2026}'),
            "{text}"
        );
    }
    let name = "ö".repeat(100);
    let watched = async {}.watched(name.clone()).name();
    assert_eq!(watched.len(), 127, "cut where a character ends: {watched}");
    assert_eq!(watched.strip_suffix('\u{2026}'), name.get(..124));
}
