//! Text for people: on standard output, or on standard error where that is for JSON.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static JSON: AtomicBool = AtomicBool::new(false);

/// From now on standard output is for lines of JSON.
pub fn json_on_stdout() {
    JSON.store(true, Ordering::Relaxed);
}

/// A line for people.
///
/// Blocks, if nobody reads: not to be called in a task that is watched.
pub fn line(text: fmt::Arguments<'_>) {
    // Whoever has closed the other end does not want to know.
    let _ = if JSON.load(Ordering::Relaxed) {
        writeln!(std::io::stderr(), "{text}")
    } else {
        writeln!(std::io::stdout(), "{text}")
    };
}

/// A line for programs, if they asked for it.
pub fn json(line: &impl serde::Serialize) {
    if JSON.load(Ordering::Relaxed)
        && let Ok(line) = serde_json::to_string(line)
    {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

/// [`say::line`](crate::say::line), with arguments as those of `println!`.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {
        $crate::say::line(format_args!($($words)*))
    };
}
