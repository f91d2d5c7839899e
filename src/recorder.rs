//! Durations counted by one thread without a lock, in the buckets of an HDR histogram.
//!
//! A [`Recorder`] has the bucket layout of an HDR histogram of 3 significant
//! digits from 1 ns to [`HIGHEST_NS`], so that merging into [`hdrhistogram`]
//! loses nothing. It is written by one thread at a time with plain loads and
//! stores, which the two ready-made ways do not allow: a histogram behind a
//! lock cost 4 times as much in a poll, and one shared with atomic additions
//! half as much again. Buckets come in chunks, taken on first use: a name whose
//! polls take 100 ns to 10 us needs some 20 KiB a thread instead of 270.
//!
//! A poll takes chunks and recorders from a [stock](crate::stock): a chunk's 2 KiB make
//! glibc's allocator put all free memory of its arena in order before it serves them
//! (glibc 2.36, `malloc.c`, `_int_malloc`: `malloc_consolidate` before a large request),
//! which took the thread that polls 16 ms where much was free.

use std::fmt;
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::stock::{Restock, Stock};

/// Longer durations count as this one, some 73 minutes.
pub(crate) const HIGHEST_NS: u64 = (1 << 42) - 1;

/// HDR's sub-buckets for 3 digits: values below are exact, above they keep 11 bits.
const EXACT_BITS: u32 = 11;
const HALF: usize = 1 << (EXACT_BITS - 1);
const CHUNK: usize = 256;
const CHUNKS: usize = (index_of(HIGHEST_NS) + 1).div_ceil(CHUNK);

/// 512 KiB: what 16 names need at once whose polls take 100 ns to 10 us.
const READY_CHUNKS: usize = 256;
/// 132 KiB.
const READY_RECORDERS: usize = 64;

static CHUNK_STOCK: Stock<Box<Chunk>, READY_CHUNKS> = Stock::new(new_chunk, || READY_CHUNKS);
static RECORDER_STOCK: Stock<Box<Recorder>, READY_RECORDERS> =
    Stock::new(new_recorder, || READY_RECORDERS);

/// See [`uncounted`].
static UNCOUNTED: AtomicU64 = AtomicU64::new(0);

type Chunk = [AtomicU64; CHUNK];

pub(crate) const fn index_of(ns: u64) -> usize {
    let bits = u64::BITS - ns.leading_zeros();
    if bits <= EXACT_BITS {
        return ns as usize;
    }
    let shift = bits - EXACT_BITS;
    // `ns >> shift` lies in HALF..2 * HALF, so each octave follows the one before.
    shift as usize * HALF + (ns >> shift) as usize
}

/// The lowest value that counts in this bucket.
pub(crate) const fn lowest_of(index: usize) -> u64 {
    if index < 2 * HALF {
        return index as u64;
    }
    let shift = index / HALF - 1;
    ((index - shift * HALF) as u64) << shift
}

/// Counts durations; written by one thread at a time, read by any.
pub(crate) struct Recorder {
    chunks: [OnceLock<Box<Chunk>>; CHUNKS],
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Recorder {
    pub(crate) const fn new() -> Self {
        Recorder {
            chunks: [const { OnceLock::new() }; CHUNKS],
            sum_ns: AtomicU64::new(0),
            max_ns: AtomicU64::new(0),
        }
    }

    /// The recorder of this cell, which gets one from the stock if it has none yet;
    /// `None` where there is none in stock. Allocates nothing.
    pub(crate) fn of(cell: &OnceLock<Box<Recorder>>) -> Option<&Recorder> {
        fill(cell, &RECORDER_STOCK).map(Box::as_ref)
    }

    /// Counts one duration. Allocates for the first in a range of values: not for polls.
    ///
    /// Must not run on two threads at once: counts would be lost, nothing else.
    pub(crate) fn record(&self, ns: u64) {
        let index = index_of(ns.min(HIGHEST_NS));
        if let Some(chunk) = self.chunks.get(index / CHUNK) {
            self.add_up(chunk.get_or_init(new_chunk), index, ns, 1);
        }
    }

    /// Counts one duration, unless that takes more than to count; whether it did.
    #[inline]
    pub(crate) fn try_record(&self, ns: u64) -> bool {
        self.try_record_many(ns, 1)
    }

    /// The same, for as many as it stands for.
    #[inline]
    pub(crate) fn try_record_many(&self, ns: u64, times: u64) -> bool {
        let index = index_of(ns);
        let Some(chunk) = self.chunks.get(index / CHUNK).and_then(OnceLock::get) else {
            return false;
        };
        self.add_up(chunk, index, ns, times);
        true
    }

    /// Counts one duration for as many as it stands for, unless it is the first in a
    /// range of values and there is no chunk in stock; whether it did. Allocates nothing.
    pub(crate) fn record_from_stock(&self, ns: u64, times: u64) -> bool {
        let index = index_of(ns.min(HIGHEST_NS));
        let cell = self.chunks.get(index / CHUNK);
        let Some(chunk) = cell.and_then(|cell| fill(cell, &CHUNK_STOCK)) else {
            return false;
        };
        self.add_up(chunk, index, ns, times);
        true
    }

    #[inline]
    fn add_up(&self, chunk: &Chunk, index: usize, ns: u64, times: u64) {
        // Relaxed throughout: each number stands for itself, and a reader takes
        // them as a snapshot that may be a poll apart.
        bump(&chunk[index % CHUNK], times);
        bump(&self.sum_ns, ns.wrapping_mul(times));
        if ns > self.max_ns.load(Relaxed) {
            self.max_ns.store(ns, Relaxed);
        }
    }

    /// What was counted: the lowest value of each bucket that is not empty, ascending.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let chunks = self.chunks.iter().enumerate();
        let chunks = chunks.filter_map(|(at, chunk)| Some((at, chunk.get()?)));
        chunks.flat_map(|(at, chunk)| {
            let counts = chunk.iter().enumerate();
            counts.filter_map(move |(offset, count)| {
                let count = count.load(Relaxed);
                (count > 0).then(|| (lowest_of(at * CHUNK + offset), count))
            })
        })
    }

    /// All durations together.
    pub(crate) fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Relaxed)
    }

    /// The longest.
    pub(crate) fn max_ns(&self) -> u64 {
        self.max_ns.load(Relaxed)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("sum_ns", &self.sum_ns)
            .finish_non_exhaustive()
    }
}

// Load and store instead of `fetch_add`: with a single writer the result is
// the same, and a locked instruction would cost as much as the whole record.
#[inline]
fn bump(count: &AtomicU64, by: u64) {
    count.store(count.load(Relaxed).wrapping_add(by), Relaxed);
}

/// What is in the cell, or comes there from the stock. One thread at a time fills a cell,
/// so that none waits here for another.
pub(crate) fn fill<'a, T, const N: usize>(
    cell: &'a OnceLock<T>,
    stock: &Stock<T, N>,
) -> Option<&'a T> {
    match cell.get() {
        None => {
            let new = stock.take()?;
            Some(cell.get_or_init(|| new))
        }
        filled => filled,
    }
}

#[cold]
fn new_chunk() -> Box<Chunk> {
    in_memory([const { AtomicU64::new(0) }; CHUNK])
}

fn new_recorder() -> Box<Recorder> {
    in_memory(Recorder::new())
}

/// Boxed, with each of its bytes written, so that no page fault is left to who uses it.
/// What is known to be all zeros would be taken from memory that comes zeroed, whose
/// pages are not there before they are touched.
pub(crate) fn in_memory<T>(thing: T) -> Box<T> {
    Box::new(black_box(thing))
}

/// What recorders need in polls.
pub(crate) fn stocks() -> [&'static dyn Restock; 2] {
    [&CHUNK_STOCK, &RECORDER_STOCK]
}

/// So many durations are not counted, for want of a counter and of room to wait for one.
#[cold]
pub(crate) fn leave_uncounted(times: u64) {
    UNCOUNTED.fetch_add(times, Relaxed);
}

/// How many durations of this process are in no histogram, because there was neither a
/// counter in stock nor room to wait for one.
pub(crate) fn uncounted() -> u64 {
    UNCOUNTED.load(Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_gap() {
        for index in 0..=index_of(HIGHEST_NS) {
            assert_eq!(index_of(lowest_of(index)), index);
            if index > 0 {
                assert_eq!(index_of(lowest_of(index) - 1), index - 1);
            }
        }
        assert_eq!(index_of(HIGHEST_NS) / CHUNK, CHUNKS - 1);
    }

    #[test]
    fn a_recorder_counts_from_stock_as_it_does_otherwise() {
        let (a, b) = (Recorder::new(), Recorder::new());
        for ns in [0, 1, 2_047, 2_048, 1 << 41, HIGHEST_NS, u64::MAX] {
            a.record(ns);
            // Other tests take from the same stock.
            while !b.record_from_stock(ns, 1) {
                CHUNK_STOCK.refill();
            }
        }
        assert!(a.counts().eq(b.counts()));
        assert_eq!((a.sum_ns(), a.max_ns()), (b.sum_ns(), b.max_ns()));
    }
}
