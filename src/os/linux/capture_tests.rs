//! Captures of threads that do what threads of programs do.

use super::*;
use crate::os::DEFAULT_SIGNAL;
use crate::os::platform::thread::thread_id;
use crate::os::platform::{frame, own_stack};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// What a thread tells of itself when it registers.
pub(crate) fn of_this_thread() -> (i32, OwnStack) {
    let stack = OwnStack::new();
    stack.note();
    (thread_id(), stack)
}

/// A thread at work until this is dropped, to be captured.
pub(crate) struct Subjected {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
    probe: ThreadProbe,
    stack: OwnStack,
    capturer: Capturer,
    /// One after another: those that compute take a CPU from all other tests.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Subjected {
    pub(crate) fn new(size: usize, work: impl Fn(&dyn Fn() -> bool) + Send + 'static) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let over = Arc::new(AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let until = Arc::clone(&over);
        let thread = std::thread::Builder::new().stack_size(size);
        let thread = thread
            .spawn(move || {
                send.send(of_this_thread()).unwrap();
                work(&|| !until.load(Relaxed));
            })
            .unwrap();
        let (tid, stack) = receive.recv().unwrap();
        Subjected {
            over,
            thread: Some(thread),
            probe: ThreadProbe::open(tid, crate::os::Importance::Other).unwrap(),
            stack,
            capturer: Capturer::new(SignalUse::Signal {
                number: DEFAULT_SIGNAL,
                chosen: true,
            }),
            _alone: alone,
        }
    }

    fn capture(&mut self, id: u64, anchor: Option<u64>) -> Captured {
        let subject = Subject {
            id,
            anchor,
            still: &|| true,
        };
        let captured = self.capturer.capture(&self.probe, &self.stack, &subject);
        captured.unwrap()
    }

    /// Until there is an answer of this kind; other tests take the CPUs meanwhile.
    pub(crate) fn until(
        &mut self,
        anchor: Option<u64>,
        is_it: impl Fn(&Captured) -> bool,
    ) -> Captured {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let captured = self.capture(1, anchor);
            if is_it(&captured) {
                return captured;
            }
            assert!(Instant::now() < deadline, "{:?}", captured.stack);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Until there is a stack; which of these locks the thread holds then, by the function
    /// that has the guard.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn holds(
        &mut self,
        locks: &[Wanted],
        is_it: impl Fn(&Captured) -> bool,
    ) -> Vec<(Held, String)> {
        self.capturer.look_for(locks.to_vec());
        let captured = self.until(None, |captured| is_whole(captured) && is_it(captured));
        let addresses = captured.stack.unwrap();
        let name = |held: &Held| {
            let names = self.names(&addresses[held.frame..=held.frame]);
            names.last().cloned().unwrap_or_default()
        };
        captured
            .holds
            .iter()
            .map(|held| (*held, name(held)))
            .collect()
    }

    pub(crate) fn names(&self, addresses: &[u64]) -> Vec<String> {
        let frames = crate::os::Symbolizer::default().symbolize(addresses, self.capturer.modules());
        let names = frames.iter().filter_map(|frame| frame.function());
        names.map(str::to_owned).collect()
    }
}

impl Drop for Subjected {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[inline(never)]
fn spins(goes_on: &dyn Fn() -> bool) {
    while goes_on() {
        std::hint::spin_loop();
    }
}

fn is_whole(captured: &Captured) -> bool {
    captured.stack.is_ok()
}

/// Keeps our signal from the thread that calls, or lets it through.
fn mask(how: i32) {
    // SAFETY: all-zero is a valid signal set, which the two calls are given
    // valid pointers to; the third may be null.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, DEFAULT_SIGNAL);
        libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
    }
}

#[test]
fn a_running_threads_stack_comes_at_a_later_look() {
    let mut thread = Subjected::new(1 << 20, spins);
    let whole = thread.until(None, is_whole);
    let names = thread.names(&whole.stack.unwrap());
    assert!(names.iter().any(|name| name.contains("spins")), "{names:?}");
    assert_eq!((whole.doing, whole.task), (Doing::Running, None));
    // And the next is not the same again.
    assert!(thread.capturer.late.is_empty());
}

#[test]
fn a_sleeping_threads_stack_leads_to_its_start() {
    let mut thread = Subjected::new(1 << 20, |goes_on| {
        while goes_on() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let whole = thread.until(None, is_whole);
    assert!(matches!(whole.doing, Doing::Blocked(_)));
    let names = thread.names(&whole.stack.unwrap());
    assert!(
        names.iter().any(|name| name.contains("capture")),
        "{names:?}"
    );
}

#[test]
fn an_answer_is_for_what_it_was_asked_for_alone() {
    let mut thread = Subjected::new(1 << 20, spins);
    let deadline = Instant::now() + Duration::from_secs(20);
    // The second may be answered at once.
    loop {
        thread.until(None, |captured| captured.stack == Err(Miss::Late));
        std::thread::sleep(Duration::from_millis(200));
        let another = thread.capture(2, None).stack;
        if another == Err(Miss::Late) {
            break;
        }
        assert!(Instant::now() < deadline, "{another:?}");
    }
    assert_eq!(thread.capturer.late.len(), 1, "the first is given up");
    let over = |id| Subject {
        id,
        anchor: None,
        still: &|| false,
    };
    let tid = thread.probe.tid();
    let left = thread.capturer.last_words(tid, &over(1), &|_| true);
    assert!(left.is_none());
}

#[test]
fn what_is_left_counts_if_it_was_taken_in_time() {
    crate::clock::calibrate();
    let mut thread = Subjected::new(1 << 20, spins);
    let (begin, tid) = (crate::clock::ticks(), thread.probe.tid());
    let over = Subject {
        id: 1,
        anchor: None,
        still: &|| false,
    };
    let mut left = |in_time: bool| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            thread.until(None, |captured| captured.stack == Err(Miss::Late));
            std::thread::sleep(Duration::from_millis(100));
            let at = AtomicU64::new(0);
            let left = thread.capturer.last_words(tid, &over, &|then| {
                at.store(then, Relaxed);
                in_time
            });
            if at.load(Relaxed) > begin {
                return left.is_some_and(|left| left.stack.is_ok());
            }
            assert!(Instant::now() < deadline, "never answered");
        }
    };
    assert!(left(true) && !left(false));
}

#[test]
fn a_thread_that_blocks_the_signal_is_not_asked() {
    let mut thread = Subjected::new(1 << 20, |goes_on| {
        mask(libc::SIG_BLOCK);
        spins(goes_on);
    });
    let lasting = |captured: &Captured| captured.stack == Err(Miss::SignalBlocked);
    thread.until(None, lasting);
    assert!(Miss::SignalBlocked.is_lasting());
}

#[test]
fn a_thread_without_room_is_not_asked() {
    let mut thread = Subjected::new(1 << 20, spins);
    let small = std::thread::Builder::new().stack_size(16 * 1024);
    // Its own alternate stack is taken away.
    let small = small.spawn(|| {
        // SAFETY: all-zero but for the flag is how an alternate stack is given up, which
        // std does the same way; nothing runs on it.
        unsafe {
            let mut none: libc::stack_t = std::mem::zeroed();
            none.ss_flags = libc::SS_DISABLE;
            none.ss_size = libc::SIGSTKSZ;
            libc::sigaltstack(&raw const none, std::ptr::null_mut());
        }
        of_this_thread()
    });
    let (tid, stack) = small.unwrap().join().unwrap();
    let room = stack.known(tid).unwrap().room();
    assert_eq!(room, Err(Miss::NoRoom));
    // Nor is one that has never said where its stack lies.
    thread.stack = OwnStack::new();
    thread.until(None, |captured| captured.stack == Err(Miss::UnknownStack));
}

/// Calls itself so often, with so much on the stack each time.
#[inline(never)]
fn recurses<const WORDS: usize>(times: u64, last: &mut dyn FnMut()) -> u64 {
    let room = std::hint::black_box([times; WORDS]);
    if times == 0 {
        last();
        return room[0];
    }
    recurses::<WORDS>(times - 1, last) + std::hint::black_box(room)[WORDS - 1]
}

fn deep_stack<const WORDS: usize>(times: u64, sleeps: bool) -> Vec<u64> {
    let mut thread = Subjected::new(64 << 20, move |goes_on| {
        recurses::<WORDS>(times, &mut || {
            while goes_on() {
                if sleeps {
                    std::thread::sleep(Duration::from_millis(500));
                }
            }
        });
    });
    let whole = thread.until(None, |captured| {
        is_whole(captured) && captured.doing.is_asleep() == sleeps
    });
    let stack = whole.stack.unwrap();
    let names = thread.names(&stack);
    for expected in ["recurses", "deep_stack"] {
        assert!(
            names.iter().any(|name| name.contains(expected)),
            "{names:?}"
        );
    }
    stack
}

#[test]
fn both_ends_of_deep_stacks_are_kept() {
    for sleeps in [true, false] {
        assert_eq!(deep_stack::<8>(5_000, sleeps).len(), 512);
    }
}

#[test]
fn stacks_of_megabytes_are_copied() {
    for sleeps in [true, false] {
        let stack = deep_stack::<8_000>(60, sleeps);
        assert!((60..120).contains(&stack.len()), "{}", stack.len());
    }
}

#[test]
fn a_stack_that_is_too_large_or_too_deep_says_so() {
    let mut thread = Subjected::new(64 << 20, |goes_on| {
        recurses::<8_000>(200, &mut || spins(goes_on));
    });
    thread.until(None, |captured| captured.stack == Err(Miss::TooLarge));
}

#[test]
fn a_thread_on_another_stack_says_so() {
    let mut thread = Subjected::new(1 << 20, spins);
    // As if the thread had left its own for another's.
    thread.stack = std::thread::spawn(|| of_this_thread().1).join().unwrap();
    thread.stack.set_owner(thread.probe.tid());
    thread.until(None, |captured| captured.stack == Err(Miss::ForeignStack));
}

#[test]
fn the_handler_keeps_within_its_bytes() {
    const SIZE: usize = 64 * 1024;
    const MARK: u8 = 0xa5;
    let alternate = vec![MARK; SIZE].leak();
    let (address, size) = (alternate.as_mut_ptr().expose_provenance(), alternate.len());
    let mut thread = Subjected::new(1 << 20, move |goes_on| {
        // SAFETY: the memory is leaked, and nothing else uses it.
        unsafe {
            let mut stack: libc::stack_t = std::mem::zeroed();
            stack.ss_sp = std::ptr::with_exposed_provenance_mut(address);
            stack.ss_size = size;
            libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        }
        spins(goes_on);
    });
    for _ in 0..3 {
        thread.until(None, is_whole);
    }
    drop(thread);
    // Past what the compiler knows of it.
    let alternate = std::hint::black_box(&*alternate);
    let untouched = alternate.iter().take_while(|byte| **byte == MARK).count();
    let (used, frame) = (SIZE - untouched, frame::frame());
    assert!(used > 0, "it has run there");
    let handlers = used.saturating_sub(frame);
    println!("{used} bytes: {frame} are said to be the frame's, {handlers} the handler's");
    assert!(handlers <= own_stack::HANDLER, "{handlers}");
}
