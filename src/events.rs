//! Stalls as tracing events. The only place that names tracing's macros.
//!
//! The fields are listed in [`crate::docs::events`].

use std::time::Duration;

use tracing::dispatcher::Dispatch;
use tracing::span::Id;
use tracing::subscriber::NoSubscriber;

use crate::escape::{part, sentence};
use crate::live::LiveTask;
use crate::severity::Severity;
use crate::stall::{Frame, Stack, StallEvent, Task};

/// Where events go: to the subscriber of the place where the watchdog was started.
#[derive(Debug)]
pub(crate) struct Emitter(Option<Dispatch>);

macro_rules! tell {
    ($level:expr, $parent:expr, $event:expr, $suppressed:expr) => {{
        let stall = &$event.stall;
        let task = stall.task();
        tracing::event!(
            target: "stallscope",
            parent: $parent,
            $level,
            stall_id = stall.id().get(),
            phase = %$event.phase,
            severity = %stall.severity(),
            kind = %stall.kind(),
            task = task.map(shown_name),
            task_id = task.and_then(Task::id),
            location = task.and_then(Task::location).map(tracing::field::display),
            worker = stall.worker(),
            runtime = stall.runtime().map(|name| part(name).to_string()),
            thread = stall.thread().map(|name| part(name).to_string()),
            duration_ms = ms(stall.duration()),
            suspended_ms = ms(stall.suspended()),
            cause = %stall.cause(),
            on_cpu_ms = ms(stall.on_cpu()),
            off_cpu_ms = ms(stall.off_cpu()),
            waiting_ms = ms(stall.waiting()),
            culprit = stall.stack().and_then(Stack::culprit).map(tracing::field::display),
            culprit_ms = stall.places().next().map(|place| ms(place.time())),
            seen_ms = ms(stall.seen()),
            leaf = stall.stack().and_then(Stack::leaf).map(Frame::shown_function),
            held_by = stall.held_by().map(tracing::field::display),
            suppressed = $suppressed,
            "{}",
            $event
        )
    }};
}

/// Fields are escaped as the message is: subscribers print both.
fn shown_name(task: &Task) -> String {
    part(task.name()).to_string()
}

/// In microseconds: a fraction of a millisecond with more digits would be noise.
fn ms(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}

impl Emitter {
    /// To be called where the user's subscriber is in force.
    pub(crate) fn here() -> Self {
        // Where there is none yet, the one that is global by then will do.
        Emitter(tracing::dispatcher::get_default(|dispatch| {
            (!dispatch.is::<NoSubscriber>()).then(|| dispatch.clone())
        }))
    }

    /// Tells of one event; `span` is the id of its parent, 0 for none.
    pub(crate) fn emit(&self, event: &StallEvent, span: u64, suppressed: u64) {
        let parent = std::num::NonZeroU64::new(span).map(Id::from_non_zero_u64);
        let suppressed = (suppressed > 0).then_some(suppressed);
        self.within(|| match event.stall.severity() {
            Severity::Critical => tell!(tracing::Level::ERROR, parent, event, suppressed),
            Severity::High => tell!(tracing::Level::WARN, parent, event, suppressed),
            Severity::Medium => tell!(tracing::Level::INFO, parent, event, suppressed),
            Severity::Monitor => tell!(tracing::Level::DEBUG, parent, event, suppressed),
        });
        if let Some(stack) = event.stall.stack() {
            self.within(|| {
                tracing::event!(
                    target: "stallscope",
                    tracing::Level::DEBUG,
                    stall_id = event.stall.id().get(),
                    stack = %stack,
                );
            });
        }
    }

    /// Tells of stalls that were kept back and that no later event has told of.
    pub(crate) fn emit_untold(&self, culprit: &str, suppressed: u64) {
        let culprit = sentence(culprit).to_string();
        self.within(|| {
            tracing::event!(
                target: "stallscope",
                tracing::Level::INFO,
                culprit,
                suppressed,
                "{suppressed} more stalls of {culprit} were not told"
            );
        });
    }

    /// Tells of a tracked future that was not woken for too long.
    pub(crate) fn emit_stuck(&self, task: &LiveTask) {
        self.within(|| {
            tracing::event!(
                target: "stallscope",
                tracing::Level::WARN,
                task = part(task.name()).to_string(),
                task_id = task.id(),
                location = task.location().map(tracing::field::display),
                state = %task.state(),
                waiting_ms = ms(task.since()),
                polls = task.polls(),
                "stuck: {task}"
            );
        });
    }

    /// Tells why there are no stacks.
    pub(crate) fn emit_no_stacks(&self, reason: &str) {
        let reason = sentence(reason).to_string();
        self.within(|| {
            tracing::event!(
                target: "stallscope",
                tracing::Level::INFO,
                reason,
                "stacks of some or all stuck threads are missing or incomplete: {reason}"
            );
        });
    }

    /// The whole process has stood still for so long.
    pub(crate) fn emit_standstill(&self, time: std::time::Duration) {
        self.within(|| {
            tracing::event!(
                target: "stallscope",
                tracing::Level::INFO,
                standstill_ms = ms(time),
                "the whole process stood still for {time:.1?}"
            );
        });
    }

    /// This process waits for CPUs for so much of the time.
    pub(crate) fn emit_starving(&self, percent: u64, reason: &str) {
        self.within(|| {
            tracing::event!(
                target: "stallscope",
                tracing::Level::INFO,
                waiting_percent = percent,
                reason,
                "this process waits for CPUs {percent} % of the time ({reason})"
            );
        });
    }

    fn within(&self, f: impl FnOnce()) {
        match &self.0 {
            Some(dispatch) => tracing::dispatcher::with_default(dispatch, f),
            None => f(),
        }
    }
}
