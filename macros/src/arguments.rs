//! What is in the attribute's parentheses.

use std::fmt::Display;
use std::time::Duration;

use proc_macro2::{Ident, Span};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Error, LitBool, LitInt, LitStr, Path, Result, Token, bracketed, parenthesized, token};

use crate::duration;

const KNOWN: &str = "`flavor`, `worker_threads`, `start_paused`, `unhandled_panic`, `name`, \
                     `under`, `no_blocking`, `allow`, `whole_runtime` and `crate`";

/// With the literals that they were given by: what the compiler says of one of them is to
/// be said there.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) flavor: Option<(Flavor, Span)>,
    pub(crate) worker_threads: Option<LitInt>,
    pub(crate) start_paused: Option<LitBool>,
    pub(crate) unhandled_panic: Option<Ident>,
    pub(crate) name: Option<LitStr>,
    pub(crate) under: Option<(Duration, Span)>,
    pub(crate) no_blocking: bool,
    pub(crate) allow: Option<Allow>,
    pub(crate) whole_runtime: bool,
    pub(crate) krate: Option<Path>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Flavor {
    #[default]
    CurrentThread,
    MultiThread,
    Local,
}

pub(crate) enum Allow {
    /// Functions, each with a reason or without.
    Functions(Vec<(LitStr, Option<LitStr>)>),
    /// A constant of them.
    List(Path),
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Arguments::default();
        let mut given: Vec<String> = Vec::new();
        while !input.is_empty() {
            // `crate` is a keyword.
            let key = input.call(Ident::parse_any)?;
            let text = key.to_string();
            if given.contains(&text) {
                return Err(Error::new_spanned(&key, format!("`{text}` is given twice")));
            }
            arguments.take(&key, &text, input)?;
            given.push(text);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        arguments.check()?;
        Ok(arguments)
    }
}

impl Arguments {
    fn take(&mut self, key: &Ident, text: &str, input: ParseStream<'_>) -> Result<()> {
        match text {
            "no_blocking" => self.no_blocking = switch(input)?,
            "whole_runtime" => self.whole_runtime = switch(input)?,
            "flavor" => {
                let value: LitStr = value(key, input)?;
                self.flavor = Some((flavor(&value)?, value.span()));
            }
            "worker_threads" => {
                let threads: LitInt = value(key, input)?;
                if threads.base10_parse::<usize>()? == 0 {
                    return Err(Error::new_spanned(
                        threads,
                        "`worker_threads` cannot be 0: nothing would run",
                    ));
                }
                self.worker_threads = Some(threads);
            }
            "start_paused" => self.start_paused = Some(value(key, input)?),
            "unhandled_panic" => self.unhandled_panic = Some(unhandled_panic(&value(key, input)?)?),
            "name" => self.name = Some(value(key, input)?),
            "under" => {
                let value: LitStr = value(key, input)?;
                let under = duration::parse(&value.value())
                    .map_err(|problem| Error::new_spanned(&value, format!("`under` {problem}")))?;
                self.under = Some((under, value.span()));
            }
            "allow" => self.allow = Some(allow(key, input)?),
            "crate" => self.krate = Some(value::<LitStr>(key, input)?.parse()?),
            _ => {
                return Err(Error::new_spanned(
                    key,
                    format!("there is no argument `{text}`; known are {KNOWN}"),
                ));
            }
        }
        Ok(())
    }

    /// What tokio would refuse, or ignore.
    fn check(&self) -> Result<()> {
        let is_multi_thread = self.flavor() == Flavor::MultiThread;
        if let Some(threads) = self.worker_threads.as_ref().filter(|_| !is_multi_thread) {
            return Err(Error::new_spanned(
                threads,
                "`worker_threads` needs `flavor = \"multi_thread\"`: the other flavors have one \
                 thread",
            ));
        }
        if let Some(paused) = self.start_paused.as_ref().filter(|_| is_multi_thread) {
            return Err(Error::new_spanned(
                paused,
                "`start_paused` needs `flavor = \"current_thread\"`, which is the default: \
                 tokio pauses the time of one thread only",
            ));
        }
        if let Some(behavior) = self.unhandled_panic.as_ref().filter(|_| is_multi_thread) {
            return Err(Error::new_spanned(
                behavior,
                "`unhandled_panic` needs `flavor = \"current_thread\"`, which is the default",
            ));
        }
        Ok(())
    }

    pub(crate) fn flavor(&self) -> Flavor {
        self.flavor.map(|(flavor, _)| flavor).unwrap_or_default()
    }
}

/// `= value`, of a kind that the message names.
fn value<T: Parse + Kind>(key: &Ident, input: ParseStream<'_>) -> Result<T> {
    let is_there = input.parse::<Token![=]>().is_ok();
    // What is not of the kind is taken off the input, too.
    let problem = wrong(
        key,
        input,
        format!("`{key}` needs {}: `{key} = ..`", T::KIND),
    );
    let value = is_there.then(|| input.parse::<T>().ok()).flatten();
    value.ok_or(problem)
}

/// What is wrong, at the value, or at the key where there is none.
fn wrong(key: &Ident, input: ParseStream<'_>, problem: impl Display) -> Error {
    if input.is_empty() || input.peek(Token![,]) {
        Error::new_spanned(key, problem)
    } else {
        Error::new(input.span(), problem)
    }
}

trait Kind {
    const KIND: &'static str;
}

impl Kind for LitStr {
    const KIND: &'static str = "a text in quotes";
}

impl Kind for LitInt {
    const KIND: &'static str = "a whole number";
}

impl Kind for LitBool {
    const KIND: &'static str = "`true` or `false`";
}

/// On by its name alone.
fn switch(input: ParseStream<'_>) -> Result<bool> {
    if input.parse::<Option<Token![=]>>()?.is_none() {
        return Ok(true);
    }
    Ok(input.parse::<LitBool>()?.value)
}

fn flavor(value: &LitStr) -> Result<Flavor> {
    match value.value().as_str() {
        "current_thread" => Ok(Flavor::CurrentThread),
        "multi_thread" => Ok(Flavor::MultiThread),
        "local" => Ok(Flavor::Local),
        other => Err(Error::new_spanned(
            value,
            format!(
                "there is no flavor `{other}`; known are `current_thread`, `multi_thread` and \
                 `local`"
            ),
        )),
    }
}

/// The variant of tokio's `UnhandledPanic`.
fn unhandled_panic(value: &LitStr) -> Result<Ident> {
    let variant = match value.value().as_str() {
        "ignore" => "Ignore",
        "shutdown_runtime" => "ShutdownRuntime",
        other => {
            return Err(Error::new_spanned(
                value,
                format!("there is no `{other}`; known are `ignore` and `shutdown_runtime`"),
            ));
        }
    };
    Ok(Ident::new(variant, value.span()))
}

fn allow(key: &Ident, input: ParseStream<'_>) -> Result<Allow> {
    const FORMS: &str = "`allow` is `[\"path::of::function\", ..]`, `[(\"path::of::function\", \
                         \"reason\"), ..]` or the path of a constant of these";
    if input.parse::<Token![=]>().is_err() {
        return Err(wrong(key, input, FORMS));
    }
    if !input.peek(token::Bracket) {
        return match input.parse() {
            Ok(list) => Ok(Allow::List(list)),
            Err(_) => Err(wrong(key, input, FORMS)),
        };
    }
    let list;
    bracketed!(list in input);
    let functions = Punctuated::<_, Token![,]>::parse_terminated_with(&list, |entry| {
        let (function, reason) = if entry.peek(token::Paren) {
            let pair;
            parenthesized!(pair in entry);
            let function: LitStr = pair.parse()?;
            pair.parse::<Token![,]>()?;
            (function, Some(pair.parse::<LitStr>()?))
        } else if entry.peek(LitStr) {
            (entry.parse()?, None)
        } else {
            return Err(entry.error(FORMS));
        };
        if is_path(&function.value()) {
            Ok((function, reason))
        } else {
            Err(Error::new_spanned(
                function,
                "this is no path of a function, like `app::config::load`, as the failure \
                 shows it after `where`",
            ))
        }
    })?;
    Ok(Allow::Functions(functions.into_iter().collect()))
}

/// Whether a text is names with `::` between them.
fn is_path(text: &str) -> bool {
    let is_name = |segment: &str| {
        !segment.is_empty() && segment.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    let text = text.strip_prefix("::").unwrap_or(text);
    text != "crate" && text.split("::").all(is_name)
}
