//! A thread that wakes as often as a watchdog and does nothing: what one cannot be below.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};

/// stallscope's default tick.
const TICK: Duration = Duration::from_millis(5);

pub(crate) struct Sleeper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Contender for Sleeper {
    const NAME: &'static str = "floor: a thread that wakes every 5 ms";
    const DOES: &'static str = "nothing";
    const LIKE: Like = Like::Nothing;
    const TELLS: Tells = Tells::Nobody("it does not look");

    fn start(builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let runtime = build(builder)?;
        let stop = Arc::new(AtomicBool::new(settings.by_poll_only));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("sleeper".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    std::thread::sleep(TICK);
                }
            })?;
        let sleeper = Sleeper {
            stop,
            thread: Some(thread),
        };
        Ok((runtime, sleeper))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
