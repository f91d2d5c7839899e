//! What takes part, and what it must be able to do.

use std::error::Error;
use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::contenders::stallscope::{DetectOnly, Exact, Mode, RuntimeWatch};
use crate::told::Log;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// One way to watch a runtime, of stallscope or of a peer.
///
/// Each runs in a process of its own: subscribers and hooks are global, and cannot be removed.
pub(crate) trait Contender: Sized {
    const NAME: &'static str;
    /// What is done at a poll.
    const DOES: &'static str;
    /// With which of stallscope's modes it does like work.
    const LIKE: Like;
    /// How it tells of a stall.
    const TELLS: Tells;
    /// More live tasks than these take it more memory or time than there is.
    const MOST_TASKS: usize = 1_000_000;

    /// Builds the runtime and starts what watches it.
    fn start(builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure>;

    /// Spawns a future as its documentation says; as it is, where nothing is wrapped.
    ///
    /// Generic, so that each is compiled with its wrapper as it would be in a service: a box
    /// would be a cost of this benchmark.
    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        on.spawn(future)
    }

    /// Stops it, and then the runtime.
    fn finish(self, runtime: Runtime, _settings: &Settings) -> Result<(), Failure> {
        drop(self);
        drop(runtime);
        Ok(())
    }
}

/// What is like what, for comparisons of cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Like {
    /// The thing all are compared with.
    Bare,
    /// Nothing is done at a poll.
    Nothing,
    /// Polls are seen, but not timed.
    Seen,
    /// Each poll is timed, its duration counted or kept.
    Timed,
}

impl Like {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Like::Bare => "-",
            Like::Nothing => "nothing",
            Like::Seen => "seen",
            Like::Timed => "timed",
        }
    }

    /// The mode of stallscope that does as much.
    pub(crate) const fn mode(self) -> Option<&'static str> {
        match self {
            Like::Bare => None,
            Like::Nothing => Some(<RuntimeWatch as Contender>::NAME),
            Like::Seen => Some(<DetectOnly as Mode>::NAME),
            Like::Timed => Some(<Exact as Mode>::NAME),
        }
    }
}

/// Whether a program can be told of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// By a callback, an event, or a number that can be compared with a threshold.
    Program,
    /// Once the recording is read, after the run.
    #[cfg_attr(
        not(tokio_unstable),
        expect(dead_code, reason = "dial9 needs that build")
    )]
    Recording,
    /// Not at all, and why.
    Nobody(&'static str),
}

/// What a contender is started for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// From which duration on a poll is to be told.
    pub threshold: Duration,
    /// Where it is told to; without one nothing reads what is merely counted.
    pub log: Option<Log>,
    /// Instructions are counted, a hundred times slower than life: what runs by the clock
    /// and not by the poll must not run.
    pub by_poll_only: bool,
}

impl Settings {
    /// For measuring cost: no poll is that long.
    pub(crate) fn quiet() -> Self {
        Settings {
            threshold: Duration::from_secs(60),
            log: None,
            by_poll_only: false,
        }
    }
}

/// A runtime as it is described in jobs.
pub(crate) fn builder(workers: Option<usize>) -> Builder {
    let mut builder = match workers {
        Some(workers) => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
        None => Builder::new_current_thread(),
    };
    builder.enable_all().thread_name(WORKER);
    builder
}

/// The name of the runtime's threads: all others but the first are the contender's.
pub(crate) const WORKER: &str = "peers-worker";

/// For contenders that leave the builder as it is.
pub(crate) fn build(mut builder: Builder) -> io::Result<Runtime> {
    builder.build()
}
