//! A capture cuts no system call short: threads that compute and wait in turns get no EINTR.
//!
//! All that a capture does to a thread, as often as it can be done to one.
//!
//! Each call is one that a signal with a handler interrupts, whatever `SA_RESTART` says
//! (signal(7), "Interruption of system calls"). `scripts/eintr.sh` runs the long version.

use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::os::platform::capture::tests::of_this_thread;
use crate::os::platform::computing::Computing;
use crate::os::platform::request::{Answer, Request, Want};
use crate::os::platform::signal::{self, Means};
use crate::os::platform::thread::ThreadProbe;
use crate::os::platform::unwind::StackCopy;
use crate::os::{DEFAULT_SIGNAL, Importance};

/// How long each call waits.
static WAITS: libc::timespec = libc::timespec {
    tv_sec: 0,
    tv_nsec: 60_000,
};
/// How long a thread computes before it: for a timer's signal; and for one that is sent at
/// once, which is not sent to threads that compute as shortly.
const COMPUTES: Duration = Duration::from_micros(200);
const COMPUTES_LONG: Duration = Duration::from_millis(10);

/// By timers, and as under a filter of system calls.
const TIMERS: Means = Means {
    signal: DEFAULT_SIGNAL,
    is_filtered: false,
};
const SOCKETS: Means = Means {
    is_filtered: true,
    ..TIMERS
};

/// What the calls wait for, which never comes.
struct Nothing {
    epoll: OwnedFd,
    /// Two sockets with timeouts to receive and to send, and one that listens.
    quiet: OwnedFd,
    full: OwnedFd,
    listens: OwnedFd,
    queue: libc::c_int,
    semaphore: libc::c_int,
    aio: u64,
    /// The other ends.
    _others: [OwnedFd; 2],
}

fn owned(fd: libc::c_int) -> OwnedFd {
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn set_timeout(socket: &OwnedFd, which: libc::c_int) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: 60,
    };
    // SAFETY: the option is a timeval, which lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            which,
            (&raw const time).cast(),
            size_of::<libc::timeval>() as u32,
        )
    };
    assert_eq!(set, 0);
}

fn pair() -> [OwnedFd; 2] {
    let mut fds = [0; 2];
    // SAFETY: two descriptors are written.
    let made = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, fds.as_mut_ptr()) };
    assert_eq!(made, 0);
    fds.map(owned)
}

impl Nothing {
    fn new() -> Self {
        let [quiet, other] = pair();
        let [full, reader] = pair();
        set_timeout(&quiet, libc::SO_RCVTIMEO);
        set_timeout(&full, libc::SO_SNDTIMEO);
        let listens = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = OwnedFd::from(listens);
        set_timeout(&listens, libc::SO_RCVTIMEO);
        let bytes = [0_u8; 4096];
        let mut aio = 0_u64;
        // SAFETY: each call is given what its manual asks for.
        let (epoll, queue, semaphore) = unsafe {
            let flags = libc::MSG_DONTWAIT;
            while libc::send(full.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) > 0 {}
            libc::syscall(libc::SYS_io_setup, 1, &raw mut aio);
            (
                owned(libc::epoll_create1(0)),
                libc::msgget(libc::IPC_PRIVATE, 0o600),
                libc::semget(libc::IPC_PRIVATE, 1, 0o600),
            )
        };
        Nothing {
            epoll,
            quiet,
            full,
            listens,
            queue,
            semaphore,
            aio,
            _others: [other, reader],
        }
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        // SAFETY: these are this one's, and are removed once.
        unsafe {
            libc::msgctl(self.queue, libc::IPC_RMID, std::ptr::null_mut());
            libc::semctl(self.semaphore, 0, libc::IPC_RMID);
            libc::syscall(libc::SYS_io_destroy, self.aio);
        }
    }
}

type Call = (&'static str, fn(&Nothing) -> i64);

fn futex(operation: libc::c_int) -> i64 {
    let word = 0_u32;
    let mask = u32::MAX;
    let mut until = WAITS;
    if operation == libc::FUTEX_WAIT_BITSET {
        // SAFETY: a valid place to write to.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut until) };
        until.tv_nsec += WAITS.tv_nsec;
        if until.tv_nsec >= 1_000_000_000 {
            until.tv_sec += 1;
            until.tv_nsec -= 1_000_000_000;
        }
    }
    // SAFETY: the word and the time live through the call; nobody wakes it.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            &raw const word,
            operation | libc::FUTEX_PRIVATE_FLAG,
            0,
            &raw const until,
            std::ptr::null::<u32>(),
            mask,
        )
    }
}

/// Returns what the C library's or the kernel's function does: -1 and errno.
// SAFETY of each: pointers are to locals that live through the call, or null where the
// manual allows it; descriptors are open.
#[allow(clippy::undocumented_unsafe_blocks)]
const CALLS: &[Call] = &[
    ("nanosleep", |_| unsafe {
        libc::nanosleep(&raw const WAITS, std::ptr::null_mut()).into()
    }),
    ("clock_nanosleep", |_| unsafe {
        let clock = libc::CLOCK_MONOTONIC;
        // Returns the error itself.
        -i64::from(libc::clock_nanosleep(
            clock,
            0,
            &raw const WAITS,
            std::ptr::null_mut(),
        ))
    }),
    ("poll", |nothing| unsafe {
        let mut fd = libc::pollfd {
            fd: nothing.quiet.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        libc::poll(&raw mut fd, 1, 1).into()
    }),
    ("ppoll", |_| unsafe {
        libc::ppoll(std::ptr::null_mut(), 0, &raw const WAITS, std::ptr::null()).into()
    }),
    ("select", |_| unsafe {
        let mut time = libc::timeval {
            tv_sec: 0,
            tv_usec: 60,
        };
        let null = std::ptr::null_mut();
        libc::select(0, null, null, null, &raw mut time).into()
    }),
    ("pselect", |_| unsafe {
        let null = std::ptr::null_mut();
        libc::pselect(0, null, null, null, &raw const WAITS, std::ptr::null()).into()
    }),
    ("epoll_wait", |nothing| unsafe {
        let mut event: libc::epoll_event = zeroed();
        libc::epoll_wait(nothing.epoll.as_raw_fd(), &raw mut event, 1, 1).into()
    }),
    ("epoll_pwait", |nothing| unsafe {
        let mut event: libc::epoll_event = zeroed();
        let fd = nothing.epoll.as_raw_fd();
        libc::epoll_pwait(fd, &raw mut event, 1, 1, std::ptr::null()).into()
    }),
    ("recv, SO_RCVTIMEO", |nothing| unsafe {
        let mut byte = 0_u8;
        libc::recv(nothing.quiet.as_raw_fd(), (&raw mut byte).cast(), 1, 0) as i64
    }),
    ("recvmsg, SO_RCVTIMEO", |nothing| unsafe {
        let mut message: libc::msghdr = zeroed();
        libc::recvmsg(nothing.quiet.as_raw_fd(), &raw mut message, 0) as i64
    }),
    ("send, SO_SNDTIMEO", |nothing| unsafe {
        let byte = 0_u8;
        libc::send(nothing.full.as_raw_fd(), (&raw const byte).cast(), 1, 0) as i64
    }),
    ("accept, SO_RCVTIMEO", |nothing| unsafe {
        let null = std::ptr::null_mut();
        libc::accept(nothing.listens.as_raw_fd(), null, null.cast()).into()
    }),
    ("connect, SO_SNDTIMEO", |_| unsafe {
        // Nobody accepts: the third of them waits.
        let [listener, first, second, third] =
            [0; 4].map(|_| owned(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)));
        let mut address: libc::sockaddr_un = zeroed();
        address.sun_family = libc::AF_UNIX as u16;
        let family = size_of::<libc::sa_family_t>() as u32;
        // A name that the kernel picks.
        libc::bind(listener.as_raw_fd(), (&raw const address).cast(), family);
        let mut length = size_of::<libc::sockaddr_un>() as u32;
        let fd = listener.as_raw_fd();
        libc::getsockname(fd, (&raw mut address).cast(), &raw mut length);
        libc::listen(listener.as_raw_fd(), 0);
        set_timeout(&third, libc::SO_SNDTIMEO);
        let connect = |socket: &OwnedFd| {
            libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length)
        };
        connect(&first);
        set_timeout(&second, libc::SO_SNDTIMEO);
        connect(&second);
        connect(&third).into()
    }),
    ("futex", |_| futex(libc::FUTEX_WAIT)),
    ("sem_timedwait", |_| futex(libc::FUTEX_WAIT_BITSET)),
    ("sigtimedwait", |_| unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&raw mut set, libc::SIGUSR2);
        libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const WAITS).into()
    }),
    ("semtimedop", |nothing| unsafe {
        let mut operation = libc::sembuf {
            sem_num: 0,
            sem_op: -1,
            sem_flg: 0,
        };
        let id = nothing.semaphore;
        libc::syscall(
            libc::SYS_semtimedop,
            id,
            &raw mut operation,
            1,
            &raw const WAITS,
        )
    }),
    ("io_getevents", |nothing| unsafe {
        let mut event = [0_u64; 4];
        let context = nothing.aio;
        let event = event.as_mut_ptr();
        libc::syscall(
            libc::SYS_io_getevents,
            context,
            1,
            1,
            event,
            &raw const WAITS,
        )
    }),
    ("msgrcv", |nothing| {
        // It has no timeout: another thread ends the wait with a message.
        let queue = nothing.queue;
        let sender = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(60));
            let message = [1_i64, 0];
            unsafe { libc::msgsnd(queue, (&raw const message).cast(), 8, 0) }
        });
        let mut message = [0_i64; 2];
        let got = unsafe { libc::msgrcv(queue, (&raw mut message).cast(), 8, 0, 0) };
        let error = std::io::Error::last_os_error();
        let _ = sender.join();
        if got < 0 && error.raw_os_error() == Some(libc::EINTR) {
            // Takes the message out, so that the next call waits.
            unsafe { libc::msgrcv(queue, (&raw mut message).cast(), 8, 0, libc::IPC_NOWAIT) };
            return -i64::from(libc::EINTR);
        }
        got as i64
    }),
];

fn was_interrupted(result: i64) -> bool {
    result == -i64::from(libc::EINTR)
        || result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR)
}

/// Threads that compute and wait in turns are captured so often, beside threads that spin.
/// How many calls there were, and how many of them were interrupted.
fn work(means: Means, wanted: usize, threads: usize, spinners: usize) -> (u64, u64) {
    let computes = if means.is_filtered {
        COMPUTES_LONG
    } else {
        COMPUTES
    };
    let over = Arc::new(AtomicBool::new(false));
    let (made, interrupted) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (send, receive) = mpsc::channel();
    let spins = (0..spinners).map(|_| {
        let over = Arc::clone(&over);
        std::thread::spawn(move || while !over.load(Relaxed) {})
    });
    let works = (0..threads).map(|number| {
        let (over, made, send) = (Arc::clone(&over), Arc::clone(&made), send.clone());
        let interrupted = Arc::clone(&interrupted);
        std::thread::spawn(move || {
            send.send(of_this_thread()).unwrap();
            let nothing = Nothing::new();
            for at in number.. {
                if over.load(Relaxed) {
                    break;
                }
                let (name, call) = CALLS[at % CALLS.len()];
                let start = Instant::now();
                while start.elapsed() < computes {
                    std::hint::spin_loop();
                }
                if was_interrupted(call(&nothing)) {
                    interrupted.fetch_add(1, Relaxed);
                    println!("{name} was interrupted");
                }
                made.fetch_add(1, Relaxed);
            }
        })
    });
    let all: Vec<_> = spins.chain(works).collect();
    let mut wants: Vec<(Want, ThreadProbe, Option<Request>)> = Vec::new();
    for (tid, stack) in receive.iter().take(threads) {
        let bounds = stack.known(tid).unwrap().bounds;
        let want = Want {
            tid,
            up_to: usize::MAX,
            bounds,
            room: 0,
        };
        let probe = ThreadProbe::open(tid, Importance::Other).unwrap();
        wants.push((want, probe, None));
    }
    let (mut counted, mut copy) = (0, StackCopy::default());
    let mut computing = Computing::default();
    while counted < wanted {
        for (want, probe, request) in &mut wants {
            if let Some(asked) = request {
                if let Answer::Late = asked.answer(&mut copy) {
                    continue;
                }
                counted += 1;
            }
            // Other tests take entries, too.
            *request = signal::ask(means, want, probe, &mut computing).ok();
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    over.store(true, Relaxed);
    drop(wants);
    for thread in all {
        thread.join().unwrap();
    }
    let (made, interrupted) = (made.load(Relaxed), interrupted.load(Relaxed));
    println!("{spinners} spinners: {counted} captures, {interrupted} EINTR in {made} calls");
    (made, interrupted)
}

#[test]
fn no_call_is_cut_short() {
    let (made, interrupted) = work(TIMERS, 100, 4, 0);
    assert!(made > 50 && interrupted == 0, "{interrupted} of {made}");
}

/// `scripts/eintr.sh`; `STALLSCOPE_CAPTURES` is how many.
#[test]
#[ignore = "takes minutes"]
fn no_call_is_cut_short_in_many() {
    let wanted = std::env::var("STALLSCOPE_CAPTURES").ok();
    let wanted = wanted.and_then(|wanted| wanted.parse().ok());
    let wanted = wanted.unwrap_or(100_000);
    for spinners in [0, 2] {
        let (_, interrupted) = work(TIMERS, wanted, 8, spinners);
        assert_eq!(interrupted, 0, "beside {spinners} spinners");
    }
}

/// What is left under a filter: a race with the next call of a thread that has computed
/// for long. `cargo test --lib -- --ignored --nocapture few_calls` counts.
#[test]
#[ignore = "takes minutes"]
fn few_calls_are_cut_short_by_sockets_in_many() {
    let wanted = std::env::var("STALLSCOPE_CAPTURES").ok();
    let wanted = wanted.and_then(|wanted| wanted.parse().ok());
    for spinners in [0, 2] {
        work(SOCKETS, wanted.unwrap_or(10_000), 2, spinners);
    }
}
