//! How severe something in progress is, and whether that is for want of a CPU alone.

use crate::clock;
use crate::detector::age::{Age, STARVED_PART};
use crate::severity::{Severity, Thresholds};

/// How severe something is; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// Its own time alone would be no stall: it has waited for a CPU for long. Who has
    /// waited is not to blame, so that is of the lowest severity, however long.
    Starved,
    /// By its own time.
    Own(Severity),
}

impl Weight {
    /// `None` for what is no stall.
    pub(crate) fn of(age: &Age, at_ns: u64, thresholds: &Thresholds) -> Option<Self> {
        let severity_of = |ns| thresholds.severity_of(std::time::Duration::from_nanos(ns));
        match severity_of(age.own_ns(at_ns)) {
            Some(severity) => Some(Weight::Own(severity)),
            None => severity_of(age.starved_ns(at_ns)).map(|_| Weight::Starved),
        }
    }

    pub(crate) const fn severity(self) -> Severity {
        match self {
            Weight::Starved => Severity::Monitor,
            Weight::Own(severity) => severity,
        }
    }

    pub(crate) const fn is_starved(self) -> bool {
        matches!(self, Weight::Starved)
    }
}

/// How long after `at_ns` it is of more weight than this, if it goes on without an excuse;
/// `None` if there is none above.
pub(crate) fn time_until_above(
    weight: Option<Weight>,
    age: &Age,
    at_ns: u64,
    thresholds: &Thresholds,
) -> Option<u64> {
    let own_until = |severity| {
        let bound_ns = clock::ns_of(thresholds.of(severity));
        bound_ns.saturating_sub(age.own_ns(at_ns))
    };
    match weight {
        None => {
            let bound_ns = clock::ns_of(thresholds.monitor);
            let left_ns = bound_ns.saturating_sub(age.starved_ns(at_ns));
            let starved_ns = left_ns.saturating_mul(STARVED_PART);
            Some(own_until(Severity::Monitor).min(starved_ns))
        }
        Some(Weight::Starved) => Some(own_until(Severity::Monitor)),
        Some(Weight::Own(told)) => {
            let next = Severity::ALL.into_iter().find(|severity| *severity > told);
            next.map(own_until)
        }
    }
}
