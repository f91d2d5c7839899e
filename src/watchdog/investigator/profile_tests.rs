use super::*;
use crate::detector::Spent;
use std::time::Duration;

use crate::owner::Ownership;
use crate::stall::{Cause, Frame};
use crate::trim;

const MS: u64 = 1_000_000;
const SLEEP: Doing = Doing::Blocked(230);
const LOCK: Doing = Doing::Blocked(202);
const RUN: Doing = Doing::Running;

/// A thread that computes and sleeps, with the account that the kernel keeps of it.
struct Thread {
    profile: Profile,
    at_ms: u64,
    cpu_ms: u64,
    runs: u64,
    still_ms: u64,
}

impl Thread {
    fn new() -> Self {
        let pace = Pace {
            tick_ns: 5 * MS,
            thresholds: Thresholds::default(),
        };
        Thread {
            profile: Profile::new(extent(0), pace),
            at_ms: 0,
            cpu_ms: 0,
            runs: 7,
            still_ms: 0,
        }
    }

    fn now(&self) -> Moment {
        Moment {
            at_ns: self.at_ms * MS,
            spent: Some(Spent {
                cpu_ns: self.cpu_ms * MS,
                wait_ns: 0,
                runs: self.runs,
            }),
            still_ns: self.still_ms * MS,
        }
    }

    /// Goes on for so long.
    fn goes_on(&mut self, doing: Doing, ms: u64) -> &mut Self {
        self.at_ms += ms;
        if doing == RUN {
            self.cpu_ms += ms;
        }
        self
    }

    /// Is woken, and goes to sleep again.
    fn wakes(&mut self) -> &mut Self {
        self.runs += 1;
        self
    }

    /// Is seen in a function, at a line.
    fn seen(&mut self, doing: Doing, function: &str, line: u32) -> &mut Self {
        let now = self.now();
        if self.profile.note_same_sleep(doing, now) {
            return self;
        }
        let span = Span {
            doing,
            from: now,
            to: now,
        };
        let address = function.bytes().map(u64::from).sum::<u64>() << 32;
        let addresses = [address + u64::from(line), 2, 3];
        if let Taken::New(number) = self.profile.see(span, &addresses, 64) {
            self.profile.resolve(number, Some(stack(function, line)));
        }
        self
    }

    fn ended(&mut self) -> Whereabouts {
        let of = extent(self.at_ms);
        self.profile.extend(of, Judgement::Unknown);
        self.profile.whereabouts()
    }
}

fn extent(ms: u64) -> Extent {
    let thresholds = Thresholds::default();
    Extent {
        start_ns: 0,
        duration_ns: ms * MS,
        lost_ns: 0,
        severity: thresholds
            .severity_of(Duration::from_millis(ms))
            .unwrap_or(Severity::Monitor),
        is_over: true,
    }
}

fn frame(function: &str, file: &str, line: u32, address: u64) -> Frame {
    Frame {
        function: Some(function.into()),
        file: Some(file.into()),
        line: Some(line),
        address,
        ..Frame::default()
    }
}

/// In a function of the user's that has called the kernel; in none for `""`.
fn stack(function: &str, line: u32) -> Stack {
    let callee = frame(
        "std::thread::sleep",
        "/rustc/x/library/std/src/thread.rs",
        1,
        1,
    );
    let main = frame(
        "tokio::run",
        "/registry/src/x/tokio-1.54.1/src/run.rs",
        1,
        9,
    );
    let frames = match function {
        "" => vec![callee, main],
        _ => vec![callee, frame(function, "src/app.rs", line, 2), main],
    };
    trim::stack_of(frames, &Ownership::default())
}

/// Function, line, milliseconds and severity of each place.
fn told(seen: &Whereabouts) -> Vec<(String, u32, u64, Option<Severity>)> {
    let profile = seen.profile.as_ref().unwrap();
    let places = profile.places.iter().map(|place| {
        let stack = place.stack.as_ref().or(seen.stack.as_ref()).unwrap();
        let culprit = stack.culprit();
        (
            culprit.map_or_else(String::new, Frame::short_function),
            culprit.and_then(|culprit| culprit.line).unwrap_or(0),
            place.time_ns / MS,
            place.severity,
        )
    });
    places.collect()
}

fn place(
    function: &str,
    line: u32,
    ms: u64,
    severity: Severity,
) -> (String, u32, u64, Option<Severity>) {
    (function.to_owned(), line, ms, Some(severity))
}

#[test]
fn one_sleep_is_at_its_place_from_the_beginning_to_the_end() {
    let mut thread = Thread::new();
    thread.goes_on(SLEEP, 20).seen(SLEEP, "a", 1);
    for _ in 0..20 {
        thread.goes_on(SLEEP, 45).seen(SLEEP, "a", 1);
    }
    let seen = thread.goes_on(SLEEP, 30).ended();
    assert_eq!(told(&seen), [place("a", 1, 950, Severity::Medium)]);
    let profile = seen.profile.unwrap();
    assert_eq!(profile.places[0].samples, 21);
    assert_eq!((profile.seen_ns, profile.rest_ns), (950 * MS, 0));
    assert_eq!(seen.judgement, Judgement::Blocked(230));
}

#[test]
fn a_long_place_before_a_short_one_has_the_most() {
    let mut thread = Thread::new();
    thread.goes_on(SLEEP, 20).seen(SLEEP, "a", 1);
    for _ in 0..48 {
        thread.goes_on(SLEEP, 100).seen(SLEEP, "a", 1);
    }
    thread.goes_on(SLEEP, 80).wakes();
    thread.goes_on(SLEEP, 20).seen(SLEEP, "b", 2);
    thread.goes_on(SLEEP, 150).seen(SLEEP, "b", 2);
    let seen = thread.goes_on(SLEEP, 30).ended();
    assert_eq!(
        told(&seen),
        [
            place("a", 1, 4_870, Severity::High),
            place("b", 2, 230, Severity::Medium)
        ],
        "the boundary is half way between the looks"
    );
}

#[test]
fn where_one_computes_and_the_other_sleeps_the_boundary_is_exact() {
    let mut thread = Thread::new();
    for _ in 0..3 {
        thread.goes_on(RUN, 20).seen(RUN, "a", 1);
    }
    thread.goes_on(RUN, 10).goes_on(LOCK, 15).wakes();
    thread.seen(LOCK, "b", 2);
    let seen = thread.goes_on(LOCK, 85).seen(LOCK, "b", 2).ended();
    let lock = place("b", 2, 100, Severity::Medium);
    assert_eq!(told(&seen), [lock, place("a", 1, 70, Severity::Monitor)]);
    let causes: Vec<Cause> = seen
        .profile
        .unwrap()
        .places
        .iter()
        .map(|p| p.cause.clone())
        .collect();
    assert_eq!(causes, [Judgement::Blocked(202).into(), Cause::OnCpu]);
}

#[test]
fn of_one_place_the_times_say_why_and_of_several_the_samples() {
    let causes = |thread: &mut Thread, by_times| {
        thread.profile.extend(extent(thread.at_ms), by_times);
        let seen = thread.profile.whereabouts();
        let places = seen.profile.unwrap().places.clone();
        assert_eq!(places[0].cause, Cause::from(seen.judgement));
        places
            .into_iter()
            .map(|place| place.cause)
            .collect::<Vec<_>>()
    };
    let (fsync, on_cpu) = (Judgement::Blocked(74), Cause::OnCpu);
    let mut thread = Thread::new();
    thread.goes_on(RUN, 20).seen(RUN, "a", 1);
    assert_eq!(causes(&mut thread, fsync), [fsync.into()]);
    assert_eq!(
        causes(&mut thread, Judgement::Starved),
        vec![on_cpu.clone()]
    );
    thread.goes_on(SLEEP, 15).wakes().seen(SLEEP, "b", 2);
    let slept = Judgement::Blocked(230).into();
    assert_eq!(causes(&mut thread, fsync), [on_cpu, slept]);
}

#[test]
fn what_was_seen_to_compute_is_on_cpu_whatever_the_times_say() {
    let aes = "/registry/src/x/aes-0.8.4/src/soft.rs";
    let frames = vec![
        frame("aes::soft::encrypt", aes, 1, 1),
        frame("a", "src/app.rs", 1, 2),
    ];
    let mut thread = Thread::new();
    thread.goes_on(RUN, 20);
    let now = thread.now();
    let span = Span {
        doing: RUN,
        from: now,
        to: now,
    };
    if let Taken::New(number) = thread.profile.see(span, &[1, 2], 64) {
        let stack = trim::stack_of(frames, &Ownership::default());
        thread.profile.resolve(number, Some(stack));
    }
    // Its other polls have slept, unseen.
    let slept = Judgement::Blocked(74);
    thread.profile.extend(extent(thread.at_ms), slept);
    assert_eq!(thread.profile.whereabouts().judgement, Judgement::OnCpu);
}

#[test]
fn a_line_that_called_something_is_a_place_of_its_own_and_repeats_add_up() {
    let mut thread = Thread::new();
    for line in [4, 5, 4, 4] {
        thread.goes_on(SLEEP, 20).wakes().seen(SLEEP, "a", line);
    }
    let seen = thread.ended();
    let places = told(&seen);
    assert_eq!(places[0], place("a", 4, 60, Severity::Monitor));
    assert_eq!(places[1], place("a", 5, 20, Severity::Monitor));
}

#[test]
fn a_function_that_computes_is_one_place_with_the_line_that_has_most() {
    let mut profile = Thread::new();
    let own = |line| {
        trim::stack_of(
            vec![frame("a", "src/app.rs", line, 1)],
            &Ownership::default(),
        )
    };
    let plain = |line| {
        let clock = frame(
            "std::time::Instant::elapsed",
            "/rustc/x/library/std/src/time.rs",
            3,
            7,
        );
        trim::stack_of(
            vec![clock, frame("a", "src/app.rs", line, 1)],
            &Ownership::default(),
        )
    };
    for (address, stack) in (0..).zip([own(7), plain(8), own(8), own(9), plain(8)]) {
        profile.goes_on(RUN, 20);
        let span = Span {
            doing: RUN,
            from: profile.now(),
            to: profile.now(),
        };
        let Taken::New(number) = profile.profile.see(span, &[address], 64) else {
            panic!("another address is another stack");
        };
        profile.profile.resolve(number, Some(stack));
    }
    let seen = profile.ended();
    assert_eq!(told(&seen), [place("a", 8, 100, Severity::Medium)]);
}

#[test]
fn a_place_that_nobody_can_name_replaces_no_other_unless_it_is_most_of_it() {
    // More than either of the others, and more than both.
    for (nameless_ms, first) in [(40, "a"), (70, "")] {
        let mut thread = Thread::new();
        for (name, ms) in [("a", 30), ("b", 25), ("", nameless_ms)] {
            thread.goes_on(SLEEP, 1).wakes().seen(SLEEP, name, 1);
            thread.goes_on(SLEEP, ms).seen(SLEEP, name, 1);
        }
        let seen = thread.ended();
        assert_eq!(told(&seen)[0].0, first, "{nameless_ms}");
    }
}

#[test]
fn a_look_speaks_for_a_while_only_and_standstills_are_nobodys() {
    let mut thread = Thread::new();
    thread.goes_on(RUN, 20).seen(RUN, "a", 1);
    // 20 ms is four ticks.
    let seen = thread.goes_on(RUN, 380).ended();
    let profile = seen.profile.unwrap();
    assert_eq!(profile.seen_ns, 40 * MS);
    assert_eq!(profile.places[0].time_ns, 40 * MS);
    assert_eq!(profile.rest_ns, 360 * MS);

    let mut thread = Thread::new();
    thread.goes_on(RUN, 20).seen(RUN, "a", 1);
    let seen = thread.goes_on(RUN, 380).seen(RUN, "b", 2).ended();
    assert_eq!(
        told(&seen),
        [
            place("b", 2, 100, Severity::Medium),
            place("a", 1, 40, Severity::Monitor)
        ]
    );

    let mut thread = Thread::new();
    thread.goes_on(SLEEP, 20).seen(SLEEP, "a", 1);
    thread.still_ms = 300;
    thread.goes_on(SLEEP, 310).seen(SLEEP, "a", 1);
    thread.profile.extend(
        Extent {
            lost_ns: 300 * MS,
            ..extent(330)
        },
        Judgement::Unknown,
    );
    let seen = thread.profile.whereabouts();
    assert_eq!(seen.profile.unwrap().places[0].time_ns, 30 * MS);
}

#[test]
fn what_cannot_be_seen_is_laid_to_nobody() {
    let mut thread = Thread::new();
    thread.goes_on(SLEEP, 20).seen(SLEEP, "a", 1).wakes();
    let unknown = |thread: &mut Thread| {
        let span = Span {
            doing: SLEEP,
            from: thread.now(),
            to: thread.now(),
        };
        thread.profile.see_nothing(span);
    };
    unknown(&mut thread);
    let seen = thread.goes_on(SLEEP, 180).ended();
    assert_eq!(told(&seen), [place("a", 1, 20, Severity::Monitor)]);
    assert_eq!(seen.profile.unwrap().rest_ns, 180 * MS);
}

#[test]
fn stacks_are_bounded_and_what_has_no_room_is_seen_all_the_same() {
    let mut thread = Thread::new();
    for line in 0..200 {
        thread.goes_on(SLEEP, 10).wakes().seen(SLEEP, "a", line);
    }
    assert_eq!(thread.profile.kept.len(), MOST_STACKS);
    let seen = thread.ended();
    let profile = seen.profile.unwrap();
    assert_eq!(profile.places.len(), 1, "of 1 % each but the first is told");
    assert!(profile.seen_ns > 1_990 * MS, "{}", profile.seen_ns);
    assert_eq!(room_among(1), MOST_STACKS);
    assert_eq!(room_among(1_024), FEWEST_STACKS);
    assert!(room_among(200) * 200 <= ALL_STACKS);
}

#[test]
fn a_stack_that_is_being_symbolized_is_awaited_and_then_added_to_its_place() {
    let mut thread = Thread::new();
    thread.goes_on(RUN, 20).seen(RUN, "a", 1);
    thread.goes_on(RUN, 20);
    let span = Span {
        doing: RUN,
        from: thread.now(),
        to: thread.now(),
    };
    assert_eq!(thread.profile.see(span, &[77], 64), Taken::New(2));
    let seen = thread.ended();
    assert!(!seen.is_complete);
    assert_eq!(seen.profile.unwrap().seen_ns, 40 * MS);
    thread.profile.resolve(2, Some(stack("a", 1)));
    let seen = thread.ended();
    assert!(seen.is_complete);
    assert_eq!(told(&seen), [place("a", 1, 40, Severity::Monitor)]);
    assert_eq!(thread.profile.kept.len(), 1);
    assert_eq!(thread.profile.see(span, &[77], 64), Taken::Known);
    // Of something else after all.
    thread.goes_on(RUN, 20);
    let span = Span {
        from: thread.now(),
        to: thread.now(),
        ..span
    };
    assert_eq!(thread.profile.see(span, &[78], 64), Taken::New(3));
    thread.profile.resolve(3, None);
    let seen = thread.ended();
    assert_eq!(told(&seen), [place("a", 1, 50, Severity::Monitor)]);
}

#[test]
fn stacks_grow_rare_and_never_too_rare() {
    let pace = Thread::new().profile.pace;
    let mut at_ns = 10 * MS;
    let mut stacks = 0;
    while at_ns < 1_000 * MS {
        at_ns += pace.next_stack_ns(at_ns);
        stacks += 1;
    }
    assert_eq!(stacks, 34);
    assert_eq!(pace.next_stack_ns(3_600_000 * MS), 125 * MS);
}
