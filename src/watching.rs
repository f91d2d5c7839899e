//! A watched future's polls: what happens as each begins and ends.

use std::hint::black_box;
use std::panic::Location;
use std::task::{Context, Waker};

use crate::clock;
use crate::idle;
use crate::local;
use crate::registry::{LabelId, RuntimeId, TIMED, Tag, Thread, Timing, registry, runtime_in};
use crate::slot::{Stamp, Wanted};
use crate::track::Tracking;

/// What a watched future remembers from poll to poll.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Its label, and the runtime that it was last polled on where a poll there
    /// has nothing more to do than to publish itself; else [`RuntimeId::NEVER`].
    word: u64,
    task: u64,
    span: u64,
    /// The runtime that it was last polled on; [`RuntimeId::NEVER`] before its first poll.
    runtime: RuntimeId,
    /// `None` where the watchdogs' wish holds.
    timing: Option<Timing>,
    track: Track,
}

#[derive(Debug)]
enum Track {
    /// If a watchdog asks for it.
    IfAsked,
    Yes,
    /// From its first poll on.
    Ready(Box<Tracking>),
    Tracked(Box<Tracking>),
}

impl Watch {
    pub(crate) fn new(name: &str, location: &'static Location<'static>) -> Self {
        let mut watch = Watch {
            word: registry().label(name, location).pack(),
            task: 0,
            span: 0,
            runtime: RuntimeId::NEVER,
            timing: None,
            track: Track::IfAsked,
        };
        if registry().tracks_all() {
            watch.make_tracking();
        }
        watch.set_shortcut(RuntimeId::NEVER);
        watch
    }

    /// Its own timing, in place of what watchdogs ask for.
    pub(crate) fn set_timing(&mut self, timing: Timing) {
        self.timing = Some(timing);
        self.set_shortcut(RuntimeId::NEVER);
    }

    /// It is to be tracked from its first poll on.
    pub(crate) fn set_tracked(&mut self) {
        if let Track::IfAsked = self.track {
            self.track = Track::Yes;
        }
        if registry().is_watched() {
            self.make_tracking();
        }
    }

    /// Makes what its first poll needs to track it.
    fn make_tracking(&mut self) {
        if let Track::IfAsked | Track::Yes = self.track
            && let Some(tracking) = Tracking::made()
        {
            self.track = Track::Ready(tracking);
        }
    }

    pub(crate) fn label(&self) -> LabelId {
        Tag::unpack(self.word).label
    }

    fn set_shortcut(&mut self, runtime: RuntimeId) {
        self.word = self.label().pack() | u64::from(runtime.0);
    }

    /// The timing of its polls at the moment.
    fn timing(&self) -> Timing {
        match self.timing {
            Some(own) if registry().is_watched() => own,
            _ => registry().timing(),
        }
    }

    /// On the first poll, and where this thread now works for another runtime.
    #[cold]
    fn get_to_know(&mut self, thread: &Thread) {
        let place = local::place_here();
        registry().claim(thread, place);
        let may_hand_over = local::may_hand_over(place);
        thread.set_may_hand_over(may_hand_over);
        thread.set_polls_apart(!may_hand_over);
        if !may_hand_over {
            // Whichever watchdog it is that tells of it.
            idle::wake(RuntimeId::default());
        }
        if self.runtime == RuntimeId::NEVER {
            self.task = local::task_id();
            self.span = tracing::Span::current().id().map_or(0, |id| id.into_u64());
        }
        self.runtime = place.runtime;
        self.begin_tracking();
        if self.span == 0 && self.timing.is_none() && self.tracking().is_none() {
            self.set_shortcut(self.runtime);
        }
    }

    fn begin_tracking(&mut self) {
        let asked = match self.track {
            Track::IfAsked => registry().tracks_all(),
            Track::Yes | Track::Ready(_) => registry().is_watched(),
            Track::Tracked(_) => false,
        };
        if !asked {
            return;
        }
        let tracking = match std::mem::replace(&mut self.track, Track::Yes) {
            Track::Ready(tracking) => Some(tracking),
            other => {
                self.track = other;
                Tracking::at_first_poll()
            }
        };
        let (label, runtime, task) = (self.label(), self.runtime, self.task);
        if let Some(tracking) = tracking.and_then(|it| it.begin(label, runtime, task)) {
            self.track = Track::Tracked(tracking);
        }
    }

    fn tracking(&self) -> Option<&Tracking> {
        match &self.track {
            Track::Tracked(tracking) => Some(tracking),
            Track::IfAsked | Track::Yes | Track::Ready(_) => None,
        }
    }
}

/// One poll being watched; its drop ends that, whichever way the poll is left.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    thread: &'static Thread,
    watch: &'a Watch,
    /// What to poll with in place of the task's.
    pub(crate) waker: Option<&'a Waker>,
}

impl<'a> Watching<'a> {
    #[inline]
    pub(crate) fn begin(
        watch: &'a mut Watch,
        thread: &'static Thread,
        cx: &Context<'_>,
        anchor: usize,
    ) -> Self {
        let key = thread.key();
        let anchor = anchor as u64;
        let begun = runtime_in(key) == runtime_in(watch.word) && {
            let tag = Tag::pack(watch.word, key);
            if tag & TIMED == 0 {
                thread.slot.begin_plain(tag, watch.task, anchor)
            } else {
                let start = clock::counter_ticks();
                thread.slot.begin_paced(start, tag, watch.task, anchor)
            }
        };
        if begun {
            return Watching {
                thread,
                watch,
                waker: None,
            };
        }
        begin_full(watch, thread, cx, anchor);
        Watching {
            thread,
            watch,
            waker: watch.tracking().map(Tracking::waker),
        }
    }
}

impl Drop for Watching<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(wanted) = self.thread.slot.wanted() {
            close(self.thread, self.watch, wanted);
        }
        self.thread.slot.end();
    }
}

/// Begins a poll that has more to do than most.
// Not inlined, so that what is inlined into each future's poll is short; and
// with one call at its end at most, so that it saves no registers.
#[inline(never)]
fn begin_full(watch: &mut Watch, thread: &'static Thread, cx: &Context<'_>, anchor: u64) {
    if runtime_in(thread.place()) == runtime_in(watch.word)
        && thread.skips_sample()
        && thread
            .slot
            .begin_plain(Tag::pack(watch.word, thread.place()), watch.task, anchor)
    {
        return;
    }
    begin_anew(watch, thread, cx, anchor);
}

#[inline(never)]
fn begin_anew(watch: &mut Watch, thread: &'static Thread, cx: &Context<'_>, anchor: u64) {
    if runtime_in(thread.place()) != watch.runtime {
        watch.get_to_know(thread);
    }
    let tracking = watch.tracking();
    let due = tracking.is_some() || thread.is_due(watch.timing());
    let start = if due { clock::ticks() } else { 0 };
    if let Some(tracking) = tracking {
        tracking.poll_begins(start, cx.waker(), thread);
    }
    thread.slot.begin(Stamp {
        start,
        tag: Tag::pack(watch.label().pack(), thread.place()),
        task: watch.task,
        span: watch.span,
        anchor,
    });
}

/// Ends a poll that is timed, or whose end somebody wants to know.
// As `begin_full`.
#[inline(never)]
fn close(thread: &'static Thread, watch: &Watch, wanted: Wanted) {
    let first = |ns| record_first(thread, watch, ns);
    if thread.record_paced(wanted, || watch.label(), first) {
        return;
    }
    close_full(thread, watch);
}

// Takes the label from the watch again, so that the common case need not keep it.
// `black_box` keeps the compiler from handing the label over in place of the watch: two
// instructions in each poll (`cargo bench --bench poll_instructions`).
#[cold]
#[inline(never)]
fn record_first(thread: &'static Thread, watch: &Watch, ns: u64) {
    thread.record_first(black_box(watch).label(), ns);
}

#[inline(never)]
fn close_full(thread: &'static Thread, watch: &Watch) {
    let start = thread.slot.start();
    let end = clock::ticks();
    if start != 0 {
        let Timing(one_in) = match watch.tracking() {
            // Each of its polls is timed.
            Some(_) => Timing::EACH,
            None => watch.timing(),
        };
        thread.record(watch.label(), start, end, one_in);
    }
    if let Some(tracking) = watch.tracking() {
        tracking.poll_ends(end);
    }
    thread.slot.close(end);
}
