//! A runtime and a watchdog for a system to run on.

use std::fmt;
use std::time::{Duration, Instant};

use stallscope::{Report, Severity, StallEvent, Watchdog};
use tokio::runtime::{Builder, Runtime};

use crate::heartbeat::Heartbeat;
use crate::usage::Usage;
use crate::{Failure, say};

/// How long whatever a run has left behind has to end.
const GRACE: Duration = Duration::from_secs(1);

/// What the watchdog takes to see the last of it, generously.
const SETTLING: Duration = Duration::from_millis(50);

/// What a system runs on.
#[derive(Debug)]
pub struct Stage {
    /// Its own, and gone after the run.
    pub runtime: Runtime,
    /// Of this runtime.
    pub watchdog: Watchdog,
    /// A task of this runtime that should not be late.
    pub heartbeat: Heartbeat,
}

/// What was to be seen from outside.
#[derive(Debug)]
pub struct Observed {
    /// From the first task to the last answer.
    pub wall: Duration,
    /// CPU time of the whole process, servers and watchdog included.
    pub cpu: Duration,
    /// At the end.
    pub rss_kib: u64,
    /// How late the heartbeat was at worst.
    pub late: Duration,
    /// What the library has to say.
    pub report: Report,
}

/// Tells people of an event, from MEDIUM on.
pub fn tell(event: &StallEvent) {
    if event.stall.severity() > Severity::Monitor {
        say!("  {event}");
    }
}

/// Runs `body` on a runtime of its own, under a watchdog.
///
/// `on_stall` is called with each event; [`tell`] is one that prints them.
///
/// # Errors
/// If there is no runtime or no watchdog, or `body` fails.
pub fn watch<T>(
    builder: &mut Builder,
    on_stall: impl Fn(&StallEvent) + Send + Sync + 'static,
    body: impl FnOnce(&Stage) -> Result<T, Failure>,
) -> Result<(T, Observed), Failure>
where
    T: fmt::Debug,
{
    // So that workers are known before they first run a watched future.
    let watchdog = Watchdog::builder().on_stall(on_stall).install(builder);
    let runtime = builder.build()?;
    let watchdog = watchdog.start_on(runtime.handle())?;
    let heartbeat = Heartbeat::start(runtime.handle());
    let stage = Stage {
        runtime,
        watchdog,
        heartbeat,
    };
    let before = Usage::now();
    let start = Instant::now();
    let output = body(&stage)?;
    let wall = start.elapsed();
    let after = Usage::now();
    // A stall that has just ended is told to have ended, and a beat that was late comes.
    std::thread::sleep(SETTLING);
    let observed = Observed {
        wall,
        cpu: after.cpu_since(&before),
        rss_kib: after.rss_kib,
        late: stage.heartbeat.worst(),
        report: stage.watchdog.report(),
    };
    // The last lines come before those of what follows.
    drop(stage.watchdog);
    stage.runtime.shutdown_timeout(GRACE);
    Ok((output, observed))
}
