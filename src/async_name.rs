//! Names of async functions and closures that debug info leaves bare.
//!
//! With line tables only, the body of an inlined `async fn` is `{async_fn#0}` and no more.
//! Its future's type has the whole path, and is an argument of the generic function that
//! polls it: `poll<app::work::{async_fn_env#0}>`.

use crate::function_name::{self, Body, base, crate_of};
use crate::owner::{is_library_crate, is_library_path};
use crate::stall::Frame;

/// Gives bare functions the path that their caller's types have. The frames are of one
/// stack, or of what is inlined into one function of it, the innermost first.
pub(crate) fn complete(frames: &mut [Frame]) {
    for at in (0..frames.len()).rev() {
        let Some(bare) = frames[at].function.as_deref().filter(|name| is_bare(name)) else {
            continue;
        };
        let Some(caller) = frames.get(at + 1) else {
            continue;
        };
        let caller_name = caller.function.as_deref().unwrap_or_default();
        if let Some(path) = path_in(caller_name, base(bare), &frames[at]) {
            let named = format!("{path}::{}", base(bare));
            frames[at] = Frame {
                function: Some(named.into()),
                within: None,
                in_source: None,
                ..frames[at].clone()
            };
        } else if function_name::body(bare) != Body::Named {
            // The function that it is in, or that awaits it.
            let within = match &caller.within {
                Some(within) if is_bare(caller_name) => Some(within.clone()),
                _ if is_bare(caller_name) || !is_of_one_crate(&frames[at], caller) => None,
                _ => Some(function_name::short(caller_name).into()),
            };
            frames[at].within = within;
        }
    }
}

/// Whether a name has nothing but what the compiler made up.
pub(crate) fn is_bare(function: &str) -> bool {
    function.starts_with('{') && base(function).len() == path_length(function)
}

fn path_length(function: &str) -> usize {
    // A bare name has no `::` before its arguments.
    let end = function.find('<').unwrap_or(function.len());
    function[..end].trim_end_matches("::").len()
}

fn is_of_one_crate(one: &Frame, other: &Frame) -> bool {
    let is_librarys = |frame: &Frame| frame.file.as_deref().is_none_or(is_library_path);
    !is_librarys(one) && !is_librarys(other)
}

/// The path of the function whose future or closure a type is, where it may be this one.
fn path_in<'a>(types: &'a str, bare: &str, frame: &Frame) -> Option<&'a str> {
    let (kind, number) = bare.strip_prefix('{')?.strip_suffix('}')?.split_once('#')?;
    let in_debug_info = format!("{{{kind}_env#{number}}}");
    // In symbols all of them are closures.
    let in_symbols = format!("{{closure#{number}}}");
    [in_debug_info, in_symbols].iter().find_map(|made| {
        let found = types.match_indices(made.as_str());
        found
            .filter(|(at, _)| !types[at + made.len()..].starts_with("::"))
            .filter_map(|(at, _)| path_before(types, at))
            .find(|path| may_be(path, frame))
    })
}

/// The path that ends here with `::`.
fn path_before(text: &str, end: usize) -> Option<&str> {
    let path = text[..end].strip_suffix("::")?;
    let bytes = path.as_bytes();
    let (mut depth, mut start) = (0_i32, bytes.len());
    for at in (0..bytes.len()).rev() {
        match bytes[at] {
            b'>' if at > 0 && bytes[at - 1] != b'-' => depth += 1,
            b'<' if depth == 0 => break,
            b'<' => depth -= 1,
            byte if depth > 0 || byte.is_ascii_alphanumeric() || !byte.is_ascii() => {}
            b'_' | b':' | b'{' | b'}' | b'#' => {}
            _ => break,
        }
        start = at;
    }
    let path = &path[start..];
    (depth == 0 && !crate_of(path).is_empty()).then_some(path)
}

/// Whether a function of this path may be in the file of this frame.
fn may_be(path: &str, frame: &Frame) -> bool {
    let Some(file) = frame.file.as_deref() else {
        return false;
    };
    let krate = crate_of(path);
    if is_library_path(file) {
        return function_name::krate(frame).as_deref() == Some(krate);
    }
    let name = file.rsplit('/').next().unwrap_or_default();
    let stem = name.strip_suffix(".rs").unwrap_or(name).replace('-', "_");
    let is_root = ["main", "lib", "mod"].contains(&stem.as_str());
    let is_module = || {
        path.split(['<', '>', ':', ' '])
            .any(|segment| segment == stem)
    };
    !is_library_crate(krate) && (is_root || is_module())
}

/// Whose function, by the types of futures and closures that pass the work on: the
/// handler that a library was given, or the task.
pub(crate) fn on_behalf_of(frames: &[Frame]) -> Option<String> {
    let is_librarys = |krate: &str| {
        let known = |frame: &Frame| {
            let is_librarys = frame.file.as_deref().is_some_and(is_library_path);
            is_librarys && function_name::krate(frame).as_deref() == Some(krate)
        };
        is_library_crate(krate) || frames.iter().any(known)
    };
    frames.iter().find_map(|frame| {
        let types = frame.function.as_deref()?;
        let made = [
            "::{async_fn_env#",
            "::{async_block_env#",
            "::{closure_env#",
            "::{closure#",
        ];
        let mut ends: Vec<usize> = made
            .iter()
            .flat_map(|made| types.match_indices(made).map(|(at, _)| at + 2))
            .collect();
        ends.sort_unstable();
        let mut paths = ends.into_iter().filter_map(|end| path_before(types, end));
        let path = paths.find(|path| !is_librarys(crate_of(path)))?;
        Some(function_name::short(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKIO: &str = "/r/registry/src/i/tokio-1.54.1/src/runtime/task/core.rs";

    fn frames(of: &[(&str, &str)]) -> Vec<Frame> {
        let frame = |(function, file): &(&str, &str)| Frame {
            function: Some((*function).into()),
            file: Some((*file).into()),
            line: Some(1),
            ..Frame::default()
        };
        of.iter().map(frame).collect()
    }

    fn completed(of: &[(&str, &str)]) -> Vec<String> {
        let mut frames = frames(of);
        complete(&mut frames);
        frames.iter().map(Frame::short_function).collect()
    }

    #[test]
    fn the_futures_type_has_the_name() {
        for (bare, caller, name) in [
            (
                "{async_fn#0}",
                "poll<app::work::{async_fn_env#0}, X>",
                "app::work",
            ),
            (
                "{async_fn#0}<app::S>",
                "poll<app::main::{impl#0}::zip::{async_fn_env#0}<app::S>>",
                "app::main::zip",
            ),
            (
                "{async_block#1}",
                "{closure#0}<app::work::{async_fn#0}::{async_block_env#1}, X>",
                "app::work",
            ),
            (
                "{async_fn#0}",
                "tokio::a::poll::<<app::S<T>>::zip::{closure#0}, X>",
                "app::S::zip",
            ),
            (
                "{async_fn#0}",
                "poll<a::Wrap<app::outer::{async_fn_env#0}<app::inner::{async_fn_env#0}>>>",
                "app::outer",
            ),
            (
                "{closure#2}",
                "fold<X, app::each::{async_fn#0}::{closure_env#2}>",
                "app::each",
            ),
            // Of another number, of another kind, of a library, and of no type at all.
            (
                "{async_fn#0}",
                "poll<app::work::{async_fn_env#1}>",
                "async block",
            ),
            (
                "{async_fn#0}",
                "poll<app::work::{async_block_env#0}>",
                "async block",
            ),
            (
                "{async_fn#0}",
                "poll<axum::serve::{async_fn_env#0}>",
                "async block",
            ),
            (
                "{async_block#0}",
                "poll<app::w::{async_block_env#0}::{closure_env#0}>",
                "async block",
            ),
            ("{async_fn#0}", "poll<X>", "async block"),
        ] {
            let named = completed(&[(bare, "/app/src/main.rs"), (caller, TOKIO)]);
            assert_eq!(named[0], name, "{bare} {caller}");
        }
    }

    #[test]
    fn a_type_of_another_file_is_not_its_name() {
        let caller = "{async_fn#0}<app::other::{async_fn_env#0}>";
        for (file, is_named) in [("/app/src/other.rs", true), ("/app/src/store.rs", false)] {
            let named = completed(&[("{async_fn#0}", file), (caller, "/app/src/main.rs")]);
            assert_eq!(named[0] == "app::other", is_named, "{file}: {named:?}");
        }
    }

    #[test]
    fn one_that_is_awaited_by_another_is_in_it() {
        let main = "/app/src/main.rs";
        let named = completed(&[
            ("{async_fn#0}", "/app/src/store.rs"),
            ("{async_fn#0}", "/app/src/store.rs"),
            ("{async_block#0}", main),
            ("poll<app::main::{async_block_env#0}>", TOKIO),
        ]);
        let within = "async block in app::main";
        assert_eq!(named[..3], [within, within, "app::main"]);
    }

    #[test]
    fn whom_a_library_works_for() {
        let axum = "/r/registry/src/i/axum-0.8.9/src/handler/mod.rs";
        let ours = "/r/registry/src/i/rare-0.1.0/src/lib.rs";
        for (function, whom) in [
            (
                "{async_block#0}<fn() -> app::list::{async_fn_env#0}, X>",
                Some("app::list"),
            ),
            (
                "poll<tower::util::{async_fn_env#0}, app::api::{impl#1}::get::{closure_env#0}>",
                Some("app::api::get"),
            ),
            ("poll<rare::{async_fn_env#0}>", None),
            ("to_writer<app::Worker>", None),
        ] {
            let frames = frames(&[("f", ours), (function, axum)]);
            assert_eq!(on_behalf_of(&frames).as_deref(), whom, "{function}");
        }
    }
}
