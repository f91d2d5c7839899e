//! Sends a signal to one thread, at once.
//!
//! # By a system call
//! `rt_tgsigqueueinfo`, which carries the number of the request.
//!
//! # By a socket
//! Under a filter of system calls that one may be what the filter kills for, like
//! `timer_create`, and a try would kill. Filters look at the numbers of system calls. So
//! these are made, which the program has made itself before: `socketpair`, `fcntl`, `write`
//! and `close`. Of what arrives at a socket with `O_ASYNC`, the kernel informs its owner by
//! a signal that can be chosen (`F_SETSIG`), and the owner can be a single thread
//! (`F_SETOWN_EX` with `F_OWNER_TID`; since 2.6.32, fcntl(2)). All of that is the work of
//! the `write`, which returns when the signal is pending (`fs/fcntl.c`, `send_sigio`).
//!
//! `fcntl` is called by std and by tokio, and no filter that we know of looks at which of
//! its commands: Docker's default profile permits it whatever its arguments, and systemd
//! has it in `@file-system`, with `openat`. `socketpair` is in systemd's `@network-io`,
//! which a service without a network can be denied. So it is called only in a process that
//! has a socket of its own, as each tokio runtime has that handles signals.
//!
//! - The owner is kept as the thread itself and not as its number: nothing is sent for one
//!   that has ended. That the number has been of that thread is seen after it was set.
//! - If the signal cannot be queued, the kernel sends SIGIO instead, which ends the
//!   program. A signal below SIGRTMIN cannot fail to be queued, and no other is sent so;
//!   and `F_GETSIG` must give it back before `O_ASYNC` is set.
//! - The pair is made for one signal and closed after it. A program that closes files that
//!   are not its own, and a child that is forked meanwhile, find nothing of it later. The
//!   side that has `O_ASYNC` is closed first, as the other's end would send one more.
//! - The kernel says which file it was (`si_code` `POLL_IN`, `si_fd`), and no number. So
//!   the handler looks for a request to its thread by way of that file.

use std::ffi::c_int;
use std::io::{Error, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::os::Miss;
use crate::os::platform::request::Request;

/// As the kernel has them on x86 and arm (`include/uapi/asm-generic/fcntl.h`).
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;
const F_SETOWN_EX: c_int = 15;
const F_OWNER_TID: c_int = 0;
/// The first of those that can fail to be queued; the C library's own come first.
const FIRST_REAL_TIME: c_int = 32;
/// Where sockets of the program are looked for. The first three are its surroundings':
/// systemd gives a socket of the journal's.
const LOOKED_AT: std::ops::Range<c_int> = 3..256;

/// By the system call for it.
pub(crate) fn by_call(signal: c_int, tid: i32, request: &Request) -> Result<(), Miss> {
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
        value: request.number(),
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
    if sent == 0 {
        return Ok(());
    }
    match Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Err(Miss::SignalLimit),
        Some(libc::ESRCH) => Err(Miss::Gone),
        _ => Err(Miss::NotPermitted),
    }
}

/// Whether the program makes sockets, so that a filter permits that. Found out until it
/// has: 0.1 ms.
pub(crate) fn may_use_sockets() -> bool {
    static MAY: AtomicBool = AtomicBool::new(false);
    // Relaxed: whoever finds out, finds the same.
    if !MAY.load(Relaxed) && LOOKED_AT.clone().any(is_socket) {
        MAY.store(true, Relaxed);
    }
    MAY.load(Relaxed)
}

fn is_socket(fd: c_int) -> bool {
    // SAFETY: all-zero is a valid `stat`, which is all numbers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes to `stat`, which lives through the call, and fails for
    // what is not open.
    let known = unsafe { libc::fstat(fd, &raw mut stat) } == 0;
    known && stat.st_mode & libc::S_IFMT == libc::S_IFSOCK
}

/// By a socket, if the thread is the one that is meant, and still to be asked: `is_it` is
/// called when nothing is left to do but to send.
pub(crate) fn by_socket(
    signal: c_int,
    tid: i32,
    request: &Request,
    is_it: impl Fn() -> bool,
) -> Result<(), Miss> {
    if signal >= FIRST_REAL_TIME {
        return Err(Miss::Filtered);
    }
    // Dropped from the last to the first, whichever way this is left.
    let (mut other, informs) = UnixStream::pair().map_err(|error| Miss::from_open(&error))?;
    let owner = [F_OWNER_TID, tid];
    let fd = informs.as_raw_fd();
    // SAFETY: the socket is open, and these commands take and give a number.
    let is_set =
        unsafe { libc::fcntl(fd, F_SETSIG, signal) == 0 && libc::fcntl(fd, F_GETSIG) == signal };
    if !is_set {
        return Err(Miss::NotPermitted);
    }
    // SAFETY: the kernel reads a `struct f_owner_ex`, two numbers, which live through the
    // call.
    if unsafe { libc::fcntl(fd, F_SETOWN_EX, owner.as_ptr()) } != 0 {
        return match Error::last_os_error().raw_os_error() {
            Some(libc::ESRCH) => Err(Miss::Gone),
            _ => Err(Miss::NotPermitted),
        };
    }
    // SAFETY: the command takes flags; the others of this socket stay off.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC) } != 0 {
        return Err(Miss::NotPermitted);
    }
    request.expect_by(fd);
    if !is_it() {
        return Err(Miss::Queued);
    }
    other.write_all(&[0]).map_err(|_| Miss::NotPermitted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::DEFAULT_SIGNAL;
    use crate::os::platform::capture::tests::of_this_thread;
    use crate::os::platform::handler;
    use crate::os::platform::request::{Answer, Want};
    use crate::os::platform::unwind::StackCopy;
    use std::sync::{Arc, mpsc};
    use std::thread::JoinHandle;
    use std::time::{Duration, Instant};

    struct Spinning {
        over: Arc<AtomicBool>,
        thread: Option<JoinHandle<()>>,
        request: Request,
        tid: i32,
    }

    impl Spinning {
        fn new() -> Self {
            handler::install(DEFAULT_SIGNAL).unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let until = Arc::clone(&over);
            let (send, receive) = mpsc::channel();
            let thread = std::thread::spawn(move || {
                send.send(of_this_thread()).unwrap();
                while !until.load(Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let (tid, stack) = receive.recv().unwrap();
            let want = Want {
                tid,
                bounds: stack.known(tid).unwrap().bounds,
                up_to: usize::MAX,
                room: 0,
            };
            // Other tests take entries, too.
            let request = std::iter::repeat_with(|| Request::new(&want)).find_map(Result::ok);
            Spinning {
                over,
                thread: Some(thread),
                request: request.unwrap(),
                tid,
            }
        }

        fn send(&self, is_it: impl Fn() -> bool) -> Result<(), Miss> {
            by_socket(DEFAULT_SIGNAL, self.tid, &self.request, is_it)
        }

        fn end(&mut self) {
            self.over.store(true, Relaxed);
            if let Some(thread) = self.thread.take() {
                thread.join().unwrap();
            }
        }
    }

    impl Drop for Spinning {
        fn drop(&mut self) {
            self.end();
        }
    }

    #[test]
    fn a_signal_by_a_socket_is_answered_by_its_thread() {
        let thread = Spinning::new();
        assert_eq!(thread.send(|| false), Err(Miss::Queued));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!thread.request.is_answered(), "not sent");
        assert_eq!(thread.send(|| true), Ok(()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !thread.request.is_answered() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut copy = StackCopy::default();
        let answer = thread.request.answer(&mut copy);
        assert!(matches!(answer, Answer::Copied(_)), "{answer:?}");
    }

    #[test]
    fn what_is_not_sent_interrupts_no_call() {
        handler::install(DEFAULT_SIGNAL).unwrap();
        let request = Spinning::new();
        let (send, receive) = mpsc::channel();
        let waits = std::thread::spawn(move || {
            send.send(of_this_thread().0).unwrap();
            let time = libc::timespec {
                tv_sec: 1,
                tv_nsec: 0,
            };
            // SAFETY: `time` lives through the call, and nobody wants what is left of it.
            unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) }
        });
        let tid = receive.recv().unwrap();
        while call_of(tid) != Some(libc::SYS_clock_nanosleep) {
            std::thread::yield_now();
        }
        let sent = by_socket(DEFAULT_SIGNAL, tid, &request.request, || false);
        assert_eq!(sent, Err(Miss::Queued));
        assert_eq!(waits.join().unwrap(), 0, "it has slept to the end");
    }

    /// The system call that a thread is in.
    fn call_of(tid: i32) -> Option<libc::c_long> {
        let call = std::fs::read_to_string(format!("/proc/self/task/{tid}/syscall")).ok()?;
        call.split(' ').next()?.parse().ok()
    }

    #[test]
    fn a_socket_of_the_program_is_seen() {
        let _pair = UnixStream::pair().unwrap();
        assert!(may_use_sockets());
        assert!(!is_socket(-1));
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(!is_socket(file.as_raw_fd()));
    }

    #[test]
    fn nothing_is_sent_to_a_thread_that_has_ended() {
        let mut thread = Spinning::new();
        let (request, tid) = (Spinning::new(), thread.tid);
        let ends = std::cell::RefCell::new(&mut thread);
        // SIGIO would end this process.
        let sent = by_socket(DEFAULT_SIGNAL, tid, &request.request, || {
            ends.borrow_mut().end();
            true
        });
        assert_eq!(sent, Ok(()));
        let sent = by_socket(DEFAULT_SIGNAL, tid, &request.request, || true);
        assert_eq!(sent, Err(Miss::Gone));
    }

    #[test]
    fn what_could_end_the_program_is_not_sent() {
        let thread = Spinning::new();
        for signal in [FIRST_REAL_TIME, libc::SIGRTMIN(), libc::SIGRTMAX()] {
            let sent = by_socket(signal, thread.tid, &thread.request, || unreachable!());
            assert_eq!(sent, Err(Miss::Filtered));
        }
    }
}
