//! Functions in which stalls and blocking are allowed, by their paths.

use std::panic::Location;

use crate::blocking::Allowed;
use crate::error::Error;
use crate::function_name;
use crate::owner;
use crate::stall::{Frame, Stack};

/// A function in which a test allows what it would fail for elsewhere.
#[derive(Clone, Debug)]
pub(crate) struct AllowedFunction {
    path: String,
    reason: String,
    location: &'static Location<'static>,
}

impl AllowedFunction {
    pub(crate) fn new(path: &str, reason: String, location: &'static Location<'static>) -> Self {
        // Names in debug info begin with a crate's name.
        let path = path.trim().trim_start_matches("::");
        AllowedFunction {
            path: path.strip_prefix("crate::").unwrap_or(path).to_owned(),
            reason,
            location,
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !self.path.is_empty() {
            return Ok(());
        }
        Err(Error::config(
            "allow",
            "has a function without a name".to_owned(),
            "give the path that the failure shows after `where`",
        ))
    }
}

/// What the functions of an audited poll are called.
fn names_on(stack: &Stack) -> Vec<String> {
    stack
        .frames
        .iter()
        // Innermost are calls that the feature `interpose` passes on.
        .skip_while(|frame| owner::is_own(frame))
        // What is further out has polled the audited future.
        .take_while(|frame| !owner::is_own(frame))
        .flat_map(names)
        .collect()
}

/// Whether a path ends with all segments of another.
fn ends_with(name: &str, path: &str) -> bool {
    name.strip_suffix(path)
        .is_some_and(|before| before.is_empty() || before.ends_with("::"))
}

/// What a function may be called: as it is shown, and with the module of its file where it
/// was inlined and debug info leaves its path out.
fn names(frame: &Frame) -> impl Iterator<Item = String> {
    let short = frame.function.as_deref().map(function_name::short);
    let with_module = short
        .as_ref()
        .filter(|short| !short.contains("::"))
        .and_then(|short| Some(format!("{}::{short}", function_name::module(frame)?)));
    let others = [&frame.within, &frame.in_source].into_iter().flatten();
    others
        .map(ToString::to_string)
        .chain(short)
        .chain(with_module)
}

/// The path by which what is blamed on a stack can be allowed.
#[cfg(feature = "macros")]
pub(crate) fn path_of(stack: &Stack) -> Option<String> {
    let culprit = stack.culprit()?;
    let named = culprit.in_source.as_ref().or(culprit.within.as_ref());
    let path = match named {
        Some(name) => name.to_string(),
        None => function_name::short(culprit.function.as_deref()?),
    };
    // An inlined closure without a name.
    (!path.contains(' ')).then_some(path)
}

/// What of the allowed functions was made use of.
pub(crate) struct Allowance<'a> {
    functions: &'a [AllowedFunction],
    used: Vec<(usize, Allowed)>,
}

impl<'a> Allowance<'a> {
    pub(crate) const fn new(functions: &'a [AllowedFunction]) -> Self {
        Allowance {
            functions,
            used: Vec::new(),
        }
    }

    /// The first of the functions that is on a stack.
    pub(crate) fn find(&self, stack: Option<&Stack>) -> Option<usize> {
        let stack = stack.filter(|_| !self.functions.is_empty())?;
        let names = names_on(stack);
        self.functions
            .iter()
            .position(|function| names.iter().any(|name| ends_with(name, &function.path)))
    }

    /// Counts a use of a function that was [found](Allowance::find).
    pub(crate) fn make_use(&mut self, at: usize, sleeps: u64, ns: u64) {
        if let Some((_, used)) = self.used.iter_mut().find(|(of, _)| *of == at) {
            used.count += 1;
            used.sleeps = used.sleeps.saturating_add(sleeps);
            used.total_ns = used.total_ns.saturating_add(ns);
        } else if let Some(function) = self.functions.get(at) {
            let AllowedFunction { path, reason, .. } = function;
            let reason = match reason.as_str() {
                "" => format!("`{path}`"),
                reason => format!("`{path}`: {reason}"),
            };
            let used = Allowed {
                reason,
                location: function.location.into(),
                count: 1,
                sleeps,
                total_ns: ns,
            };
            self.used.push((at, used));
        }
    }

    pub(crate) fn into_used(self) -> impl Iterator<Item = Allowed> {
        self.used.into_iter().map(|(_, used)| used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: Option<&str>) -> Frame {
        Frame {
            function: Some(function.into()),
            file: file.map(Into::into),
            ..Frame::default()
        }
    }

    fn own() -> Frame {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/src/audit/future.rs");
        frame("stallscope::audit::future::poll", Some(file))
    }

    fn allows(path: &str, frames: Vec<Frame>) -> bool {
        let stack = Stack {
            culprit: None,
            leaf: None,
            called_from: None,
            on_behalf_of: None,
            users: Vec::new().into(),
            frames: frames.into(),
        };
        let functions = [AllowedFunction::new(
            path,
            String::new(),
            Location::caller(),
        )];
        Allowance::new(&functions).find(Some(&stack)).is_some()
    }

    #[test]
    fn a_path_means_functions_that_end_with_it() {
        for (path, function, expected) in [
            ("app::load", "app::load", true),
            ("load", "app::load", true),
            ("app::load", "app::load::{{closure}}", true),
            ("app::load", "app::load::<alloc::string::String>", true),
            ("crate::load", "app::load", true),
            ("::app::load", "app::load", true),
            ("Store::load", "<app::Store as app::Load>::load", true),
            ("app::load", "app::load::inner", false),
            ("load", "app::preload", false),
            ("app::load", "myapp::load", false),
            ("app", "app::load", false),
        ] {
            let frames = vec![frame(function, None)];
            assert_eq!(allows(path, frames), expected, "{path} on {function}");
        }
    }

    #[test]
    fn an_inlined_function_has_the_module_of_its_file() {
        let inlined = || vec![frame("load<u8>", Some("/x/app/src/config.rs"))];
        assert!(allows("load", inlined()));
        assert!(allows("app::config::load", inlined()));
        assert!(!allows("app::load", inlined()));
    }

    #[test]
    fn only_functions_within_the_poll_count() {
        let frames = || {
            vec![
                own(),
                frame("std::thread::sleep", None),
                own(),
                frame("tokio::runtime::runtime::Runtime::block_on", None),
            ]
        };
        assert!(allows("std::thread::sleep", frames()));
        assert!(!allows("Runtime::block_on", frames()));
    }

    #[test]
    fn uses_are_summed_up() {
        let here = Location::caller();
        let functions = [
            AllowedFunction::new("app::load", "the fixtures".to_owned(), here),
            AllowedFunction::new("app::never", String::new(), here),
        ];
        let mut allowance = Allowance::new(&functions);
        allowance.make_use(0, 1, 20);
        allowance.make_use(0, 2, 30);
        let used: Vec<Allowed> = allowance.into_used().collect();
        let [used] = &used[..] else {
            panic!("{used:?}");
        };
        assert_eq!(used.reason(), "`app::load`: the fixtures");
        assert_eq!((used.count(), used.sleeps(), used.total_ns), (2, 3, 50));
        assert_eq!(used.location().file(), here.file());
    }

    #[test]
    fn a_function_needs_a_name() {
        let of = |path| AllowedFunction::new(path, String::new(), Location::caller()).check();
        assert!(of("load").is_ok());
        assert!(of(" crate:: ").is_err());
        let error = of("").unwrap_err();
        assert!(error.is_config(), "{error}");
    }
}
