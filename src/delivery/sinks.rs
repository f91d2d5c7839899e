//! Where an outlet's events go: to a callback, or to tracing.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::clock::Calibrated;
use crate::delivery::{Message, OnStall, Stats};
use crate::events::Emitter;
use crate::isolate::isolated;
use crate::limit::{RateLimit, Verdict};
use crate::stall::StallEvent;

/// A callback that takes longer is counted as slow.
const SLOW_NS: u64 = 100_000_000;

/// Takes what an outlet delivers. A panic of the user's code in it must be caught.
pub(super) trait Sink: Send {
    /// The name of the outlet's thread.
    fn thread_name(&self) -> &'static str;

    fn event(&mut self, event: &StallEvent, span: u64);

    /// Anything but events.
    fn note(&mut self, _message: &Message) {}

    /// Nothing comes after this.
    fn finish(&mut self) {}
}

/// Calls one callback with all events.
pub(super) struct CallbackSink {
    clock: &'static Calibrated,
    callback: OnStall,
    stats: Arc<Stats>,
}

impl CallbackSink {
    pub(super) const fn new(
        clock: &'static Calibrated,
        callback: OnStall,
        stats: Arc<Stats>,
    ) -> Self {
        CallbackSink {
            clock,
            callback,
            stats,
        }
    }
}

impl Sink for CallbackSink {
    fn thread_name(&self) -> &'static str {
        "stallscope-call"
    }

    fn event(&mut self, event: &StallEvent, _span: u64) {
        let start_ns = self.clock.now_ns();
        if isolated(|| (self.callback)(event)).is_none() {
            self.stats.panics.fetch_add(1, Relaxed);
        }
        if self.clock.now_ns().saturating_sub(start_ns) > SLOW_NS {
            self.stats.slow.fetch_add(1, Relaxed);
        }
    }
}

/// Emits tracing events, a few per culprit.
pub(super) struct TracingSink {
    clock: &'static Calibrated,
    emitter: Emitter,
    limit: RateLimit<String>,
    stats: Arc<Stats>,
}

impl TracingSink {
    /// To be called where the user's subscriber is in force.
    pub(super) fn here(clock: &'static Calibrated, stats: Arc<Stats>) -> Self {
        TracingSink {
            clock,
            emitter: Emitter::here(),
            limit: RateLimit::new(),
            stats,
        }
    }

    fn emit(&self, emit: impl FnOnce(&Emitter)) {
        if isolated(|| emit(&self.emitter)).is_none() {
            self.stats.panics.fetch_add(1, Relaxed);
        }
    }
}

impl Sink for TracingSink {
    fn thread_name(&self) -> &'static str {
        "stallscope-tell"
    }

    fn event(&mut self, event: &StallEvent, span: u64) {
        let stall = &event.stall;
        let verdict = self.limit.check(
            &stall.culprit_name(),
            stall.id(),
            event.phase,
            stall.severity(),
            self.clock.now_ns(),
        );
        self.stats
            .suppressed
            .store(self.limit.suppressed(), Relaxed);
        if let Verdict::Tell { suppressed } = verdict {
            self.emit(|emitter| emitter.emit(event, span, suppressed));
        }
    }

    fn note(&mut self, message: &Message) {
        match message {
            Message::Stuck(task) => self.emit(|emitter| emitter.emit_stuck(task)),
            Message::NoStacks(reason) => self.emit(|emitter| emitter.emit_no_stacks(reason)),
            Message::Standstill(time) => self.emit(|emitter| emitter.emit_standstill(*time)),
            Message::Starving { percent, reason } => {
                self.emit(|emitter| emitter.emit_starving(*percent, reason));
            }
            Message::Transition(_) | Message::Finding(_) | Message::Seen(..) => {}
        }
    }

    fn finish(&mut self) {
        for (culprit, suppressed) in self.limit.untold() {
            self.emit(|emitter| emitter.emit_untold(culprit, suppressed));
        }
    }
}
