//! A task that sleeps and looks how late it was woken: what many services have of their own.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};
use crate::told::Claim;

const PERIOD: Duration = Duration::from_millis(20);

pub(crate) struct LagTask(AbortHandle);

impl Contender for LagTask {
    const NAME: &'static str = "a lag task";
    const DOES: &'static str = "nothing";
    const LIKE: Like = Like::Nothing;
    const TELLS: Tells = Tells::Program;

    fn start(builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let runtime = build(builder)?;
        let Settings { threshold, log, .. } = settings.clone();
        let task = runtime.spawn(async move {
            loop {
                let due = Instant::now() + PERIOD;
                tokio::time::sleep_until(due).await;
                let late = due.elapsed();
                if let Some(log) = &log
                    && late >= threshold
                {
                    log.tell(Claim::Loop, Some(late));
                }
            }
        });
        Ok((runtime, LagTask(task.abort_handle())))
    }
}

impl Drop for LagTask {
    fn drop(&mut self) {
        self.0.abort();
    }
}
