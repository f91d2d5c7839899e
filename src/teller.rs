//! The thread that tells: the user's callback, then tracing.
//!
//! A thread of its own, because either may take as long as it likes (a
//! subscriber may wait for the very lock on standard output that the stuck
//! thread holds), and detection must go on meanwhile.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::ThreadId;
use std::time::Duration;

use crate::clock::Calibrated;
use crate::error::Error;
use crate::events::Emitter;
use crate::explain::Board;
use crate::limit::{RateLimit, Verdict};
use crate::stall::{Phase, Stack, StallEvent};

const THREAD_NAME: &str = "stallscope-tell";
/// Events that wait to be told; more are dropped and counted.
const QUEUE: usize = 1024;
/// How long an event of a stall in progress waits for its stack. The first of a
/// program takes some 40 ms to symbolize if it is optimized, half a second if
/// not; whatever the stuck thread holds can delay it no longer than this.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same for a stall that is over, where there is no hurry.
const PATIENCE_AT_END: Duration = Duration::from_secs(1);
/// A callback that takes longer is counted as slow.
const SLOW_NS: u64 = 100_000_000;

/// The user's callback.
pub(crate) type OnStall = Arc<dyn Fn(&StallEvent) + Send + Sync>;

/// An event, and the span it belongs to.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) event: StallEvent,
    pub(crate) span: u64,
}

/// What went wrong in telling.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    pub(crate) dropped: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) suppressed: AtomicU64,
}

/// The queue to the thread; the thread ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: SyncSender<Message>,
    telling: Arc<Telling>,
}

impl Queue {
    /// Never waits.
    pub(crate) fn send(&self, message: Message) {
        match self.sender.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.telling.dropped.fetch_add(1, Relaxed);
            }
        }
    }
}

/// Waits for the thread's end.
#[derive(Debug)]
pub(crate) struct Ending {
    over: Receiver<()>,
    thread: ThreadId,
}

impl Ending {
    /// Waits until all is told, but not longer than this.
    pub(crate) fn wait(&self, at_most: Duration) {
        // A callback that drops the watchdog must not wait for itself.
        if std::thread::current().id() != self.thread {
            match self.over.recv_timeout(at_most) {
                Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

struct Teller {
    clock: &'static Calibrated,
    on_stall: Option<OnStall>,
    emitter: Emitter,
    limit: RateLimit<String>,
    telling: Arc<Telling>,
    board: Arc<Board>,
}

/// Starts the thread.
pub(crate) fn start(
    clock: &'static Calibrated,
    on_stall: Option<OnStall>,
    telling: Arc<Telling>,
    board: Arc<Board>,
) -> Result<(Queue, Ending), Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    let (over_sender, over) = sync_channel(1);
    let mut teller = Teller {
        clock,
        on_stall,
        emitter: Emitter::here(),
        limit: RateLimit::new(),
        telling: Arc::clone(&telling),
        board,
    };
    let thread = std::thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || {
            for message in receiver {
                teller.tell(message);
            }
            teller.close();
            drop(over_sender);
        })
        .map_err(|source| Error::thread(THREAD_NAME, source))?;
    let ending = Ending {
        over,
        thread: thread.thread().id(),
    };
    Ok((Queue { sender, telling }, ending))
}

impl Teller {
    fn tell(&mut self, mut message: Message) {
        self.explain(&mut message.event);
        // First, because a callback is less likely to depend on what the stuck
        // thread holds than a subscriber is.
        self.call_back(&message.event);
        let stall = &message.event.stall;
        let verdict = self.limit.check(
            &stall.culprit_name(),
            stall.id(),
            message.event.phase,
            stall.severity(),
            self.clock.now_ns(),
        );
        self.telling
            .suppressed
            .store(self.limit.suppressed(), Relaxed);
        if let Verdict::Tell { suppressed } = verdict {
            let emitter = &self.emitter;
            // A subscriber's panic must not end the telling either.
            let told = catch_unwind(AssertUnwindSafe(|| {
                emitter.emit(&message.event, message.span, suppressed);
            }));
            self.count_panic(told.is_err());
        }
    }

    /// Waits for the stack, if there is to be one, for a while.
    fn explain(&self, event: &mut StallEvent) {
        let ended = event.phase == Phase::Ended;
        let patience = if ended { PATIENCE_AT_END } else { PATIENCE };
        let stall = &mut event.stall;
        if let Some(stack) = self.board.wait(stall.id(), patience) {
            stall.stack = Some(Stack::clone(&stack));
            stall.refine_cause();
        }
        if ended {
            self.board.forget(stall.id());
        }
    }

    fn call_back(&self, event: &StallEvent) {
        let Some(on_stall) = &self.on_stall else {
            return;
        };
        let start_ns = self.clock.now_ns();
        let called = catch_unwind(AssertUnwindSafe(|| on_stall(event)));
        self.count_panic(called.is_err());
        if self.clock.now_ns().saturating_sub(start_ns) > SLOW_NS {
            self.telling.slow.fetch_add(1, Relaxed);
        }
    }

    fn count_panic(&self, panicked: bool) {
        if panicked {
            self.telling.panics.fetch_add(1, Relaxed);
        }
    }

    fn close(&self) {
        for (culprit, suppressed) in self.limit.untold() {
            let emitted = catch_unwind(AssertUnwindSafe(|| {
                self.emitter.emit_untold(culprit, suppressed);
            }));
            self.count_panic(emitted.is_err());
        }
    }
}
