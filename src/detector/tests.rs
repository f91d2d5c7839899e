//! Worlds of workers and polls, looked at every 5 ms, and what is told of them.

use std::time::Duration;

use super::observation::Inner;
use super::*;

const MS: u64 = 1_000_000;
const TICK_MS: u64 = 5;

/// Thresholds of 20 ms, 100 ms, 1 s, 5 s.
fn detector() -> Detector {
    let thresholds = Thresholds {
        monitor: Duration::from_millis(20),
        ..Thresholds::default()
    };
    Detector::new(thresholds, 0)
}

/// What an event says, in ms.
type Line = (u64, Phase, Severity, StallKind, u64);

use Phase::{Ended, Escalated, Started};
use Severity::{Critical, High, Medium, Monitor};

/// A detector and the world it sees.
struct World {
    detector: Detector,
    seen: Observation,
    ids: u64,
    told: Vec<Told>,
    lines: Vec<Line>,
}

impl World {
    fn new(workers: usize) -> Self {
        let parked = WorkerSeen {
            parked: true,
            parks: 1,
            driven: true,
            ..WorkerSeen::default()
        };
        World {
            detector: detector(),
            seen: Observation {
                workers: vec![parked; workers],
                ..Observation::default()
            },
            ids: 0,
            told: Vec::new(),
            lines: Vec::new(),
        }
    }

    fn look(&mut self, now_ms: u64) {
        self.seen.now_ns = now_ms * MS;
        let ids = &mut self.ids;
        let mut next_id = || {
            *ids += 1;
            *ids
        };
        let mut events = Vec::new();
        self.detector.observe(&self.seen, &mut next_id, &mut events);
        self.seen.standstill_ns = 0;
        self.seen.finished.clear();
        for told in events {
            self.lines.push((
                now_ms,
                told.phase,
                told.severity,
                told.kind,
                told.duration_ns / MS,
            ));
            self.told.push(told);
        }
    }

    /// What has been told, as (phase, kind, number of the stall, start and end in ms).
    fn spans(&self) -> Vec<(Phase, StallKind, u64, u64, u64)> {
        let ms = |told: &Told| (told.start_ns / MS, (told.start_ns + told.duration_ns) / MS);
        let told = self.told.iter();
        told.map(|told| (told.phase, told.kind, told.id, ms(told).0, ms(told).1))
            .collect()
    }

    /// Looks at every tick in `from..=to`.
    fn look_through(&mut self, from_ms: u64, to_ms: u64) {
        let mut now_ms = from_ms;
        while now_ms <= to_ms {
            self.look(now_ms);
            now_ms += TICK_MS;
        }
    }

    fn wake(&mut self, worker: usize) {
        let worker = &mut self.seen.workers[worker];
        assert!(worker.parked);
        worker.parked = false;
        worker.parks += 1;
    }

    fn park(&mut self, worker: usize, busy_ms: u64) {
        let worker = &mut self.seen.workers[worker];
        assert!(!worker.parked);
        worker.parked = true;
        worker.parks += 1;
        worker.busy_ns += busy_ms * MS;
    }

    fn turn(&mut self, worker: usize, busy_ms: u64) {
        self.seen.workers[worker].busy_ns += busy_ms * MS;
    }

    fn begin(&mut self, thread: usize, seq: u64, worker: Option<usize>, start_ms: u64) {
        self.seen
            .polls
            .push(poll(thread, seq, worker, &[(1, start_ms)]));
    }

    fn end(&mut self, thread: usize, end_ms: u64) {
        let at = self.seen.polls.iter().position(|p| p.id.thread == thread);
        let poll = self.seen.polls.remove(at.unwrap());
        self.seen.finished.push(FinishedSeen {
            poll: poll.id,
            end_ns: end_ms * MS,
        });
    }

    fn times(&mut self, unit: Unit, cpu_ms: u64, wait_ms: u64, state: ThreadState) {
        let times = ThreadTimes {
            // Another run at each look, so that nothing is said to be stolen.
            spent: spent(cpu_ms, wait_ms, self.seen.now_ns),
            state,
            polls: 0,
        };
        self.seen.times = vec![(unit, times)];
    }

    fn ids(&self) -> Vec<u64> {
        self.told.iter().map(|told| told.id).collect()
    }
}

fn spent(cpu_ms: u64, wait_ms: u64, runs: u64) -> Spent {
    Spent {
        cpu_ns: cpu_ms * MS,
        wait_ns: wait_ms * MS,
        runs,
    }
}

impl Account {
    /// Of a turn that began then, after nothing had been done since the last tick.
    fn began_at(self, began_ms: u64) -> Self {
        Account {
            began: Some((began_ms * MS, self.last)),
            ..self
        }
    }
}

/// Of a thread that has run and waited for so long since the last tick.
fn account(thread: usize, ran_ms: u64, waited_ms: u64) -> Account {
    let (last, now) = (spent(50, 60, 1), spent(50 + ran_ms, 60 + waited_ms, 2));
    Account {
        thread,
        last,
        now,
        began: None,
        polls: 0,
    }
}

/// Layers as (label, start in ms), the outermost first.
fn poll(thread: usize, seq: u64, worker: Option<usize>, layers: &[(u64, u64)]) -> PollSeen {
    let mut layers = layers.iter().map(|(label, start_ms)| Layer {
        task: *label,
        start_ns: Some(start_ms * MS),
        ..Layer::default()
    });
    PollSeen {
        id: PollId { thread, seq },
        worker,
        outermost: layers.next().unwrap(),
        inner: layers.collect(),
    }
}

#[test]
fn idle_and_parked_tell_nothing() {
    let mut world = World::new(4);
    world.look_through(0, 10_000);
    assert_eq!(world.lines, []);
    assert_eq!(world.detector.next_ns(), None);
}

#[test]
fn a_turn_is_told_started_escalated_and_ended_once_each() {
    let mut world = World::new(2);
    world.look_through(0, 10);
    world.wake(1); // at 11 ms, until 6,013
    world.look_through(15, 6_010);
    world.park(1, 6_002);
    world.look_through(6_015, 6_100);
    use StallKind::Turn;
    assert_eq!(
        world.lines,
        [
            (35, Started, Monitor, Turn, 20),
            (115, Escalated, Medium, Turn, 100),
            (1_015, Escalated, High, Turn, 1_000),
            (5_015, Escalated, Critical, Turn, 5_000),
            // The worker's busy time tells to the millisecond.
            (6_015, Ended, Critical, Turn, 6_002),
        ]
    );
    assert_eq!(world.ids(), [1; 5]);
    assert!(world.told.iter().all(|told| told.unit == Unit::Worker(1)));
}

/// One look after 15 ms of idleness, at a turn that began 3 ms after the last; what its
/// thread has done in it, and what it does at that look.
fn dated(account: Option<Account>, times: Option<ThreadTimes>) -> World {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.seen.accounts = vec![account.map(|account| account.began_at(3))];
    let unit = Unit::Worker(0);
    world.seen.times = times.map(|times| (unit, times)).into_iter().collect();
    world.look(15);
    world.seen.accounts.clear();
    world.seen.times.clear();
    world
}

fn asked(account: Account, state: ThreadState) -> Option<ThreadTimes> {
    Some(ThreadTimes {
        spent: account.now,
        state,
        polls: 0,
    })
}

#[test]
fn a_turn_counts_from_when_the_hook_has_told_that_it_began() {
    let mut world = dated(Some(account(7, 0, 0)), None);
    assert_eq!(world.detector.next_ns(), Some(23 * MS));
    world.look(23);
    world.look_through(28, 58);
    world.park(0, 57); // from 3 to 60 ms
    world.look(63);
    use StallKind::Turn;
    assert_eq!(
        world.lines,
        [
            (23, Started, Monitor, Turn, 20),
            (63, Ended, Monitor, Turn, 57)
        ]
    );
    assert_eq!(world.told[1].start_ns, 3 * MS);
}

#[test]
fn a_turn_counts_from_when_its_thread_has_surely_computed() {
    for (account, waited_ms) in [(None, 0), (Some(account(7, 8, 0)), 4)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.seen.workers[0].computed_ns = 8 * MS;
        world.seen.accounts = vec![account];
        world.look(10);
        assert_eq!(world.detector.next_ns(), Some(22 * MS));
        world.times(Unit::Worker(0), 64, 64, ThreadState::OnCpu);
        world.look(20);
        assert_eq!(world.detector.next_ns(), Some((22 + waited_ms) * MS));
    }
}

#[test]
fn what_it_has_waited_for_a_cpu_before_it_was_seen_does_not_count() {
    let account = account(7, 1, 9);
    let mut world = dated(Some(account), asked(account, ThreadState::Off));
    world.look(23);
    assert_eq!(world.lines, []);
    world.look(32);
    assert_eq!(world.lines.len(), 1);
    assert_eq!(world.told[0].shares.waiting_ns, 9 * MS);
}

#[test]
fn but_for_a_short_wait() {
    for (waited_ms, due_ms) in [(1, 21), (2, 23)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        world.times(Unit::Worker(0), 4, 0, ThreadState::OnCpu);
        world.look(5);
        world.times(
            Unit::Worker(0),
            19 - waited_ms,
            waited_ms,
            ThreadState::OnCpu,
        );
        world.look(20);
        assert_eq!(world.detector.next_ns(), Some(due_ms * MS));
    }
}

#[test]
fn nor_does_the_wait_it_is_in() {
    // Nothing of it is credited yet.
    let account = account(7, 2, 0);
    let mut world = dated(Some(account), asked(account, ThreadState::Queued));
    world.look(32);
    assert_eq!(world.lines, []);
    world.look(33); // 30 ms after it began, of which it is known to have waited 10
    assert_eq!(world.lines.len(), 1);
    assert_eq!(world.told[0].shares.cpu_ns, 2 * MS);
}

#[test]
fn nor_what_it_waits_between_the_first_two_looks() {
    for hooked in [true, false] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        if hooked {
            world.seen.accounts = vec![Some(account(7, 3, 0))];
        } else {
            world.times(Unit::Worker(0), 53, 60, ThreadState::Queued);
        }
        world.look(5);
        world.times(Unit::Worker(0), 53, 60, ThreadState::Queued);
        world.look(10);
        // Since it began, or since the first look, it has waited whenever it has not run.
        let waited_ms = if hooked { 6 } else { 5 };
        assert_eq!(world.detector.next_ns(), Some((21 + waited_ms) * MS));
    }
}

#[test]
fn nor_what_it_waits_in_the_turn_after_one_that_was_told() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.look_through(5, 25);
    assert_eq!(world.lines.len(), 1);
    world.turn(0, 25);
    let account = account(7, 1, 0).began_at(26);
    world.seen.accounts = vec![Some(account)];
    world.seen.times = vec![(
        Unit::Worker(0),
        asked(account, ThreadState::Queued).unwrap(),
    )];
    world.look(50);
    assert_eq!(world.lines.len(), 2, "{:?}", world.lines);
    assert_eq!(world.lines[1].1, Ended);
}

#[test]
fn what_another_thread_has_waited_does_not_excuse_a_poll() {
    for (thread, due_ms) in [(7, 23), (8, 21)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        world.seen.accounts = vec![Some(account(thread, 0, 2))];
        world.times(Unit::Worker(0), 50, 62, ThreadState::Off);
        world.look(5);
        assert_eq!(world.detector.next_ns(), Some(due_ms * MS));
    }
}

#[test]
fn without_its_wait_it_counts_from_when_it_is_seen() {
    let mut world = dated(None, None);
    world.look(34);
    assert_eq!(world.lines, []);
    world.look(35);
    assert_eq!(world.lines.len(), 1);
}

#[test]
fn what_was_told_as_polls_is_not_told_again_as_their_turn() {
    for driven in [true, false] {
        let mut world = World::new(1);
        world.seen.workers[0].driven = driven;
        world.look(0);
        world.wake(0); // One turn, of three long polls and a bit.
        let mut now_ms = 5;
        for seq in 1..=3 {
            world.begin(7, seq, Some(0), now_ms);
            world.look_through(now_ms, now_ms + 295);
            world.end(7, now_ms + 298);
            world.look(now_ms + 300);
            now_ms += 305;
        }
        world.look_through(now_ms, now_ms + 5);
        world.park(0, now_ms + 5);
        world.look_through(now_ms + 10, now_ms + 50);
        let turns = world
            .told
            .iter()
            .filter(|told| told.kind == StallKind::Turn);
        assert_eq!(turns.count(), 0, "{:?}", world.lines);
        let polls = world.told.iter().filter(|told| told.phase == Ended);
        assert_eq!(polls.count(), 3);
    }
}

#[test]
fn turns_that_come_round_are_no_stall() {
    let mut world = World::new(1);
    world.wake(0);
    for now_ms in (0..2_000).step_by(15) {
        // Each turn lasts 15 ms, and is seen three times.
        world.turn(0, 15);
        world.look_through(now_ms, now_ms + 10);
    }
    assert_eq!(world.lines, []);
}

#[test]
fn a_watched_poll_is_told_exactly_and_by_name() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.begin(7, 3, Some(0), 2);
    world.look_through(5, 300);
    world.end(7, 302);
    world.park(0, 300);
    world.look_through(305, 320);
    use StallKind::Poll;
    assert_eq!(
        world.lines,
        [
            (25, Started, Monitor, Poll, 23),
            (105, Escalated, Medium, Poll, 103),
            (305, Ended, Medium, Poll, 300),
        ]
    );
    assert!(
        world
            .told
            .iter()
            .all(|told| told.culprit.unwrap().task == 1)
    );
}

#[test]
fn the_next_look_is_due_when_the_next_threshold_is_reached() {
    let mut world = World::new(1);
    world.begin(7, 3, None, 2);
    world.look(5);
    assert_eq!(world.detector.next_ns(), Some(22 * MS));
    world.look(22);
    assert_eq!(world.detector.next_ns(), Some(102 * MS));
}

#[test]
fn a_turn_is_looked_at_when_it_would_be_told_if_it_was_driven() {
    let mut world = World::new(1);
    world.seen.workers[0].driven = false;
    world.wake(0);
    world.look(5);
    assert_eq!(world.detector.next_ns(), Some(25 * MS));
    world.look(25);
    assert_eq!(world.detector.next_ns(), None, "nobody knows");
    world.seen.workers[0].driven = true;
    world.look(30);
    assert_eq!(world.detector.next_ns(), Some(105 * MS));
}

#[test]
fn a_turn_that_is_left_to_its_poll_is_not_looked_at_for_its_own_sake() {
    // Told as a turn at 25 ms, which it then stays, or as the poll at 32.
    for (begun_ms, due_ms, then_ms) in [(18, 25, 105), (12, 32, 32)] {
        let mut world = World::new(1);
        world.wake(0);
        world.look_through(5, 10);
        world.begin(7, 3, Some(0), begun_ms);
        world.look(20);
        assert_eq!(world.detector.next_ns(), Some(due_ms * MS));
        world.look(25);
        assert_eq!(world.detector.next_ns(), Some(then_ms * MS));
    }
}

#[test]
fn a_turn_that_was_told_ends_where_a_long_poll_begins() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.look_through(5, 30);
    world.begin(7, 3, Some(0), 31);
    world.look_through(35, 200);
    world.end(7, 202);
    world.park(0, 200);
    world.look_through(205, 300);
    use StallKind::{Poll, Turn};
    assert_eq!(
        world.spans(),
        [
            (Started, Turn, 1, 5, 25),
            (Ended, Turn, 1, 5, 31),
            (Started, Poll, 2, 31, 55),
            (Escalated, Poll, 2, 31, 135),
            (Ended, Poll, 2, 31, 202),
        ]
    );
    assert_eq!(world.lines[2].0, 55, "{:?}", world.lines);
}

#[test]
fn each_part_of_a_turn_has_its_own_cause() {
    // A turn that computes for 150 ms, and then a poll that sleeps as long.
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    let unit = Unit::Worker(0);
    for now_ms in (5..=150).step_by(5) {
        world.times(unit, now_ms, 0, ThreadState::OnCpu);
        world.look(now_ms);
    }
    world.begin(7, 3, Some(0), 151);
    for now_ms in (155..=300).step_by(5) {
        world.times(unit, 151, 0, ThreadState::Off);
        world.look(now_ms);
    }
    world.end(7, 302);
    world.park(0, 300);
    world.look(305);
    let ended = world.told.iter().filter(|told| told.phase == Ended);
    let [turn, poll] = &ended.collect::<Vec<_>>()[..] else {
        panic!("{:?}", world.lines);
    };
    assert_eq!((turn.kind, poll.kind), (StallKind::Turn, StallKind::Poll));
    assert_eq!((turn.duration_ns, poll.duration_ns), (146 * MS, 151 * MS));
    assert_eq!((turn.shares.cpu_ns, turn.shares.blocked_ns), (145 * MS, 0));
    assert!(poll.shares.blocked_ns >= 140 * MS && poll.shares.cpu_ns == 0);
    assert_eq!((turn.severity, poll.severity), (Medium, Medium));
}

#[test]
fn what_is_a_stall_only_with_its_last_poll_stays_a_turn() {
    // The poll has come too early for what was before it to be a stall of its own, or for
    // it to be as severe as has been told.
    for begun_ms in [17, 97] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.look_through(5, begun_ms - 1);
        world.begin(7, 3, Some(0), begun_ms);
        world.look_through(begun_ms + 3, 800);
        let told: Vec<_> = world.lines.iter().map(|line| (line.0, line.1)).collect();
        assert_eq!(told, [(25, Started), (105, Escalated)], "{begun_ms}");
        world.end(7, 802);
        world.park(0, 800);
        world.look(805);
        assert!(world.told.iter().all(|told| told.kind == StallKind::Turn));
        assert_eq!(world.ids().iter().max(), Some(&1), "{:?}", world.lines);
        // Though it is known what it was made of.
        let ended = world.told.last().unwrap();
        assert_eq!(ended.duration_ns, 800 * MS);
        assert_eq!((ended.culprit.unwrap().task, ended.poll), (1, None));
        assert!(world.told[0].culprit.is_none(), "not then");
    }
}

#[test]
fn a_poll_that_may_have_begun_with_the_turn_is_no_second_stall() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    // It is not timed: when it began is not known.
    world.begin(7, 3, Some(0), 0);
    world.seen.polls[0].outermost.start_ns = None;
    world.seen.workers[0].computed_ns = 18 * MS;
    world.look(20);
    world.seen.workers[0].computed_ns = 0;
    world.look_through(22, 90);
    assert_eq!(world.ids(), [1], "{:?}", world.lines);
}

#[test]
fn a_turn_goes_on_after_its_long_poll_without_being_told_twice() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.begin(7, 3, Some(0), 1);
    world.look_through(5, 50);
    world.end(7, 52);
    // 15 ms of other polls until the worker comes round.
    world.look_through(55, 65);
    world.park(0, 66);
    world.look_through(70, 100);
    let phases: Vec<_> = world.lines.iter().map(|line| line.1).collect();
    assert_eq!(phases, [Started, Ended]);
}

#[test]
fn many_watched_polls_are_at_most_a_turn() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    for now_ms in (5..=40).step_by(5) {
        // At each look another poll of half a millisecond.
        world.begin(7, now_ms, Some(0), now_ms);
        world.look(now_ms);
        world.seen.polls.clear();
    }
    world.park(0, 40);
    world.look(45);
    let kinds: Vec<_> = world.lines.iter().map(|line| (line.1, line.3)).collect();
    assert_eq!(
        kinds,
        [(Started, StallKind::Turn), (Ended, StallKind::Turn)]
    );
}

#[test]
fn block_in_place_holds_nothing_up() {
    // Its worker, run by another thread, parks at once.
    let mut world = World::new(1);
    world.begin(7, 3, Some(0), 0);
    world.look_through(5, 2_000);
    world.end(7, 2_001);
    world.look(2_005);
    assert_eq!(world.lines, []);

    // Or it works on.
    let mut world = World::new(1);
    world.wake(0);
    world.begin(7, 3, Some(0), 0);
    world.look(5);
    for now_ms in (10..2_000).step_by(5) {
        world.turn(0, 5);
        world.look(now_ms);
    }
    world.end(7, 2_001);
    world.look(2_005);
    assert_eq!(world.lines, []);

    // Or it is stuck in a poll of its own: one stall, of the later poll.
    let mut world = World::new(1);
    world.wake(0);
    world.begin(7, 3, Some(0), 0);
    world.begin(8, 1, Some(0), 4);
    world.look_through(5, 60);
    world.end(8, 62);
    world.turn(0, 60);
    world.look(65);
    let told: Vec<_> = world
        .told
        .iter()
        .map(|t| (t.phase, t.poll.unwrap().thread))
        .collect();
    assert_eq!(told, [(Started, 8), (Ended, 8)]);
}

#[test]
fn a_stall_before_block_in_place_ends_with_it() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.begin(7, 3, Some(0), 1);
    world.look_through(5, 50);
    // Now it hands its worker over, which parks.
    world.park(0, 50);
    world.look_through(55, 500);
    world.end(7, 501);
    world.look(505);
    let lines: Vec<_> = world.lines.iter().map(|line| (line.0, line.1)).collect();
    assert_eq!(lines, [(25, Started), (55, Ended)]);
}

#[test]
fn what_has_computed_for_half_of_the_threshold_is_foreseen_once() {
    use ThreadState::{Off, OnCpu, Queued};
    let unit = Unit::Worker(0);
    let turn = Foreseen { unit, poll: None };
    let id = PollId { thread: 7, seq: 3 };
    let poll = Foreseen {
        unit,
        poll: Some((id, None)),
    };
    // What its thread does -> what is foreseen when it has lasted for 5, 10, 15 and 20 ms.
    for (is_watched, state, of, expected) in [
        (true, OnCpu, unit, [None, Some(poll), None, None]),
        (false, OnCpu, unit, [None, Some(turn), None, None]),
        (false, Off, unit, [None; 4]),
        // A wait for a CPU is not its own time.
        (false, Queued, unit, [None; 4]),
        (false, OnCpu, Unit::Worker(1), [None; 4]),
    ] {
        let mut world = World::new(2);
        world.look_through(0, 95);
        world.wake(0);
        if is_watched {
            world.begin(7, 3, Some(0), 100);
        }
        world.look(100);
        for (at_ms, expected) in [5, 10, 15, 20].into_iter().zip(expected) {
            let (cpu_ms, wait_ms) = if state == OnCpu {
                (at_ms, 0)
            } else {
                (0, at_ms)
            };
            world.times(of, cpu_ms, wait_ms, state);
            world.look(100 + at_ms);
            let foreseen = world.detector.foresee(&world.seen);
            assert_eq!(foreseen, expected, "{is_watched} {state:?} {at_ms}");
            assert_eq!(world.detector.foresee(&world.seen), None);
        }
        // The next is another.
        world.park(0, 20);
        world.seen.polls.clear();
        world.look(125);
        world.wake(0);
        world.look(130);
        world.times(unit, 40, 0, OnCpu);
        world.look(145);
        assert_eq!(world.detector.foresee(&world.seen), Some(turn));
    }
}

#[test]
fn a_thread_that_is_no_worker_is_told_by_its_poll() {
    let mut world = World::new(2);
    world.begin(9, 1, None, 0);
    world.look_through(5, 40);
    world.end(9, 42);
    world.look(45);
    use StallKind::Poll;
    assert_eq!(
        world.lines,
        [
            (20, Started, Monitor, Poll, 20),
            (45, Ended, Monitor, Poll, 42)
        ]
    );
    assert_eq!(world.told[0].unit, Unit::Thread(9));
}

#[test]
fn an_untimed_poll_counts_from_when_it_was_first_seen() {
    let mut world = World::new(0);
    let id = PollId { thread: 9, seq: 1 };
    world.seen.polls.push(PollSeen {
        id,
        worker: None,
        outermost: Layer::default(),
        inner: Inner::default(),
    });
    world.look_through(100, 150);
    world.end(9, 160);
    world.look(160);
    let lines: Vec<_> = world
        .lines
        .iter()
        .map(|line| (line.0, line.1, line.4))
        .collect();
    assert_eq!(lines, [(120, Started, 20), (160, Ended, 60)]);
}

#[test]
fn an_undriven_worker_is_told_of_in_hindsight_only() {
    let mut world = World::new(1);
    world.seen.workers[0].driven = false;
    world.wake(0);
    world.look_through(0, 500);
    // Nobody drove it: its next turn adds next to nothing.
    world.turn(0, 1);
    world.look_through(505, 1_000);
    assert_eq!(world.lines, []);
    // Somebody has driven it since 700 ms, in a poll of 302.
    world.turn(0, 302);
    world.look_through(1_002, 1_100);
    let lines: Vec<_> = world
        .lines
        .iter()
        .map(|line| (line.1, line.2, line.4))
        .collect();
    assert_eq!(lines, [(Started, Medium, 300), (Ended, Medium, 300)]);
}

#[test]
fn a_runtime_that_is_gone_ends_what_was_open() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.look_through(5, 50);
    world.seen.workers.clear();
    world.look_through(55, 500);
    let lines: Vec<_> = world.lines.iter().map(|line| (line.0, line.1)).collect();
    assert_eq!(lines, [(25, Started), (55, Ended)]);
}

#[test]
fn the_time_in_which_the_process_stood_still_counts_for_nobody() {
    let mut world = World::new(2);
    world.look(0);
    world.wake(0);
    world.begin(7, 3, None, 2);
    world.look(5);
    // Stopped from 6 ms to 3,006 ms.
    world.seen.standstill_ns = 2_996 * MS;
    world.look(3_006);
    assert_eq!(world.lines, []);
    world.look(3_011);
    // What was stuck before is stuck still: 15 ms before and after the stop.
    world.look_through(3_016, 3_046);
    world.end(7, 3_050);
    world.park(0, 3_050);
    world.look(3_051);
    let turns: Vec<_> = world
        .lines
        .iter()
        .filter(|line| line.1 == Ended)
        .map(|line| (line.2, line.4))
        .collect();
    // As long as they were, and as severe as their own time makes them.
    assert_eq!(turns, [(Monitor, 3_050), (Monitor, 3_048)]);
    assert!(
        world
            .told
            .iter()
            .all(|told| told.suspended_ns == 2_996 * MS)
    );

    // A poll that began and ended within the same stop.
    let mut world = World::new(0);
    world.look(0);
    world.begin(7, 3, None, 2);
    world.look(5);
    world.end(7, 3_007);
    world.seen.standstill_ns = 2_998 * MS;
    world.look(3_008);
    assert_eq!(world.lines, []);
}

#[test]
fn a_stop_that_was_taken_for_a_wait_is_excused_all_the_same() {
    // Who was stopped waits for a CPU once it goes on; of the stop nothing is credited.
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.begin(7, 3, Some(0), 1);
    world.times(Unit::Worker(0), 54, 60, ThreadState::OnCpu);
    world.look(5);
    // Stopped from 6 ms to 3,006 ms.
    world.times(Unit::Worker(0), 55, 60, ThreadState::Queued);
    world.seen.standstill_ns = 3_000 * MS;
    world.look(3_010);
    // 200 ms on a CPU, and ten times as long waiting for one.
    for now_ms in (3_015..5_200).step_by(5) {
        let cpu_ms = (now_ms - 3_010) / 11;
        let waited_ms = now_ms - 3_010 - cpu_ms;
        world.times(
            Unit::Worker(0),
            55 + cpu_ms,
            64 + waited_ms,
            ThreadState::OnCpu,
        );
        world.look(now_ms);
    }
    let severities: Vec<_> = world.told.iter().map(|told| told.severity).collect();
    assert_eq!(severities, [Monitor, Medium], "{:?}", world.lines);
}

#[test]
fn waiting_for_a_cpu_counts_a_quarter() {
    use ThreadState::{OnCpu, Queued};
    // A turn of 12 ms of work that takes 60, because others have the CPUs.
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    let unit = Unit::Worker(0);
    for now_ms in (5..=60).step_by(5) {
        let cpu_ms = now_ms / 5;
        let state = if now_ms % 10 == 0 { OnCpu } else { Queued };
        world.times(unit, cpu_ms, now_ms - cpu_ms, state);
        world.look(now_ms);
    }
    world.park(0, 60);
    world.look(65);
    assert_eq!(world.lines, []);

    // The same that never comes round is told, at four times the threshold.
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    for now_ms in (5..=90).step_by(5) {
        world.times(unit, 1, now_ms, Queued);
        world.look(now_ms);
    }
    let told = &world.told[0];
    assert_eq!((told.phase, told.severity), (Started, Monitor));
    assert!(told.shares.waiting_ns > told.duration_ns / 2);
    assert_eq!(world.lines[0].0, 85);
}

/// A worker that waits for a CPU four fifths of the time, until then.
fn starve(world: &mut World, from_ms: u64, to_ms: u64) {
    world.wake(0);
    for now_ms in (from_ms + 5..=to_ms).step_by(5) {
        let waited_ms = now_ms - from_ms;
        world.times(Unit::Worker(0), 10, waited_ms, ThreadState::Queued);
        world.look(now_ms);
    }
    world.park(0, to_ms - from_ms);
    world.seen.times.clear();
    world.look(to_ms + 5);
}

#[test]
fn want_of_a_cpu_alone_is_never_severe() {
    let mut world = World::new(1);
    world.look(0);
    starve(&mut world, 0, 30_000);
    let phases: Vec<_> = world.lines.iter().map(|line| (line.1, line.2)).collect();
    assert_eq!(phases, [(Started, Monitor), (Ended, Monitor)]);
    assert!(world.told.iter().all(|told| told.is_starved));
    assert!(world.told[1].duration_ns >= 29_000 * MS);
}

#[test]
fn a_busy_machine_is_no_excuse_for_what_a_poll_itself_takes() {
    // 300 ms on a CPU, and twice as long waiting for one.
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.begin(7, 3, Some(0), 1);
    let unit = Unit::Worker(0);
    world.seen.accounts = vec![Some(account(7, 1, 0))];
    for now_ms in (5..=900).step_by(5) {
        let cpu_ms = 50 + now_ms / 3;
        world.times(unit, cpu_ms, 60 + now_ms - now_ms / 3, ThreadState::OnCpu);
        world.look(now_ms);
        world.seen.accounts.clear();
    }
    world.end(7, 901);
    world.park(0, 900);
    world.look(905);
    let told: Vec<_> = world
        .told
        .iter()
        .map(|told| (told.phase, told.severity, told.is_starved))
        .collect();
    assert_eq!(
        told,
        [
            (Started, Monitor, false),
            (Escalated, Medium, false),
            (Ended, Medium, false)
        ]
    );
    let shares = world.told[2].shares;
    // As of the last look.
    assert_eq!((shares.cpu_ns, shares.waiting_ns), (300 * MS, 599 * MS));
}

#[test]
fn of_many_that_starve_one_a_minute_is_told() {
    let mut world = World::new(1);
    world.look(0);
    for from_ms in (0..130_000).step_by(1_000) {
        starve(&mut world, from_ms, from_ms + 500);
    }
    let loud = world.told.iter().filter(|told| !told.quiet);
    let loud: Vec<_> = loud.map(|told| (told.phase, told.start_ns / MS)).collect();
    // When it began is known better at its end.
    let stall = |at_ms| [(Started, at_ms + 5), (Ended, at_ms)];
    assert_eq!(
        loud,
        [stall(0), stall(60_000), stall(120_000)].concat(),
        "one within each minute"
    );
    assert_eq!(world.told.len(), 260);
    assert!(world.told.iter().all(|told| told.is_starved));
}

#[test]
fn one_that_was_kept_quiet_is_told_once_it_is_the_programs_own() {
    for crosses_at_end in [false, true] {
        let mut world = World::new(1);
        world.look(0);
        starve(&mut world, 0, 500);
        world.told.clear();
        world.wake(0);
        let mut cpu_ms = 10;
        for now_ms in (1_000..=1_250).step_by(5) {
            cpu_ms += if now_ms > 1_200 && !crosses_at_end {
                5
            } else {
                0
            };
            world.times(
                Unit::Worker(0),
                cpu_ms,
                now_ms - cpu_ms,
                ThreadState::Queued,
            );
            world.look(now_ms);
        }
        if crosses_at_end {
            world.seen.times.clear();
            // All since the last look is its own.
            world.park(0, 290);
            world.look(1_295);
        } else {
            world.park(0, 250);
            world.look(1_255);
        }
        let told: Vec<_> = world.told.iter().map(|t| (t.phase, t.quiet)).collect();
        assert_eq!(
            told,
            [(Started, true), (Started, false), (Ended, false)],
            "{crosses_at_end}"
        );
        assert!(world.told[0].is_starved && !world.told[1].is_starved && !world.told[2].is_starved);
        assert_eq!(world.ids()[0], world.ids()[2]);
    }
}

#[test]
fn the_librarys_own_work_is_no_stall() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    for now_ms in (5..=300).step_by(5) {
        world.seen.workers[0].own_work_ns = 5 * MS;
        world.look(now_ms);
    }
    assert_eq!(world.lines, []);
    // Nor does it excuse what comes after it.
    world.seen.workers[0].own_work_ns = 0;
    world.look_through(305, 330);
    assert_eq!(world.lines.len(), 1);
    assert_eq!(world.lines[0].0, 320);
}

#[test]
fn a_runtime_without_tasks_has_no_stalls() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    world.seen.is_vacant = true;
    world.look_through(5, 300);
    assert_eq!(world.lines, []);
    world.seen.is_vacant = false;
    world.look_through(305, 330);
    assert_eq!(world.lines.len(), 1);
}

#[test]
fn what_nobody_has_measured_while_the_watchdog_waited_for_a_cpu_is_excused() {
    // A poll that is seen late, and only then measured.
    for (waited_ms, told) in [(0, 1), (15, 0)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        world.seen.watchdog_waited_ns = waited_ms * MS;
        world.times(Unit::Worker(0), 2, 40, ThreadState::OnCpu);
        world.look(21);
        assert_eq!(world.lines.len(), told);
    }
}

/// That a thread has waited for so long in all, as (when, how long), by the reading before
/// and now.
fn queued(thread: usize, before: Option<(u64, u64)>, now: (u64, u64)) -> Vec<(Unit, Queued)> {
    let reading = |(at_ms, wait_ms)| Reading {
        at_ns: at_ms * MS,
        wait_ns: wait_ms * MS,
    };
    let queued = Queued {
        thread,
        before: before.map(reading),
        now: reading(now),
    };
    vec![(Unit::Worker(0), queued)]
}

#[test]
fn what_has_waited_by_the_kernels_count_is_excused_although_nobody_measured_it() {
    // A turn of 50 ms that a late watchdog has seen once: how long its thread had waited by
    // the reading before and after, and what is taken for a wait in the turn.
    let table = [
        (Some((0, 60)), 113, 50),
        (Some((0, 60)), 91, 31),
        (Some((0, 60)), 89, 29),
        (Some((0, 60)), 61, 1),
        // There was none before, but it was in a wait at the first, as is known at its end;
        // or nobody is known to have waited.
        (None, 111, 50),
        (None, 62, 1),
    ];
    for (before, after_ms, waited_ms) in table {
        let mut world = World::new(1);
        // It has told nothing before.
        world.seen.workers[0].driven = false;
        world.look(0);
        world.wake(0);
        world.seen.queued = queued(7, before, (51, 61));
        world.look(51);
        world.park(0, 52);
        world.seen.queued = queued(7, Some((51, 61)), (53, after_ms));
        world.look(53);
        let is_stall = 50 - waited_ms >= 20;
        assert_eq!(!world.told.is_empty(), is_stall, "{before:?} {after_ms}");
        for told in &world.told {
            assert_eq!(told.shares.waiting_ns / MS, waited_ms, "it is told with it");
        }
    }
}

#[test]
fn of_what_nothing_is_known_nothing_is_told_where_others_wait() {
    for (waited_ms, before, stalls) in [(0, None, 1), (2, None, 0), (2, Some((0, 60)), 1)] {
        let mut world = World::new(1);
        world.seen.workers[0].driven = false;
        world.look(0);
        world.wake(0);
        world.seen.watchdog_waited_ns = waited_ms * MS;
        world.seen.queued = queued(7, before, (51, 61));
        world.look(51);
        world.park(0, 52);
        world.seen.queued = queued(7, Some((51, 61)), (53, 62));
        world.look(53);
        let ended = world.told.iter().filter(|told| told.phase == Ended);
        assert_eq!(ended.count(), stalls, "{waited_ms} {before:?}");
    }
}

#[test]
fn what_was_before_the_first_measurement_and_after_the_last_is_excused_too() {
    // 12 ms of which nothing is known; then 3 on a CPU, and a wait; then 17 of which
    // nothing is known. All waits in it, by the kernel's count, and of those the measured.
    for (all_ms, measured_ms, is_own) in [(55, 30, false), (55, 50, true), (36, 30, true)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        world.look(5);
        world.seen.queued = queued(7, Some((0, 60)), (13, 62));
        world.times(Unit::Worker(0), 50, 62, ThreadState::OnCpu);
        world.look(13);
        let at = (16 + measured_ms, 62 + measured_ms);
        world.seen.queued = queued(7, Some((13, 62)), at);
        world.times(Unit::Worker(0), 53, 62 + measured_ms, ThreadState::OnCpu);
        world.look(16 + measured_ms);
        world.seen.times.clear();
        world.seen.queued = queued(7, Some(at), (34 + measured_ms, 60 + all_ms));
        world.end(7, 33 + measured_ms);
        world.park(0, 33 + measured_ms);
        world.look(34 + measured_ms);
        let told = world.told.iter().any(|told| !told.is_starved);
        assert_eq!(told, is_own, "{all_ms} {measured_ms}: {:?}", world.lines);
    }
}

#[test]
fn a_wait_that_goes_on_may_have_begun_before_the_first_measurement() {
    // It is measured late, and then in a run queue. When it is given a CPU again, the
    // kernel says for how long it was.
    for (waited_ms, is_own) in [(38, false), (10, true)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        for now_ms in [31, 35, 40] {
            world.times(Unit::Worker(0), 50, 60, ThreadState::Queued);
            for (_, times) in &mut world.seen.times {
                times.spent.runs = 4;
            }
            world.seen.queued = queued(7, Some((0, 60)), (now_ms, 60));
            world.look(now_ms);
        }
        assert_eq!(world.lines, [], "who waits is not blamed");
        world.times(Unit::Worker(0), 51, 60 + waited_ms, ThreadState::OnCpu);
        world.seen.queued = queued(7, Some((0, 60)), (41, 60 + waited_ms));
        world.look(41);
        assert_eq!(world.lines.len(), usize::from(is_own), "{waited_ms}");
    }
}

#[test]
fn the_count_of_another_thread_excuses_nobody() {
    for (thread, stalls) in [(7, 0), (8, 1)] {
        let mut world = World::new(1);
        world.look(0);
        world.wake(0);
        world.begin(7, 3, Some(0), 1);
        world.seen.queued = queued(thread, Some((0, 60)), (21, 80));
        world.look(21);
        assert_eq!(world.lines.len(), stalls, "{thread}");
    }
}

#[test]
fn a_sleeping_thread_is_not_excused() {
    let mut world = World::new(1);
    world.look(0);
    world.wake(0);
    for now_ms in (5..=50).step_by(5) {
        world.times(Unit::Worker(0), 1, 0, ThreadState::Off);
        world.look(now_ms);
    }
    assert_eq!(world.lines[0].0, 25);
    assert_eq!(world.told[0].shares.waiting_ns, 0);
    assert!(world.told[0].shares.blocked_ns >= 10 * MS);
}

#[test]
fn the_culprit_is_the_innermost_that_explains_half() {
    let now_ns = 100 * MS;
    let table: [(&[(u64, u64)], u64); 4] = [
        (&[(1, 0)], 1),
        (&[(1, 0), (2, 40)], 2),
        (&[(1, 0), (2, 60)], 1),
        (&[(1, 0), (2, 10), (3, 90)], 2),
    ];
    for (layers, expected) in table {
        let culprit = poll(0, 1, None, layers).culprit(now_ns);
        assert_eq!(culprit.task, expected, "{layers:?}");
    }
}

#[test]
fn what_is_open_when_the_watchdog_stops_is_told_as_cut_off() {
    let mut world = World::new(2);
    world.look(0);
    world.wake(0);
    world.wake(1);
    world.look_through(5, 30);
    world.park(1, 30);
    world.look(35);
    world.told.clear();
    let mut events = Vec::new();
    world.detector.stop(50 * MS, &mut events);
    let told: Vec<_> = events
        .iter()
        .map(|t| (t.phase, t.cut_off, t.duration_ns / MS))
        .collect();
    assert_eq!(told, [(Ended, true, 45)]);
}

#[test]
fn it_can_end_between_two_looks_after_reaching_the_threshold() {
    let mut world = World::new(0);
    world.begin(7, 3, None, 0);
    world.look(15);
    world.end(7, 21);
    world.look(22);
    let lines: Vec<_> = world.lines.iter().map(|line| (line.1, line.4)).collect();
    assert_eq!(lines, [(Started, 21), (Ended, 21)]);
    // One that stays below it is none.
    world.begin(7, 4, None, 30);
    world.look(45);
    world.end(7, 49);
    world.look(51);
    assert_eq!(world.lines.len(), 2);
}
