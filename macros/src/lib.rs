//! The attribute of [stallscope](https://docs.rs/stallscope), which has it under its feature
//! `macros`. It is not for use without that crate.

mod arguments;
mod duration;
mod expansion;
mod function;

use proc_macro::TokenStream;

/// An async test that fails if it holds a thread up: `#[tokio::test]`, audited.
///
/// The body is run by a tokio runtime of its own, and each of its polls is measured by its
/// own thread, as by `stallscope::audit`. The test fails if one of them held its thread up
/// for 10 ms or what `under` says, of which time spent waiting for a CPU does not count.
/// The message says where, why and what to do; see `stallscope::docs::testing`.
///
/// ```
/// #[stallscope::test]
/// async fn greets() {
///     tokio::time::sleep(std::time::Duration::from_millis(1)).await;
/// }
///
/// #[stallscope::test(flavor = "multi_thread", worker_threads = 2, under = "50ms")]
/// async fn answers() -> Result<(), std::num::ParseIntError> {
///     let answer: u32 = "42".parse()?;
///     assert_eq!(answer, 42);
///     Ok(())
/// }
///
/// /// What stands for now, with the reasons; each test may have its own as well.
/// const ALLOWED: &[(&str, &str)] = &[("app::config::load", "reads the fixtures, once")];
///
/// #[stallscope::test(allow = ALLOWED)]
/// async fn loads() {}
/// ```
///
/// # Arguments
/// As in `#[tokio::test]`, with the same defaults: `flavor` (`"current_thread"`, which is the
/// default, `"multi_thread"` or `"local"`), `worker_threads`, `start_paused`,
/// `unhandled_panic`, `name`. Tokio needs the features for them that it needs there, but not
/// its `macros`. And:
///
/// | argument | meaning |
/// |---|---|
/// | `under = "10ms"` | for how long a poll may hold its thread up, in `us`, `ms` or `s` |
/// | `no_blocking` | fails if a poll blocked at all, however shortly: `assert_no_blocking!` |
/// | `allow = ["app::load"]` | functions in which both are allowed: `Audit::allow` |
/// | `allow = [("app::load", "reason")]` | the same, with the reason |
/// | `allow = ALLOWED` | the same, of a constant of type `&[(&str, &str)]` |
/// | `whole_runtime` | all tasks count: `Audit::whole_runtime` |
/// | `crate = "path"` | where stallscope is, if not at `::stallscope` |
///
/// Without `whole_runtime`, what the body spawns with `tokio::spawn` is not audited; what
/// it spawns with `stallscope::spawn` is.
///
/// # Findings as warnings
/// With `STALLSCOPE_FINDINGS=warn` in the environment what would fail a test is printed, with
/// what was allowed, and fails nothing. It is the test's own output, so harnesses show
/// it when they are asked for it: `cargo test -- --show-output`, or `cargo nextest run
/// --success-output final`. `STALLSCOPE_FINDINGS=off` runs the tests as `#[tokio::test]`
/// does, and `fail` is what is done without it.
///
/// # Panics
/// Tests that panic fail with their own panic; what was found besides is printed. A test
/// with `#[should_panic]` that has findings fails even if it panics: it is told to the
/// harness as one that did not.
///
/// # Limits
/// A function without `async`, with parameters or with generics is refused, as is a return
/// type `impl ..`. Attributes above and below stay with the test. Where one of them makes
/// the function a test by itself, there is one too many.
///
/// A doc test runs no `#[test]` function, of whatever kind: audit there with
/// `assert_no_stalls!`. There is no audit for wasm, where no thread can look at another;
/// `#[cfg_attr(not(target_family = "wasm"), stallscope::test)]` leaves it out there.
///
/// # Cost
/// 0.7 ms of CPU time a test in the dev profile, 0.06 ms where stallscope is optimized; a
/// first finding of a process takes some 200 ms more. `scripts/test_cost.sh` shows it.
#[proc_macro_attribute]
pub fn test(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expansion::test(arguments.into(), item.into()).into()
}
