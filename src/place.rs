//! Which function of a stack is to be named, and with what: a pure function of frames and
//! of whose they are.
//!
//! # The rule
//! The innermost function of the user is the place, with what it called, where it *called*
//! it: `std::fs::read(&path)`, `serde_json::to_string(&all)`.
//!
//! Where it *awaits* it, that is where its body polls somebody else's future, the work is
//! not the user's: what it awaits has taken long to return from one poll, and was to
//! return soon. Then the place is the library's, and the user's line is where it was
//! called from. So it is with a middleware's `next.run(request).await`, and with a
//! library's `async fn` that blocks.
//!
//! Where no function of the user is left, since a handler has returned what is now being
//! written, the place is the library's, too; the handler or task may be in its types.
//!
//! Of a library's functions the outermost that still names the work is the place: below
//! what only passes polls on, like the runtime, the server's loop, or a router.
//!
//! A `block_on` within a poll is the place, and not what it waits for.

use crate::async_name;
use crate::function_name::{self, Body};
use crate::owner::{self, Ownership};
use crate::stall::Frame;

/// What only passes calls on or keeps bytes, by module. Within the work of a library it is
/// of no account.
const NEUTRAL: &[&str] = &[
    "std",
    "core",
    "alloc",
    "arrayvec",
    "bytes",
    "either",
    "hashbrown",
    "indexmap",
    "itoa",
    "lock_api",
    "memchr",
    "once_cell",
    "parking_lot",
    "parking_lot_core",
    "pin_project",
    "pin_project_lite",
    "rustc_demangle",
    "ryu",
    "serde",
    "serde_core",
    "serde_path_to_error",
    "smallvec",
    "sync_wrapper",
    "tokio_util::io",
    "tokio_util::util",
];

/// What polls and is polled around the work, by module.
const PLUMBING: &[&str] = &[
    "actix_codec",
    "actix_http::body",
    "actix_http::h1",
    "actix_http::h2",
    "actix_http::service",
    "actix_router",
    "actix_rt",
    "actix_server",
    "actix_service",
    "actix_utils",
    "actix_web::app",
    "actix_web::app_service",
    "actix_web::config",
    "actix_web::handler",
    "actix_web::middleware::condition",
    "actix_web::middleware::logger",
    "actix_web::resource",
    "actix_web::route",
    "actix_web::scope",
    "actix_web::server",
    "actix_web::service",
    "async_stream",
    "axum::boxed",
    "axum::extension",
    "axum::handler",
    "axum::middleware",
    "axum::routing",
    "axum::serve",
    "axum::util",
    "axum_core::body",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_lite",
    "futures_util",
    "h2",
    "http_body",
    "http_body_util::combinators",
    "hyper",
    "hyper_util",
    "local_channel",
    "mio",
    "poem::endpoint",
    "poem::listener",
    "poem::route",
    "poem::server",
    "pollster",
    "rocket::server",
    "salvo_core::conn",
    "salvo_core::handler",
    "salvo_core::routing",
    "salvo_core::server",
    "salvo_core::service",
    "scoped_tls",
    "stallscope",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "tonic::server",
    "tonic::service",
    "tonic::transport",
    "tower",
    "tower_http::add_extension",
    "tower_http::auth",
    "tower_http::catch_panic",
    "tower_http::classify",
    "tower_http::cors",
    "tower_http::follow_redirect",
    "tower_http::limit",
    "tower_http::map_request_body",
    "tower_http::map_response_body",
    "tower_http::metrics",
    "tower_http::normalize_path",
    "tower_http::propagate_header",
    "tower_http::request_id",
    "tower_http::sensitive_headers",
    "tower_http::set_header",
    "tower_http::set_status",
    "tower_http::timeout",
    "tower_http::trace",
    "tower_http::util",
    "tower_layer",
    "tower_service",
    "tracing",
    "tracing_core",
    "tracing_futures",
    "warp::filter",
    "warp::route",
    "warp::server",
    "warp::service",
];

/// Methods that serializers call back for each value, most often derived ones: not what
/// the user wrote to be called.
const CALLED_BACK: [&str; 7] = [
    "serialize",
    "deserialize",
    "deserialize_in_place",
    "encode_raw",
    "encoded_len",
    "merge_field",
    "expecting",
];

/// Methods of the user's types that a library calls as it works on them, most often derived
/// ones, also by way of the standard library.
const OPERATORS: [&str; 5] = ["eq", "ne", "cmp", "partial_cmp", "hash"];

/// What a [`Place`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    /// A line of the user, that computes or calls what takes so long.
    Users,
    /// Work of a library, below a line of the user that awaits it, or below none.
    Librarys,
    /// A line of the user that calls `block_on` within a poll.
    BlockOn,
}

/// The function to be named; indices into a stack, the innermost first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) frame: usize,
    /// What it called, or the work at its core.
    pub(crate) leaf: Option<usize>,
    /// The user's line that awaits a library's work.
    pub(crate) called_from: Option<usize>,
    pub(crate) kind: PlaceKind,
}

/// The place of a stack; `None` where nothing of it names any work.
pub(crate) fn place(frames: &[Frame], ownership: &Ownership) -> Option<Place> {
    let users: Vec<bool> = frames
        .iter()
        .map(|frame| ownership.is_users(frame))
        .collect();
    Stacked { frames, users }.place()
}

/// A stack, and which of its functions are the user's.
struct Stacked<'a> {
    frames: &'a [Frame],
    users: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Users,
    Neutral,
    Plumbing,
    Work,
}

impl Stacked<'_> {
    fn place(&self) -> Option<Place> {
        let Some(users) = self.innermost_of_user(0) else {
            return self.without_user();
        };
        let awaits = users > 0 && self.is_polled_by_user(users - 1);
        if awaits && let Some((frame, leaf)) = self.work_below(users) {
            return Some(Place {
                frame,
                leaf,
                called_from: Some(users),
                kind: PlaceKind::Librarys,
            });
        }
        if let Some(caller) = self.waits_in_block_on(users) {
            return Some(self.of_user(caller, PlaceKind::BlockOn));
        }
        let calls_block_on =
            users > 0 && self.is_block_on(users - 1) && self.is_within_a_poll(users);
        let kind = if calls_block_on {
            PlaceKind::BlockOn
        } else {
            PlaceKind::Users
        };
        Some(self.of_user(users, kind))
    }

    fn without_user(&self) -> Option<Place> {
        if let Some((frame, leaf)) = self.work_below(self.frames.len()) {
            return Some(Place {
                frame,
                leaf,
                called_from: None,
                kind: PlaceKind::Librarys,
            });
        }
        // Who called it may be inlined, and without debug info have no name.
        let mut frames = 0..self.frames.len();
        let waits = frames.find(|at| self.is_block_on(*at) && self.is_within_a_poll(at + 1))?;
        Some(self.of_user(waits, PlaceKind::BlockOn))
    }

    fn of_user(&self, frame: usize, kind: PlaceKind) -> Place {
        let has_name = |at: &usize| self.function(*at).is_some();
        Place {
            frame,
            leaf: frame.checked_sub(1).filter(has_name),
            called_from: None,
            kind,
        }
    }

    fn function(&self, at: usize) -> Option<&str> {
        self.frames.get(at)?.function.as_deref()
    }

    /// Not counting what serializers call back: the caller of the serializer is to blame.
    fn innermost_of_user(&self, from: usize) -> Option<usize> {
        (from..self.frames.len()).find(|at| self.users[*at] && !self.is_called_back(*at))
    }

    /// Whether a library calls this to work on its parts: it is in between.
    fn is_called_back(&self, at: usize) -> bool {
        let name = function_name::base(self.function(at).unwrap_or_default());
        let is_known = CALLED_BACK.contains(&name) || name.starts_with("visit_");
        let is_librarys = |at: Option<usize>| at.is_some_and(|at| !self.is_std(at));
        is_known && is_librarys(at.checked_sub(1)) && is_librarys(Some(at + 1))
            || OPERATORS.contains(&name) && self.is_called_by_library(at)
    }

    /// Whether the nearest function round this one that is not the standard library's is
    /// not the user's either.
    fn is_called_by_library(&self, at: usize) -> bool {
        let caller = (at + 1..self.frames.len()).find(|at| self.users[*at] || !self.is_std(*at));
        caller.is_some_and(|caller| !self.users[caller])
    }

    /// Whether this function, which the user's called, is a poll of somebody's future.
    /// No user calls a closure of a library directly: it is the body of an `async fn`.
    fn is_polled_by_user(&self, at: usize) -> bool {
        let name = self.function(at).unwrap_or_default();
        function_name::is_poll(name) && !self.is_waiting_poll(at)
            || function_name::body(name) != Body::Named && !self.users[at] && !self.is_std(at)
    }

    /// A function with the name `poll` that waits, where no path tells it from the trait's.
    fn is_waiting_poll(&self, at: usize) -> bool {
        const WAITING: [&str; 9] = [
            "crossterm",
            "libc",
            "mio",
            "nix",
            "polling",
            "popol",
            "rdkafka",
            "rustix",
            "zmq",
        ];
        let krate = self.frames.get(at).and_then(function_name::krate);
        krate.is_some_and(|krate| WAITING.contains(&krate.as_str()))
    }

    fn is_std(&self, at: usize) -> bool {
        let krate = self.frames.get(at).and_then(function_name::krate);
        matches!(krate.as_deref(), None | Some("std" | "core" | "alloc"))
    }

    fn role(&self, at: usize) -> Role {
        if self.users[at] && !self.is_called_back(at) {
            return Role::Users;
        }
        let frame = &self.frames[at];
        if owner::is_own(frame) {
            return Role::Plumbing;
        }
        if owner::is_made_by_compiler(frame.function.as_deref().unwrap_or_default()) {
            return Role::Neutral;
        }
        let Some(module) = function_name::module(frame) else {
            return Role::Neutral;
        };
        let is_in = |modules: &[&str]| {
            modules.iter().any(|part| {
                let rest = module.strip_prefix(part);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            })
        };
        if self.users[at] || is_in(NEUTRAL) {
            Role::Neutral
        } else if is_in(PLUMBING) {
            Role::Plumbing
        } else {
            Role::Work
        }
    }

    /// The outermost function that names a library's work, and the outermost of the
    /// library that does it at last.
    fn work_below(&self, end: usize) -> Option<(usize, Option<usize>)> {
        let innermost = (0..end).find(|at| self.role(*at) == Role::Work)?;
        let mut outermost = innermost;
        for at in innermost..end {
            match self.role(at) {
                Role::Work => outermost = at,
                Role::Neutral => {}
                Role::Plumbing | Role::Users => break,
            }
        }
        let krate = |at: usize| self.frames.get(at).and_then(function_name::krate);
        // Its body may have no name; what it called of the same library has.
        let is_named = |at: &usize| {
            let name = self.function(*at).unwrap_or_default();
            self.role(*at) == Role::Work
                && function_name::body(name) == Body::Named
                && krate(*at) == krate(outermost)
        };
        if self.function(outermost).is_some_and(async_name::is_bare)
            && let Some(named) = (innermost..outermost).rev().find(is_named)
        {
            outermost = named;
        }
        let of = krate(innermost);
        let mut core = innermost;
        for at in innermost..outermost {
            match self.role(at) {
                Role::Work if krate(at) == of => core = at,
                Role::Work => break,
                _ => {}
            }
        }
        let leaf = if core == outermost {
            outermost.checked_sub(1)
        } else {
            Some(core)
        };
        let has_name = |at: &usize| self.function(*at).is_some();
        Some((outermost, leaf.filter(has_name)))
    }

    /// Who calls `block_on` further out, if below this function of the user nothing but
    /// the runtime is at work: then it is `block_on` that waits.
    fn waits_in_block_on(&self, users: usize) -> Option<usize> {
        let runs = |at| self.role(at) == Role::Plumbing;
        let computes = users == 0 || !runs(users - 1) && !self.is_polled_by_user(users - 1);
        if computes || !(0..users).any(runs) {
            return None;
        }
        let block_on = (users + 1..self.frames.len()).find(|at| self.is_block_on(*at))?;
        let caller = self.innermost_of_user(block_on)?;
        self.is_within_a_poll(caller).then_some(caller)
    }

    fn is_block_on(&self, at: usize) -> bool {
        !self.users[at] && function_name::base(self.function(at).unwrap_or_default()) == "block_on"
    }

    /// Not where a thread of the blocking pool runs it: there it may wait.
    fn is_within_a_poll(&self, at: usize) -> bool {
        let outer = self.frames.iter().skip(at);
        let mut named = outer.take_while(|frame| {
            let module = function_name::module(frame).unwrap_or_default();
            !module.starts_with("tokio::runtime::blocking::task")
                && !module.starts_with("tokio::runtime::blocking::pool")
        });
        named.any(|frame| {
            let name = frame.function.as_deref().unwrap_or_default();
            function_name::is_poll(name) || function_name::body(name) == Body::Async
        })
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
