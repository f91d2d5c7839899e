//! Threads for work that computes or waits: few, so that the rest of the machine
//! stays with the event loop.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::Failure;

type Job = Box<dyn FnOnce() + Send>;

/// How many jobs wait in the queue; who comes then waits to get into it.
const QUEUE: usize = 64;

/// A bounded pool of threads.
#[derive(Clone, Debug)]
pub struct Pool(mpsc::Sender<Job>);

impl Pool {
    /// Starts its threads, which end when this and its clones are dropped.
    ///
    /// `nice`: how far they stand back where others want the CPU, up to 19. Work
    /// then takes as long as that lets it: it is traded for the event loop.
    ///
    /// # Errors
    /// If there are no threads.
    pub fn new(name: &str, threads: usize, nice: i32) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel::<Job>(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = Arc::clone(&receiver);
            let work = move || {
                stand_back(nice);
                loop {
                    let mut queue = receiver.lock().unwrap_or_else(PoisonError::into_inner);
                    let job = queue.blocking_recv();
                    drop(queue);
                    let Some(job) = job else { return };
                    job();
                }
            };
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(work)?;
        }
        Ok(Pool(sender))
    }

    /// Has work done there.
    ///
    /// # Errors
    /// If it panics.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (sender, receiver) = oneshot::channel();
        let job: Job = Box::new(move || {
            // A job that panics takes its answer along, not the thread.
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            if let Ok(done) = done {
                let _ = sender.send(done);
            }
        });
        let queued = self.0.send(job).await;
        queued.map_err(|_| "the pool is closed")?;
        Ok(receiver.await?)
    }
}

/// Gives way to threads of the usual priority.
fn stand_back(nice: i32) {
    // On Linux that is the thread's, elsewhere the process's, which would be no use.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(nice);
    #[cfg(not(target_os = "linux"))]
    let _ = nice;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_outlives_a_panic() {
        let pool = Pool::new("test", 1, 0).unwrap();
        let here = std::thread::current().id();
        let there = pool.run(|| std::thread::current().id()).await.unwrap();
        assert_ne!(here, there);
        let failed = pool.run(|| std::panic::resume_unwind(Box::new(()))).await;
        let failed: Result<(), Failure> = failed;
        assert!(failed.is_err());
        assert_eq!(pool.run(|| 1 + 1).await.unwrap(), 2);
    }
}
