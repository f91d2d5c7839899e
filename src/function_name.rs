//! Names of functions as debug info and symbols write them: what is in them, and what of
//! them is for people.
//!
//! With line tables only, an inlined function has a bare name with its types,
//! `to_writer<&mut W, app::Worker>`; with more debug info a path,
//! `serde_json::ser::to_writer<..>`; a symbol is `serde_json::ser::to_writer::<..>` or
//! `<app::Worker as serde_core::ser::Serialize>::serialize`.

use crate::stall::Frame;

/// A function's path for people: without closures and generic arguments.
pub(crate) fn short(function: &str) -> String {
    let text = path(function);
    match without_made_up(&text) {
        named if !named.is_empty() => named,
        // An inlined one has no more to its name.
        _ if text.starts_with("{async") => "async block".to_owned(),
        _ => "closure".to_owned(),
    }
}

/// Without generic arguments; `<a::B as c::D>::e` is read `a::B::e`.
fn path(function: &str) -> String {
    let mut text = String::with_capacity(function.len());
    let mut rest = function;
    if let Some(inner) = rest.strip_prefix('<')
        && let Some((of, method)) = split_at_close(inner)
    {
        let of = split_at_as(of).0.trim_start_matches('&');
        let of = of.strip_prefix("mut ").unwrap_or(of);
        text.push_str(&without_arguments(of.strip_prefix("dyn ").unwrap_or(of)));
        rest = method;
    }
    text.push_str(&without_arguments(rest));
    text
}

/// Without the segments of a path that the compiler made up, like `{{closure}}`.
fn without_made_up(text: &str) -> String {
    let segments = text.split("::").filter(|segment| !segment.starts_with('{'));
    segments.collect::<Vec<_>>().join("::")
}

/// The last segment of a function's path, without generic arguments.
pub(crate) fn base(function: &str) -> &str {
    let end = end_of_path(function);
    let text = &function[..end];
    let start = rfind_outside(text).map_or(0, |at| at + 2);
    &text[start..]
}

/// Where a path ends and its last generic arguments begin.
fn end_of_path(function: &str) -> usize {
    if !function.ends_with('>') {
        return function.len();
    }
    let mut depth = 0_i32;
    for (at, c) in function.char_indices().rev() {
        match c {
            '>' if !function[..at].ends_with('-') => depth += 1,
            '<' => depth -= 1,
            _ => {}
        }
        if depth == 0 && c == '<' {
            let before = function[..at].trim_end_matches("::");
            // `<a::B>` alone is a type.
            return if before.is_empty() {
                function.len()
            } else {
                before.len()
            };
        }
    }
    function.len()
}

/// The last `::` that is not within generic arguments.
fn rfind_outside(text: &str) -> Option<usize> {
    let mut depth = 0_i32;
    let bytes = text.as_bytes();
    for at in (1..bytes.len()).rev() {
        match bytes[at] {
            b'>' if bytes[at - 1] != b'-' => depth += 1,
            b'<' => depth -= 1,
            b':' if depth == 0 && bytes[at - 1] == b':' => return Some(at - 1),
            _ => {}
        }
    }
    None
}

/// What a function is as far as its name shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// Of an `async fn` or an async block.
    Async,
    /// Of a closure; in symbols, of an `async fn` or an async block as well.
    Closure,
    /// Of a function with a name.
    Named,
}

pub(crate) fn body(function: &str) -> Body {
    let base = base(function);
    if base.starts_with("{async") {
        Body::Async
    } else if base.starts_with("{closure") || base.starts_with("{{closure") {
        Body::Closure
    } else {
        Body::Named
    }
}

/// Whether a function polls a future, a stream or the like: `poll`, `poll_next`.
pub(crate) fn is_poll(function: &str) -> bool {
    let name = base(function);
    if name.len() > 5 {
        return name.starts_with("poll_");
    }
    if name != "poll" {
        return false;
    }
    // `mio::poll::Poll::poll`, `nix::poll::poll` and their like wait; the trait's is
    // `<a::B as core::future::future::Future>::poll`, `a::{impl#1}::poll`, or bare.
    let before = function[..end_of_path(function)].strip_suffix("::poll");
    before.is_none_or(|before| match before.strip_prefix('<') {
        Some(inner) => split_at_close(inner).is_some_and(|(of, _)| {
            let of_trait = split_at_as(of).1;
            of_trait.is_some_and(|of| without_arguments(of).ends_with("Future"))
        }),
        None => {
            before.ends_with('}') || before.ends_with("Future") || crate_of(function) == "tokio"
        }
    })
}

/// Without what is around a type: `&mut a::B` is `a::B`.
fn type_itself(text: &str) -> &str {
    let start = text.trim_start_matches(['<', '&', '*', ' ', '(', '[']);
    let mut words = ["dyn ", "mut ", "const "].into_iter();
    match words.find_map(|word| start.strip_prefix(word)) {
        Some(rest) => type_itself(rest),
        None => start,
    }
}

/// The crate of a function's path, or of the type whose method it is; empty for a C function.
pub(crate) fn crate_of(function: &str) -> &str {
    let start = type_itself(function);
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

/// The crate of a function: by its file, which inlined ones have in place of a path.
pub(crate) fn krate(frame: &Frame) -> Option<String> {
    let module = module(frame)?;
    let krate = module.split("::").next()?;
    (!krate.is_empty()).then(|| krate.to_owned())
}

/// The module that a function is in, like `serde_json::ser`: by its file, or by its path.
pub(crate) fn module(frame: &Frame) -> Option<String> {
    if let Some(module) = frame.file.as_deref().and_then(module_of_file) {
        return Some(module);
    }
    let function = frame.function.as_deref()?;
    if crate_of(function).is_empty() {
        return None;
    }
    let start = type_itself(function);
    let path = if function.starts_with('<') {
        let end = split_at_close(function.get(1..)?).map_or(start, |(of, _)| split_at_as(of).0);
        path(type_itself(end))
    } else {
        let path = path(start);
        path.rsplit_once("::")
            .map_or(String::new(), |(module, _)| module.to_owned())
    };
    Some(without_made_up(&path))
}

/// `/x/serde_json-1.0.154/src/ser.rs` is `serde_json::ser`.
fn module_of_file(file: &str) -> Option<String> {
    let (before, after) = file.rsplit_once("/src/")?;
    let folder = before.rsplit('/').next()?;
    let name = without_version(folder);
    // Bazel: `rules_rust++crate+crates__serde-1.0.200`.
    let name = name
        .rsplit("__")
        .next()
        .filter(|_| name.contains("crates__"))
        .unwrap_or(name);
    let krate = name.replace('-', "_");
    let modules = after.strip_suffix(".rs")?;
    let mut module = krate;
    for part in modules
        .split('/')
        .filter(|part| !["mod", "lib", "main"].contains(part))
    {
        module.push_str("::");
        module.push_str(part);
    }
    Some(module)
}

/// A folder's name without `-1.2.3`.
pub(crate) fn without_version(folder: &str) -> &str {
    let is_version = |text: &str| {
        let mut parts = text.splitn(3, '.');
        let number = |part: Option<&str>| {
            part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        };
        number(parts.next())
            && number(parts.next())
            && parts
                .next()
                .is_some_and(|part| part.starts_with(|c: char| c.is_ascii_digit()))
    };
    let mut at = folder.match_indices('-').map(|(at, _)| at);
    at.find(|at| is_version(&folder[at + 1..]))
        .map_or(folder, |at| &folder[..at])
}

/// Splits at the `>` that closes what is open at the beginning.
pub(crate) fn split_at_close(text: &str) -> Option<(&str, &str)> {
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

/// `a::B<c as d> as e::F<g>` is `a::B<c as d>` and `e::F<g>`.
pub(crate) fn split_at_as(text: &str) -> (&str, Option<&str>) {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            '>' if !text[..at].ends_with('-') => depth -= 1,
            ' ' if depth == 0 && text[at..].starts_with(" as ") => {
                return (&text[..at], Some(&text[at + 4..]));
            }
            _ => {}
        }
    }
    (text, None)
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
            ("<app::Of<a as b> as c>::d", "app::Of::d"),
            ("<&mut app::Of<a> as c>::d", "app::Of::d"),
            ("core::ptr::read::<app::X<u8>>", "core::ptr::read"),
            ("app::call::<fn() -> u8>::now", "app::call::now"),
            ("app::{impl#0}::main", "app::main"),
            ("app::main", "app::main"),
            ("app::main::{async_block#1}", "app::main"),
            ("{async_block#1}", "async block"),
            ("{async_fn#0}<app::X>", "async block"),
            ("{{closure}}", "closure"),
        ] {
            assert_eq!(short(function), expected, "{function}");
        }
    }

    #[test]
    fn last_segments() {
        for (function, expected) in [
            ("poll<alloc::boxed::Box<fn() -> a::B>, c::D>", "poll"),
            ("a::poll::<b::C>", "poll"),
            ("<a::B<c::D> as e::F<g::H>>::poll_next", "poll_next"),
            ("a::{impl#0}::b::{async_fn#0}<c::D>", "{async_fn#0}"),
            ("<a::B>::c::{closure#1}", "{closure#1}"),
            ("memcpy", "memcpy"),
            ("<a::B>", "<a::B>"),
            ("", ""),
        ] {
            assert_eq!(base(function), expected, "{function}");
        }
    }

    #[test]
    fn polls_of_futures() {
        for (function, polls) in [
            ("poll<app::work::{async_fn_env#0}>", true),
            ("<a::B as core::future::future::Future>::poll", true),
            ("<a::B<c as d> as core::future::future::Future>::poll", true),
            ("a::{impl#3}::poll<b::C>", true),
            ("<a::B as futures_core::stream::Stream>::poll_next", true),
            ("poll_frame<a::B>", true),
            ("tokio::runtime::task::raw::poll::<a::B, c::D>", true),
            ("mio::poll::Poll::poll", false),
            ("nix::poll::poll", false),
            ("<a::B as rdkafka::consumer::Consumer>::poll", false),
            ("a::poller", false),
            ("serialize", false),
        ] {
            assert_eq!(is_poll(function), polls, "{function}");
        }
    }

    #[test]
    fn modules_are_those_of_files_or_paths() {
        let registry = "/home/me/.cargo/registry/src/index-1";
        for (function, file, expected) in [
            (
                "to_writer<W>",
                "serde_json-1.0.154/src/ser.rs",
                Some("serde_json::ser"),
            ),
            (
                "poll",
                "tower-http-0.6.11/src/compression/body.rs",
                Some("tower_http::compression::body"),
            ),
            ("f", "h2-0.4.1/src/lib.rs", Some("h2")),
            ("f", "x-1.0.0-rc.1+b/src/a/mod.rs", Some("x::a")),
            (
                "serde_json::ser::to_writer::<W>",
                "",
                Some("serde_json::ser"),
            ),
            (
                "<axum::json::Json<T> as a::B>::c",
                "",
                Some("axum::json::Json"),
            ),
            (
                "<&mut serde_json::ser::Serializer<W> as a::B>::c",
                "",
                Some("serde_json::ser::Serializer"),
            ),
            ("memcpy", "", None),
        ] {
            let file = (!file.is_empty()).then(|| format!("{registry}/{file}").into());
            let frame = Frame {
                function: Some(function.into()),
                file,
                ..Frame::default()
            };
            assert_eq!(module(&frame).as_deref(), expected, "{frame}");
        }
        let std = "/rustc/1a/library/std/src/thread/mod.rs";
        assert_eq!(module_of_file(std).as_deref(), Some("std::thread"));
        let bazel = "external/rules_rust++crate+crates__serde-1.0.200/src/de.rs";
        assert_eq!(module_of_file(bazel).as_deref(), Some("serde::de"));
    }
}
