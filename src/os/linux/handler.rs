//! The signal handler: copies the registers and the stack of the thread that it interrupts.
//!
//! All signals are masked while it runs. Another handler that came in between would need
//! room on the same alternate stack, for its frame and for whatever it does: a profiler's
//! unwinds, and std's alternate stacks have 8 KiB. The handler takes microseconds, for
//! which a signal of another can wait. `SA_ONSTACK`: see [`super::own_stack`].
//!
//! It makes no system call but `gettid`, which does not wait.

use std::ffi::{c_int, c_long, c_void};

use crate::clock;
use crate::local;
use crate::os::Miss;
use crate::os::platform::request;
use crate::os::platform::unwind::Registers;

/// Puts the handler in place, unless the program has one of its own there.
///
/// It is never taken away: a signal that is still on its way would kill.
pub(crate) fn install(signal: c_int) -> Result<(), Miss> {
    let taken = |action: &libc::sigaction| {
        let (handler, ours) = (action.sa_sigaction, ours());
        handler != ours && handler != libc::SIG_DFL && handler != libc::SIG_IGN
    };
    // Looked at first: a handler of the program's is not to be gone for an instant.
    let now = exchange(signal, None)?;
    if taken(&now) {
        return Err(Miss::HandlerTaken);
    }
    if now.sa_sigaction == ours() {
        return Ok(());
    }
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = ours();
    // RESTART: where signals are directed, a thread may have blocked meanwhile; most
    // calls then go on.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
    // SAFETY: the mask is a valid place to write to.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    let before = exchange(signal, Some(&action))?;
    if taken(&before) {
        // The program has installed one between the two calls: it stays.
        exchange(signal, Some(&before))?;
        return Err(Miss::HandlerTaken);
    }
    Ok(())
}

fn ours() -> usize {
    handle as *const () as usize
}

/// Sets a signal's action, or only looks; the action until then.
fn exchange(signal: c_int, action: Option<&libc::sigaction>) -> Result<libc::sigaction, Miss> {
    // SAFETY: an all-zero sigaction is a valid one; the kernel fills it.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    let action = action.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `action` is null, a copy of what the kernel gave, or our handler, which has
    // the signature that SA_SIGINFO asks for and is async-signal-safe, see there.
    match unsafe { libc::sigaction(signal, action, &raw mut before) } {
        0 => Ok(before),
        _ => Err(Miss::NotPermitted),
    }
}

/// By what a signal is known to be ours.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// The number of a request.
    Number(u64),
    /// The file by way of which it was sent.
    File(c_int),
}

/// The code of a signal that something has arrived (`include/uapi/asm-generic/siginfo.h`).
const POLL_IN: c_int = 1;

/// `siginfo_t` as the kernel fills it then.
#[repr(C)]
struct Informed {
    signal: c_int,
    errno: c_int,
    code: c_int,
    band: c_long,
    file: c_int,
}

/// Async-signal-safe: atomics, reads of the thread's own stack and of its clock, and
/// `gettid`. Keeps errno.
extern "C" fn handle(_signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo_t to an SA_SIGINFO handler. Its value and
    // its file are read only where the code says that there is one.
    let sign = unsafe {
        match (*info).si_code {
            libc::SI_TIMER | libc::SI_QUEUE => {
                Sign::Number((*info).si_value().sival_ptr.addr() as u64)
            }
            POLL_IN => Sign::File((*info.cast::<Informed>()).file),
            _ => return,
        }
    };
    // SAFETY: errno is a thread-local of this thread.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: no preconditions.
    let tid = unsafe { libc::gettid() };
    let claim = match sign {
        Sign::Number(number) => request::claim(number, tid),
        Sign::File(file) => request::claim_by(file, tid),
    };
    if let Some(claim) = claim {
        // SAFETY: the kernel passes the interrupted context as a ucontext_t.
        claim.copy(&registers_of(unsafe {
            &*context.cast::<libc::ucontext_t>()
        }));
        // Reads one word of tokio's thread-local state (1.49 to 1.54, `runtime/context.rs`,
        // `current_task_id`), which tokio writes in one. What that would do the first time
        // on a thread has been done when the thread asked which runtime it is in.
        claim.done(local::task_id(), clock::ticks());
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
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
        kept: [
            libc::REG_RBX,
            libc::REG_RBP,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ]
        .map(|index| Some(register(index))),
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
        kept: [None; 6],
    }
}
