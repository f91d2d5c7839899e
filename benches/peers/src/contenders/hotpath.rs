//! hotpath: its attribute for async functions, and its wrapper of futures.

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};

const NO_WORD: Tells =
    Tells::Nobody("has no threshold: a report at the end, or its own server when it is asked");

/// What `#[hotpath::main]` puts in `main`, without the report at the end.
fn guard() -> hotpath::HotpathGuard {
    hotpath::HotpathGuardBuilder::new("main")
        .format(hotpath::Format::None)
        .build()
}

/// `#[hotpath::measure]`: how long calls of an async function take, from first poll to last.
pub(crate) struct Measure(
    #[expect(dead_code, reason = "measures until dropped")] hotpath::HotpathGuard,
);

#[hotpath::measure]
async fn measured<F: std::future::Future>(future: F) -> F::Output {
    future.await
}

impl Contender for Measure {
    const NAME: &'static str = "hotpath, measure";
    const DOES: &'static str = "nothing: each call of an async function is timed, not its polls";
    const LIKE: Like = Like::Nothing;
    const TELLS: Tells = NO_WORD;

    fn start(builder: Builder, _: &Settings) -> Result<(Runtime, Self), Failure> {
        Ok((build(builder)?, Measure(guard())))
    }

    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: std::future::Future + Send + 'static,
        F::Output: Send + 'static,
    {
        on.spawn(measured(future))
    }
}

/// `hotpath::future!`: each poll.
pub(crate) struct Future(
    #[expect(dead_code, reason = "measures until dropped")] hotpath::HotpathGuard,
);

impl Contender for Future {
    const NAME: &'static str = "hotpath, future!";
    const DOES: &'static str =
        "reads the clock twice, queues an event for a thread that adds it up";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells = NO_WORD;

    fn start(builder: Builder, _: &Settings) -> Result<(Runtime, Self), Failure> {
        Ok((build(builder)?, Future(guard())))
    }

    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: std::future::Future + Send + 'static,
        F::Output: Send + 'static,
    {
        on.spawn(hotpath::future!(future))
    }
}
