//! One clock for service and client, which are one process.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since the program began.
pub(crate) fn now() -> Duration {
    BEGAN.elapsed()
}

/// The same in microseconds, for the database.
pub(crate) fn now_us() -> i64 {
    i64::try_from(now().as_micros()).unwrap_or(i64::MAX)
}
