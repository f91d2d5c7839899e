//! stallscope in each of its modes.

use std::future::Future;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use stallscope::{Phase, PollTiming, StallEvent, StallKind, Thresholds, WatchExt, Watchdog};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};
use crate::told::{Claim, Told};

/// A watchdog with the default tick, of stalls from the threshold on.
fn settings_of(settings: &Settings, timing: PollTiming) -> stallscope::Builder {
    let second = Duration::from_secs(1);
    let mut builder = Watchdog::builder()
        .thresholds(Thresholds {
            monitor: settings.threshold,
            medium: settings.threshold + second,
            high: settings.threshold + 2 * second,
            critical: settings.threshold + 3 * second,
        })
        .poll_timing(timing);
    if settings.by_poll_only {
        builder = builder.tick(settings.threshold).lag_period(None);
    }
    if let Some(log) = settings.log.clone() {
        builder = builder.on_stall(move |event| log.push(told(event)));
    }
    builder
}

fn told(event: &StallEvent) -> Told {
    Told {
        at: Instant::now(),
        claim: match event.stall.kind() {
            StallKind::Poll => Claim::Poll,
            StallKind::Turn => Claim::Loop,
        },
        duration: (event.phase == Phase::Ended).then(|| event.stall.duration()),
        again: event.phase != Phase::Started,
        recorded: false,
    }
}

/// Nothing wrapped. Installed or not: with the runtime's hooks set, and with `tokio_unstable`
/// those of polls too, by which every task is timed and named; or by the runtime's own
/// counters alone, which the watchdog's thread reads.
pub(crate) struct Unwrapped<const INSTALLED: bool> {
    _watchdog: Watchdog,
}

pub(crate) type RuntimeWatch = Unwrapped<false>;
pub(crate) type Installed = Unwrapped<true>;

impl<const INSTALLED: bool> Contender for Unwrapped<INSTALLED> {
    const NAME: &'static str = if INSTALLED {
        "stallscope, installed"
    } else {
        "stallscope, nothing wrapped"
    };
    const DOES: &'static str = match (INSTALLED, cfg!(tokio_unstable)) {
        (false, _) => "nothing",
        (true, false) => "nothing; hooks at each park",
        (true, true) => {
            "publishes the poll, times it, counts it in a histogram of its task's place, by hooks"
        }
    };
    const LIKE: Like = if INSTALLED && cfg!(tokio_unstable) {
        Like::Timed
    } else {
        Like::Nothing
    };
    const TELLS: Tells = Tells::Program;

    fn start(mut builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let watchdog = if INSTALLED {
            settings_of(settings, PollTiming::Exact).install(&mut builder)
        } else {
            settings_of(settings, PollTiming::DetectOnly)
        };
        let runtime = build(builder)?;
        let watchdog = watchdog.start_on(runtime.handle())?;
        let contender = Unwrapped {
            _watchdog: watchdog,
        };
        Ok((runtime, contender))
    }
}

/// What is measured of a watched future's polls.
pub(crate) trait Mode {
    const NAME: &'static str;
    const DOES: &'static str;
    const LIKE: Like;
    /// Without one there is no watchdog.
    const TIMING: Option<PollTiming>;
    /// Whether futures are tracked between their polls.
    const TRACK: bool = false;
}

/// Each future is wrapped with `watched`.
pub(crate) struct Watched<M> {
    _watchdog: Option<Watchdog>,
    mode: PhantomData<M>,
}

impl<M: Mode> Contender for Watched<M> {
    const NAME: &'static str = M::NAME;
    const DOES: &'static str = M::DOES;
    const LIKE: Like = M::LIKE;
    const TELLS: Tells = match M::TIMING {
        Some(_) => Tells::Program,
        None => Tells::Nobody("no watchdog runs"),
    };

    fn start(builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let runtime = build(builder)?;
        let watchdog = match M::TIMING {
            Some(timing) => {
                let watchdog = settings_of(settings, timing).track(M::TRACK);
                Some(watchdog.start_on(runtime.handle())?)
            }
            None => None,
        };
        let contender = Watched {
            _watchdog: watchdog,
            mode: PhantomData,
        };
        Ok((runtime, contender))
    }

    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        on.spawn(future.watched("task"))
    }
}

/// What code costs that was wrapped once and for all, while nobody watches.
pub(crate) enum NoWatchdog {}

impl Mode for NoWatchdog {
    const NAME: &'static str = "stallscope, watched, no watchdog";
    const DOES: &'static str = "publishes the poll";
    const LIKE: Like = Like::Seen;
    const TIMING: Option<PollTiming> = None;
}

/// Long polls are told, and none is timed.
pub(crate) enum DetectOnly {}

impl Mode for DetectOnly {
    const NAME: &'static str = "stallscope, detect only";
    const DOES: &'static str = "publishes the poll";
    const LIKE: Like = Like::Seen;
    const TIMING: Option<PollTiming> = Some(PollTiming::DetectOnly);
}

/// The default.
pub(crate) enum Exact {}

impl Mode for Exact {
    const NAME: &'static str = "stallscope, exact histogram";
    const DOES: &'static str = "publishes the poll, times it, counts it in a histogram of its name";
    const LIKE: Like = Like::Timed;
    const TIMING: Option<PollTiming> = Some(PollTiming::Exact);
}

/// One poll in a hundred is timed.
pub(crate) enum Sampled {}

impl Mode for Sampled {
    const NAME: &'static str = "stallscope, 1 in 100 timed";
    const DOES: &'static str = "publishes the poll, times one in a hundred";
    const LIKE: Like = Like::Seen;
    const TIMING: Option<PollTiming> = match NonZeroU32::new(100) {
        Some(one_in) => Some(PollTiming::Sampled(one_in)),
        None => None,
    };
}

/// Each future's delays and wakers are tracked too.
pub(crate) enum Tracked {}

impl Mode for Tracked {
    const NAME: &'static str = "stallscope, exact and tracked";
    const DOES: &'static str = "as exact; and notes each wake, and how long until the poll";
    const LIKE: Like = Like::Timed;
    const TIMING: Option<PollTiming> = Some(PollTiming::Exact);
    const TRACK: bool = true;
}
