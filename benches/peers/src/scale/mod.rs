//! What becomes of it with many tasks, and with many workers.

pub(crate) mod tasks;
pub(crate) mod workers;
