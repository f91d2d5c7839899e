//! Looks from outside at the other tasks of a runtime that is audited as a whole.
//!
//! On stable tokio nobody takes the account of their polls. What is sure from outside is a
//! sleep: a worker that is not parked and that sleeps on in one and the same sleep is in one
//! poll of one task. A turn that computes may be one long poll or many short ones, which is
//! said as what it is: not sure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::audit::session::{OthersTurn, Session};
use crate::clock;
use crate::detector::WorkerSeen;
use crate::os::{self, Capturer, Doing, Miss, Subject, ThreadProbe};
use crate::probes::Probes;
use crate::registry::{Thread, registry};

/// What passes between two looks at most, beside the looking thread's own wait for a CPU: in
/// the rest the whole process may have stood still.
const MOST_BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// How often a turn is tried to be unwound, and how often it is sent a signal.
const TRIES: u32 = 8;
const MOST_SIGNALS: u32 = 2;

/// What is remembered from look to look of the workers of runtimes that are audited as a
/// whole, by the audit and the worker.
#[derive(Debug, Default)]
pub(super) struct Onlooker {
    turns: HashMap<(u64, usize), Turn>,
    last: Option<Look>,
}

/// When the calling thread looked, and for how long it had waited for a CPU by then.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    waited_ns: u64,
}

impl Look {
    fn now() -> Self {
        let (usage, at) = os::usage();
        Look {
            at,
            waited_ns: usage.map_or(0, |usage| usage.wait_ns),
        }
    }

    /// How long what was asleep at both looks has surely slept between them.
    fn since(&self, before: &Look) -> Duration {
        let waited = Duration::from_nanos(self.waited_ns.saturating_sub(before.waited_ns));
        let most = MOST_BETWEEN_LOOKS.saturating_add(waited);
        self.at.saturating_duration_since(before.at).min(most)
    }
}

/// One turn of a worker's loop.
#[derive(Debug)]
struct Turn {
    of: WorkerSeen,
    /// At the first look.
    cpu_ns: u64,
    tries: u32,
    signals: u32,
    sleep: Option<Sleep>,
    computes: Option<Computes>,
}

/// A sleep in progress.
#[derive(Debug)]
struct Sleep {
    /// How often its thread has gone to sleep by now: so it is told from the next.
    number: u64,
    so_far: Duration,
    doing: Doing,
    addresses: Vec<u64>,
    /// How long each other thread of the process had waited for a CPU when it began.
    waits_ns: Vec<(i32, u64)>,
}

/// What a turn was seen to compute.
#[derive(Debug)]
struct Computes {
    addresses: Vec<u64>,
}

impl Onlooker {
    /// The next look begins; how long it has been since the last.
    pub(super) fn begin(&mut self) -> Duration {
        let now = Look::now();
        let before = self.last.replace(now);
        before.map_or(Duration::ZERO, |before| now.since(&before))
    }

    /// Looks at all workers of the runtime of one audit.
    pub(super) fn look(
        &mut self,
        session: &Session,
        passed: Duration,
        probes: &mut Probes,
        capturer: &mut Capturer,
    ) {
        let Some(runtime) = &session.whole else {
            return;
        };
        for worker in 0..runtime.workers() {
            let key = (session.id(), worker);
            let seen = runtime.look_at(worker);
            let thread = runtime
                .thread_of(worker)
                .and_then(|number| Some((number, registry().thread(number)?)));
            let at_others = || {
                let is_audited = thread.is_none_or(|(_, thread)| thread.audited().0 != 0);
                !is_audited && !seen.parked && runtime.look_at(worker).same_turn(&seen)
            };
            let before = self.turns.remove(&key);
            let goes_on = |turn: &Turn| turn.of.same_turn(&seen) && at_others();
            let mut turn = match before {
                Some(turn) if goes_on(&turn) => turn,
                ended => {
                    if let Some(mut turn) = ended {
                        turn.end_sleep(session, worker, false);
                    }
                    Turn::new(seen)
                }
            };
            let Some((number, thread)) = thread.filter(|_| at_others()) else {
                continue;
            };
            let Ok(probe) = probes.of(number) else {
                continue;
            };
            let target = Target {
                session,
                worker,
                passed,
                probe,
                thread,
                still: &at_others,
            };
            turn.look(target, capturer);
            self.turns.insert(key, turn);
        }
    }

    /// Takes in what is known of turns in progress, and forgets the audit.
    pub(super) fn end(&mut self, session: &Session) {
        let mut ended = Vec::new();
        self.turns.retain(|(id, worker), turn| {
            let is_of = *id == session.id();
            if is_of {
                let turn = std::mem::replace(turn, Turn::new(WorkerSeen::default()));
                ended.push((*worker, turn));
            }
            !is_of
        });
        for (worker, mut turn) in ended {
            turn.end_sleep(session, worker, true);
        }
    }

    /// Forgets audits that are over.
    pub(super) fn keep(&mut self, is_open: impl Fn(u64) -> bool) {
        self.turns.retain(|(id, _), _| is_open(*id));
    }
}

/// A worker that is looked at.
#[derive(Clone, Copy)]
struct Target<'a> {
    session: &'a Session,
    worker: usize,
    /// Since the last look.
    passed: Duration,
    probe: &'a ThreadProbe,
    thread: &'static Thread,
    /// Whether its turn goes on.
    still: &'a dyn Fn() -> bool,
}

impl Turn {
    fn new(of: WorkerSeen) -> Self {
        Turn {
            of,
            cpu_ns: 0,
            tries: 0,
            signals: 0,
            sleep: None,
            computes: None,
        }
    }

    fn look(&mut self, target: Target<'_>, capturer: &mut Capturer) {
        let Target {
            session,
            worker,
            still,
            ..
        } = target;
        let Some(doing) = target.probe.doing(1) else {
            return;
        };
        if doing.is_asleep() {
            self.look_at_sleep(target, doing, capturer);
            return;
        }
        self.end_sleep(session, worker, false);
        let Some(cpu_ns) = target.probe.cpu_ns() else {
            return;
        };
        if self.cpu_ns == 0 {
            self.cpu_ns = cpu_ns;
        }
        let computed_ns = cpu_ns.saturating_sub(self.cpu_ns);
        // Half of it is past: what is asked now answers before it is a stall.
        let is_due = computed_ns >= session.floor_ns() / 2 && self.computes.is_none();
        if is_due && self.signals < MOST_SIGNALS {
            let subject = Subject {
                id: self.of.parks ^ self.of.busy_ns ^ session.id(),
                anchor: None,
                still,
            };
            match capturer.capture(target.probe, &target.thread.stack, &subject) {
                Ok(captured) => match captured.stack {
                    Ok(addresses) if captured.doing == Doing::Running => {
                        self.computes = Some(Computes { addresses });
                    }
                    Err(Miss::Late | Miss::Queued) => {}
                    _ => self.signals += 1,
                },
                Err(_) => self.signals += 1,
            }
        }
        if computed_ns >= session.floor_ns()
            && let Some(computes) = &mut self.computes
            && !computes.addresses.is_empty()
        {
            session.note_others(OthersTurn {
                worker,
                doing: Doing::Running,
                ns: computed_ns,
                contended_ns: 0,
                goes_on: false,
                addresses: std::mem::take(&mut computes.addresses),
            });
        }
    }

    fn look_at_sleep(&mut self, target: Target<'_>, doing: Doing, capturer: &mut Capturer) {
        let Target {
            session,
            worker,
            still,
            ..
        } = target;
        let Some(activity) = target.probe.activity() else {
            return;
        };
        if !still() {
            return;
        }
        match &mut self.sleep {
            Some(sleep) if sleep.number == activity.sleeps => sleep.so_far += target.passed,
            _ => {
                self.end_sleep(session, worker, false);
                self.sleep = Some(Sleep {
                    number: activity.sleeps,
                    so_far: Duration::ZERO,
                    doing,
                    addresses: Vec::new(),
                    waits_ns: Vec::new(),
                });
                return;
            }
        }
        let Some(sleep) = self.sleep.as_mut() else {
            return;
        };
        // It has been seen twice: short ones cost no stack.
        if !sleep.addresses.is_empty() || self.tries >= TRIES {
            return;
        }
        self.tries += 1;
        let subject = Subject {
            id: self.of.parks ^ self.of.busy_ns ^ session.id(),
            anchor: None,
            still,
        };
        if let Ok(captured) = capturer.capture(target.probe, &target.thread.stack, &subject)
            && captured.doing.is_asleep()
            && let Ok(addresses) = captured.stack
        {
            sleep.doing = captured.doing;
            sleep.addresses = addresses;
            sleep.waits_ns = os::waits_ns();
            self.tries = 0;
        }
    }

    fn end_sleep(&mut self, session: &Session, worker: usize, goes_on: bool) {
        let Some(sleep) = self.sleep.take() else {
            return;
        };
        let ns = clock::ns_of(sleep.so_far);
        if sleep.addresses.is_empty() || ns < session.shortest_seen_ns() {
            return;
        }
        session.note_others(OthersTurn {
            worker,
            doing: sleep.doing,
            ns,
            contended_ns: contended_ns(&sleep.waits_ns, &os::waits_ns()),
            goes_on,
            addresses: sleep.addresses,
        });
    }
}

/// How long one of the other threads waited for a CPU meanwhile, at most: who sleeps for a
/// lock may have waited for that one.
fn contended_ns(before: &[(i32, u64)], after: &[(i32, u64)]) -> u64 {
    let waited = before.iter().filter_map(|(tid, before)| {
        let (_, after) = after.iter().find(|(of, _)| of == tid)?;
        Some(after.saturating_sub(*before))
    });
    waited.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_does_not_count_and_an_own_wait_does() {
        let start = Instant::now();
        let look = |after: u64, waited: u64| Look {
            at: start + Duration::from_millis(after),
            waited_ns: waited * 1_000_000,
        };
        let first = look(0, 7);
        let ms = Duration::from_millis;
        assert_eq!(look(2, 7).since(&first), ms(2));
        assert_eq!(look(300, 7).since(&first), ms(5), "a standstill");
        assert_eq!(look(30, 36).since(&first), ms(30), "it waited for a CPU");
    }

    #[test]
    fn the_longest_wait_of_one_thread_counts() {
        let before = [(1, 100), (2, 500), (3, 0)];
        let after = [(1, 150), (2, 900), (4, 10_000)];
        assert_eq!(contended_ns(&before, &after), 400);
        assert_eq!(contended_ns(&[], &after), 0);
    }
}
