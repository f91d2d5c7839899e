//! What to do about what blocks.

use crate::stall::{Cause, Stack};

/// What a call is known by: parts of the names of the functions on the stack from
/// the culprit's callee inwards, or of the system call.
struct Advice {
    functions: &'static [&'static str],
    syscalls: &'static [&'static str],
    fix: &'static str,
}

/// The first that fits is given.
const CATALOGUE: [Advice; 11] = [
    Advice {
        functions: &["thread::sleep", "thread::functions::sleep"],
        syscalls: &["nanosleep", "clock_nanosleep", "sleep", "usleep"],
        fix: "`tokio::time::sleep(..).await`",
    },
    Advice {
        functions: &["getaddrinfo", "ToSocketAddrs"],
        syscalls: &["getaddrinfo"],
        fix: "`tokio::net::lookup_host(..).await`",
    },
    Advice {
        functions: &["process::Command", "process::Child"],
        syscalls: &["wait4", "waitid", "waitpid", "posix_spawn", "posix_spawnp"],
        fix: "`tokio::process::Command`",
    },
    Advice {
        functions: &["thread::JoinHandle", "join_inner"],
        syscalls: &["pthread_join"],
        fix: "`tokio::task::spawn_blocking(..).await` instead of a thread to join",
    },
    Advice {
        functions: &["sync::mpsc", "sync::mpmc", "crossbeam_channel"],
        syscalls: &[],
        fix: "a channel of `tokio::sync`, or receive on a thread or in `spawn_blocking`",
    },
    Advice {
        functions: &["Condvar", "Barrier"],
        syscalls: &["pthread_cond_wait", "pthread_cond_timedwait"],
        fix: "`tokio::sync::Notify`, `Semaphore` or `Barrier`",
    },
    Advice {
        functions: &["rusqlite", "diesel", "postgres::"],
        syscalls: &[],
        fix: "keep the connection on a thread of its own, or use `tokio::task::spawn_blocking`",
    },
    Advice {
        functions: &["reqwest::blocking", "ureq::", "minreq::", "attohttpc::"],
        syscalls: &[],
        fix: "an async client, or `tokio::task::spawn_blocking` with a timeout of the call's own",
    },
    Advice {
        functions: &["std::fs::", "fs::File", "std::os::unix::fs"],
        syscalls: &[
            "fsync",
            "fdatasync",
            "open",
            "open64",
            "openat",
            "openat64",
            "pread64",
            "pwrite64",
            "rename",
            "unlink",
            "mkdir",
            "rmdir",
            "ftruncate64",
            "copy_file_range",
            "sendfile64",
            "flock",
            "sync",
            "syncfs",
        ],
        fix: "`tokio::fs`, or better all of the file's work in one `tokio::task::spawn_blocking`",
    },
    Advice {
        functions: &["std::net::", "TcpStream", "UdpSocket", "UnixStream"],
        syscalls: &[
            "connect", "accept", "accept4", "recv", "recvfrom", "recvmsg", "send", "sendto",
            "sendmsg", "poll", "ppoll", "select",
        ],
        fix: "`tokio::net`, or an async client",
    },
    Advice {
        functions: &[],
        syscalls: &["read", "write", "readv", "writev"],
        fix: "tokio's type for what is read or written (`tokio::fs`, `tokio::net`, `tokio::io`), \
              or `tokio::task::spawn_blocking`",
    },
];

/// What to do about it, in one line.
pub(crate) fn fix(cause: &Cause, stack: Option<&Stack>) -> &'static str {
    match cause {
        Cause::OnCpu => {
            return "move the work to `tokio::task::spawn_blocking` or a pool of threads, or cut \
                    it into pieces with `tokio::task::yield_now().await` between them";
        }
        Cause::Lock => {
            return "hold the lock shortly and never while waiting for something slow; where it \
                    must be held across an await, `tokio::sync::Mutex`";
        }
        Cause::PageFault => {
            return "touch memory that may be on disk (mapped files) in `tokio::task::spawn_blocking`";
        }
        _ => {}
    }
    let syscall = match cause {
        Cause::Blocked { syscall } => syscall.as_str(),
        _ => "",
    };
    let called = stack.map_or(&[][..], |stack| {
        let culprit = stack.culprit.unwrap_or(0);
        stack.frames.get(..culprit).unwrap_or(&[])
    });
    let by_function = CATALOGUE.iter().find(|advice| {
        advice.functions.iter().any(|part| {
            called
                .iter()
                .filter_map(|frame| frame.function.as_deref())
                .any(|name| name.contains(part))
        })
    });
    by_function
        .or_else(|| {
            CATALOGUE
                .iter()
                .find(|advice| advice.syscalls.contains(&syscall))
        })
        .map_or("move it to `tokio::task::spawn_blocking`", |advice| {
            advice.fix
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stall::Frame;

    fn stack(called: &str) -> Stack {
        let frame = |name: &str| Frame {
            function: Some(name.to_owned()),
            ..Frame::default()
        };
        Stack {
            frames: vec![frame(called), frame("app::handler")],
            culprit: Some(1),
            leaf: Some(0),
        }
    }

    #[test]
    fn the_call_seen_decides_before_the_system_call() {
        let blocked = |syscall: &str| Cause::Blocked {
            syscall: syscall.to_owned(),
        };
        for (cause, called, part) in [
            (
                blocked("clock_nanosleep"),
                "std::thread::sleep",
                "time::sleep",
            ),
            (
                blocked("recvfrom"),
                "std::net::tcp::TcpStream::read",
                "tokio::net",
            ),
            (
                blocked("recvfrom"),
                "ureq::agent::Agent::run",
                "async client",
            ),
            (
                blocked("fsync"),
                "rusqlite::Connection::execute",
                "thread of its own",
            ),
            (blocked("read"), "std::fs::read", "tokio::fs"),
            (
                blocked("futex"),
                "std::sync::mpsc::Receiver<T>::recv",
                "channel",
            ),
            (blocked("wait4"), "x", "tokio::process"),
            (blocked("strange"), "x", "spawn_blocking"),
            (Cause::OnCpu, "serde_json::from_str", "yield_now"),
            (Cause::Lock, "std::sync::Mutex<T>::lock", "hold the lock"),
            (Cause::Unknown, "x", "spawn_blocking"),
        ] {
            let fix = fix(&cause, Some(&stack(called)));
            assert!(fix.contains(part), "{cause} {called}: {fix}");
        }
        assert!(fix(&blocked("connect"), None).contains("tokio::net"));
    }
}
