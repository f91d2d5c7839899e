//! Which function on a stack is the user's, and what it called: pure functions of frames.

use crate::stall::{Frame, Stack};

/// Crates whose functions are not the user's, where a path does not tell.
const HIDDEN_CRATES: [&str; 13] = [
    "std",
    "core",
    "alloc",
    "hashbrown",
    "tokio",
    "tokio_util",
    "futures",
    "futures_core",
    "futures_util",
    "tracing",
    "hyper",
    "tower",
    "stallscope",
];

/// Parts of paths below which libraries lie: the standard library as it was built,
/// what it is built on, the same from source, crates from a registry, crates from git.
const HIDDEN_PATHS: [&str; 6] = [
    "/rustc/",
    "/rust/deps/",
    "/rustlib/src/",
    "library/std/",
    "/registry/src/",
    "/git/checkouts/",
];

/// This crate's own files, wherever it lies; not its examples and tests.
const OWN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

/// Indices into a stack, the innermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// The innermost function of the user.
    pub(crate) culprit: Option<usize>,
    /// What it called.
    pub(crate) leaf: Option<usize>,
}

/// Finds culprit and leaf.
pub(crate) fn trim(frames: &[Frame]) -> Trimmed {
    let culprit = frames.iter().position(is_users);
    let leaf = culprit
        .and_then(|culprit| culprit.checked_sub(1))
        .filter(|leaf| {
            frames
                .get(*leaf)
                .is_some_and(|frame| frame.function.is_some())
        });
    Trimmed { culprit, leaf }
}

/// A stack of these functions, with culprit and leaf found.
pub(crate) fn stack_of(frames: Vec<Frame>) -> Stack {
    let Trimmed { culprit, leaf } = trim(&frames);
    Stack {
        frames: frames.into(),
        culprit,
        leaf,
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
pub(crate) fn waits_for_lock(frames: &[Frame]) -> bool {
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
    let culprit = trim(frames).culprit.unwrap_or(frames.len());
    let mut names = frames
        .iter()
        .take(culprit)
        .flat_map(|frame| [frame.function.as_deref(), frame.file.as_deref()])
        .flatten();
    let any = |name: &str, parts: &[&str]| parts.iter().any(|part| name.contains(part));
    // A condition variable has its mutex on the stack, too.
    names.clone().all(|name| !any(name, &NO_LOCKS)) && names.any(|name| any(name, &LOCKS))
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
    CRATES.contains(&crate_of(function))
        || MODULES.iter().any(|module| path.starts_with(module))
        || FILES.iter().any(|part| file.contains(part))
}

/// Whether a function is neither of the standard library nor of C.
fn is_of_a_library(frame: &Frame) -> bool {
    const STANDARD: [&str; 5] = ["std", "core", "alloc", "hashbrown", "compiler_builtins"];
    let standard = ["/library/", "/rustc/", "/rust/deps/"];
    match (
        frame.file.as_deref(),
        crate_of(frame.function.as_deref().unwrap_or_default()),
    ) {
        (Some(file), _) => {
            file.ends_with(".rs") && !standard.iter().any(|part| file.contains(part))
        }
        (None, krate) => !krate.is_empty() && !STANDARD.contains(&krate),
    }
}

/// Whether a function is this crate's.
pub(crate) fn is_own(frame: &Frame) -> bool {
    match frame.file.as_deref() {
        Some(file) => file.starts_with(OWN_PATH),
        None => crate_of(frame.function.as_deref().unwrap_or("")) == "stallscope",
    }
}

pub(crate) fn is_users(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or("");
    match frame.file.as_deref() {
        Some(file) => {
            // Inlined functions have bare names: the file must tell.
            file.ends_with(".rs")
                && !file.starts_with(OWN_PATH)
                && !HIDDEN_PATHS.iter().any(|part| file.contains(part))
        }
        None => {
            let krate = crate_of(function);
            !krate.is_empty() && !HIDDEN_CRATES.contains(&krate)
        }
    }
}

/// The crate of a function's path, or of the type whose method it is; empty for a C function.
fn crate_of(function: &str) -> &str {
    let start = function.trim_start_matches(['<', '&', '*', ' ', '(', '[']);
    let start = ["dyn ", "mut ", "const "]
        .into_iter()
        .find_map(|word| start.strip_prefix(word))
        .unwrap_or(start);
    let end = start
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(start.len());
    let (krate, rest) = start.split_at(end);
    // `crate::path`, or with a disambiguator `crate[hash]::path`.
    if rest.starts_with("::") || rest.starts_with('[') {
        krate
    } else {
        ""
    }
}

/// A function's name for people: without closures and generic arguments.
pub(crate) fn short(function: &str) -> String {
    let mut text = String::with_capacity(function.len());
    let mut rest = function;
    // `<a::B as c::D>::e` is read `a::B::e`.
    if let Some(inner) = rest.strip_prefix('<')
        && let Some((of, method)) = split_at_close(inner)
    {
        let of = of.split(" as ").next().unwrap_or(of);
        text.push_str(&without_arguments(of));
        rest = method;
    }
    text.push_str(&without_arguments(rest));
    without_closures(&text)
}

/// Without the segments of a path that the compiler made up, like `{{closure}}`.
fn without_closures(text: &str) -> String {
    let named: Vec<&str> = text
        .split("::")
        .filter(|segment| !segment.starts_with('{'))
        .collect();
    match (named.is_empty(), text.starts_with("{async")) {
        (false, _) => named.join("::"),
        // An inlined one has no more to its name.
        (true, true) => "async block".to_owned(),
        (true, false) => "closure".to_owned(),
    }
}

/// Splits at the `>` that closes what is open at the beginning.
fn split_at_close(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in text.char_indices() {
        match c {
            '<' => depth += 1,
            '>' if !text.get(..at)?.ends_with('-') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((text.get(..at)?, text.get(at + 1..)?));
        }
    }
    None
}

fn without_arguments(text: &str) -> String {
    let mut depth = 0_u32;
    let mut kept = String::with_capacity(text.len());
    let mut before = ' ';
    for c in text.chars() {
        match c {
            '<' => {
                if depth == 0 && kept.ends_with("::") {
                    kept.truncate(kept.len() - 2);
                }
                depth += 1;
            }
            '>' if before != '-' => depth = depth.saturating_sub(1),
            _ if depth == 0 => kept.push(c),
            _ => {}
        }
        before = c;
    }
    kept
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
    fn the_users_innermost_function_and_what_it_called() {
        let own = format!("{OWN_PATH}watched.rs");
        let with_files = [
            frame(
                "clock_nanosleep",
                "./time/../sysdeps/unix/clock_nanosleep.c",
            ),
            frame("sleep", "/rustc/abc/library/std/src/thread/mod.rs"),
            frame(
                "hashbrown::raw::drop",
                "/rust/deps/hashbrown-0.16.1/src/raw/mod.rs",
            ),
            frame("app::work::{{closure}}", "/home/me/app/src/main.rs"),
            frame("<stallscope::watched::Watched<F> as Future>::poll", &own),
            frame(
                "poll",
                "/home/me/.cargo/registry/src/index/tokio-1.54.1/src/core.rs",
            ),
            frame("app::main", "/home/me/app/src/main.rs"),
        ];
        let expected = Trimmed {
            culprit: Some(3),
            leaf: Some(2),
        };
        assert_eq!(trim(&with_files), expected);
        let without = with_files.map(|frame| Frame {
            file: None,
            ..frame
        });
        assert_eq!(trim(&without).culprit, Some(3), "by name alone");
        assert_eq!(trim(&[]), Trimmed::default());
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
                computes(&stack_of(frames.collect())),
                expected,
                "{functions:?}"
            );
        }
        assert!(!computes(&stack_of(vec![frame(decode.0, decode.1)])));
    }

    #[test]
    fn crates_of_functions() {
        for (function, expected) in [
            ("std::thread::sleep", "std"),
            ("<core::pin::Pin<P> as core::future::Future>::poll", "core"),
            ("<&mut alloc::vec::Vec<T> as a::B>::c", "alloc"),
            ("<dyn app::Job as app::Run>::run", "app"),
            ("app[1234]::main", "app"),
            ("__libc_start_main", ""),
            ("", ""),
        ] {
            let function = function.replace("&mut ", "&");
            assert_eq!(crate_of(&function), expected, "{function}");
        }
    }

    #[test]
    fn short_names() {
        for (function, expected) in [
            ("app::work::{{closure}}", "app::work"),
            ("<app::Store as app::Save<T>>::save", "app::Store::save"),
            ("core::ptr::read::<app::X<u8>>", "core::ptr::read"),
            ("app::call::<fn() -> u8>::now", "app::call::now"),
            ("app::main", "app::main"),
            ("app::main::{async_block#1}", "app::main"),
            ("{async_block#1}", "async block"),
            ("{{closure}}", "closure"),
        ] {
            assert_eq!(short(function), expected);
        }
    }

    #[test]
    fn locks_are_told_from_other_waits() {
        let std = "/rustc/abc/library/std/src/sys/sync";
        let lock = [
            frame("syscall", ""),
            frame("lock_contended", &format!("{std}/mutex/futex.rs")),
            frame("app::work", "/app/src/main.rs"),
        ];
        assert!(waits_for_lock(&lock));
        let condvar = [
            frame("syscall", ""),
            frame("wait", &format!("{std}/condvar/futex.rs")),
            frame("app::mutex_owner", "/app/src/main.rs"),
        ];
        assert!(!waits_for_lock(&condvar));
    }
}
