//! The thread that tells: the user's callback, then tracing.
//!
//! A thread of its own, because either may take as long as it likes (a
//! subscriber may wait for the very lock on standard output that the stuck
//! thread holds), and detection must go on meanwhile. An event waits a little
//! while for its stack; others do not wait for it.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::clock::Calibrated;
use crate::error::Error;
use crate::events::Emitter;
use crate::explained::Explained;
use crate::limit::{RateLimit, Verdict};
use crate::live::LiveTask;
use crate::registry::lock;
use crate::stall::{Phase, Stack, StallEvent, StallId};
use crate::threads;

const THREAD_NAME: &str = "stallscope-tell";
/// Events that wait to be told; more are dropped and counted.
const QUEUE: usize = 1024;
/// How long the event of a stall that is over waits for its stack; that of one in
/// progress waits for one tick, or not at all for the first stack of a program,
/// which takes longer to symbolize (some 40 ms if it is optimized, half a second
/// if not) and comes with the next event; later ones take microseconds.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);
/// A callback that takes longer is counted as slow.
const SLOW_NS: u64 = 100_000_000;

/// The user's callback.
pub(crate) type OnStall = Arc<dyn Fn(&StallEvent) + Send + Sync>;

/// What the thread is sent.
#[derive(Debug)]
pub(crate) enum Message {
    Event(Box<Untold>),
    /// One that was coming.
    Stack(StallId, Option<Stack>),
    /// A tracked future that was not woken for too long.
    Stuck(Box<LiveTask>),
    /// Why there are no stacks.
    NoStacks(String),
    /// The last: what still waits for its stack waits no longer.
    Stop,
}

/// An event, and the span it belongs to.
#[derive(Debug)]
pub(crate) struct Untold {
    pub(crate) event: StallEvent,
    pub(crate) span: u64,
    /// One that was at hand. With the event, as a message of its own would wake this
    /// thread for nothing, and who sends both may lose its CPU in between for 4 ms.
    pub(crate) stack: Option<Stack>,
    /// How many have been sent to be symbolized since the stall's event before.
    pub(crate) stacks_coming: u32,
    /// Stacks take microseconds to symbolize at the moment, and not as the first does.
    pub(crate) stacks_are_prompt: bool,
}

/// What went wrong in telling.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    pub(crate) dropped: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) slow: AtomicU64,
    pub(crate) suppressed: AtomicU64,
}

/// The queue to the thread; the thread ends at [`Message::Stop`], or when all of
/// these are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    sender: SyncSender<Message>,
    telling: Arc<Telling>,
}

impl Queue {
    /// Never waits.
    pub(crate) fn send(&self, message: Message) {
        let sent = self.sender.try_send(message);
        if let Err(TrySendError::Full(lost) | TrySendError::Disconnected(lost)) = sent
            && matches!(lost, Message::Event(_))
        {
            self.telling.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Waits for the thread's end.
#[derive(Debug)]
pub(crate) struct Ending {
    // Within a lock, so that a watchdog can be shared by threads.
    over: Mutex<Receiver<()>>,
    thread: ThreadId,
}

impl Ending {
    /// Waits until all is told, but not longer than this.
    pub(crate) fn wait(&self, at_most: Duration) {
        // A callback that drops the watchdog must not wait for itself.
        if std::thread::current().id() != self.thread {
            match lock(&self.over).recv_timeout(at_most) {
                Ok(()) | Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

struct Teller {
    clock: &'static Calibrated,
    patience: Duration,
    on_stall: Option<OnStall>,
    emitter: Emitter,
    limit: RateLimit<String>,
    telling: Arc<Telling>,
    explained: Explained,
    /// In the order in which they came, each with the end of its patience.
    waiting: VecDeque<(Instant, Untold)>,
}

/// Starts the thread; `patience` is that for the stack of a stall in progress.
pub(crate) fn start(
    clock: &'static Calibrated,
    patience: Duration,
    on_stall: Option<OnStall>,
    telling: Arc<Telling>,
) -> Result<(Queue, Ending), Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    let (over_sender, over) = sync_channel(1);
    let mut teller = Teller {
        clock,
        patience,
        on_stall,
        emitter: Emitter::here(),
        limit: RateLimit::new(),
        telling: Arc::clone(&telling),
        explained: Explained::default(),
        waiting: VecDeque::new(),
    };
    let thread = threads::start(THREAD_NAME, move || {
        teller.run(&receiver);
        teller.close();
        drop(over_sender);
    })?;
    let ending = Ending {
        over: Mutex::new(over),
        thread: thread.thread().id(),
    };
    Ok((Queue { sender, telling }, ending))
}

impl Teller {
    fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let patience = self.waiting.iter().map(|(until, _)| *until).min();
            let message = match patience {
                Some(until) => {
                    messages.recv_timeout(until.saturating_duration_since(Instant::now()))
                }
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match message {
                Ok(Message::Event(untold)) => self.hear(*untold),
                Ok(Message::Stack(id, stack)) => self.explained.arrived(id, stack),
                Ok(Message::Stuck(task)) => self.emit(|emitter| emitter.emit_stuck(&task)),
                Ok(Message::NoStacks(reason)) => {
                    self.emit(|emitter| emitter.emit_no_stacks(&reason));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            self.tell_ready(Instant::now());
        }
        for (_, untold) in std::mem::take(&mut self.waiting) {
            self.tell(untold);
        }
    }

    fn hear(&mut self, mut untold: Untold) {
        let id = untold.event.stall.id();
        self.explained.coming(id, untold.stacks_coming);
        if let Some(stack) = untold.stack.take() {
            self.explained.here(id, stack);
        }
        let patience = match untold.event.phase {
            Phase::Ended => PATIENCE_AT_END,
            Phase::Started | Phase::Escalated if untold.stacks_are_prompt => self.patience,
            Phase::Started | Phase::Escalated => Duration::ZERO,
        };
        self.waiting.push_back((Instant::now() + patience, untold));
    }

    /// Tells what need not wait or has waited for long enough: the earlier
    /// events of a stall never wait for longer than its later ones.
    fn tell_ready(&mut self, now: Instant) {
        for (until, untold) in std::mem::take(&mut self.waiting) {
            if until <= now || !self.explained.is_coming(untold.event.stall.id()) {
                self.tell(untold);
            } else {
                self.waiting.push_back((until, untold));
            }
        }
    }

    fn tell(&mut self, mut message: Untold) {
        let stall = &mut message.event.stall;
        if let Some(stack) = self.explained.stack(stall.id()) {
            stall.stack = Some(stack.clone());
            stall.refine_cause();
        }
        if message.event.phase == Phase::Ended {
            self.explained.forget(stall.id());
        }
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
            self.emit(|emitter| emitter.emit(&message.event, message.span, suppressed));
        }
    }

    /// A subscriber's panic must not end the telling either.
    fn emit(&self, emit: impl FnOnce(&Emitter)) {
        let emitted = catch_unwind(AssertUnwindSafe(|| emit(&self.emitter)));
        self.count_panic(emitted.is_err());
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
            self.emit(|emitter| emitter.emit_untold(culprit, suppressed));
        }
    }
}
