//! What a watchdog needs for one runtime: who looks, who investigates, who measures lag.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::clock::{self, Calibrated};
use crate::detector::Detector;
use crate::driven::Driven;
use crate::explain::Explainer;
use crate::local;
use crate::own_work::OwnTasks;
use crate::runtime::{Gone, Runtime};
use crate::sampler;
use crate::supply::Supplied;
use crate::watchdog::Builder;
use crate::watchdog::investigator::{Case, CaseSettings};
use crate::watchdog::observe::Observer;
use crate::watchdog::patrol::{self, Kept, Patrol, Stuck};
use crate::watchdog::rounds::Exchange;
use crate::watchdog::shared::Shared;

/// One runtime that is about to be watched.
pub(super) struct Setup<'a> {
    pub(super) clock: &'static Calibrated,
    pub(super) settings: &'a Builder,
    pub(super) handle: &'a Handle,
    pub(super) shared: Arc<Shared>,
    pub(super) gone: Gone,
    pub(super) driven: Arc<Driven>,
}

impl<'a> Setup<'a> {
    pub(super) fn new(
        clock: &'static Calibrated,
        settings: &'a Builder,
        handle: &'a Handle,
        shared: Arc<Shared>,
    ) -> Self {
        Setup {
            clock,
            settings,
            handle,
            shared,
            gone: Gone::default(),
            driven: Arc::default(),
        }
    }

    pub(super) fn runtime(&self) -> Runtime {
        Runtime::new(self.handle, self.gone.clone())
    }

    /// What looks at it; `back` is `None` for the watchdog's own runtime.
    pub(super) fn patrol(&self, back: Option<Exchange>) -> Patrol {
        let observer = Observer::new(self.clock, self.runtime(), Arc::clone(&self.driven));
        Patrol {
            clock: self.clock,
            shared: Arc::clone(&self.shared),
            kept: Kept::new(&observer, self.shared.common.tolerance_ns),
            observer,
            detector: Detector::new(self.settings.thresholds, self.clock.now_ns()),
            driven: Arc::clone(&self.driven),
            stuck: self.settings.stuck_after.map(clock::ns_of).map(Stuck::new),
            ahead: patrol::ASKED_AHEAD,
            serial: 0,
            is_own: back.is_none(),
            back,
        }
    }

    /// What investigates its stalls.
    pub(super) fn case(&self, explainer: Arc<Explainer>, supplied: Supplied) -> Case {
        let settings = self.settings;
        Case::new(CaseSettings {
            clock: self.clock,
            shared: Arc::clone(&self.shared),
            runtime: self.runtime(),
            signals: settings.stacks.then(|| settings.signal_use()),
            explainer,
            driven: Arc::clone(&self.driven),
            thresholds: settings.thresholds,
            stuck_after_ns: settings.stuck_after.map(clock::ns_of),
            short_slices: settings.short_slices,
            ownership: Arc::new(settings.ownership.clone()),
            _supplied: supplied,
        })
    }

    /// Starts the task on it that measures lag, and says when it is gone.
    pub(super) fn sample(&self) -> AbortHandle {
        let sentinel = self.gone.sentinel();
        let own = OwnTasks::of(local::runtime_id(self.handle));
        let task = match self.settings.lag_period {
            Some(period) => {
                let lag = Arc::clone(&self.shared.lag);
                let metrics = self.handle.metrics();
                own.spawn(
                    self.handle,
                    sampler::sample(lag, self.clock, period, metrics, sentinel),
                )
            }
            None => own.spawn(self.handle, sampler::wait_for_the_end(sentinel)),
        };
        task.abort_handle()
    }
}
