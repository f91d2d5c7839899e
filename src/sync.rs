//! What the lock-free protocols are built on; the loom check puts loom's in their place.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, fence};
pub(crate) use std::thread::yield_now;
