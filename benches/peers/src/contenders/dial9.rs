//! dial9: a recording on disk, of tasks as tokio spawns them or by its own `spawn`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::dial9::analysis::analysis_events::Dial9Event;
use ::dial9::analysis::{TraceReader, detect_long_polls};
use ::dial9::core::clock_monotonic_ns;
use ::dial9::{Dial9HandleTokioExt, DiskBuffer, Recorder, TokioAttachOptions};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::contender::{Contender, Failure, Like, Settings, Tells};
use crate::told::{Claim, Log, Told};

/// What its README takes for an example keeps 5 MiB; a service keeps more.
const DISK: u64 = 256 * 1024 * 1024;

struct Recording {
    recorder: Recorder,
    directory: PathBuf,
    /// The same moment by both clocks.
    started: (Instant, u64),
}

impl Recording {
    fn start(builder: Builder) -> Result<(Runtime, Self), Failure> {
        let directory =
            std::env::temp_dir().join(format!("stallscope-peers-{}", std::process::id()));
        let buffer = DiskBuffer::builder()
            .base_path(&directory)
            .max_total_size(DISK)
            .build()?;
        let recorder = ::dial9::recorder(buffer).build();
        let options = TokioAttachOptions::builder()
            .task_tracking_enabled(true)
            .build();
        let runtime = recorder.handle().attach_tokio_runtime(builder, options)?;
        let recording = Recording {
            recorder,
            directory,
            started: (Instant::now(), clock_monotonic_ns()),
        };
        Ok((runtime, recording))
    }

    fn finish(self, runtime: Runtime, settings: &Settings) -> Result<(), Failure> {
        drop(runtime);
        self.recorder.graceful_shutdown(Duration::from_secs(10));
        let read = settings.log.as_ref().map_or(Ok(()), |log| {
            tell(log, &self.directory, settings.threshold, self.started)
        });
        let removed = std::fs::remove_dir_all(&self.directory);
        read?;
        Ok(removed?)
    }
}

/// Reads the recording by its own analysis.
fn tell(
    log: &Log,
    directory: &Path,
    threshold: Duration,
    (started, started_ns): (Instant, u64),
) -> Result<(), Failure> {
    let mut segments = Vec::new();
    find_files(directory, &mut segments)?;
    segments.sort();
    let mut events: Vec<Dial9Event> = Vec::new();
    for segment in &segments {
        if let Some(path) = segment.to_str()
            && let Ok(reader) = TraceReader::new(path)
        {
            events.extend(reader.runtime_events);
        }
    }
    let threshold_ns = u64::try_from(threshold.as_nanos())?;
    for poll in detect_long_polls(&events, threshold_ns) {
        let since = Duration::from_nanos(poll.start_ns.saturating_sub(started_ns));
        log.push(Told {
            at: started + since,
            claim: Claim::Poll,
            duration: Some(Duration::from_nanos(poll.duration_ns)),
            again: false,
            recorded: true,
        });
    }
    Ok(())
}

fn find_files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find_files(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Tasks spawned as ever: its hooks record each poll's beginning and end.
pub(crate) struct Hooks(Recording);

impl Contender for Hooks {
    const NAME: &'static str = "dial9, tokio::spawn";
    const DOES: &'static str = "records two events with their times, for a trace on disk";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells = Tells::Recording;

    fn start(builder: Builder, _: &Settings) -> Result<(Runtime, Self), Failure> {
        let (runtime, recording) = Recording::start(builder)?;
        Ok((runtime, Hooks(recording)))
    }

    fn finish(self, runtime: Runtime, settings: &Settings) -> Result<(), Failure> {
        self.0.finish(runtime, settings)
    }
}

/// `dial9::spawn`: wakes too.
pub(crate) struct Spawn(Recording);

impl Contender for Spawn {
    const NAME: &'static str = "dial9, dial9::spawn";
    const DOES: &'static str = "records two events and one a wake, for a trace on disk";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells = Tells::Recording;

    fn start(builder: Builder, _: &Settings) -> Result<(Runtime, Self), Failure> {
        let (runtime, recording) = Recording::start(builder)?;
        Ok((runtime, Spawn(recording)))
    }

    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        ::dial9::spawn_in(on, future)
    }

    fn finish(self, runtime: Runtime, settings: &Settings) -> Result<(), Failure> {
        self.0.finish(runtime, settings)
    }
}
