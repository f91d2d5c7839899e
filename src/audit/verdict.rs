//! What is wrong, in words: the text of a failed assertion.

use std::fmt::{self, Write as _};
use std::time::Duration;

use crate::advice;
use crate::blocking::{Blocking, Detection};
use crate::escape::part;
use crate::owner;
use crate::report::{Report, Short};
use crate::stall::{Cause, Frame, Stack, Stall, StallKind};

/// Findings beyond these are only counted.
const MAX_SHOWN: usize = 5;
/// So many functions of a stack are shown.
const MAX_FRAMES: usize = 10;
/// So many reasons to allow blocking are shown.
const MAX_ALLOWED: usize = 20;

/// What a report says against a future, or why it can say nothing.
///
/// Its text is meant to be read: what, where, how long, how that is known, and
/// what to do about it.
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    text: String,
    unsupported: bool,
}

impl Failure {
    pub(crate) const fn new(text: String) -> Self {
        Failure {
            text,
            unsupported: false,
        }
    }

    /// Whether nothing is wrong but that this platform cannot tell.
    pub const fn is_unsupported(&self) -> bool {
        self.unsupported
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

// What `unwrap` shows is meant to be read.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl Report {
    /// Whether there was no stall; for assertions of one's own.
    ///
    /// # Errors
    /// If there was; its text says where and what to do.
    pub fn check_no_stalls(&self) -> Result<(), Failure> {
        if self.stalls.is_empty() && self.counts.total() == 0 {
            return Ok(());
        }
        let mut text = String::new();
        let stalls = usize::try_from(self.counts.total()).unwrap_or(usize::MAX);
        let _ = write!(
            text,
            "{} held {} thread up for too long",
            count(stalls, "poll", "polls"),
            if stalls == 1 { "its" } else { "their" },
        );
        for stall in self.stalls.iter().take(MAX_SHOWN) {
            tell_stall(&mut text, stall, self.detection);
        }
        more(&mut text, stalls);
        self.tell_unaudited(&mut text);
        Err(Failure::new(text))
    }

    /// Whether no poll blocked, however shortly; for assertions of one's own.
    ///
    /// # Errors
    /// If one did; its text says where and what to do. If blocking cannot be told
    /// here, or this is no audit's report: then [`Failure::is_unsupported`].
    pub fn check_no_blocking(&self) -> Result<(), Failure> {
        let why = match self.detection {
            None => "this is a watchdog's report, which does not look for short blocking",
            Some(Detection::Nothing) => "this platform does not tell whether a thread slept",
            Some(_) if self.blocking.is_empty() => return Ok(()),
            Some(_) => return Err(self.blocking_failure()),
        };
        Err(Failure {
            text: format!(
                "whether it blocked is not known: {why}. `unsupported: skip` in \
                 `assert_no_blocking!` skips the check"
            ),
            unsupported: true,
        })
    }

    fn blocking_failure(&self) -> Failure {
        let mut text = String::new();
        let places = self.blocking.len();
        let _ = write!(text, "it blocked in {}", count(places, "place", "places"));
        for blocking in self.blocking.iter().take(MAX_SHOWN) {
            tell_blocking(&mut text, blocking, self.detection);
        }
        more(&mut text, places);
        self.tell_unaudited(&mut text);
        if !self.allowed.is_empty() {
            let _ = write!(text, "\n\nallowed:");
            for allowed in self.allowed.iter().take(MAX_ALLOWED) {
                let _ = write!(
                    text,
                    "\n  {} at {}: {}",
                    count_times(allowed.count),
                    allowed.location,
                    part(&allowed.reason)
                );
            }
            if self.allowed.len() > MAX_ALLOWED {
                let _ = write!(text, "\n  and {} more", self.allowed.len() - MAX_ALLOWED);
            }
        }
        Failure::new(text)
    }

    fn tell_unaudited(&self, text: &mut String) {
        if self.unaudited > 0 {
            let tasks = usize::try_from(self.unaudited).unwrap_or(usize::MAX);
            let _ = write!(
                text,
                "\n\nat least {} that it spawned {} not audited: spawn with \
                 `stallscope::spawn`, or audit with `whole_runtime`",
                count(tasks, "task", "tasks"),
                if tasks == 1 { "was" } else { "were" },
            );
        }
    }

    /// All that there is to say against it.
    pub(crate) fn findings(&self) -> Option<String> {
        let stalls = self.check_no_stalls().err();
        let blocking = self
            .check_no_blocking()
            .err()
            .filter(|failure| !failure.unsupported);
        let texts: Vec<String> = [stalls, blocking]
            .into_iter()
            .flatten()
            .map(|failure| failure.text)
            .collect();
        (!texts.is_empty()).then(|| texts.join("\n\n"))
    }
}

fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

pub(super) fn count_times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        _ => format!("{number} times"),
    }
}

fn more(text: &mut String, all: usize) {
    if all > MAX_SHOWN {
        let _ = write!(text, "\n\nand {} more", all - MAX_SHOWN);
    }
}

fn tell_stall(text: &mut String, stall: &Stall, detection: Option<Detection>) {
    let goes_on = if stall.is_ongoing() {
        ", and goes on"
    } else {
        ""
    };
    let _ = write!(
        text,
        "\n\n{} {} of {}{goes_on}",
        stall.severity(),
        stall.kind(),
        Short(stall.duration()),
    );
    if let Some(task) = stall.task() {
        let _ = write!(text, " in `{}`", part(task.name()));
    }
    let cause = stall.cause();
    tell_place(
        text,
        stall.stack(),
        stall.task().and_then(|task| task.location()),
    );
    let _ = write!(text, "\n  why    {}", why(&cause));
    let shares = [
        (stall.on_cpu(), "on CPU"),
        (stall.off_cpu(), "asleep"),
        (stall.waiting(), "waiting for a CPU, which does not count"),
    ];
    let shares: Vec<String> = shares
        .iter()
        .filter(|(share, _)| *share >= Duration::from_micros(100))
        .map(|(share, what)| format!("{} {what}", Short(*share)))
        .collect();
    if !shares.is_empty() {
        let _ = write!(text, ": {}", shares.join(", "));
    }
    let sure = match detection {
        Some(Detection::Calls | Detection::Sleeps) if stall.kind() == StallKind::Turn => {
            "seen from another thread, all the time in one and the same sleep"
        }
        Some(Detection::Calls | Detection::Sleeps) if !stall.is_ongoing() => {
            "measured by its thread, whatever else the machine did"
        }
        Some(Detection::Nothing) => "by the clock: a busy machine makes polls longer",
        _ => "as seen from another thread",
    };
    let _ = write!(text, "\n  sure   {sure}");
    let _ = write!(text, "\n  fix    {}", advice::fix(&cause, stall.stack()));
    tell_stack(text, stall.stack());
}

fn tell_blocking(text: &mut String, blocking: &Blocking, detection: Option<Detection>) {
    let _ = write!(
        text,
        "\n\n`{}` {}",
        part(blocking.task.name()),
        why(&blocking.cause)
    );
    if blocking.count > 1 {
        let _ = write!(text, ", {} times", blocking.count);
    }
    let _ = write!(text, ", {}", Short(blocking.total()));
    if blocking.count > 1 {
        let _ = write!(text, " in all");
    }
    tell_place(text, blocking.stack(), blocking.task.location());
    let sure = match (&blocking.cause, blocking.sleeps, detection) {
        (Cause::Unknown, ..) if blocking.total_ns == 0 => {
            "the kernel counted that the thread slept; these were too many to be remembered"
        }
        (Cause::Unknown, ..) => {
            "the kernel counted that the thread slept; it was too short to be seen where"
        }
        (_, 0, Some(Detection::Calls)) => {
            "the call was seen; this time it had no need to wait, another time it may"
        }
        (.., Some(Detection::Calls)) => "the call was seen, and the kernel counted that it slept",
        _ => "the kernel counted that the thread slept, and it was seen where",
    };
    let _ = write!(text, "\n  sure   {sure}");
    let _ = write!(
        text,
        "\n  fix    {}",
        advice::fix(&blocking.cause, blocking.stack())
    );
    tell_stack(text, blocking.stack());
}

fn why(cause: &Cause) -> String {
    match cause {
        Cause::OnCpu => "computed".to_owned(),
        Cause::Lock => "waited for a lock".to_owned(),
        Cause::PageFault => "waited for memory to be read from disk".to_owned(),
        Cause::Unknown => "slept in the kernel".to_owned(),
        other => other.to_string(),
    }
}

fn tell_place(text: &mut String, stack: Option<&Stack>, made: Option<&crate::stall::Location>) {
    match (stack.and_then(Stack::culprit), made) {
        (Some(culprit), _) => {
            let _ = write!(text, "\n  where  {}", culprit.short());
            if let Some(leaf) = stack.and_then(Stack::leaf) {
                let _ = write!(text, " ({})", leaf.shown_function());
            }
            if let Some(whom) = stack.and_then(Stack::for_whom) {
                let _ = write!(text, ", {whom}");
            }
        }
        (None, Some(made)) => {
            let _ = write!(text, "\n  where  in the future made at {made}");
        }
        (None, None) => {}
    }
}

/// The user's own functions, and what the innermost called.
fn tell_stack(text: &mut String, stack: Option<&Stack>) {
    let Some(stack) = stack else { return };
    let Some(culprit) = stack.culprit else { return };
    let users = stack
        .frames
        .iter()
        .enumerate()
        .skip(culprit)
        // What is further out has polled the audited future.
        .take_while(|(_, frame)| !owner::is_own(frame))
        .filter(|(at, _)| *at == culprit || stack.is_users(*at))
        .map(|(_, frame)| frame);
    let mut shown: Vec<&Frame> = Vec::new();
    for frame in users {
        // An async function and the blocks in it are functions of one name.
        let again = shown
            .last()
            .is_some_and(|last| last.short_function() == frame.short_function());
        if !again {
            shown.push(frame);
        }
    }
    let _ = write!(text, "\n  stack");
    if let Some(leaf) = stack.leaf() {
        let _ = write!(text, "\n    {}", leaf.shown_function());
    }
    for frame in shown.iter().take(MAX_FRAMES) {
        let _ = write!(text, "\n    {}", frame.short());
    }
    if shown.len() > MAX_FRAMES {
        let _ = write!(text, "\n    and {} more", shown.len() - MAX_FRAMES);
    }
}
