//! Copies the registers and a piece of the stack of a thread that is running.
//!
//! One request at a time in the process. A word of state says whose it is:
//! `generation << 2 | step`, where the step goes from idle to REQUESTED by the
//! asker, to CLAIMED by the handler, to DONE by the handler; the asker takes a
//! request back by a compare-exchange, which fails once it is claimed. So a
//! signal that is delivered late finds no request, unless it was left open on
//! purpose, see [`Answer::Late`], or another has been made to the same thread. That
//! it answers: the kernel drops a signal while one of its number is pending (6.18,
//! `kernel/signal.c`, `legacy_queue`), so no other comes for it.

use std::ffi::{c_int, c_void};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use crate::local;
use crate::os::platform::unwind::{Registers, StackCopy};

/// The most that is copied of a stack.
const BUFFER: usize = 256 * 1024;
/// How long the handler is waited for.
const PATIENCE: Duration = Duration::from_millis(5);
/// For how long the asker looks all the time: on another CPU the handler takes
/// microseconds.
const SPINS: Duration = Duration::from_micros(30);
/// Then it sleeps, as it may be on the thread's CPU: for longer than it is likely to have
/// run since it woke. One that comes back sooner has had more than its share, and waits
/// for the scheduler's next tick, up to 4 ms (kernel 6.18, `kernel/sched/fair.c`:
/// `entity_eligible` in `do_preempt_short`); so does one that yields.
const NAP: Duration = Duration::from_micros(200);

const REQUESTED: u64 = 1;
const CLAIMED: u64 = 2;
const DONE: u64 = 3;
/// The bits that hold the step; all of them 0 is idle.
const STEP: u64 = 3;

static STATE: AtomicU64 = AtomicU64::new(0);
static TARGET: AtomicI32 = AtomicI32::new(0);
static WANTED: AtomicUsize = AtomicUsize::new(0);
static STACK: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static COPIED: AtomicUsize = AtomicUsize::new(0);
static PC: AtomicU64 = AtomicU64::new(0);
static SP: AtomicU64 = AtomicU64::new(0);
static FP: AtomicU64 = AtomicU64::new(0);
static LR: AtomicU64 = AtomicU64::new(0);
/// Whether tokio's id of the task is wanted, and the id; 0 for none.
static WANTS_TASK: AtomicBool = AtomicBool::new(false);
static TASK: AtomicU64 = AtomicU64::new(0);

/// The one who may ask, and the generation of the last request.
static ASKER: Mutex<u64> = Mutex::new(0);

/// Why there is no copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoCopy {
    /// Another watchdog is asking.
    Busy,
    /// The program has a handler of its own for this signal.
    HandlerTaken,
    NotPermitted,
}

/// What comes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Copied(Sample),
    /// The thread is at work in the kernel, or waits for a CPU: its handler has
    /// not run, and will before the thread does anything else. So what it will
    /// copy is where the thread is now.
    Late(Request),
    /// Another request has been made since.
    Lost,
}

/// What is copied of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Its stack, up to this address or as far as there is room.
    Stack { up_to: Option<u64> },
    /// tokio's id of the task that it polls; only of a thread that has asked tokio
    /// which worker it is.
    Task,
}

/// What a thread has answered, besides its stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) registers: Registers,
    /// Where it was wanted; 0 for none.
    pub(crate) task: u64,
}

/// One request, by its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request(u64);

/// Asks a thread for a copy of its stack from its stack pointer on, or for its task.
///
/// Takes some 10 us, of which the thread is held up for a few; waits 5 ms at
/// most.
pub(crate) fn copy_of(
    signal: c_int,
    tid: i32,
    want: Want,
    into: &mut StackCopy,
) -> Result<Answer, NoCopy> {
    let mut generation = ASKER.try_lock().map_err(|_| NoCopy::Busy)?;
    install(signal)?;
    if STACK.load(Relaxed).is_null() {
        let buffer: &'static mut [u8] = Box::leak(vec![0; BUFFER].into_boxed_slice());
        STACK.store(buffer.as_mut_ptr(), Release);
    }
    take_back(*generation);
    *generation += 1;
    let generation = *generation;
    TARGET.store(tid, Relaxed);
    // An address to copy up to, or everything that fits.
    let up_to = match want {
        Want::Stack { up_to } => up_to.unwrap_or(u64::MAX),
        Want::Task => 0,
    };
    WANTED.store(usize::try_from(up_to).unwrap_or(usize::MAX), Relaxed);
    WANTS_TASK.store(want == Want::Task, Relaxed);
    TASK.store(0, Relaxed);
    // Release: the handler's acquire sees target and bound.
    STATE.store(generation << 2 | REQUESTED, Release);
    if !send(signal, tid, generation) {
        STATE.store(0, Release);
        return Err(NoCopy::NotPermitted);
    }
    Ok(wait(generation, into))
}

/// Looks for the answer to a request that was late.
pub(crate) fn pick_up(Request(generation): Request, into: &mut StackCopy) -> Answer {
    // Whoever holds it is making another request.
    let Ok(last) = ASKER.try_lock() else {
        return Answer::Lost;
    };
    if *last != generation {
        return Answer::Lost;
    }
    // Acquire: pairs with the handler's last release.
    if STATE.load(Acquire) == generation << 2 | DONE {
        return Answer::Copied(copied(into));
    }
    Answer::Late(Request(generation))
}

/// Gives up a request that was late.
pub(crate) fn give_up(Request(generation): Request) {
    if let Ok(last) = ASKER.try_lock()
        && *last == generation
    {
        take_back(generation);
    }
}

/// Withdraws a request, or waits for the handler that is at work on it. To be
/// called with the lock held.
fn take_back(generation: u64) {
    let requested = generation << 2 | REQUESTED;
    let withdrawn = STATE.compare_exchange(requested, 0, AcqRel, Acquire);
    // Claimed: the handler is at work on the buffer, and does not block.
    while withdrawn.is_err() && STATE.load(Acquire) == generation << 2 | CLAIMED {
        std::thread::yield_now();
    }
}

/// To be called with the lock held, after the handler is done.
fn copied(into: &mut StackCopy) -> Sample {
    let length = COPIED.load(Relaxed).min(BUFFER);
    // SAFETY: the buffer was leaked with this length; the handler that wrote it
    // is done (seen with acquire by the caller), and none writes it before the
    // next request, which needs the lock.
    let copied = unsafe { std::slice::from_raw_parts(STACK.load(Relaxed), length) };
    into.bytes.clear();
    into.bytes.extend_from_slice(copied);
    into.start = SP.load(Relaxed);
    let sample = Sample {
        registers: Registers {
            pc: PC.load(Relaxed),
            sp: SP.load(Relaxed),
            fp: Some(FP.load(Relaxed)),
            lr: LR.load(Relaxed),
        },
        task: TASK.load(Relaxed),
    };
    STATE.store(0, Release);
    sample
}

fn wait(generation: u64, into: &mut StackCopy) -> Answer {
    let start = Instant::now();
    loop {
        // Acquire: pairs with the handler's last release.
        if STATE.load(Acquire) == generation << 2 | DONE {
            return Answer::Copied(copied(into));
        }
        let waited = start.elapsed();
        if waited > PATIENCE {
            return Answer::Late(Request(generation));
        }
        if waited < SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(NAP);
        }
    }
}

/// Puts our handler in place, unless somebody else's is there.
///
/// It is never taken away: a signal that is still on its way would kill.
fn install(signal: c_int) -> Result<(), NoCopy> {
    // SAFETY: an all-zero sigaction is a valid one; the kernel fills it.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: only reads the present action into `current`.
    if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut current) } != 0 {
        return Err(NoCopy::NotPermitted);
    }
    let ours = handle as *const () as usize;
    if current.sa_sigaction == ours {
        return Ok(());
    }
    if current.sa_sigaction != libc::SIG_DFL && current.sa_sigaction != libc::SIG_IGN {
        return Err(NoCopy::HandlerTaken);
    }
    // SAFETY: as above.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ours;
    // RESTART: should the thread block after all before the signal comes, most
    // calls go on. ONSTACK: not every thread's stack has room.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: `handle` has the signature that SA_SIGINFO asks for and keeps to
    // what is async-signal-safe, see there.
    match unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(NoCopy::NotPermitted),
    }
}

/// Sends the signal to one thread, with the generation of the request.
fn send(signal: c_int, tid: i32, generation: u64) -> bool {
    /// `siginfo_t` as far as the kernel reads it for a queued signal (sigaction(2)).
    #[repr(C)]
    struct Queued {
        signal: c_int,
        errno: c_int,
        code: c_int,
        pad: c_int,
        pid: libc::pid_t,
        uid: libc::uid_t,
        value: u64,
        rest: [u8; 96],
    }
    const { assert!(size_of::<Queued>() == size_of::<libc::siginfo_t>()) };
    // SAFETY: neither call has preconditions.
    let (pid, uid) = unsafe { (libc::getpid(), libc::getuid()) };
    let info = Queued {
        signal,
        errno: 0,
        code: libc::SI_QUEUE,
        pad: 0,
        pid,
        uid,
        value: generation,
        rest: [0; 96],
    };
    // SAFETY: `info` is as large as the kernel's siginfo_t and lives through the call.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            pid,
            tid,
            signal,
            &raw const info,
        )
    };
    sent == 0
}

/// The handler. Async-signal-safe: atomics, and system calls that neither block
/// nor allocate. Keeps errno.
extern "C" fn handle(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo_t to an SA_SIGINFO handler; for
    // a queued signal its value is set. Others have another code.
    let (code, generation) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr as u64) };
    // SAFETY: no preconditions.
    let tid = unsafe { libc::gettid() };
    let requested = STATE.load(Acquire);
    let claimed = requested & !STEP | CLAIMED;
    // Should the target be that of a later request, the exchange fails: no two have the
    // same generation.
    if code != libc::SI_QUEUE
        || generation == 0
        || requested & STEP != REQUESTED
        || TARGET.load(Relaxed) != tid
        || STATE
            .compare_exchange(requested, claimed, AcqRel, Acquire)
            .is_err()
    {
        return;
    }
    // SAFETY: errno is a thread-local of this thread.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel passes the interrupted context as a ucontext_t.
    let registers = registers_of(unsafe { &*context.cast::<libc::ucontext_t>() });
    PC.store(registers.pc, Relaxed);
    SP.store(registers.sp, Relaxed);
    FP.store(registers.fp.unwrap_or(0), Relaxed);
    LR.store(registers.lr, Relaxed);
    let sp = usize::try_from(registers.sp).unwrap_or(0);
    let length = WANTED.load(Relaxed).saturating_sub(sp).min(BUFFER);
    // SAFETY: the buffer is ours alone while the request is claimed.
    let copied = unsafe { read_memory(sp, STACK.load(Relaxed), length) };
    if WANTS_TASK.load(Relaxed) {
        // Reads one word of tokio's thread-local state (1.54, `runtime/context.rs`,
        // `current_task_id`), which it writes in one. What that would do the first
        // time on a thread, it has done when the thread asked which worker it is.
        TASK.store(local::task_id(), Relaxed);
    }
    COPIED.store(copied, Relaxed);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    STATE.store(claimed & !STEP | DONE, Release);
}

/// Copies memory of this process by way of the kernel, which stops where none is mapped.
///
/// # Safety
/// `to` must be valid for writes of `length` bytes.
pub(crate) unsafe fn read_memory(from: usize, to: *mut u8, length: usize) -> usize {
    let local = libc::iovec {
        iov_base: to.cast(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: from as *mut c_void,
        iov_len: length,
    };
    // SAFETY: both vectors live through the call; the kernel checks `from` and
    // the caller vouches for `to`.
    let read = unsafe {
        let pid = libc::getpid();
        libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0)
    };
    usize::try_from(read).unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
fn registers_of(context: &libc::ucontext_t) -> Registers {
    let register = |index: c_int| {
        let index = usize::try_from(index).unwrap_or(0);
        context
            .uc_mcontext
            .gregs
            .get(index)
            .map_or(0, |value| *value as u64)
    };
    Registers {
        pc: register(libc::REG_RIP),
        sp: register(libc::REG_RSP),
        fp: Some(register(libc::REG_RBP)),
        lr: 0,
    }
}

#[cfg(target_arch = "aarch64")]
fn registers_of(context: &libc::ucontext_t) -> Registers {
    let [.., fp, lr] = context.uc_mcontext.regs;
    Registers {
        pc: context.uc_mcontext.pc,
        sp: context.uc_mcontext.sp,
        fp: Some(fp),
        lr,
    }
}
