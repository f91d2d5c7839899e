//! A task that has nothing to do with the work, and how late it comes at worst.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

const PERIOD: Duration = Duration::from_millis(20);

/// What other users of the service would have felt.
#[derive(Debug)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// Begins to beat on a runtime, as long as that lives.
    pub fn start(runtime: &Handle) -> Self {
        let worst_us = Arc::new(AtomicU64::new(0));
        let worst = Arc::clone(&worst_us);
        runtime.spawn(async move {
            let mut due = Instant::now() + PERIOD;
            loop {
                tokio::time::sleep_until(due.into()).await;
                let late = u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX);
                worst.fetch_max(late, Ordering::Relaxed);
                due = Instant::now() + PERIOD;
            }
        });
        Heartbeat(worst_us)
    }

    /// The latest beat that has come.
    pub fn worst(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}
