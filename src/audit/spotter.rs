//! The thread that looks at audited polls from outside: where they sleep, where they compute.
//!
//! What a poll has done is told by its own thread, exactly; this one only finds
//! the lines. One for the process, because a thread that comes and goes with
//! each audit would disturb the memory of what is audited. It sleeps while
//! nothing is audited.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::audit::findings::{self, InProgress};
use crate::audit::onlooker::Onlooker;
use crate::audit::session::{Session, Sighting, TaskName};
use crate::clock;
use crate::os::{
    self, Activity, Capturer, DEFAULT_SIGNAL, Doing, Miss, SURELY_BACK_NS, SignalUse, Subject,
};
use crate::probes::Probes;
use crate::registry::{Tag, Thread, lock, registry};
use crate::slot::Seq;
use crate::threads;

const THREAD_NAME: &str = "stallscope-audit";
/// How often it looks.
const PERIOD: Duration = Duration::from_micros(250);
/// From when on a poll that computes is asked where, and how often at most.
const COMPUTES_FROM: Duration = Duration::from_millis(3);
const MOST_SIGNALS: u32 = 4;
/// How often a poll that moves too fast to be unwound is tried.
const TRIES: u32 = 20;

/// When debug info is let go.
const QUIET: Duration = Duration::from_secs(30);

static SPOTTER: OnceLock<Spotter> = OnceLock::new();

#[derive(Debug, Default)]
struct Spotter {
    sessions: Mutex<Vec<Arc<Session>>>,
    changed: Condvar,
    /// Held while it looks.
    looking: Mutex<Looking>,
}

/// What it remembers from look to look.
#[derive(Debug, Default)]
struct Looking {
    capturer: Option<Capturer>,
    probes: Probes,
    polls: HashMap<usize, Seen>,
    onlooker: Onlooker,
}

/// The audited poll in progress on one thread.
#[derive(Debug)]
struct Seen {
    session: u64,
    seq: Seq,
    since: Instant,
    doing: Option<Doing>,
    /// At the last capture.
    captured: Option<Activity>,
    activity: Option<Activity>,
    tries: u32,
    signals: u32,
}

/// Has a session's polls looked at until it is closed.
///
/// Without a thread to do so, no line is found, which the report then lacks.
pub(crate) fn enlist(session: &Arc<Session>) {
    let spotter = SPOTTER.get_or_init(Spotter::default);
    {
        let mut sessions = lock(&spotter.sessions);
        sessions.retain(|session| !session.is_closed());
        sessions.push(Arc::clone(session));
    }
    spotter.changed.notify_all();
    static STARTED: OnceLock<bool> = OnceLock::new();
    STARTED.get_or_init(|| {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let started = threads::start(THREAD_NAME, false, move || {
            let _ = ready.send(());
            spotter.run();
        });
        // Its start would disturb what is audited.
        started.is_ok() && is_ready.recv().is_ok()
    });
}

/// Waits until what was seen so far has been taken in; the polls of what was spawned that
/// go on.
///
/// Of an audit whose time is not over, those that sleep: how long one that computes has
/// waited for a CPU is known only when it ends.
pub(crate) fn settle(session: &Session) -> Vec<InProgress> {
    let Some(spotter) = SPOTTER.get() else {
        return Vec::new();
    };
    let mut polls = {
        let mut looking = lock(&spotter.looking);
        looking.onlooker.end(session);
        looking.in_progress(session)
    };
    if !session.is_expired() {
        polls.retain(|poll| poll.doing.is_some_and(Doing::is_asleep));
    }
    polls
}

impl Spotter {
    fn run(&'static self) {
        loop {
            let sessions = self.wait_for_sessions();
            {
                let mut looking = lock(&self.looking);
                looking.look(&sessions);
            }
            for session in &sessions {
                if session.expires() {
                    self.expire(session);
                }
            }
            os::leave_out();
            std::thread::sleep(PERIOD);
        }
    }

    fn wait_for_sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions = lock(&self.sessions);
        loop {
            sessions.retain(|session| !session.is_closed());
            if !sessions.is_empty() {
                return sessions.clone();
            }
            // A session may be closed at any time, and nobody says so.
            lock(&self.looking).polls.clear();
            let (woken, waited) = self
                .changed
                .wait_timeout(sessions, QUIET)
                .unwrap_or_else(PoisonError::into_inner);
            sessions = woken;
            if waited.timed_out() {
                findings::release();
                sessions = self
                    .changed
                    .wait(sessions)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    /// The audit's time is over: its future is woken to hear of it, and if that
    /// is stuck, whoever asked is told from here.
    fn expire(&self, session: &Session) {
        let stuck = {
            let mut looking = lock(&self.looking);
            looking.onlooker.end(session);
            looking.in_progress(session)
        };
        if let Some(on_limit) = &session.wanted.on_limit {
            let report = findings::report(session, &stuck);
            // What the callback panics with is its own affair.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| on_limit(&report)));
        }
        session.wake();
    }
}

impl Looking {
    fn look(&mut self, sessions: &[Arc<Session>]) {
        let mut targets = Vec::new();
        registry().for_each_thread(|number, thread| {
            let (audit, seq) = thread.audited();
            if audit != 0
                && let Some(session) = sessions.iter().find(|session| session.id() == audit)
            {
                targets.push((number, thread, session, seq));
            }
        });
        self.polls
            .retain(|number, _| targets.iter().any(|(target, ..)| target == number));
        for (number, thread, session, seq) in targets {
            self.look_at(number, thread, session, seq);
        }
        self.onlooker
            .keep(|id| sessions.iter().any(|session| session.id() == id));
        let mut whole = sessions
            .iter()
            .filter(|session| session.whole.is_some())
            .peekable();
        if whole.peek().is_none() {
            return;
        }
        let passed = self.onlooker.begin();
        let capturer = self.capturer.get_or_insert_with(new_capturer);
        for session in whole {
            self.onlooker
                .look(session, passed, &mut self.probes, capturer);
        }
    }

    fn look_at(&mut self, number: usize, thread: &'static Thread, session: &Session, seq: Seq) {
        // The innermost leads to the shortest stack that proves itself.
        let polls = thread.slot.polls();
        let Some(anchor) = polls.as_slice().last().map(|poll| poll.stamp.anchor) else {
            return;
        };
        let Ok(probe) = self.probes.of(number) else {
            return;
        };
        let seen = self
            .polls
            .entry(number)
            .or_insert_with(|| Seen::new(session, seq));
        if seen.seq != seq || seen.session != session.id() {
            *seen = Seen::new(session, seq);
        }
        seen.doing = probe.doing(1);
        let asleep = !matches!(seen.doing, None | Some(Doing::Running));
        if !asleep && (seen.since.elapsed() < COMPUTES_FROM || seen.signals >= MOST_SIGNALS) {
            return;
        }
        let Some(activity) = probe.activity() else {
            return;
        };
        let address = std::ptr::from_ref(thread).addr();
        let same_sleep = asleep
            && seen
                .captured
                .is_some_and(|captured| captured.sleeps == activity.sleeps);
        if same_sleep {
            session.see_again(address, seq);
            return;
        }
        let awake = !asleep && seen.awake_since(&activity);
        if seen
            .activity
            .is_none_or(|before| before.sleeps != activity.sleeps)
        {
            seen.activity = Some(activity);
        }
        if (!asleep && !awake) || seen.tries >= TRIES {
            return;
        }
        let still = || thread.audited() == (session.id(), seq);
        let capturer = self.capturer.get_or_insert_with(new_capturer);
        let subject = Subject {
            id: seq,
            anchor: Some(anchor),
            still: &still,
        };
        let Ok(captured) = capturer.capture(probe, &thread.stack, &subject) else {
            seen.tries += 1;
            return;
        };
        if matches!(captured.stack, Err(Miss::Late | Miss::Queued)) {
            // Picked up, or asked for, at one of the next looks.
            return;
        }
        if captured.stack.is_err() && (captured.doing == Doing::Running || !still()) {
            seen.tries += 1;
            return;
        }
        seen.tries += u32::from(captured.stack.is_err());
        seen.captured = Some(activity);
        seen.signals += u32::from(captured.doing == Doing::Running);
        session.see(Sighting {
            thread: address,
            seq,
            doing: captured.doing,
            addresses: captured.stack.unwrap_or_default(),
            seen: 1,
        });
    }

    fn in_progress(&self, session: &Session) -> Vec<InProgress> {
        self.polls
            .iter()
            .filter(|(_, seen)| seen.session == session.id())
            .filter_map(|(number, seen)| {
                let thread = registry().thread(*number)?;
                // It may have ended since it was looked at.
                let goes_on = thread.audited() == (session.id(), seen.seq);
                goes_on.then(|| InProgress {
                    thread: std::ptr::from_ref(thread).addr(),
                    seq: seen.seq,
                    name: name_of(thread, seen.seq),
                    age: seen.since.elapsed(),
                    doing: seen.doing,
                })
            })
            .collect()
    }
}

fn new_capturer() -> Capturer {
    Capturer::new(SignalUse::Signal {
        number: DEFAULT_SIGNAL,
        chosen: false,
    })
}

/// The name of this poll in progress.
fn name_of(thread: &Thread, seq: Seq) -> Option<TaskName> {
    let polls = thread.slot.polls();
    let poll = polls.as_slice().iter().find(|poll| poll.seq == seq)?;
    let label = registry().label_of(Tag::unpack(poll.stamp.tag).label)?;
    Some(TaskName {
        name: label.name.to_string(),
        location: label.location?,
    })
}

impl Seen {
    fn new(session: &Session, seq: Seq) -> Self {
        Seen {
            session: session.id(),
            seq,
            since: Instant::now(),
            doing: None,
            captured: None,
            activity: None,
            tries: 0,
            signals: 0,
        }
    }

    /// Whether the thread has computed for a while, without sleeping: only then
    /// is it sent a signal. And again only when it has computed for longer.
    fn awake_since(&self, now: &Activity) -> bool {
        let Some(before) = self.activity else {
            return false;
        };
        let enough_ns = SURELY_BACK_NS.max(clock::ns_of(COMPUTES_FROM) << (2 * self.signals) >> 2);
        now.has_run_since(&before) && now.cpu_ns > before.cpu_ns + enough_ns
    }
}
