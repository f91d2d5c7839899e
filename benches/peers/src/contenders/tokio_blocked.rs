//! tokio-blocked, set up as in its README: a layer beside the one that takes the warnings.

use std::time::Duration;

use ::tokio_blocked::TokioBlockedLayer;
use tokio::runtime::{Builder, Runtime};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};
use crate::told::{Claim, Log};

pub(crate) struct TokioBlocked;

/// Takes its warnings, in place of a log; nothing is written.
struct Warnings(Option<Log>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        if let Some(log) = &self.0
            && *metadata.level() == Level::WARN
            && metadata.target() == "tokio_blocked::task_poll_blocked"
        {
            let mut took = Took(None);
            event.record(&mut took);
            log.tell(Claim::Poll, took.0);
        }
    }
}

struct Took(Option<Duration>);

impl Visit for Took {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "poll_duration_ns" {
            self.0 = Some(Duration::from_nanos(value));
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl Contender for TokioBlocked {
    const NAME: &'static str = "tokio-blocked";
    const DOES: &'static str = "enters and leaves a span, reads the clock twice";
    const LIKE: Like = Like::Timed;
    const TELLS: Tells = Tells::Program;
    const MOST_TASKS: usize = 100_000;

    fn start(builder: Builder, settings: &Settings) -> Result<(Runtime, Self), Failure> {
        let blocked = TokioBlockedLayer::new().with_warn_busy_single_poll(Some(settings.threshold));
        tracing_subscriber::registry()
            .with(Warnings(settings.log.clone()).with_filter(LevelFilter::WARN))
            .with(blocked)
            .try_init()?;
        Ok((build(builder)?, TokioBlocked))
    }
}
