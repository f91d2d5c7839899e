//! Which lock a thread waits for that sleeps on a futex, by what lies at the futex.

use crate::os::platform::memory;
use crate::os::{LockKind, LockWait, Wanted};

/// Around the futex on which a thread of `parking_lot` sleeps lies what it is parked for
/// (`parking_lot_core` 0.9, `parking_lot.rs`: `ThreadData`), so many bytes to either side.
const THREAD_DATA: u64 = 64;

impl LockWait {
    /// What a thread that sleeps on this futex may wait for.
    pub(super) fn on(futex: u64) -> Self {
        let std = [
            (Some(futex), LockKind::Std),
            // 1.95, `sys/sync/rwlock/futex.rs`: the word behind is where writers wait.
            (futex.checked_sub(4), LockKind::StdWriter),
        ];
        let std = std.into_iter().filter_map(|(address, kind)| {
            let address = address?;
            Some(Wanted { address, kind })
        });
        LockWait {
            locks: std.chain(parked(futex)).collect(),
            owner: owner(futex),
        }
    }
}

/// The owner of a mutex of pthreads (glibc 2.41, `sysdeps/nptl/bits/struct_mutex.h`): a
/// thread that waits for it has made the word 2, and the owner's id is two words behind.
fn owner(futex: u64) -> Option<i32> {
    const CONTENDED: i32 = 2;
    /// Of its kinds: normal, recursive, checking, and adaptive.
    const KINDS: i32 = 3;
    let bytes: [u8; 20] = memory::array(futex)?;
    let (words, _) = bytes.as_chunks::<4>();
    let &[lock, _, owner, users, kind] = words else {
        return None;
    };
    let number = i32::from_ne_bytes;
    let is_one = number(lock) == CONTENDED && number(users) >= 1;
    // Above are bits for what is not looked at.
    let is_plain = number(kind) & !KINDS & !0x300 == 0;
    (is_one && is_plain && number(owner) > 0).then(|| number(owner))
}

/// What may be the lock that a thread of `parking_lot` is parked for: words beside the futex
/// that are addresses of a lock which is taken, and has threads parked.
fn parked(futex: u64) -> Vec<Wanted> {
    const LENGTH: usize = 2 * THREAD_DATA as usize;
    let from = (futex & !7).saturating_sub(THREAD_DATA);
    let bytes: [u8; LENGTH] = memory::array(from).unwrap_or([0; LENGTH]);
    let (words, _) = bytes.as_chunks::<8>();
    let addresses = words.iter().map(|word| u64::from_ne_bytes(*word));
    let addresses = addresses.filter(|address| *address > 4096);
    let mut found: Vec<Wanted> = Vec::new();
    for address in addresses {
        let is_new = found.iter().all(|known| known.address != address);
        if is_new && is_taken(address) {
            found.push(Wanted {
                address,
                kind: LockKind::ParkingLot,
            });
        }
    }
    found
}

/// `parking_lot` 0.12: of a mutex, a byte with two bits; of a `RwLock`, a word with those of
/// parked threads and of a writer.
fn is_taken(address: u64) -> bool {
    let Some(bytes) = memory::array::<8>(address).filter(|_| address.is_multiple_of(8)) else {
        return memory::array::<1>(address) == Some([3]);
    };
    let word = u64::from_ne_bytes(bytes);
    bytes[0] == 3 || word < 16 && word & 9 == 9
}
