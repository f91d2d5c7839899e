//! Which runtimes have a watchdog, and which watchdog tells of what is polled elsewhere.
//!
//! A watched future is seen wherever it is polled, also on a runtime that no watchdog was
//! given. Several watchdogs see it there, and one tells of it: the oldest that is alive.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use crate::os;
use crate::registry::RuntimeId;

/// How many watchdogs are known at once; one beyond tells of its own runtime only.
const MAX_POSTS: usize = 1024;

/// In [`Entry::serial`]: free, and being written.
const FREE: u64 = 0;
const TAKEN: u64 = u64::MAX;

/// A table, not a list behind a lock: who looks must not wait for who starts.
static POSTS: [Entry; MAX_POSTS] = [const { Entry::new() }; MAX_POSTS];
/// Entries from here on were never used.
static USED: AtomicUsize = AtomicUsize::new(0);
static SERIALS: AtomicU64 = AtomicU64::new(1);

#[derive(Debug)]
struct Entry {
    serial: AtomicU64,
    runtime: AtomicU32,
    /// The watchdogs of a parent process are in the table of a forked child, but not alive.
    process: AtomicU32,
}

impl Entry {
    const fn new() -> Self {
        Entry {
            serial: AtomicU64::new(FREE),
            runtime: AtomicU32::new(0),
            process: AtomicU32::new(0),
        }
    }
}

/// One watchdog's place in the table, until it is dropped.
#[derive(Debug)]
pub(crate) struct Post {
    entry: Option<&'static Entry>,
    serial: u64,
    runtime: RuntimeId,
    process: u32,
}

impl Post {
    pub(crate) fn take(runtime: RuntimeId) -> Self {
        let serial = SERIALS.fetch_add(1, Relaxed);
        let process = os::process_id();
        let free = |(_, entry): &(usize, &Entry)| {
            // Acquire: pairs with the release at drop.
            let taken = entry.serial.compare_exchange(FREE, TAKEN, Acquire, Relaxed);
            taken.is_ok()
        };
        let entry = POSTS.iter().enumerate().find(free).map(|(at, entry)| {
            entry.runtime.store(runtime.0, Relaxed);
            entry.process.store(process, Relaxed);
            // Release: who sees the number sees the rest.
            entry.serial.store(serial, Release);
            USED.fetch_max(at + 1, Release);
            entry
        });
        Post {
            entry,
            serial,
            runtime,
            process,
        }
    }

    /// The numbers and runtimes of this process's watchdogs.
    fn all(&self) -> impl Iterator<Item = (u64, RuntimeId)> {
        let used = USED.load(Acquire).min(MAX_POSTS);
        let entries = POSTS.iter().take(used);
        entries.filter_map(|entry| {
            // Acquire: pairs with the release in `take`.
            let serial = entry.serial.load(Acquire);
            let is_there = serial != FREE && serial != TAKEN;
            let is_here = entry.process.load(Relaxed) == self.process;
            (is_there && is_here).then(|| (serial, RuntimeId(entry.runtime.load(Relaxed))))
        })
    }

    /// Whether this watchdog is the one that tells of what is polled on a runtime.
    ///
    /// Its own always; one that has no watchdog, and threads outside of any runtime, if
    /// this is the oldest watchdog. Neither locks nor allocates.
    pub(crate) fn tells_of(&self, runtime: RuntimeId) -> bool {
        if runtime == self.runtime {
            return true;
        }
        self.entry.is_some()
            && self
                .all()
                .all(|(serial, watched)| serial >= self.serial && watched != runtime)
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            // Release: pairs with the acquire in `take`.
            entry.serial.store(FREE, Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: RuntimeId = RuntimeId(u32::MAX - 10);
    const B: RuntimeId = RuntimeId(u32::MAX - 11);
    const ELSEWHERE: RuntimeId = RuntimeId(u32::MAX - 12);

    /// As of a process in which no other test has a watchdog.
    fn take(runtime: RuntimeId, process: u32) -> Post {
        let mut post = Post::take(runtime);
        post.process = process;
        post.entry.unwrap().process.store(process, Relaxed);
        post
    }

    #[test]
    fn the_oldest_alive_tells_of_what_has_no_watchdog() {
        let first = take(A, u32::MAX);
        let second = take(B, u32::MAX);
        assert!(first.tells_of(A) && second.tells_of(B));
        assert!(!first.tells_of(B) && !second.tells_of(A));
        assert!(first.tells_of(ELSEWHERE) && !second.tells_of(ELSEWHERE));
        drop(first);
        assert!(second.tells_of(ELSEWHERE) && second.tells_of(A));
    }

    #[test]
    fn those_of_another_process_are_not_alive() {
        let _parents = take(A, u32::MAX - 1);
        assert!(take(B, u32::MAX - 2).tells_of(ELSEWHERE));
    }
}
