//! Why a watchdog could not be started.

use std::fmt;
use std::io;

use crate::escape::sentence;

/// Why something could not be started or read; its text names the field and the remedy.
pub struct Error {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Config {
        field: &'static str,
        problem: String,
        remedy: &'static str,
    },
    NoRuntime,
    Thread {
        name: &'static str,
        source: io::Error,
    },
    Runtime(io::Error),
    Json(serde_json::Error),
}

impl Error {
    pub(crate) fn config(field: &'static str, problem: String, remedy: &'static str) -> Self {
        Error {
            kind: Kind::Config {
                field,
                problem,
                remedy,
            },
        }
    }

    pub(crate) const fn no_runtime() -> Self {
        Error {
            kind: Kind::NoRuntime,
        }
    }

    pub(crate) const fn thread(name: &'static str, source: io::Error) -> Self {
        Error {
            kind: Kind::Thread { name, source },
        }
    }

    pub(crate) const fn runtime(source: io::Error) -> Self {
        Error {
            kind: Kind::Runtime(source),
        }
    }

    pub(crate) const fn json(source: serde_json::Error) -> Self {
        Error {
            kind: Kind::Json(source),
        }
    }

    /// Whether a setting is out of its range; the text names it.
    pub const fn is_config(&self) -> bool {
        matches!(self.kind, Kind::Config { .. })
    }

    /// Whether there was no tokio runtime to watch.
    pub const fn is_no_runtime(&self) -> bool {
        matches!(self.kind, Kind::NoRuntime)
    }

    /// Whether the operating system refused a thread.
    pub const fn is_thread(&self) -> bool {
        matches!(self.kind, Kind::Thread { .. })
    }

    /// Whether a report could not be written as or read from JSON.
    pub const fn is_json(&self) -> bool {
        matches!(self.kind, Kind::Json(_))
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Error").field(&self.kind).finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Config {
                field,
                problem,
                remedy,
            } => write!(f, "`{field}` {}; {remedy}", sentence(problem)),
            Kind::NoRuntime => f.write_str(
                "there is no tokio runtime here to watch; call `start` inside one, \
                 or `start_on(&handle)` with a runtime's handle",
            ),
            Kind::Thread { name, source } => write!(
                f,
                "the thread `{name}` could not be started: {source}; \
                 raise the limit of threads of this process or container"
            ),
            Kind::Runtime(source) => write!(
                f,
                "the tokio runtime of the audit could not be built: {source}; \
                 raise the limit of open files of this process or container"
            ),
            // The parser quotes what it does not know, as it is.
            Kind::Json(source) => {
                write!(f, "not a report in JSON: {}", sentence(&source.to_string()))
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Thread { source, .. } | Kind::Runtime(source) => Some(source),
            Kind::Json(source) => Some(source),
            Kind::Config { .. } | Kind::NoRuntime => None,
        }
    }
}
