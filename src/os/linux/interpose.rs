//! The C library's blocking calls, as seen from within: for tests, behind a feature.
//!
//! A program that defines a function of the C library under its name has all of
//! its own code call that one, the standard library's included. Each of ours
//! calls the real one, which the dynamic linker finds; only within an audited
//! poll does it look at what it is called with, and note a call that blocks.
//!
//! What is noted:
//! - calls that block by what they are: opening and reading files, naming and marking
//!   them, `fsync`, DNS, sleeping, waiting for children; whether or not they had to wait this time;
//! - calls on descriptors, unless these are non-blocking, devices, or below
//!   `/proc` and `/sys`; nor writing to standard output and error;
//! - waiting for other threads (futex, pthread), if the thread slept for it. Not
//!   pthread's condition variables: `dlsym` may find their first version, which is
//!   another type; that the thread slept is counted all the same.
//!
//! The C library's calls of itself do not come by: `getaddrinfo` is one call, not
//! the dozens that it makes.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use std::time::Instant;

use libc::{gid_t, mode_t, off_t, off64_t, size_t, sockaddr, socklen_t, ssize_t, timespec, uid_t};

use crate::audit::{self, Call};
use crate::os::platform::file_calls::file_call;
use crate::os::platform::own::{sleeps, wait_ns};
use crate::os::platform::walk;

thread_local! {
    /// Ours is at work: what it calls is not the user's.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// A call in progress that may have to be noted.
struct Noting {
    name: &'static str,
    only_if_slept: bool,
    /// Of another task of a runtime that is audited as a whole.
    neighbours: bool,
    start: Instant,
    sleeps: u64,
    /// How long its thread had waited for a CPU before.
    wait_ns: u64,
}

/// `None` outside of audited polls, and for what does not block.
fn begin(name: &'static str, only_if_slept: bool, blocks: impl FnOnce() -> bool) -> Option<Noting> {
    // A panic's message is not the user's call.
    if std::thread::panicking() {
        return None;
    }
    let neighbours = !audit::calls_count();
    if neighbours && (is_parking(name) || !audit::neighbours_calls_count()) {
        return None;
    }
    // Where the thread is ending, nothing is audited any more.
    let nested = BUSY.try_with(|busy| busy.replace(true)).unwrap_or(true);
    if nested {
        return None;
    }
    if !keeping_errno(blocks) {
        idle();
        return None;
    }
    Some(Noting {
        name,
        only_if_slept,
        neighbours,
        start: Instant::now(),
        sleeps: sleeps(),
        wait_ns: waited(neighbours),
    })
}

/// Whether a worker without anything to do may be at it: tokio runs workers as
/// tasks, so that is not told apart from a task that does the same.
fn is_parking(name: &str) -> bool {
    name == "futex" || name == "epoll_wait"
}

/// How long this thread has waited for a CPU in all; of an audited poll that is measured
/// already.
fn waited(neighbours: bool) -> u64 {
    if neighbours { wait_ns() } else { 0 }
}

fn idle() {
    let _ = BUSY.try_with(|busy| busy.set(false));
}

impl Noting {
    #[inline(never)]
    fn end(self) {
        keeping_errno(|| {
            let sleeps = sleeps().saturating_sub(self.sleeps);
            if sleeps > 0 || !self.only_if_slept {
                let call = Call {
                    name: self.name,
                    wall_ns: crate::clock::ns_of(self.start.elapsed()),
                    addresses: walk::own_stack(),
                    wait_ns: waited(self.neighbours).saturating_sub(self.wait_ns),
                    sleeps,
                };
                if self.neighbours {
                    audit::note_neighbours_call(call);
                } else {
                    audit::note_call(call);
                }
            }
        });
        idle();
    }
}

fn keeping_errno<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: errno is a thread-local of this thread.
    let errno = unsafe { *libc::__errno_location() };
    let result = f();
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
    result
}

/// Functions with two versions, and the later one: before glibc 2.36 `dlsym` may find the
/// earlier (<https://sourceware.org/bugzilla/show_bug.cgi?id=14932>). `posix_spawn` of before
/// 2.15 runs a file that is no program by the shell.
#[cfg(target_env = "gnu")]
const LATER: [(&CStr, &CStr); 2] = [
    (c"posix_spawn", c"GLIBC_2.15"),
    (c"posix_spawnp", c"GLIBC_2.15"),
];

/// The later version of such a function; null for others, and where it is the only one.
#[cfg(target_env = "gnu")]
fn later_version(name: &'static CStr) -> *mut c_void {
    let version = LATER.iter().find(|(of, _)| *of == name);
    version.map_or(std::ptr::null_mut(), |(_, version)| {
        // SAFETY: both are C strings.
        unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), version.as_ptr()) }
    })
}

#[cfg(not(target_env = "gnu"))]
fn later_version(_name: &'static CStr) -> *mut c_void {
    std::ptr::null_mut()
}

/// The real function of this name.
fn real(name: &'static CStr, known: &AtomicPtr<c_void>) -> *mut c_void {
    let found = known.load(Relaxed);
    if !found.is_null() {
        return found;
    }
    let mut found = later_version(name);
    if found.is_null() {
        // SAFETY: the name is a C string; RTLD_NEXT finds the function that ours hides.
        found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    }
    if found.is_null() {
        // All of them are older than the oldest glibc that Rust runs on (2.17), so
        // this is not reached; and there is nothing to return that would be right.
        std::process::abort();
    }
    known.store(found, Relaxed);
    found
}

/// Whether using this descriptor may block.
fn may_block(fd: c_int) -> bool {
    // SAFETY: only asks for the descriptor's flags; a bad one gives an error.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 || flags & libc::O_NONBLOCK != 0 {
        return false;
    }
    // SAFETY: an all-zero stat is a valid one; the kernel fills it.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writes for the length of the call.
    if unsafe { libc::fstat64(fd, &raw mut stat) } != 0 {
        return false;
    }
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFCHR => false,
        libc::S_IFREG => !is_made_up(fd),
        _ => true,
    }
}

/// Whether a file is made up by the kernel as it is read.
fn is_made_up(fd: c_int) -> bool {
    const KERNELS: [i64; 5] = [
        libc::PROC_SUPER_MAGIC,
        0x6265_6572, // sysfs (kernel 6.18, include/uapi/linux/magic.h)
        libc::CGROUP_SUPER_MAGIC,
        libc::CGROUP2_SUPER_MAGIC,
        0x6462_6720, // debugfs
    ];
    // SAFETY: an all-zero statfs is a valid one; the kernel fills it.
    let mut stat: libc::statfs64 = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writes for the length of the call.
    let told = unsafe { libc::fstatfs64(fd, &raw mut stat) } == 0;
    told && KERNELS.contains(&(stat.f_type as i64))
}

/// Whether opening this path reads a disk.
fn is_on_disk(path: *const c_char) -> bool {
    if path.is_null() {
        return false;
    }
    // SAFETY: the caller of `open` vouches for a C string.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    !["/proc/", "/sys/", "/dev/"]
        .iter()
        .any(|made_up| path.starts_with(made_up.as_bytes()))
}

/// Whether data is written somewhere else than to standard output and error.
fn may_block_writing(fd: c_int) -> bool {
    fd != libc::STDOUT_FILENO && fd != libc::STDERR_FILENO && may_block(fd)
}

const fn waits(flags: c_int) -> bool {
    flags & libc::MSG_DONTWAIT == 0
}

macro_rules! calls {
    ($($(#[$only_if_slept:ident])? fn $name:ident($($arg:ident: $type:ty),*) -> $result:ty, if $blocks:expr;)*) => {
        $(
            /// As the C library's; see there.
            ///
            /// # Safety
            /// As the C library's.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) -> $result {
                static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
                const NAME: &str = stringify!($name);
                const C_NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => c"",
                };
                const ONLY_IF_SLEPT: bool = false $(|| only_if_slept(stringify!($only_if_slept)))?;
                let noting = begin(NAME, ONLY_IF_SLEPT, || $blocks);
                type Real = unsafe extern "C" fn($($type),*) -> $result;
                let real = real(C_NAME, &REAL);
                // SAFETY: the linker found it under this name, so it has this type.
                let real = unsafe { std::mem::transmute::<*mut c_void, Real>(real) };
                // SAFETY: passes on what the caller vouches for.
                let result = unsafe { real($($arg),*) };
                if let Some(noting) = noting {
                    noting.end();
                }
                result
            }
        )*
    };
}

const fn only_if_slept(_mark: &str) -> bool {
    true
}

calls! {
    // Files.
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, if is_on_disk(path);
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, if is_on_disk(path);
    fn openat(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, if is_on_disk(path);
    fn openat64(at: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, if is_on_disk(path);
    fn pread64(fd: c_int, to: *mut c_void, length: size_t, at: off64_t) -> ssize_t, if may_block(fd);
    fn pwrite64(fd: c_int, from: *const c_void, length: size_t, at: off64_t) -> ssize_t, if may_block(fd);
    fn pread(fd: c_int, to: *mut c_void, length: size_t, at: off_t) -> ssize_t, if may_block(fd);
    fn pwrite(fd: c_int, from: *const c_void, length: size_t, at: off_t) -> ssize_t, if may_block(fd);
    fn fsync(fd: c_int) -> c_int, if true;
    fn fdatasync(fd: c_int) -> c_int, if true;
    fn sync_file_range(fd: c_int, from: off64_t, length: off64_t, flags: c_uint) -> c_int, if true;
    fn ftruncate64(fd: c_int, length: off64_t) -> c_int, if may_block(fd);
    fn sendfile64(to: c_int, from: c_int, at: *mut off64_t, length: size_t) -> ssize_t, if may_block(from) || may_block(to);
    fn rename(from: *const c_char, to: *const c_char) -> c_int, if is_on_disk(from);
    fn unlink(path: *const c_char) -> c_int, if is_on_disk(path);
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    fn rmdir(path: *const c_char) -> c_int, if is_on_disk(path);
    fn opendir(path: *const c_char) -> *mut libc::DIR, if is_on_disk(path);
    fn truncate(path: *const c_char, length: off_t) -> c_int, if is_on_disk(path);
    fn truncate64(path: *const c_char, length: off64_t) -> c_int, if is_on_disk(path);
    fn ftruncate(fd: c_int, length: off_t) -> c_int, if may_block(fd);
    fn fallocate(fd: c_int, mode: c_int, from: off_t, length: off_t) -> c_int, if may_block(fd);
    fn fallocate64(fd: c_int, mode: c_int, from: off64_t, length: off64_t) -> c_int, if may_block(fd);
    fn posix_fallocate(fd: c_int, from: off_t, length: off_t) -> c_int, if may_block(fd);
    fn posix_fallocate64(fd: c_int, from: off64_t, length: off64_t) -> c_int, if may_block(fd);
    fn sync() -> (), if true;
    fn syncfs(fd: c_int) -> c_int, if true;
    fn preadv(fd: c_int, to: *const libc::iovec, count: c_int, at: off_t) -> ssize_t, if may_block(fd);
    fn preadv64(fd: c_int, to: *const libc::iovec, count: c_int, at: off64_t) -> ssize_t, if may_block(fd);
    fn pwritev(fd: c_int, from: *const libc::iovec, count: c_int, at: off_t) -> ssize_t, if may_block(fd);
    fn pwritev64(fd: c_int, from: *const libc::iovec, count: c_int, at: off64_t) -> ssize_t, if may_block(fd);
    fn creat(path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    fn creat64(path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    // Names of files, and what is known of them.
    fn renameat(from_at: c_int, from: *const c_char, to_at: c_int, to: *const c_char) -> c_int, if is_on_disk(from);
    fn unlinkat(at: c_int, path: *const c_char, flags: c_int) -> c_int, if is_on_disk(path);
    fn mkdirat(at: c_int, path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    fn mkfifo(path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    fn mkfifoat(at: c_int, path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    fn link(from: *const c_char, to: *const c_char) -> c_int, if is_on_disk(from);
    fn linkat(from_at: c_int, from: *const c_char, to_at: c_int, to: *const c_char, flags: c_int) -> c_int, if is_on_disk(from);
    fn symlink(to: *const c_char, path: *const c_char) -> c_int, if is_on_disk(path);
    fn symlinkat(to: *const c_char, at: c_int, path: *const c_char) -> c_int, if is_on_disk(path);
    fn chmod(path: *const c_char, mode: mode_t) -> c_int, if is_on_disk(path);
    fn fchmod(fd: c_int, mode: mode_t) -> c_int, if may_block(fd);
    fn fchmodat(at: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int, if is_on_disk(path);
    fn chown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int, if is_on_disk(path);
    fn lchown(path: *const c_char, owner: uid_t, group: gid_t) -> c_int, if is_on_disk(path);
    fn fchown(fd: c_int, owner: uid_t, group: gid_t) -> c_int, if may_block(fd);
    fn fchownat(at: c_int, path: *const c_char, owner: uid_t, group: gid_t, flags: c_int) -> c_int, if is_on_disk(path);
    fn utimes(path: *const c_char, times: *const libc::timeval) -> c_int, if is_on_disk(path);
    fn utimensat(at: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int, if path.is_null() && may_block(at) || is_on_disk(path);
    fn futimens(fd: c_int, times: *const timespec) -> c_int, if may_block(fd);
    fn getxattr(path: *const c_char, name: *const c_char, to: *mut c_void, length: size_t) -> ssize_t, if is_on_disk(path);
    fn lgetxattr(path: *const c_char, name: *const c_char, to: *mut c_void, length: size_t) -> ssize_t, if is_on_disk(path);
    fn fgetxattr(fd: c_int, name: *const c_char, to: *mut c_void, length: size_t) -> ssize_t, if may_block(fd);
    fn setxattr(path: *const c_char, name: *const c_char, from: *const c_void, length: size_t, flags: c_int) -> c_int, if is_on_disk(path);
    fn lsetxattr(path: *const c_char, name: *const c_char, from: *const c_void, length: size_t, flags: c_int) -> c_int, if is_on_disk(path);
    fn fsetxattr(fd: c_int, name: *const c_char, from: *const c_void, length: size_t, flags: c_int) -> c_int, if may_block(fd);
    fn listxattr(path: *const c_char, to: *mut c_char, length: size_t) -> ssize_t, if is_on_disk(path);
    fn llistxattr(path: *const c_char, to: *mut c_char, length: size_t) -> ssize_t, if is_on_disk(path);
    fn flistxattr(fd: c_int, to: *mut c_char, length: size_t) -> ssize_t, if may_block(fd);
    fn removexattr(path: *const c_char, name: *const c_char) -> c_int, if is_on_disk(path);
    fn lremovexattr(path: *const c_char, name: *const c_char) -> c_int, if is_on_disk(path);
    fn fremovexattr(fd: c_int, name: *const c_char) -> c_int, if may_block(fd);
    fn flock(fd: c_int, operation: c_int) -> c_int, if operation & libc::LOCK_NB == 0;
    // Files, pipes and sockets.
    fn read(fd: c_int, to: *mut c_void, length: size_t) -> ssize_t, if may_block(fd);
    fn readv(fd: c_int, to: *const libc::iovec, count: c_int) -> ssize_t, if may_block(fd);
    fn write(fd: c_int, from: *const c_void, length: size_t) -> ssize_t, if may_block_writing(fd);
    fn writev(fd: c_int, from: *const libc::iovec, count: c_int) -> ssize_t, if may_block_writing(fd);
    // Sockets.
    fn connect(fd: c_int, address: *const sockaddr, length: socklen_t) -> c_int, if may_block(fd);
    fn accept(fd: c_int, address: *mut sockaddr, length: *mut socklen_t) -> c_int, if may_block(fd);
    fn accept4(fd: c_int, address: *mut sockaddr, length: *mut socklen_t, flags: c_int) -> c_int, if may_block(fd);
    fn recv(fd: c_int, to: *mut c_void, length: size_t, flags: c_int) -> ssize_t, if waits(flags) && may_block(fd);
    fn recvfrom(fd: c_int, to: *mut c_void, length: size_t, flags: c_int, address: *mut sockaddr, address_length: *mut socklen_t) -> ssize_t, if waits(flags) && may_block(fd);
    fn recvmsg(fd: c_int, message: *mut libc::msghdr, flags: c_int) -> ssize_t, if waits(flags) && may_block(fd);
    fn send(fd: c_int, from: *const c_void, length: size_t, flags: c_int) -> ssize_t, if waits(flags) && may_block(fd);
    fn sendto(fd: c_int, from: *const c_void, length: size_t, flags: c_int, address: *const sockaddr, address_length: socklen_t) -> ssize_t, if waits(flags) && may_block(fd);
    fn sendmsg(fd: c_int, message: *const libc::msghdr, flags: c_int) -> ssize_t, if waits(flags) && may_block(fd);
    // Many descriptors; not with a time-out of none.
    fn poll(fds: *mut libc::pollfd, count: libc::nfds_t, timeout: c_int) -> c_int, if timeout != 0;
    fn select(count: c_int, read: *mut libc::fd_set, write: *mut libc::fd_set, except: *mut libc::fd_set, timeout: *mut libc::timeval) -> c_int, if !is_zero_timeval(timeout);
    fn epoll_wait(fd: c_int, events: *mut libc::epoll_event, count: c_int, timeout: c_int) -> c_int, if timeout != 0;
    // Names.
    fn getaddrinfo(node: *const c_char, service: *const c_char, hints: *const libc::addrinfo, found: *mut *mut libc::addrinfo) -> c_int, if true;
    // Time.
    fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int, if true;
    fn clock_nanosleep(clock: libc::clockid_t, flags: c_int, time: *const timespec, left: *mut timespec) -> c_int, if true;
    fn usleep(us: c_uint) -> c_int, if true;
    fn sleep(seconds: c_uint) -> c_uint, if true;
    // Processes.
    fn waitpid(pid: libc::pid_t, status: *mut c_int, options: c_int) -> libc::pid_t, if options & libc::WNOHANG == 0;
    fn wait4(pid: libc::pid_t, status: *mut c_int, options: c_int, usage: *mut libc::rusage) -> libc::pid_t, if options & libc::WNOHANG == 0;
    fn waitid(kind: libc::idtype_t, id: libc::id_t, info: *mut libc::siginfo_t, options: c_int) -> c_int, if options & libc::WNOHANG == 0;
    fn posix_spawn(pid: *mut libc::pid_t, path: *const c_char, actions: *const libc::posix_spawn_file_actions_t, attributes: *const libc::posix_spawnattr_t, arguments: *const *mut c_char, environment: *const *mut c_char) -> c_int, if true;
    fn posix_spawnp(pid: *mut libc::pid_t, path: *const c_char, actions: *const libc::posix_spawn_file_actions_t, attributes: *const libc::posix_spawnattr_t, arguments: *const *mut c_char, environment: *const *mut c_char) -> c_int, if true;
    // Threads.
    fn pthread_join(thread: libc::pthread_t, result: *mut *mut c_void) -> c_int, if true;
    #[if_slept] fn pthread_mutex_lock(mutex: *mut libc::pthread_mutex_t) -> c_int, if true;
    #[if_slept] fn pthread_rwlock_rdlock(lock: *mut libc::pthread_rwlock_t) -> c_int, if true;
    #[if_slept] fn pthread_rwlock_wrlock(lock: *mut libc::pthread_rwlock_t) -> c_int, if true;
    #[if_slept] fn sem_wait(semaphore: *mut libc::sem_t) -> c_int, if true;
}

fn is_zero_timeval(timeout: *const libc::timeval) -> bool {
    // SAFETY: the caller of `select` vouches for null or a valid timeval.
    unsafe { timeout.as_ref() }.is_some_and(|timeout| timeout.tv_sec == 0 && timeout.tv_usec == 0)
}

/// As the C library's: how the standard library waits on a futex, and others make calls
/// by their numbers.
///
/// Declared with as many arguments as a system call can have: on Linux on x86_64
/// and aarch64 a caller passes those it has where these are expected, and the
/// kernel does not look at the others.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    type Syscall =
        unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let noting = if number == libc::SYS_futex {
        begin("futex", true, || true)
    } else {
        file_call(number).and_then(|name| begin(name, false, || true))
    };
    let real = real(c"syscall", &REAL);
    // SAFETY: the linker found it under this name; it moves arguments to registers.
    let real = unsafe { std::mem::transmute::<*mut c_void, Syscall>(real) };
    // SAFETY: passes on what the caller vouches for.
    let result = unsafe { real(number, a, b, c, d, e, f) };
    if let Some(noting) = noting {
        noting.end();
    }
    result
}

/// Keeps the functions above in the program: nothing of ours calls them.
pub(crate) fn keep_linked() {
    std::hint::black_box(syscall as *const ());
}

#[cfg(all(test, target_env = "gnu", target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn of_two_versions_it_is_the_later() {
        for (name, version) in LATER {
            // SAFETY: both are C strings.
            let old =
                unsafe { libc::dlvsym(libc::RTLD_NEXT, name.as_ptr(), c"GLIBC_2.2.5".as_ptr()) };
            let later = later_version(name);
            assert!(
                !later.is_null() && !old.is_null() && later != old,
                "{name:?} {version:?}"
            );
            assert_eq!(real(name, &AtomicPtr::default()), later);
        }
    }
}
