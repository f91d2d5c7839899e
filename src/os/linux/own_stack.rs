//! Where a thread's stack lies, and whether a signal's handler has room on the thread.
//!
//! A handler runs on the thread's alternate stack where there is one (`SA_ONSTACK`),
//! else on the thread's stack. `SA_ONSTACK` is one choice for all threads of the process.
//! It is made because a thread may run on a stack that is not its own and has no room to
//! spare: a coroutine's, or a goroutine's, for whose sake the Go runtime demands
//! `SA_ONSTACK` of every handler (os/signal, "Non-Go programs that call Go code").
//! Without `SA_ONSTACK` a thread near the end of its stack would be killed as well.
//!
//! The price: an alternate stack without room for our handler kills the process. So each
//! thread notes its own when it registers, and a thread without room is never signalled.
//! A change of the alternate stack after that is not noticed: a program that changes it
//! within a watched poll must leave room for the handler.
//!
//! What a handler needs, in bytes:
//! - the signal's frame, see [`super::frame`]: some 1 KiB without AVX, 3.3 KiB with
//!   AVX-512, 3.7 KiB with AMX, 11.7 KiB once the process may use AMX;
//! - the handler's own frames: [`HANDLER`], measured by a test.
//!
//! std gives its threads 8 KiB, or `AT_MINSIGSTKSZ` if that is more (1.95,
//! `sys/pal/unix/stack_overflow.rs`). In a process that may use AMX that is the frame
//! alone, and such threads are signalled only if they have a larger alternate stack.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicI32, AtomicUsize, fence};

use crate::local;
use crate::os::Miss;
use crate::os::platform::frame::frame;
use crate::os::platform::thread::thread_id;

/// What the handler's own frames take: 1.2 to 1.6 KiB in a debug build, by how it is cut into
/// units (`incremental`). The test `the_handler_keeps_within_its_bytes` holds it.
pub(crate) const HANDLER: usize = 2048;
/// A stack without an alternate one must be so large: the handler then comes on top of
/// whatever the thread has there.
const LEAST_STACK: usize = 64 * 1024;

/// No bounds are known.
const UNKNOWN: usize = 0;

/// Where the stack of one thread lies. Written by that thread alone.
///
/// `owner` is 0 while the rest is written: who reads the same owner before and after the
/// rest has read what belongs together.
#[derive(Debug)]
pub(crate) struct OwnStack {
    owner: AtomicI32,
    low: AtomicUsize,
    high: AtomicUsize,
    /// The size of the alternate stack; 0 for none.
    alternate: AtomicUsize,
}

/// What is known of one thread's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) bounds: Range<usize>,
    alternate: usize,
}

impl OwnStack {
    pub(crate) const fn new() -> Self {
        OwnStack {
            owner: AtomicI32::new(0),
            low: AtomicUsize::new(UNKNOWN),
            high: AtomicUsize::new(UNKNOWN),
            alternate: AtomicUsize::new(0),
        }
    }

    /// Takes down where the stack of the calling thread lies.
    ///
    /// Takes 1 us, 15 us the first time in a process. Allocates: the C library's
    /// `pthread_getattr_np` does, which std calls as well when it starts a thread. That
    /// of the main thread would read `/proc/self/maps`, and is not asked.
    pub(crate) fn note(&self) {
        let bounds = bounds_here().unwrap_or(UNKNOWN..UNKNOWN);
        // The handler asks for it. The first time on a thread this registers a destructor,
        // which a handler must not.
        local::task_id();
        // Release, as well as each store below: pairs with the acquire loads in `known`.
        // Who reads one of the new values sees this 0, or what came after it.
        self.owner.store(0, Release);
        self.low.store(bounds.start, Release);
        self.high.store(bounds.end, Release);
        self.alternate.store(alternate_here(), Release);
        self.owner.store(thread_id(), Release);
    }

    /// As if another thread had noted it.
    #[cfg(test)]
    pub(crate) fn set_owner(&self, tid: i32) {
        self.owner.store(tid, Release);
    }

    /// Where the stack of this thread lies, if it is the thread that has noted it last.
    pub(crate) fn known(&self, tid: i32) -> Option<Known> {
        // Acquire: pairs with the last release in `note`, so that the rest is as new.
        if self.owner.load(Acquire) != tid {
            return None;
        }
        let known = Known {
            bounds: self.low.load(Acquire)..self.high.load(Acquire),
            alternate: self.alternate.load(Acquire),
        };
        fence(Acquire);
        // Relaxed: the acquire loads and the fence order it after them.
        let same = self.owner.load(Relaxed) == tid;
        (same && known.bounds.start != UNKNOWN).then_some(known)
    }
}

impl Known {
    /// Why the thread cannot be sent a signal, if so.
    pub(crate) fn room(&self) -> Result<(), Miss> {
        let has_room = if self.alternate > 0 {
            self.alternate >= frame() + HANDLER
        } else {
            self.bounds.len() >= LEAST_STACK
        };
        if has_room { Ok(()) } else { Err(Miss::NoRoom) }
    }
}

/// The size of the alternate stack of the calling thread; 0 for none.
fn alternate_here() -> usize {
    let mut now = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: nothing is set, and the kernel fills what `now` points at unless it fails.
    let now = unsafe {
        if libc::sigaltstack(std::ptr::null(), now.as_mut_ptr()) != 0 {
            return 0;
        }
        now.assume_init()
    };
    size_of_alternate(&now)
}

pub(crate) const fn size_of_alternate(stack: &libc::stack_t) -> usize {
    if stack.ss_flags & libc::SS_DISABLE != 0 {
        0
    } else {
        stack.ss_size
    }
}

/// Where the stack of the calling thread lies, if that can be found out.
fn bounds_here() -> Option<Range<usize>> {
    // SAFETY: no preconditions.
    let is_main = unsafe { libc::getpid() } == thread_id();
    let bounds = if is_main { of_main() } else { of_other() }?;
    // Not where the thread has been given another stack, or was forked on one.
    let here = std::ptr::from_ref(&bounds).addr();
    bounds.contains(&here).then_some(bounds)
}

/// The name that the program was run under is the highest thing on the main thread's
/// stack (kernel 6.18, `fs/exec.c`, `bprm_execve` and before); getauxval(3) has its address.
/// Below, the stack may grow to its limit.
fn of_main() -> Option<Range<usize>> {
    /// The kernel keeps mappings so far away at least (`arch/x86/mm/mmap.c`, `mmap_base`),
    /// whatever the limit.
    const LEAST_GAP: usize = 128 * 1024 * 1024;
    // SAFETY: no preconditions; 0 where the kernel does not say.
    let top = usize::try_from(unsafe { libc::getauxval(libc::AT_EXECFN) }).ok()?;
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the kernel to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) } != 0 {
        return None;
    }
    let size = usize::try_from(limit.rlim_cur).unwrap_or(LEAST_GAP);
    // Whole words, so that the last of them is within.
    let top = top & !(size_of::<u64>() - 1);
    Some(top.checked_sub(size.min(LEAST_GAP))?..top)
}

fn of_other() -> Option<Range<usize>> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: `pthread_getattr_np` fills the attributes of a live thread, this one, unless
    // it fails; what it has filled is read once and destroyed once.
    let found = unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
            return None;
        }
        let found =
            libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut size) == 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        found
    };
    let start = start.addr();
    found.then(|| start..start.saturating_add(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted() -> Known {
        let stack = OwnStack::new();
        stack.note();
        assert_eq!(stack.known(thread_id() + 1), None, "another thread's");
        stack.known(thread_id()).unwrap()
    }

    #[test]
    fn a_thread_knows_its_stack() {
        let builder = std::thread::Builder::new().stack_size(200 * 1024);
        let known = builder.spawn(noted).unwrap().join().unwrap();
        let size = known.bounds.len();
        assert!((200 * 1024..300 * 1024).contains(&size), "{size}");
        assert!(known.alternate >= 8 * 1024, "std gives it one");
        assert_eq!(known.room(), Ok(()));
    }

    #[test]
    fn the_main_threads_stack_is_where_the_kernel_says() {
        let top = of_main().unwrap();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let mut ends = line.split([' ', '-']);
        let mut address = || usize::from_str_radix(ends.next().unwrap(), 16).unwrap();
        let (start, end) = (address(), address());
        assert!(start < top.end && top.end <= end, "{top:x?} {line}");
        assert!(end - top.end <= 4096, "the highest thing: {top:x?} {line}");
    }

    #[test]
    fn small_stacks_have_no_room() {
        let with = |size: usize, alternate| Known {
            bounds: 4096..4096 + size,
            alternate,
        };
        assert_eq!(with(8 << 20, 2048).room(), Err(Miss::NoRoom));
        assert_eq!(with(8 << 20, frame() + HANDLER).room(), Ok(()));
        assert_eq!(with(16 << 10, 0).room(), Err(Miss::NoRoom));
        assert_eq!(with(32 << 10, 0).room(), Err(Miss::NoRoom));
        assert_eq!(
            with(16 << 10, 8 << 10).room(),
            Ok(()),
            "it runs on the other"
        );
        assert_eq!(with(128 << 10, 0).room(), Ok(()), "musl's threads");
    }
}
