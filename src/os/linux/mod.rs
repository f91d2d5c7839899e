//! Linux: `/proc` and per-thread clocks.

mod thread;

pub(crate) use thread::{ThreadProbe, thread_id};
