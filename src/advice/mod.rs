//! What to do about what blocks.

//!
//! [`choice`] finds the kind of blocking that a stack shows, by the table of
//! [`operations`]; [`kinds`] has what there is to say about each.

mod choice;
mod kinds;
mod operations;
mod path;
#[cfg(test)]
mod stacks;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::advice::choice::{Choice, choose};
use crate::advice::kinds::OTHER_CODE;
use crate::stall::{Cause, Stack};

/// What kind of risk a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RiskCategory {
    /// The event loop is held by work, or by waiting that nothing tells more of.
    Cpu,
    /// Files, standard output.
    FileIo,
    /// A database.
    Database,
    /// Another service.
    ExternalApi,
    /// A WebSocket.
    WebSocket,
    /// Another thread.
    Lock,
    /// A child process, or a name server.
    ProcessDns,
    /// The beginning or the end of the process.
    StartupShutdown,
    /// Too few CPUs for what wants to run.
    Starvation,
}

impl fmt::Display for RiskCategory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RiskCategory::Cpu => "Event Loop Blocking (CPU)",
            RiskCategory::FileIo => "File I/O",
            RiskCategory::Database => "Database",
            RiskCategory::ExternalApi => "External API",
            RiskCategory::WebSocket => "WebSocket",
            RiskCategory::Lock => "Lock contention",
            RiskCategory::ProcessDns => "Process/DNS",
            RiskCategory::StartupShutdown => "Startup/Shutdown",
            RiskCategory::Starvation => "Starvation",
        })
    }
}

/// How much work a fix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Complexity {
    /// A line or two.
    Low,
    /// A few functions.
    Medium,
    /// A change of design.
    High,
}

impl fmt::Display for Complexity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Complexity::Low => "low",
            Complexity::Medium => "medium",
            Complexity::High => "high",
        })
    }
}

/// What there is to say about a finding.
///
/// Reports come with advice from a catalogue; [`Report::advise`](crate::Report::advise)
/// replaces it by one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advice {
    /// What kind of risk it is.
    pub category: RiskCategory,
    /// What the code does, to be read after "it".
    pub does: Cow<'static, str>,
    /// What to do, in one line.
    pub short: Cow<'static, str>,
    /// What to do, in Rust.
    pub fix: Cow<'static, str>,
    /// What it costs.
    pub trade_off: Cow<'static, str>,
    /// How much work it is.
    pub complexity: Complexity,
}

/// What the catalogue says.
pub(crate) fn of(cause: &Cause, stack: Option<&Stack>) -> Advice {
    let choice = choice(cause, stack);
    let kind = choice.kind;
    let culprit = stack.and_then(Stack::culprit);
    let at_ends = culprit.is_some_and(|culprit| is_at_ends(&culprit.short_function()));
    let code = if choice.by_library {
        OTHER_CODE
    } else {
        kind.fix
    };
    Advice {
        category: if at_ends {
            RiskCategory::StartupShutdown
        } else {
            kind.category
        },
        does: kind.does.into(),
        short: short(choice).into(),
        fix: visible(code).into(),
        trade_off: kind.trade_off.into(),
        complexity: kind.complexity,
    }
}

/// Whether a function is of the program's beginning or end, by its name: what blocks
/// there holds up nobody yet, or nobody any more.
fn is_at_ends(function: &str) -> bool {
    const ENDS: [&str; 7] = [
        "startup",
        "start_up",
        "bootstrap",
        "initialize",
        "shutdown",
        "shut_down",
        "teardown",
    ];
    let name = function.rsplit("::").next().unwrap_or_default();
    ENDS.iter().any(|end| name.contains(end))
}

/// What to do about it, in one line.
pub(crate) fn fix(cause: &Cause, stack: Option<&Stack>) -> &'static str {
    short(choice(cause, stack))
}

fn choice(cause: &Cause, stack: Option<&Stack>) -> Choice {
    match stack {
        Some(stack) => {
            let choice = choose(cause, &stack.frames, stack.innermost_of_user());
            // What is awaited cannot be called elsewhere.
            let is_awaited = stack.called_from.is_some();
            if is_awaited && choice.by_library && choice.kind.name == kinds::LOCK.name {
                kinds::UNSEEN_LOCK.into()
            } else {
                choice
            }
        }
        None => choose(cause, &[], None),
    }
}

const fn short(choice: Choice) -> &'static str {
    if choice.by_library {
        "call the library that does so in `tokio::task::spawn_blocking`"
    } else {
        choice.kind.short
    }
}

/// Without the lines that only make it compile.
fn visible(code: &str) -> String {
    let lines = code.lines().filter(|line| !line.starts_with("# "));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::Frame;

    fn stack(called: &str) -> Stack {
        let frame = |name: &str| Frame {
            function: Some(name.into()),
            ..Frame::default()
        };
        Stack {
            frames: [frame(called), frame("app::handler")].into(),
            culprit: Some(1),
            leaf: Some(0),
            users: [1].into(),
            ..Stack::default()
        }
    }

    #[test]
    fn the_call_seen_decides_before_the_system_call() {
        use RiskCategory::*;
        let blocked = |syscall: &str| Cause::Blocked {
            syscall: syscall.to_owned(),
        };
        for (cause, called, category, part) in [
            (
                blocked("clock_nanosleep"),
                "std::thread::sleep",
                Cpu,
                "time::sleep",
            ),
            (
                blocked("recvfrom"),
                "std::net::tcp::TcpStream::read",
                ExternalApi,
                "tokio::net",
            ),
            (
                blocked("recvfrom"),
                "ureq::agent::Agent::run",
                ExternalApi,
                "async client",
            ),
            (
                blocked("fsync"),
                "rusqlite::Connection::execute",
                Database,
                "thread of its own",
            ),
            (blocked("read"), "std::fs::read", FileIo, "tokio::fs"),
            (
                blocked("futex"),
                "std::sync::mpsc::Receiver<T>::recv",
                Lock,
                "channel",
            ),
            (
                blocked("futex"),
                "tokio::runtime::Runtime::block_on",
                Cpu,
                "await",
            ),
            (blocked("wait4"), "x::y", ProcessDns, "tokio::process"),
            (blocked("getaddrinfo"), "x::y", ProcessDns, "lookup_host"),
            (
                blocked("write"),
                "std::io::stdio::_print",
                FileIo,
                "thread of their own",
            ),
            (blocked("strange"), "x", Cpu, "spawn_blocking"),
            (Cause::OnCpu, "serde_json::from_str", Cpu, "spawn_blocking"),
            (
                Cause::OnCpu,
                "image::load_from_memory",
                Cpu,
                "pool of threads",
            ),
            (Cause::OnCpu, "bcrypt::hash", Cpu, "semaphore"),
            (Cause::OnCpu, "x", Cpu, "yield_now"),
            (
                Cause::Lock,
                "std::sync::Mutex<T>::lock",
                Lock,
                "hold the lock",
            ),
            (Cause::PageFault, "x", FileIo, "memory"),
            (Cause::Starved, "x", Starvation, "CPU"),
            (Cause::Unknown, "x", Cpu, "spawn_blocking"),
        ] {
            let advice = of(&cause, Some(&stack(called)));
            assert_eq!(advice.category, category, "{cause} {called}");
            assert!(
                advice.short.contains(part),
                "{cause} {called}: {}",
                advice.short
            );
        }
        assert!(fix(&blocked("connect"), None).contains("tokio::net"));
    }

    #[test]
    fn a_lock_within_what_is_awaited_is_not_called_elsewhere() {
        let called = stack("std::sync::poison::mutex::Mutex<T>::lock");
        let frames = [
            called.frames[0].clone(),
            Frame {
                function: Some("flume::async::RecvFut<T>::poll_inner".into()),
                ..Frame::default()
            },
            called.frames[1].clone(),
        ];
        let called = Stack {
            frames: frames.into(),
            culprit: Some(2),
            users: [2].into(),
            ..called
        };
        let awaited = Stack {
            culprit: Some(1),
            called_from: Some(2),
            ..called.clone()
        };
        assert!(fix(&Cause::Lock, Some(&called)).contains("call the library"));
        assert_eq!(fix(&Cause::Lock, Some(&awaited)), kinds::UNSEEN_LOCK.short);
    }

    #[test]
    fn beginning_and_end_are_told_by_their_names() {
        for (function, at_ends) in [
            ("app::server::startup", true),
            ("app::shutdown_gracefully", true),
            ("app::startups::list", false),
            ("app::handler", false),
        ] {
            assert_eq!(is_at_ends(function), at_ends, "{function}");
        }
    }

    #[test]
    fn what_people_read_has_no_hidden_lines() {
        for kind in kinds::ALL {
            let code = visible(kind.fix);
            assert!(!code.contains("# ") && code.lines().count() < 12, "{code}");
        }
    }
}
