//! Reads memory of this process by way of the kernel: what is not mapped is an error, not a crash.
//!
//! Both ways take the lock of the process's memory map, and may page in. A thread that
//! unmaps gigabytes holds that lock for as long as it takes. So only the thread that
//! captures may call this, which may wait. A signal handler must not.
//!
//! The usual way is `process_vm_readv`. Under a seccomp filter that call may be answered
//! by the end of the process (systemd's `SystemCallFilter`), and trying it is what kills.
//! So where the kernel says that this thread is filtered, `/proc/self/mem` is read: every
//! service may open and read files.
//!
//! The kernel is asked once a capture ([`look_for_filter`]), not at each read: a capture
//! reads hundreds of times, and the question takes longer than a read. A filter is never
//! taken away, so the answer "filtered" stays right. The answer "not filtered" becomes
//! wrong if another thread puts all threads under a filter within that capture (seccomp(2),
//! `SECCOMP_FILTER_FLAG_TSYNC`). No check could exclude that, as a filter can also come
//! between a check and the read right after it. Programs install theirs as they start.

use std::cell::Cell;
use std::ffi::c_void;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::{Mutex, PoisonError};

/// The most that is read at once: more is a mistake in what names the range.
const MOST: usize = 512 * 1024 * 1024;

/// `/proc/self/mem`, and the process that it is of: a forked child has inherited that of
/// its parent.
static MEMORY: Mutex<Option<(u32, File)>> = Mutex::new(None);

/// Appends to `into` what lies at an address, up to where nothing is mapped; how much it was.
pub(crate) fn append(from: u64, length: usize, into: &mut Vec<u8>) -> usize {
    if length > MOST || into.try_reserve_exact(length).is_err() {
        return 0;
    }
    // SAFETY: the vector has just reserved room for `length` bytes after its last.
    let read = unsafe { read(from, into.as_mut_ptr().add(into.len()), length) };
    // SAFETY: so many bytes after the last have been written, within what was reserved.
    unsafe { into.set_len(into.len() + read.min(length)) };
    read
}

/// What lies in a range, if all of it is mapped.
pub(crate) fn copy(range: Range<u64>) -> Option<Vec<u8>> {
    let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
    let mut bytes = Vec::new();
    (append(range.start, length, &mut bytes) == length).then_some(bytes)
}

/// What lies at an address, if all of it is mapped.
pub(crate) fn array<const LENGTH: usize>(from: u64) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    // SAFETY: the array is valid for writes of its own length.
    let read = unsafe { read(from, bytes.as_mut_ptr(), LENGTH) };
    (read == LENGTH).then_some(bytes)
}

/// Fills `into` with what lies at an address, up to where nothing is mapped; how much it was.
pub(crate) fn fill(from: u64, into: &mut [u8]) -> usize {
    // SAFETY: the slice is valid for writes of its own length.
    unsafe { read(from, into.as_mut_ptr(), into.len()) }
}

/// # Safety
/// `to` must be valid for writes of `length` bytes.
unsafe fn read(from: u64, to: *mut u8, length: usize) -> usize {
    if is_filtered() {
        // SAFETY: the caller's promise is handed on.
        unsafe { by_file(from, to, length) }
    } else {
        // SAFETY: the caller's promise is handed on.
        unsafe { by_call(from, to, length) }
    }
}

/// # Safety
/// `to` must be valid for writes of `length` bytes.
unsafe fn by_call(from: u64, to: *mut u8, length: usize) -> usize {
    let local = libc::iovec {
        iov_base: to.cast(),
        iov_len: length,
    };
    let remote = libc::iovec {
        iov_base: std::ptr::without_provenance_mut::<c_void>(usize::try_from(from).unwrap_or(0)),
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

/// # Safety
/// `to` must be valid for writes of `length` bytes.
unsafe fn by_file(from: u64, to: *mut u8, length: usize) -> usize {
    let mut memory = MEMORY.lock().unwrap_or_else(PoisonError::into_inner);
    let this = std::process::id();
    if memory.as_ref().is_none_or(|(of, _)| *of != this) {
        *memory = File::open("/proc/self/mem").ok().map(|file| (this, file));
    }
    let (Some((_, file)), Ok(from)) = (memory.as_ref(), i64::try_from(from)) else {
        return 0;
    };
    let mut done = 0;
    // A read ends early where pages must be looked up one by one.
    while done < length {
        // SAFETY: the caller vouches for `to`, of which `done` bytes are behind us.
        let read = unsafe {
            let (to, left) = (to.add(done).cast(), length - done);
            libc::pread64(
                file.as_raw_fd(),
                to,
                left,
                from.saturating_add_unsigned(done as u64),
            )
        };
        match usize::try_from(read) {
            Ok(read @ 1..) => done += read,
            _ => break,
        }
    }
    done
}

/// What the calling thread knows of its filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    Unknown,
    None,
    Is,
}

thread_local! {
    static FILTER: Cell<Filter> = const { Cell::new(Filter::Unknown) };
    #[cfg(test)]
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Finds out whether system calls of this thread go through a seccomp filter by now. To be
/// called when a capture begins, and before modules are read.
///
/// By the thread's own status. Where there is no `/proc`, this is not known, and the file
/// could not be read either.
pub(crate) fn look_for_filter() {
    if FILTER.get() == Filter::Is {
        return;
    }
    #[cfg(test)]
    LOOKS.set(LOOKS.get() + 1);
    let status = std::fs::read("/proc/thread-self/status").unwrap_or_default();
    FILTER.set(if is_filtered_by(&status) {
        Filter::Is
    } else {
        Filter::None
    });
}

/// Whether this thread was filtered when it last looked; looks if it never has.
pub(crate) fn is_filtered() -> bool {
    if FILTER.get() == Filter::Unknown {
        look_for_filter();
    }
    FILTER.get() == Filter::Is
}

fn is_filtered_by(status: &[u8]) -> bool {
    let mut lines = status.split(|byte| *byte == b'\n');
    let mode = lines.find_map(|line| line.strip_prefix(b"Seccomp:"));
    mode.is_some_and(|mode| mode.trim_ascii() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_read_the_same_and_stop_where_nothing_is_mapped() {
        let text = *b"what a thread has on its stack";
        let from = text.as_ptr().addr() as u64;
        for way in [by_call, by_file] {
            let mut copy = [0; 30];
            // SAFETY: the array is as long as that.
            let read = unsafe { way(from, copy.as_mut_ptr(), copy.len()) };
            assert_eq!((read, copy), (30, text));
            // SAFETY: as above. Nothing is mapped at the first page.
            assert_eq!(unsafe { way(8, copy.as_mut_ptr(), copy.len()) }, 0);
        }
        assert_eq!(copy(from..from + 30).as_deref(), Some(text.as_slice()));
        assert_eq!(copy(8..16), None);
        let (start, end) = (16, 8);
        assert_eq!(copy(start..end), None, "out of order");
        assert_eq!(array::<8>(8), None);
        assert_eq!(append(from, MOST + 1, &mut Vec::new()), 0);
    }

    #[test]
    fn a_filter_is_looked_for_once_a_capture() {
        let text = *b"what a thread has on its stack";
        let from = text.as_ptr().addr() as u64;
        for capture in 1..4 {
            look_for_filter();
            for _ in 0..10 {
                assert!(array::<8>(from).is_some());
            }
            assert_eq!(LOOKS.get(), capture);
        }
        let looks = || {
            assert!(array::<8>(from).is_some(), "{text:?}");
            LOOKS.get()
        };
        let of_another = std::thread::scope(|scope| scope.spawn(looks).join().unwrap());
        assert_eq!(of_another, 1, "one that has not looked does");
    }

    #[test]
    fn a_filter_is_known_by_its_line() {
        let status = |mode| format!("NoNewPrivs:\t0\nSeccomp:\t{mode}\nSeccomp_filters:\t0\n");
        assert!(!is_filtered_by(status(0).as_bytes()));
        assert!(is_filtered_by(status(1).as_bytes()));
        assert!(is_filtered_by(status(2).as_bytes()));
        assert!(!is_filtered_by(b"Seccomp_filters:\t0\n"), "no such line");
    }
}
