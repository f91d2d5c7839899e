//! Who hears of stalls: each callback, and tracing, on a thread of its own.
//!
//! An outlet may take as long as it likes: a subscriber may wait for the very lock on
//! standard output that the stuck thread holds. So each has a queue of its own, holds up
//! neither the others nor detection, and loses its own events when its queue is full.
//!
//! What is sent here is copied into the queues, and a callback is called from memory that
//! was there before: also where a stuck thread holds the allocator's lock, the callback
//! hears of the stall in time.

mod event_buffer;
mod known;
mod outlet;
mod sinks;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::clock::Calibrated;
use crate::error::Error;
use crate::live::LiveTask;
use crate::stall::{StallEvent, StallId};
use crate::watchdog::transition::{Finding, Transition, Whereabouts};

use outlet::Outlet;
use sinks::{CallbackSink, TracingSink};

/// How many events may wait for one outlet; more are dropped and counted.
const QUEUE: usize = 1024;

/// The user's callback.
pub(crate) type OnStall = Arc<dyn Fn(&StallEvent) + Send + Sync>;

/// What an outlet is sent.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Transition(Transition),
    /// The answer to a transition.
    Finding(Finding),
    /// What was still being symbolized when it was answered.
    Seen(StallId, Whereabouts),
    /// A tracked future that was not woken for too long.
    Stuck(Arc<LiveTask>),
    /// Why there are no stacks.
    NoStacks(Arc<str>),
    /// For so long the whole process stood still.
    Standstill(Duration),
    /// Of the time in which a thread could have run, the part in which it had no CPU.
    Starving {
        percent: u64,
        reason: Arc<str>,
    },
}

/// What went wrong in delivering.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) dropped: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) suppressed: AtomicU64,
}

/// All outlets of one watchdog.
#[derive(Debug)]
pub(crate) struct Delivery {
    outlets: Vec<Arc<Outlet>>,
    pub(crate) stats: Arc<Stats>,
}

impl Delivery {
    /// Starts the threads. `patience` is how long the event of a stall in progress waits
    /// for what is found out about it.
    pub(crate) fn start(
        clock: &'static Calibrated,
        patience: Duration,
        callbacks: &[OnStall],
        short_slices: bool,
    ) -> Result<Self, Error> {
        let mut delivery = Delivery {
            outlets: Vec::with_capacity(callbacks.len() + 1),
            stats: Arc::default(),
        };
        let stats = &delivery.stats;
        let tracing = TracingSink::here(clock, Arc::clone(stats));
        let outlet = Outlet::start(clock, patience, short_slices, Box::new(tracing))?;
        delivery.outlets.push(outlet);
        for callback in callbacks {
            let sink = CallbackSink::new(clock, Arc::clone(callback), Arc::clone(stats));
            match Outlet::start(clock, patience, short_slices, Box::new(sink)) {
                Ok(outlet) => delivery.outlets.push(outlet),
                Err(error) => {
                    delivery.stop(Duration::ZERO);
                    return Err(error);
                }
            }
        }
        Ok(delivery)
    }

    /// Sends this to all outlets; never waits, and of a transition asks for no memory.
    pub(crate) fn send(&self, message: &Message) {
        for outlet in &self.outlets {
            let is_event = matches!(message, Message::Transition(_));
            if !outlet.send(message.clone()) && is_event {
                self.stats.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// Has all outlets deliver what they have, waits for them, but not longer than this,
    /// and sees to it that nothing is delivered afterwards.
    pub(crate) fn stop(&self, at_most: Duration) {
        for outlet in &self.outlets {
            outlet.stop();
        }
        let start = Instant::now();
        for outlet in &self.outlets {
            outlet.wait_for_end(at_most.saturating_sub(start.elapsed()));
            outlet.close();
        }
    }
}
