//! How late a stall is told of, and whether each is: many stalls in one run.
//!
//! `cargo bench --bench start_latency` holds up one worker again and again, for three
//! times the lowest threshold, with the default thresholds and the default tick. Late is
//! from when a stall reached the threshold, without what its thread waited for a CPU, to
//! when the callback is called with `Started`, while it lasts or soon after. All modes
//! take turns, in a few rounds; the first stall of each round, for which debug info may
//! have to be read, is shown apart, and so is how often the watchdog stood still, which no
//! load explains. A word, as in `-- computes`, is part of the only scenes' names.
//!
//! The floors are what nothing that does the like can be below on the machine: a thread
//! that is told when each stall begins and sleeps until the threshold; and one that looks
//! as often as a watchdog does, and counts from the first look that sees the stall. Where
//! the stuck thread computes, neither counts what it waits for a CPU, and both have it
//! answer a signal, as who wants to know its line must; and both have another thread tell.

#![allow(missing_docs, clippy::print_stdout)]
// The floors interrupt a thread.
#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use std::io;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use stallscope::{Phase, PollTiming, Thresholds, WatchExt, Watchdog};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

const ROUNDS: usize = 2;
const STALLS: usize = 100;
const TICK: Duration = Duration::from_millis(5);
/// As a watchdog does, also while a stall lasts: there may be others.
const LOOKS_EACH: Duration = Duration::from_micros(4_375);
/// What takes so long between two looks at the clock is no computing.
const SURELY_WAITED: Duration = Duration::from_micros(50);
/// Between two stalls, so that what is told of one is not taken for the other's.
const GAP: Duration = Duration::from_millis(30);

fn threshold() -> Duration {
    Thresholds::default().monitor
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Knows,
    Looks,
    NothingWrapped,
    Installed,
    Watched(PollTiming),
}

const MODES: [Mode; 6] = [
    Mode::Knows,
    Mode::Looks,
    Mode::NothingWrapped,
    Mode::Installed,
    Mode::Watched(PollTiming::DetectOnly),
    Mode::Watched(PollTiming::Exact),
];

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Mode::Knows => "floor: a thread that knows",
            Mode::Looks => "floor: a thread that looks",
            Mode::NothingWrapped => "nothing wrapped",
            Mode::Installed => "installed",
            Mode::Watched(PollTiming::DetectOnly) => "watched, detect only",
            Mode::Watched(_) => "watched, exact histogram",
        }
    }

    fn spawn<F>(self, runtime: &Handle, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        match self {
            Mode::Watched(_) => runtime.spawn(future.watched(name)),
            _ => runtime.spawn(future),
        }
    }
}

/// What is held up, and what else goes on.
#[derive(Clone, Copy, PartialEq)]
enum Scene {
    /// One of two workers sleeps; the other has nothing to do.
    Asleep,
    /// One of two workers computes; the other has nothing to do.
    Computes,
    /// One of two workers computes, the other polls all the time: no core is free.
    NoCoreFree,
    /// One of four workers sleeps; the others have some work.
    OneOfFour,
    /// The only one sleeps.
    CurrentThread,
}

const SCENES: [Scene; 5] = [
    Scene::Asleep,
    Scene::Computes,
    Scene::NoCoreFree,
    Scene::OneOfFour,
    Scene::CurrentThread,
];

impl Scene {
    const fn name(self) -> &'static str {
        match self {
            Scene::Asleep => "one of 2 workers sleeps",
            Scene::Computes => "one of 2 workers computes",
            Scene::NoCoreFree => "the same, and the other is busy",
            Scene::OneOfFour => "one of 4 workers sleeps, some work",
            Scene::CurrentThread => "current-thread, sleeps",
        }
    }

    fn builder(self) -> Builder {
        let mut builder = match self {
            Scene::CurrentThread => Builder::new_current_thread(),
            _ => Builder::new_multi_thread(),
        };
        let workers = if self == Scene::OneOfFour { 4 } else { 2 };
        builder.worker_threads(workers).enable_all();
        builder
    }

    const fn computes(self) -> bool {
        matches!(self, Scene::Computes | Scene::NoCoreFree)
    }

    /// Returns when it reached the threshold, if it did.
    fn hold(self, span: Duration) -> Option<Instant> {
        if self.computes() {
            compute(span)
        } else {
            let start = Instant::now();
            sleep(span);
            Some(start + threshold())
        }
    }

    /// What else the runtime does; short polls.
    async fn work(self) {
        loop {
            compute(Duration::from_micros(100));
            if self == Scene::NoCoreFree {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    const fn tasks(self) -> usize {
        match self {
            Scene::NoCoreFree | Scene::OneOfFour => 8,
            _ => 0,
        }
    }
}

/// Returns when it had computed for as long as the threshold, which waiting for a CPU
/// does not count towards; nothing if it never had, and so was no stall.
fn compute(span: Duration) -> Option<Instant> {
    let start = Instant::now();
    let mut now = start;
    let mut waited = Duration::ZERO;
    let mut reached = None;
    while now - start < span {
        std::hint::spin_loop();
        let last = std::mem::replace(&mut now, Instant::now());
        if now - last > SURELY_WAITED {
            waited += now - last;
        }
        if now - start >= threshold() + waited {
            reached.get_or_insert(now);
        }
    }
    reached
}

/// When each stall was told of.
type Log = Arc<Mutex<Vec<Instant>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one of the floors knows of a stall.
#[derive(Clone, Copy)]
struct Begun {
    start: Instant,
    had_computed: Duration,
    stuck: Stuck,
}

/// A thread that may be made to answer.
#[derive(Clone, Copy)]
struct Stuck {
    #[cfg(target_os = "linux")]
    thread: libc::pthread_t,
    computes: bool,
}

static ANSWERED: AtomicBool = AtomicBool::new(false);

impl Stuck {
    fn me(scene: Scene) -> Self {
        Stuck {
            // SAFETY: no preconditions.
            #[cfg(target_os = "linux")]
            thread: unsafe { libc::pthread_self() },
            computes: scene.computes(),
        }
    }

    /// How long the thread has been on a CPU.
    fn on_cpu(self) -> Duration {
        #[cfg(target_os = "linux")]
        {
            let mut clock = 0;
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: both are valid for the calls; the workers outlive what they poll.
            unsafe {
                libc::pthread_getcpuclockid(self.thread, &raw mut clock);
                libc::clock_gettime(clock, &raw mut time);
            }
            let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
            seconds + Duration::from_nanos(time.tv_nsec.unsigned_abs())
        }
        #[cfg(not(target_os = "linux"))]
        Duration::ZERO
    }

    /// Sleeps until it has been at it for as long as the threshold, as far as is known
    /// from then on; for so long at once.
    fn wait(self, since: Instant, had_computed: Duration, step: Duration) {
        while let Some(left) = threshold().checked_sub(since.elapsed()) {
            sleep(left.min(step));
        }
        if cfg!(target_os = "linux") && self.computes {
            while let Some(left) = (had_computed + threshold()).checked_sub(self.on_cpu())
                && since.elapsed() < 2 * threshold()
            {
                sleep(left.max(Duration::from_micros(20)));
            }
        }
    }

    /// Waits until it has answered, as a watchdog does; for a while.
    fn interrupt(self) {
        if !self.computes {
            return;
        }
        #[cfg(target_os = "linux")]
        {
            extern "C" fn answer(_: libc::c_int) {
                ANSWERED.store(true, Release);
            }
            let handler = answer as extern "C" fn(libc::c_int);
            ANSWERED.store(false, Release);
            // SAFETY: the handler only stores; the workers outlive what they poll.
            unsafe {
                libc::signal(libc::SIGUSR1, handler as libc::sighandler_t);
                libc::pthread_kill(self.thread, libc::SIGUSR1);
            }
            let asked = Instant::now();
            while !ANSWERED.load(Acquire) && asked.elapsed() < TICK {
                if asked.elapsed() < Duration::from_micros(30) {
                    std::hint::spin_loop();
                } else {
                    sleep(Duration::from_micros(200));
                }
            }
        }
    }
}

/// Tells when it is told to.
fn teller(log: &Log) -> Sender<()> {
    let (sender, told) = channel::<()>();
    let log = Arc::clone(log);
    spawn(move || {
        for () in told {
            lock(&log).push(Instant::now());
        }
    });
    sender
}

/// Tells of each stall that it is sent.
fn knows(log: &Log) -> Sender<Begun> {
    let (sender, begun) = channel::<Begun>();
    let teller = teller(log);
    spawn(move || {
        for begun in begun {
            let stuck = begun.stuck;
            stuck.wait(begun.start, begun.had_computed, threshold());
            stuck.interrupt();
            let _ = teller.send(());
        }
    });
    sender
}

/// What one that looks can see: the number of the stall, odd as long as it lasts.
#[derive(Default)]
struct Stalls {
    number: AtomicU64,
    stuck: Mutex<Option<Stuck>>,
}

/// Tells of each stall that it sees, until there is nobody who could begin one.
fn looks(log: &Log, stalls: &Arc<Stalls>) {
    let teller = teller(log);
    let stalls = Arc::downgrade(stalls);
    spawn(move || {
        let mut last = 0;
        while let Some(stalls) = stalls.upgrade() {
            let number = stalls.number.load(Acquire);
            if number % 2 == 1 && number != last {
                last = number;
                let stuck = *lock(&stalls.stuck);
                if let Some(stuck) = stuck {
                    stuck.wait(Instant::now(), stuck.on_cpu(), LOOKS_EACH);
                    if stalls.number.load(Acquire) == number {
                        stuck.interrupt();
                        let _ = teller.send(());
                    }
                }
            }
            drop(stalls);
            sleep(LOOKS_EACH);
        }
    });
}

fn start(mode: Mode, scene: Scene, log: &Log) -> io::Result<(Runtime, Option<Watchdog>)> {
    let mut builder = scene.builder();
    let watchdog = Watchdog::builder().tick(TICK).on_stall({
        let log = Arc::clone(log);
        move |event| {
            if event.phase == Phase::Started {
                lock(&log).push(Instant::now());
            }
        }
    });
    let watchdog = match mode {
        Mode::Knows | Mode::Looks => None,
        Mode::NothingWrapped => Some(watchdog.poll_timing(PollTiming::DetectOnly)),
        Mode::Installed => Some(watchdog.install(&mut builder)),
        Mode::Watched(timing) => Some(watchdog.poll_timing(timing)),
    };
    let runtime = builder.build()?;
    let watchdog = watchdog
        .map(|watchdog| watchdog.start_on(runtime.handle()))
        .transpose()
        .map_err(io::Error::other)?;
    Ok((runtime, watchdog))
}

/// What came of the stalls of one mode in one scene.
#[derive(Default)]
struct Outcome {
    /// Of those that were told of, but for the first of each round.
    late: Vec<Duration>,
    first: Vec<Duration>,
    stalls: usize,
    /// What was told and was none.
    others: usize,
    /// How often the watchdog stood still: what the machine was busy with otherwise.
    gaps: u64,
}

impl Outcome {
    fn add(&mut self, round: Outcome) {
        self.late.extend(round.late);
        self.first.extend(round.first);
        self.stalls += round.stalls;
        self.others += round.others;
        self.gaps += round.gaps;
    }
}

fn measure(mode: Mode, scene: Scene) -> io::Result<Outcome> {
    let log = Log::default();
    let (runtime, watchdog) = start(mode, scene, &log)?;
    let knows = (mode == Mode::Knows).then(|| knows(&log));
    let stalls = Arc::new(Stalls::default());
    if mode == Mode::Looks {
        looks(&log, &stalls);
    }
    for _ in 0..scene.tasks() {
        mode.spawn(runtime.handle(), "work", scene.work());
    }
    let spans = runtime.block_on(async {
        let mut spans = Vec::new();
        for _ in 0..STALLS {
            tokio::time::sleep(GAP).await;
            let knows = knows.clone();
            let stalls = Arc::clone(&stalls);
            let stall = async move {
                let (start, stuck) = (Instant::now(), Stuck::me(scene));
                if let Some(knows) = knows {
                    let had_computed = stuck.on_cpu();
                    let _ = knows.send(Begun {
                        start,
                        had_computed,
                        stuck,
                    });
                }
                *lock(&stalls.stuck) = Some(stuck);
                stalls.number.fetch_add(1, Release);
                let reached = scene.hold(3 * threshold());
                stalls.number.fetch_add(1, Release);
                (start, reached, Instant::now())
            };
            spans.extend(mode.spawn(runtime.handle(), "stall", stall).await);
        }
        tokio::time::sleep(GAP).await;
        spans
    });
    let gaps = watchdog.map_or(0, |watchdog| watchdog.health().gaps());
    runtime.shutdown_background();

    let mut told = std::mem::take(&mut *lock(&log));
    let mut outcome = Outcome {
        stalls: spans.len(),
        gaps,
        ..Outcome::default()
    };
    for (number, (start, reached, end)) in spans.iter().enumerate() {
        let until = *end + GAP / 2;
        let at = told.iter().position(|told| (*start..=until).contains(told));
        let told = at.map(|at| told.swap_remove(at));
        let Some(reached) = reached else {
            outcome.stalls -= 1;
            continue;
        };
        if let Some(told) = told {
            let late = told.saturating_duration_since(*reached);
            let those = if number == 0 {
                &mut outcome.first
            } else {
                &mut outcome.late
            };
            those.push(late);
        }
    }
    outcome.others = told.len();
    Ok(outcome)
}

fn show(mode: Mode, outcome: &mut Outcome) {
    let Outcome {
        late,
        first,
        stalls,
        others,
        gaps,
    } = outcome;
    late.sort();
    let ms = |late: &Duration| late.as_secs_f64() * 1e3;
    let at = |percent: usize| {
        let index = (late.len() * percent).div_ceil(100).max(1) - 1;
        late.get(index).map_or(f64::NAN, ms)
    };
    let in_time = late.iter().filter(|late| **late <= TICK).count();
    println!(
        "  {:<28} {:>4} of {stalls} {:>7.2} {:>7.2} {:>7.2} {:>7.1} % {:>7.2} {:>6} {:>5}",
        mode.name(),
        late.len() + first.len(),
        at(50),
        at(99),
        at(100),
        100.0 * in_time as f64 / late.len() as f64,
        first.iter().max().map_or(f64::NAN, ms),
        others,
        gaps
    );
}

fn main() -> io::Result<()> {
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = wanted.unwrap_or_default();
    for scene in SCENES.iter().filter(|scene| scene.name().contains(&wanted)) {
        println!(
            "\n{}\n  {:<28} {:>11} {:>7} {:>7} {:>7} {:>9} {:>7} {:>6} {:>5}",
            scene.name(),
            "late, in ms",
            "told",
            "median",
            "99 %",
            "most",
            "in a tick",
            "first",
            "others",
            "gaps",
        );
        let mut outcomes = MODES.map(|mode| (mode, Outcome::default()));
        for _ in 0..ROUNDS {
            for (mode, outcome) in &mut outcomes {
                outcome.add(measure(*mode, *scene)?);
            }
        }
        for (mode, outcome) in &mut outcomes {
            show(*mode, outcome);
        }
    }
    Ok(())
}
