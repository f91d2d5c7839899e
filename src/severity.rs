//! How bad a stall is, and from which duration on.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How bad a stall is; ordered, [`Severity::Critical`] highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Severity {
    /// Worth watching: below 100 ms by default.
    Monitor,
    /// 100 ms to 1 s by default.
    Medium,
    /// 1 s to 5 s by default.
    High,
    /// Above 5 s by default.
    Critical,
}

impl Severity {
    /// All severities, the lowest first.
    pub const ALL: [Severity; 4] = [
        Severity::Monitor,
        Severity::Medium,
        Severity::High,
        Severity::Critical,
    ];

    const fn name(self) -> &'static str {
        match self {
            Severity::Monitor => "MONITOR",
            Severity::Medium => "MEDIUM",
            Severity::High => "HIGH",
            Severity::Critical => "CRITICAL",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Severity {
    type Err = Error;

    /// Reads a name as [`Display`](fmt::Display) writes it, in any letter case.
    fn from_str(text: &str) -> Result<Self, Error> {
        Severity::ALL
            .into_iter()
            .find(|severity| severity.name().eq_ignore_ascii_case(text))
            .ok_or_else(|| {
                Error::config(
                    "severity",
                    format!("{text:?} is no severity"),
                    "use MONITOR, MEDIUM, HIGH or CRITICAL",
                )
            })
    }
}

/// The duration from which on a stall has each [`Severity`].
///
/// A stall shorter than `monitor` is none. The four must rise strictly and
/// none may be zero; [`Thresholds::check`] tells, and so does the watchdog's
/// `start`.
///
/// ```
/// use std::time::Duration;
/// use stallscope::{Severity, Thresholds};
///
/// let thresholds = Thresholds::default();
/// assert_eq!(thresholds.severity_of(Duration::from_millis(300)), Some(Severity::Medium));
/// assert_eq!(thresholds.severity_of(Duration::from_millis(3)), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thresholds {
    /// From here on a stall is reported at all.
    pub monitor: Duration,
    /// From here on it is [`Severity::Medium`].
    pub medium: Duration,
    /// From here on it is [`Severity::High`].
    pub high: Duration,
    /// From here on it is [`Severity::Critical`].
    pub critical: Duration,
}

impl Default for Thresholds {
    /// 10 ms, 100 ms, 1 s, 5 s: what a network service wants.
    fn default() -> Self {
        Thresholds {
            monitor: Duration::from_millis(10),
            medium: Duration::from_millis(100),
            high: Duration::from_secs(1),
            critical: Duration::from_secs(5),
        }
    }
}

impl Thresholds {
    /// 100 us, 1 ms, 10 ms, 100 ms: for services whose whole budget is a few milliseconds.
    ///
    /// Needs a shorter tick than the default of 5 ms (a tick may not be longer
    /// than `monitor`), which costs the watchdog more CPU time.
    pub const fn low_latency() -> Self {
        Thresholds {
            monitor: Duration::from_micros(100),
            medium: Duration::from_millis(1),
            high: Duration::from_millis(10),
            critical: Duration::from_millis(100),
        }
    }

    /// The threshold of one severity.
    pub const fn of(&self, severity: Severity) -> Duration {
        match severity {
            Severity::Monitor => self.monitor,
            Severity::Medium => self.medium,
            Severity::High => self.high,
            Severity::Critical => self.critical,
        }
    }

    /// The severity of a stall this long; `None` below `monitor`.
    pub fn severity_of(&self, duration: Duration) -> Option<Severity> {
        Severity::ALL
            .into_iter()
            .rev()
            .find(|&severity| duration >= self.of(severity))
    }

    /// Tells whether the four rise strictly from above zero.
    ///
    /// # Errors
    /// Names the two thresholds that are out of order, or the one that is zero.
    pub fn check(&self) -> Result<(), Error> {
        if self.monitor.is_zero() {
            return Err(Error::config(
                "thresholds.monitor",
                "is zero, so every poll would be a stall".to_owned(),
                "set it to at least the longest poll you accept, 10 ms for most services",
            ));
        }
        let named = [
            ("thresholds.monitor", self.monitor),
            ("thresholds.medium", self.medium),
            ("thresholds.high", self.high),
            ("thresholds.critical", self.critical),
        ];
        for pair in named.windows(2) {
            let [(low_name, low), (high_name, high)] = pair else {
                continue;
            };
            if high <= low {
                return Err(Error::config(
                    high_name,
                    format!("is {high:?}, not above {low_name} ({low:?})"),
                    "let monitor < medium < high < critical",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_bound_belongs_to_the_higher_severity() {
        let thresholds = Thresholds::default();
        let table = [
            (Duration::ZERO, None),
            (ms(10) - Duration::from_nanos(1), None),
            (ms(10), Some(Severity::Monitor)),
            (ms(100) - Duration::from_nanos(1), Some(Severity::Monitor)),
            (ms(100), Some(Severity::Medium)),
            (ms(999), Some(Severity::Medium)),
            (ms(1_000), Some(Severity::High)),
            (ms(5_000), Some(Severity::Critical)),
            (Duration::MAX, Some(Severity::Critical)),
        ];
        for (duration, expected) in table {
            assert_eq!(thresholds.severity_of(duration), expected, "{duration:?}");
        }
    }

    #[test]
    fn presets_are_in_order() {
        Thresholds::default().check().unwrap();
        Thresholds::low_latency().check().unwrap();
    }

    #[test]
    fn a_wrong_order_is_named() {
        let wrong = Thresholds {
            high: ms(50),
            ..Thresholds::default()
        };
        let text = wrong.check().unwrap_err().to_string();
        assert!(text.contains("thresholds.high"), "{text}");
        assert!(text.contains("thresholds.medium"), "{text}");
        assert!(
            text.contains("monitor < medium < high < critical"),
            "{text}"
        );
        let zero = Thresholds {
            monitor: Duration::ZERO,
            ..Thresholds::default()
        };
        let text = zero.check().unwrap_err().to_string();
        assert!(text.contains("thresholds.monitor"), "{text}");
    }

    #[test]
    fn names_round_trip() {
        for severity in Severity::ALL {
            let name = severity.to_string();
            assert_eq!(name.parse::<Severity>().unwrap(), severity);
            assert_eq!(name.to_lowercase().parse::<Severity>().unwrap(), severity);
            let json = serde_json::to_string(&severity).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<Severity>(&json).unwrap(), severity);
        }
        assert!("SEVERE".parse::<Severity>().unwrap_err().is_config());
        assert!(Severity::Monitor < Severity::Critical);
    }
}
