//! Memory that is there before it is needed.

use std::mem::MaybeUninit;

/// An empty vector with room for so many items, whose pages have been written once: to
/// push them neither allocates nor waits for a page.
pub(crate) fn room_for<T>(items: usize) -> Vec<T> {
    let mut room = Vec::with_capacity(items);
    for place in room.spare_capacity_mut() {
        *place = MaybeUninit::zeroed();
    }
    // Else nothing shows that what was written is used.
    std::hint::black_box(&mut room);
    room
}
