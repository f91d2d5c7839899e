//! What a stack shows of its thread: pure functions of frames.

use crate::async_name;
use crate::function_name;
use crate::owner::Ownership;
use crate::place::{self, PlaceKind};
use crate::stall::{Frame, Stack};

/// A stack of these functions, with names completed and its place found.
pub(crate) fn stack_of(mut frames: Vec<Frame>, ownership: &Ownership) -> Stack {
    async_name::complete(&mut frames);
    let place = place::place(&frames, ownership);
    let on_behalf_of = place
        .filter(|place| place.kind == PlaceKind::Librarys && place.called_from.is_none())
        .and_then(|place| async_name::on_behalf_of(&frames[place.frame..]));
    Stack {
        culprit: place.map(|place| place.frame),
        leaf: place.and_then(|place| place.leaf),
        called_from: place.and_then(|place| place.called_from),
        on_behalf_of: on_behalf_of.map(Into::into),
        users: (0..frames.len())
            .filter(|at| ownership.is_users(&frames[*at]))
            .collect(),
        frames: frames.into(),
    }
}

/// Whether the thread drives a current-thread runtime.
///
/// From tokio 1.54, `scheduler/current_thread/mod.rs`: `CoreGuard::block_on` and
/// `CurrentThread::block_on`, by path of the symbol, or by file where inlined.
pub(crate) fn passes_block_on(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        let file = frame.file.as_deref().unwrap_or_default();
        let there = file.contains("tokio") && file.contains("runtime/scheduler/current_thread");
        name.contains("block_on") && (there || name.contains("scheduler::current_thread"))
    })
}

/// Whether the thread is in `block_in_place`, so no worker's any more.
pub(crate) fn passes_block_in_place(frames: &[Frame]) -> bool {
    frames.iter().any(|frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        name.contains("block_in_place") && name.contains("tokio::")
            || name.starts_with("block_in_place")
    })
}

/// Whether the thread runs a worker of a multi-thread runtime: tokio 1.54,
/// `scheduler/multi_thread/worker.rs`.
pub(crate) fn runs_a_worker(frames: &[Frame]) -> bool {
    passes(frames, "scheduler::multi_thread::worker::")
        || passes(frames, "scheduler/multi_thread/worker")
}

/// Whether the thread is at work on a panic: its message, its unwinding.
pub(crate) fn passes_panic(frames: &[Frame]) -> bool {
    // Not all of `std::panicking`: `catch_unwind` is there, too.
    const PANICS: [&str; 4] = ["rust_panic", "begin_panic", "panic_fmt", "panic_with_hook"];
    frames.iter().any(|frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        PANICS.iter().any(|part| name.contains(part))
    })
}

/// Whether the thread waits for a mutex or the like, and not for something else on a futex.
pub(crate) fn waits_for_lock(stack: &Stack) -> bool {
    const LOCKS: [&str; 10] = [
        "Mutex",
        "mutex",
        "RwLock",
        "rwlock",
        "lock_contended",
        "lock_slow",
        "lock_shared_slow",
        "lock_exclusive_slow",
        "__lll_lock_wait",
        "ReentrantLock",
    ];
    const NO_LOCKS: [&str; 3] = ["Condvar", "condvar", "pthread_cond"];
    let called = stack.culprit.unwrap_or(stack.frames.len());
    let mut names = stack
        .frames
        .iter()
        .take(called)
        .flat_map(|frame| [frame.function.as_deref(), frame.file.as_deref()])
        .flatten();
    let any = |name: &str, parts: &[&str]| parts.iter().any(|part| name.contains(part));
    // A condition variable has its mutex on the stack, too.
    names.clone().all(|name| !any(name, &NO_LOCKS)) && names.any(|name| any(name, &LOCKS))
}

/// Whether one of these functions has this in its name or its file's.
pub(crate) fn passes(frames: &[Frame], part: &str) -> bool {
    let names = frames
        .iter()
        .flat_map(|frame| [frame.function.as_deref(), frame.file.as_deref()]);
    names.flatten().any(|name| name.contains(part))
}

/// Whether one of these functions waits for a condition, which lets the lock go.
pub(crate) fn waits_for_condition(frames: &[Frame]) -> bool {
    let names = ["Condvar", "condvar", "pthread_cond"];
    names.iter().any(|part| passes(frames, part))
}

/// Whether the culprit's own code computes: nothing that it calls matters by itself.
pub(crate) fn computes(stack: &Stack) -> bool {
    let called = stack.culprit.and_then(|at| stack.frames.get(..at));
    let Some(called) = called else { return false };
    let mut called = called.iter().rev();
    // Through a plain function of the standard library another may be called.
    called.next().is_none_or(is_plain) && !called.any(is_of_a_library)
}

/// Whether a function is one of those that code is made of: memory, numbers, collections,
/// the clock.
fn is_plain(frame: &Frame) -> bool {
    const CRATES: [&str; 4] = ["core", "alloc", "hashbrown", "compiler_builtins"];
    const MODULES: [&str; 5] = [
        "std::time::",
        "std::collections::",
        "std::hash::",
        "std::hint::",
        "std::num::",
    ];
    const FILES: [&str; 5] = [
        "/library/core/src/",
        "/library/alloc/src/",
        "/library/std/src/time.rs",
        "/library/std/src/collections/",
        "/hashbrown-",
    ];
    let function = frame.function.as_deref().unwrap_or_default();
    let path = function.trim_start_matches('<');
    let file = frame.file.as_deref().unwrap_or_default();
    CRATES.contains(&function_name::crate_of(function))
        || MODULES.iter().any(|module| path.starts_with(module))
        || FILES.iter().any(|part| file.contains(part))
}

/// Whether a function is neither of the standard library nor of C.
fn is_of_a_library(frame: &Frame) -> bool {
    const STANDARD: [&str; 5] = ["std", "core", "alloc", "hashbrown", "compiler_builtins"];
    let standard = ["/library/", "/rustc/", "/rust/deps/"];
    match (
        frame.file.as_deref(),
        function_name::crate_of(frame.function.as_deref().unwrap_or_default()),
    ) {
        (Some(file), _) => {
            file.ends_with(".rs") && !standard.iter().any(|part| file.contains(part))
        }
        (None, krate) => !krate.is_empty() && !STANDARD.contains(&krate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            file: (!file.is_empty()).then(|| file.into()),
            line: Some(1),
            ..Frame::default()
        }
    }

    #[test]
    fn block_on_is_found_by_file_or_name() {
        let file = "/x/registry/src/y/tokio-1.54.1/src/runtime/scheduler/current_thread/mod.rs";
        for (frame, passes) in [
            (
                frame("block_on<app::main::{async_block_env#0}>", file),
                true,
            ),
            (
                frame(
                    "tokio::runtime::scheduler::current_thread::CoreGuard::block_on",
                    "",
                ),
                true,
            ),
            (frame("run_task", file), false),
            (frame("futures_executor::local_pool::block_on", ""), false),
            (
                frame(
                    "tokio::runtime::scheduler::multi_thread::MultiThread::block_on",
                    "",
                ),
                false,
            ),
        ] {
            assert_eq!(
                passes_block_on(std::slice::from_ref(&frame)),
                passes,
                "{frame}"
            );
        }
    }

    #[test]
    fn block_in_place_is_found_by_its_names() {
        let outer = "tokio::runtime::scheduler::multi_thread::worker::block_in_place";
        for (name, passes) in [
            (outer, true),
            ("tokio::task::blocking::block_in_place", true),
            // As line tables name an inlined one.
            ("block_in_place<app::work::{closure#0}, ()>", true),
            ("app::block_in_placebo", false),
        ] {
            let frames = [frame("sleep", ""), frame(name, "")];
            assert_eq!(passes_block_in_place(&frames), passes, "{name}");
        }
    }

    #[test]
    fn own_code_computes_where_it_calls_nothing_that_matters() {
        let std = "/rustc/abc/library/std/src";
        let own = ("app::work", "/home/me/app/src/main.rs");
        let clock = ("std::time::Instant::elapsed", &*format!("{std}/time.rs"));
        let call = ("call_once", "/rustc/abc/library/core/src/ops/function.rs");
        let read = ("std::fs::read::inner", &*format!("{std}/fs.rs"));
        let decode = (
            "image::decode",
            "/home/me/.cargo/registry/src/x/image/lib.rs",
        );
        let libc = ("clock_gettime", "");
        for (functions, expected) in [
            (&[own][..], true),
            (&[libc, clock, own], true),
            (&[call, own], true),
            (&[read, own], false),
            (&[libc, own], false),
            (&[decode, own], false),
            (&[decode, call, own], false),
        ] {
            let frames = functions.iter().map(|(name, file)| frame(name, file));
            assert_eq!(
                computes(&stack_of(frames.collect(), &Ownership::default())),
                expected,
                "{functions:?}"
            );
        }
        let nobody = vec![frame(libc.0, libc.1)];
        assert!(!computes(&stack_of(nobody, &Ownership::default())));
    }

    #[test]
    fn locks_are_told_from_other_waits() {
        let std = "/rustc/abc/library/std/src/sys/sync";
        let lock = [
            frame("syscall", ""),
            frame("lock_contended", &format!("{std}/mutex/futex.rs")),
            frame("app::work", "/app/src/main.rs"),
        ];
        let stack = |frames: [Frame; 3]| stack_of(frames.to_vec(), &Ownership::default());
        assert!(waits_for_lock(&stack(lock)));
        let condvar = [
            frame("syscall", ""),
            frame("wait", &format!("{std}/condvar/futex.rs")),
            frame("app::mutex_owner", "/app/src/main.rs"),
        ];
        assert!(!waits_for_lock(&stack(condvar)));
    }
}
