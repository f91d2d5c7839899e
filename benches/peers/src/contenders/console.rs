//! console-subscriber with its defaults, its server on any free port, and nobody connected.

use console_subscriber::ConsoleLayer;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};

pub(crate) struct Console;

impl Contender for Console {
    const NAME: &'static str = "console-subscriber";
    const DOES: &'static str =
        "enters and leaves a span, reads the clock twice, counts in a histogram of the task";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells =
        Tells::Nobody("shows tasks and their busy time to a person, every second by default");
    const MOST_TASKS: usize = 100_000;

    fn start(builder: Builder, _: &Settings) -> Result<(Runtime, Self), Failure> {
        let layer = ConsoleLayer::builder()
            .server_addr(([127, 0, 0, 1], 0))
            .spawn();
        tracing_subscriber::registry().with(layer).try_init()?;
        Ok((build(builder)?, Console))
    }
}
