//! Which path a function has, and which paths a pattern means.
//!
//! A path is read from the symbol's name, else from the file that an inlined function is
//! in. Generic arguments are no part of it: what a function is called with says nothing
//! about what it does.

use crate::function_name::{split_at_as, split_at_close, without_version};
use crate::stall::Frame;

/// The first segment of the path of a function of another language.
const FOREIGN: &str = "extern";

/// What glibc's debug info puts before names by which it calls its own functions.
const INTERNAL: &str = "__GI_";

/// Folders below which each library has one of its own, `name-version` or `name`.
const LIBRARIES: [&str; 4] = [
    "/registry/src/",
    "/rust/deps/",
    "/vendor/",
    "/git/checkouts/",
];

/// The paths of one function: its own, and that of the trait whose method it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paths<'a> {
    own: Vec<&'a str>,
    of_trait: Vec<&'a str>,
    /// Of a library that was told by its file; such names may have a `-`.
    krate: Option<&'a str>,
}

impl<'a> Paths<'a> {
    pub(super) fn of(frame: &'a Frame) -> Self {
        let Some(function) = frame.function.as_deref() else {
            return Paths::default();
        };
        let (own, of_trait) = parse(function);
        let file = frame.file.as_deref().unwrap_or_default();
        if own.len() > 1 || !of_trait.is_empty() {
            return Paths {
                own,
                of_trait,
                krate: None,
            };
        }
        // A function of C, or an inlined one of Rust's: the latter's names are bare.
        let library = library(file);
        if !function.contains(['<', '{']) && !file.ends_with(".rs") && library.is_none() {
            let own = own
                .iter()
                .map(|name| name.strip_prefix(INTERNAL).unwrap_or(name));
            let own = [FOREIGN].into_iter().chain(own).collect();
            return Paths {
                own,
                ..Paths::default()
            };
        }
        match library {
            Some((krate, modules)) => {
                let modules = modules.trim_end_matches(".rs").split('/');
                let modules = modules.filter(|module| !matches!(*module, "lib" | "mod"));
                Paths {
                    own: modules.chain(own).collect(),
                    krate: Some(krate),
                    ..Paths::default()
                }
            }
            None => Paths {
                own,
                ..Paths::default()
            },
        }
    }

    /// Whether it is what one of these patterns means, or within; spaces are between them.
    pub(super) fn fit(&self, patterns: &str) -> bool {
        let mut patterns = patterns.split_ascii_whitespace();
        patterns.any(|pattern| self.fits(pattern))
    }

    fn fits(&self, pattern: &str) -> bool {
        match self.krate {
            Some(krate) => match pattern.split_once("::") {
                Some(("..", _)) => fits(pattern, &self.own),
                Some((first, rest)) => same(first, krate) && fits(rest, &self.own),
                None => same(pattern, krate),
            },
            None => fits(pattern, &self.own) || fits(pattern, &self.of_trait),
        }
    }

    /// Whether it is a library's other than the standard one.
    pub(super) fn is_of_library(&self) -> bool {
        match (self.krate, self.own.as_slice()) {
            (Some(krate), _) => !is_standard(krate),
            (None, [krate, _, ..]) => *krate != FOREIGN && !is_standard(krate),
            (None, _) => false,
        }
    }
}

fn is_standard(krate: &str) -> bool {
    matches!(krate, "std" | "core" | "alloc" | "hashbrown")
}

/// Whether a path begins as the pattern says, where `..` is any number of segments, and
/// `*` any end of a segment. Modules are files in one build and types in another, which
/// differ in the case of letters.
fn fits(pattern: &str, path: &[&str]) -> bool {
    let (first, rest) = match pattern.split_once("::") {
        Some((first, rest)) => (first, Some(rest)),
        None => (pattern, None),
    };
    if first == ".." {
        let rest = rest.unwrap_or_default();
        return (0..path.len()).any(|skipped| fits(rest, path.get(skipped..).unwrap_or(&[])));
    }
    let Some((segment, below)) = path.split_first() else {
        return false;
    };
    same(first, segment) && rest.is_none_or(|rest| fits(rest, below))
}

fn same(pattern: &str, segment: &str) -> bool {
    let equal = |(a, b): (u8, u8)| {
        let dash = |c: u8| {
            if c == b'-' {
                b'_'
            } else {
                c.to_ascii_lowercase()
            }
        };
        dash(a) == dash(b)
    };
    match pattern.strip_suffix('*') {
        Some(start) => {
            segment.len() >= start.len() && start.bytes().zip(segment.bytes()).all(equal)
        }
        None => segment.len() == pattern.len() && pattern.bytes().zip(segment.bytes()).all(equal),
    }
}

/// The library that a file is of, and where in it.
fn library(file: &str) -> Option<(&str, &str)> {
    for krate in ["std", "core", "alloc"] {
        let below = file.split_once("library/").map(|(_, below)| below);
        let source = below.and_then(|below| below.strip_prefix(krate)?.strip_prefix("/src/"));
        if let Some(modules) = source {
            return Some((krate, modules));
        }
    }
    if !LIBRARIES.iter().any(|folder| file.contains(folder)) {
        return None;
    }
    let (_, below) = file.split_once("/registry/src/").unwrap_or(("", file));
    match below.rsplit_once("/src/") {
        Some((folder, modules)) => Some((without_version(folder.rsplit('/').next()?), modules)),
        // C, below `index/name-version`.
        None => {
            let (krate, modules) = below.split_once('/')?.1.split_once('/')?;
            Some((without_version(krate), modules))
        }
    }
}

/// The segments of a function's own path, and of the path by its trait where it is a
/// method of one on a type that is not of a library.
fn parse(name: &str) -> (Vec<&str>, Vec<&str>) {
    let Some((of, method)) = name.strip_prefix('<').and_then(split_at_close) else {
        return (segments(name), Vec::new());
    };
    let (of, of_trait) = split_at_as(of);
    let of = of.trim_start_matches(['&', '*', '(', '[', ' ']);
    let of = ["mut ", "const ", "dyn "]
        .iter()
        .fold(of, |of, word| of.trim_start_matches(word));
    let mut own = if of.starts_with("fn(") {
        Vec::new()
    } else {
        parse(of).0
    };
    let is_known = own.len() > 1;
    let is_standard = own.first().is_some_and(|krate| is_standard(krate));
    let methods = segments(method);
    let of_trait = match of_trait {
        // What a foreign type does as a trait says is that type's matter.
        Some(of_trait) if !is_known || is_standard => {
            let mut segments = parse(of_trait).0;
            segments.extend(&methods);
            segments
        }
        _ => Vec::new(),
    };
    own.extend(&methods);
    (own, of_trait)
}

/// The segments of a path, without generic arguments and what the compiler made up.
fn segments(path: &str) -> Vec<&str> {
    let mut segments = Vec::new();
    let (mut depth, mut start, mut before) = (0_u32, 0, ' ');
    let mut add = |from: usize, to: usize| {
        let segment = path.get(from..to).unwrap_or_default();
        let end = segment
            .find(['<', '[', '{', ' ', '('])
            .unwrap_or(segment.len());
        let segment = segment.get(..end).unwrap_or_default();
        if !segment.is_empty() {
            segments.push(segment);
        }
    };
    for (at, c) in path.char_indices() {
        match c {
            '<' | '{' | '(' | '[' => depth += 1,
            '>' if before == '-' => {}
            '>' | '}' | ')' | ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && before == ':' => {
                add(start, at - 1);
                start = at + 1;
            }
            _ => {}
        }
        before = c;
    }
    add(start, path.len());
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            file: (!file.is_empty()).then(|| file.into()),
            ..Frame::default()
        }
    }

    #[test]
    fn a_path_is_that_of_the_function_and_not_of_what_it_is_called_with() {
        for (function, own, of_trait) in [
            ("std::thread::sleep", "std::thread::sleep", ""),
            (
                "std::thread::JoinHandle<core::result::Result<(), rusqlite::Error>>::join",
                "std::thread::JoinHandle::join",
                "",
            ),
            (
                "<std::net::tcp::TcpStream as std::io::Read>::read",
                "std::net::tcp::TcpStream::read",
                "std::io::Read::read",
            ),
            (
                "<tokio::net::TcpStream as tokio::io::AsyncRead>::poll_read",
                "tokio::net::TcpStream::poll_read",
                "",
            ),
            (
                "<&mut [u64] as rayon::slice::ParallelSliceMut<u64>>::par_sort",
                "par_sort",
                "rayon::slice::ParallelSliceMut::par_sort",
            ),
            (
                "<fn(a::B) -> c::D as core::ops::Fn<(a::B,)>>::call",
                "call",
                "core::ops::Fn::call",
            ),
            (
                "<app::Row<fn() -> zip::Zip> as serde::Serialize>::serialize",
                "app::Row::serialize",
                "",
            ),
            (
                "serde::ser::impls::<impl serde::Serialize for alloc::vec::Vec<T>>::serialize",
                "serde::ser::impls::serialize",
                "",
            ),
            ("<<a::B as c::D>::E as f::G>::h", "a::B::E::h", ""),
            ("app[1f2e]::work::{{closure}}::{closure#1}", "app::work", ""),
            (
                "core::ops::function::FnOnce::call_once{{vtable.shim}}",
                "core::ops::function::FnOnce::call_once",
                "",
            ),
        ] {
            let (read, read_of_trait) = parse(function);
            assert_eq!(read.join("::"), own, "{function}");
            assert_eq!(read_of_trait.join("::"), of_trait, "{function}");
        }
    }

    #[test]
    fn what_is_inlined_has_its_path_from_its_file() {
        let registry = "/home/me/.cargo/registry/src/index-1";
        let tungstenite = format!("{registry}/tokio-tungstenite-0.28.0/src/lib.rs");
        for (function, file, pattern) in [
            (
                "recv<u8>",
                "/rustc/1/library/std/src/sync/mpmc/mod.rs",
                "std::sync::mpmc::recv",
            ),
            (
                "read",
                "library/std/src/sys/fs/unix.rs",
                "std::sys::fs::..::read",
            ),
            ("{closure#0}<()>", tungstenite.as_str(), "tokio_tungstenite"),
            (
                "inner",
                "/rust/deps/hashbrown-0.16.1/src/raw.rs",
                "hashbrown::raw::inner",
            ),
            ("nanosleep", "./time/nanosleep.c", "extern::nano*"),
            (
                "unixSync",
                "/x/registry/src/index/libsqlite3-sys-0.35.0/sqlite3/sqlite3.c",
                "libsqlite3_sys",
            ),
            ("sqlite3_step", "", "extern::sqlite3_step"),
            (
                "__GI___libc_malloc",
                "./malloc/malloc.c",
                "extern::__libc_malloc",
            ),
        ] {
            let frame = frame(function, file);
            let paths = Paths::of(&frame);
            assert!(paths.fit(pattern), "{function}: {paths:?}");
            assert!(!paths.fit("std::fs tungstenite read"), "{function}");
        }
        // A user's own function of this name is not the C library's.
        let users = frame("sleep", "/home/me/app/src/main.rs");
        assert!(!Paths::of(&users).fit("extern::sleep app"));
    }

    #[test]
    fn patterns_are_beginnings_of_paths() {
        let path: Vec<&str> = "std::sync::poison::condvar::Condvar::wait_while"
            .split("::")
            .collect();
        for (pattern, expected) in [
            ("std", true),
            ("std::sync", true),
            ("std::sync::..::Condvar::wait*", true),
            ("std::sync::poison::Condvar", true),
            ("std::..::notify*", false),
            ("st", false),
            ("sync", false),
            ("std::sync::con", false),
            ("..::wait_while", true),
            (
                "std::sync::poison::condvar::condvar::wait_while::..::f",
                false,
            ),
        ] {
            assert_eq!(fits(pattern, &path), expected, "{pattern}");
        }
    }
}
