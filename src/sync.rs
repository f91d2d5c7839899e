//! The atomics that the slot is built on; the loom check puts loom's in their place.

pub(crate) use std::sync::atomic::AtomicU64;
