//! Places of stacks: of real programs, and of what those do not show.

use super::*;
use crate::stall::Stack;
use crate::trim::stack_of;

fn frame(function: &str, file: &str, line: u32) -> Frame {
    let is_there = |text: &str| text != "-" && !text.is_empty();
    Frame {
        function: is_there(function).then(|| function.into()),
        file: is_there(file).then(|| file.into()),
        line: (line > 0).then_some(line),
        ..Frame::default()
    }
}

fn told(stack: &Stack) -> String {
    let Some(culprit) = stack.culprit() else {
        return "-".to_owned();
    };
    let leaf = stack
        .leaf()
        .map(|leaf| format!(" ({})", leaf.short_function()));
    let whom = stack.for_whom().map(|whom| format!(", {whom}"));
    let (leaf, whom) = (leaf.unwrap_or_default(), whom.unwrap_or_default());
    format!("{}{leaf}{whom}", culprit.short())
}

#[test]
fn places_of_real_stacks() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for stack in include_str!("place_stacks.txt").split("\n## ").skip(1) {
        let mut lines = stack.lines();
        let (name, expected) = lines.next().unwrap().split_once(" | ").unwrap();
        let frames = lines.filter(|line| !line.is_empty()).map(|line| {
            let mut fields = line.split('\t');
            let mut field = || fields.next().unwrap();
            frame(field(), field(), field().parse().unwrap())
        });
        let told = told(&stack_of(frames.collect(), &Ownership::default()));
        if told != expected {
            wrong.push(format!("{name}\n  {told}, not\n  {expected}"));
        }
        count += 1;
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 20, "{count}");
}

/// Functions as `crate::function`, or with a path of their own; the user's crate is `app`.
fn place_of(functions: &[&str]) -> Option<(String, Option<String>, PlaceKind)> {
    let frames: Vec<Frame> = functions.iter().map(|name| frame(name, "", 0)).collect();
    let name = |at: usize| functions[at].to_owned();
    let found = place(&frames, &Ownership::default())?;
    Some((name(found.frame), found.called_from.map(name), found.kind))
}

const TASK: &str = "tokio::runtime::task::harness::poll_future::<X>";
const FUTURE: &str = "<sqlx_core::Fetch as core::future::future::Future>::poll";

#[test]
fn what_is_awaited_is_somebody_elses_and_what_is_called_is_not() {
    use PlaceKind::{Librarys, Users};
    for (functions, place, from, kind) in [
        (
            &["serde_json::to_string", "app::handler", TASK][..],
            "app::handler",
            None,
            Users,
        ),
        (
            &["sqlx_core::decode", FUTURE, "app::handler", TASK],
            FUTURE,
            Some("app::handler"),
            Librarys,
        ),
        // A library's `async fn` that blocks at once.
        (
            &[
                "std::fs::read",
                "zip::read::{{closure}}",
                "app::handler",
                TASK,
            ],
            "zip::read::{{closure}}",
            Some("app::handler"),
            Librarys,
        ),
        // Through the pointers of the standard library.
        (
            &[
                "zip::deflate",
                "<core::pin::Pin<P> as core::future::future::Future>::poll",
                "app::handler",
            ],
            "zip::deflate",
            Some("app::handler"),
            Librarys,
        ),
        // What only has the name waits, and is called.
        (
            &["syscall", "mio::poll::Poll::poll", "app::handler", TASK],
            "app::handler",
            None,
            Users,
        ),
        (
            &["syscall", "poll", "app::handler", TASK],
            "app::handler",
            None,
            Users,
        ),
        // Nothing but the runtime is below.
        (
            &[
                "tokio::sync::mpsc::Receiver<T>::recv::{{closure}}",
                "app::handler",
                TASK,
            ],
            "app::handler",
            None,
            Users,
        ),
        // A closure of the user that a library calls is the user's work.
        (
            &["app::weigh", "rayon::bridge", "app::rank", TASK],
            "app::weigh",
            None,
            Users,
        ),
        (
            &[
                "rusqlite::execute",
                "app::save::{{closure}}",
                "rusqlite::transaction",
                "app::save",
            ],
            "app::save::{{closure}}",
            None,
            Users,
        ),
        // One that a serializer calls back is in between, unless it does the work itself.
        (
            &[
                "serde_json::write",
                "<app::X as serde::Serialize>::serialize",
                "serde_json::to_string",
                "app::handler",
            ],
            "app::handler",
            None,
            Users,
        ),
        (
            &[
                "memcpy",
                "<app::X as serde::Serialize>::serialize",
                "serde_json::to_string",
                "app::handler",
            ],
            "<app::X as serde::Serialize>::serialize",
            None,
            Users,
        ),
        // Without any of the user's: the outermost that names the work.
        (
            &[
                "memcpy",
                "flate2::run",
                "core::iter::fold",
                "tower_http::compression::poll_frame",
                "hyper::poll",
                "app",
            ],
            "tower_http::compression::poll_frame",
            None,
            Librarys,
        ),
    ] {
        let expected = (place.to_owned(), from.map(str::to_owned), kind);
        assert_eq!(place_of(functions), Some(expected), "{functions:?}");
    }
    for nothing in [
        &["memcpy"][..],
        &["epoll_wait", "mio::poll", "tokio::runtime::park"],
        &["__rustc::__rust_alloc", TASK],
        &[],
    ] {
        assert_eq!(place_of(nothing), None, "{nothing:?}");
    }
}

#[test]
fn a_nested_block_on_is_the_place_and_not_what_it_waits_for() {
    use PlaceKind::{BlockOn, Users};
    const WAITS: &str = "<tokio::task::JoinHandle as core::future::future::Future>::poll";
    const BLOCK_ON: &str = "futures_executor::local_pool::block_on::<F>";
    const BLOCKING: &str =
        "<tokio::runtime::blocking::task::BlockingTask as core::future::future::Future>::poll";
    for (functions, place, kind) in [
        (
            &["syscall", "std::thread::park", BLOCK_ON, "app::sum", TASK][..],
            "app::sum",
            BlockOn,
        ),
        (
            &[WAITS, "app::fetch", BLOCK_ON, "app::sum", TASK],
            "app::sum",
            BlockOn,
        ),
        (
            &[
                "tokio::spawn_blocking",
                "app::fetch",
                BLOCK_ON,
                "app::sum",
                TASK,
            ],
            "app::sum",
            BlockOn,
        ),
        (
            &["syscall", "pollster::block_on", TASK],
            "pollster::block_on",
            BlockOn,
        ),
        // The inner future itself reads, or computes.
        (
            &["std::fs::read", "app::fetch", BLOCK_ON, "app::sum", TASK],
            "app::fetch",
            Users,
        ),
        (
            &["app::fetch", BLOCK_ON, "app::sum", TASK],
            "app::fetch",
            Users,
        ),
        // It may: it drives the runtime, or is on the blocking pool.
        (
            &[
                WAITS,
                "app::main::{{closure}}",
                "tokio::runtime::Runtime::block_on",
                "app::main",
            ],
            "app::main::{{closure}}",
            Users,
        ),
        (
            &[WAITS, "app::fetch", BLOCK_ON, "app::sum", BLOCKING, TASK],
            "app::fetch",
            Users,
        ),
    ] {
        let expected = (place.to_owned(), None, kind);
        assert_eq!(place_of(functions), Some(expected), "{functions:?}");
    }
}

#[test]
fn neither_this_crate_nor_the_compiler_is_a_place() {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/src/watched.rs");
    let main = "/app/src/main.rs";
    let frames = [
        frame("__rust_no_alloc_shim_is_unstable_v2", main, 1),
        frame("poll", own, 9),
        frame("handler", main, 3),
    ];
    let found = place(&frames, &Ownership::default()).unwrap();
    assert_eq!((found.frame, found.called_from), (2, None));
    assert_eq!(place(&frames[..2], &Ownership::default()), None);
}

#[test]
fn settings_decide_whose_work_it_is() {
    let frames = [
        frame("read", "/r/registry/src/i/our-store-0.3.0/src/lib.rs", 7),
        frame("poll", "/r/registry/src/i/our-store-0.3.0/src/lib.rs", 9),
        frame("handler", "/app/src/main.rs", 3),
    ];
    let at = |ownership: &Ownership| {
        let found = place(&frames, ownership).unwrap();
        (found.frame, found.called_from)
    };
    let mut ownership = Ownership::default();
    assert_eq!(at(&ownership), (1, Some(2)), "a library's");
    ownership.add_users(["our-store"]);
    assert_eq!(at(&ownership), (0, None), "one's own");
    let mut ownership = Ownership::default();
    ownership.add_libraries(["/app/src/"]);
    assert_eq!(at(&ownership), (2, None), "nothing is one's own");
}
