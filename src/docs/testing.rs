//! Futures under test: a verdict that does not depend on how busy the machine is.
//!
//! A test with a stopwatch fails on a busy machine, and passes a blocking call
//! that happened to be fast. So an [audit](crate::audit()) has each poll measured
//! by its own thread: how long it had a CPU, how often it went to sleep in the
//! kernel. Time spent waiting for a CPU does not count.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use stallscope::{assert_no_blocking, assert_no_stalls};
//!
//! # async fn handler() -> u32 { 200 }
//! let status = assert_no_blocking!(handler(), unsupported: skip);
//! assert_eq!(status, 200);
//! assert_no_stalls!(handler());
//! # }
//! ```
//!
//! `assert_no_stalls!` fails if a poll held its thread for 10 ms or what `under:`
//! says; `assert_no_blocking!` fails if one blocked, however shortly. What fails
//! says where, why and what to do:
//!
//! ```text
//! it blocked in 1 place
//!
//! `audited future` blocked in clock_nanosleep, 15.1 ms
//!   where  app::retry src/retry.rs:19 (std::thread::functions::sleep)
//!   sure   the kernel counted that the thread slept, and it was seen where
//!   fix    sleep with `tokio::time::sleep(..).await`
//!   stack
//!     std::thread::functions::sleep
//!     app::retry src/retry.rs:19
//!     app::handler src/handlers.rs:80
//! ```
//!
//! # Set up
//! ```toml
//! [dev-dependencies]
//! stallscope = { version = "0.1", features = ["interpose", "macros"] }
//!
//! # These read debug info: unoptimized, they take long for the first finding of a process.
//! [profile.dev.package]
//! framehop.opt-level = 3
//! gimli.opt-level = 3
//! rustc-demangle.opt-level = 3
//! stallscope.opt-level = 3
//! ```
//!
//! Without `interpose` the assertions work too, with fewer means, see below. With
//! it, test programs on Linux with glibc define the C library's blocking functions
//! and so see each call. It belongs into `dev-dependencies` only: no program needs
//! it but tests, and two libraries that do this do not go together. `macros` has the
//! attribute, and needs none of tokio's features.
//!
//! A suite that asserts that nothing blocks should be known to see something:
//!
//! ```ignore
//! #[test]
//! fn audits_work_here() {
//!     stallscope::self_test().unwrap();
//! }
//! ```
//!
//! On other platforms than Linux, sleeps are not counted: `assert_no_blocking!`
//! fails and says so, or passes with `unsupported: skip`; `assert_no_stalls!` goes
//! by the clock there.
//!
//! # A whole suite
//! `#[stallscope::test]` is `#[tokio::test]`, with its arguments, and fails as
//! `assert_no_stalls!` does if the test's body held its thread up:
//!
//! ```ignore
//! #[stallscope::test]
//! async fn greets() {
//!     assert_eq!(greet().await, "hello");
//! }
//!
//! #[stallscope::test(flavor = "multi_thread", under = "50ms", whole_runtime)]
//! async fn answers() -> Result<(), Error> {
//!     ..
//! }
//! ```
//!
//! Its arguments, and what becomes of tests that panic, are described where it is:
//! `stallscope::test`. It works the same under `cargo test`, where tests share a process,
//! and under nextest, where each has one. Doc tests run no such functions, and audit with
//! `assert_no_stalls!`.
//!
//! # A suite that is there already
//! What it has is let stand by a list with reasons, which shrinks. Of 500 tests:
//!
//! 1. A list, empty at first, in each crate that has tests: `src/lib.rs` and each file of
//!    `tests`. All tests get the attribute, with it:
//!
//!    ```
//!    /// What holds up a thread in our tests, and why it still may.
//!    pub const ALLOWED: &[(&str, &str)] = &[];
//!    ```
//!
//!    ```sh
//!    grep -rl '#\[tokio::test' src tests | xargs sed -i \
//!        -e 's/#\[tokio::test(/#[stallscope::test(allow = crate::ALLOWED, /' \
//!        -e 's/#\[tokio::test\]/#[stallscope::test(allow = crate::ALLOWED)]/'
//!    ```
//!
//! 2. What there is to say, as warnings, of which none fails a test. Each ends with
//!    entries for the list, so they can be counted:
//!
//!    ```sh
//!    STALLSCOPE_FINDINGS=warn cargo test -- --show-output > findings.txt
//!    grep -E '^  \(".*", "\.\."\),$' findings.txt | sort | uniq -c | sort -rn
//!    ```
//!
//!    The few at its top are most of it. What is there by mistake is mended; what is to
//!    stand for now becomes an entry, with the reason:
//!
//!    ```
//!    pub const ALLOWED: &[(&str, &str)] = &[
//!        ("app::fixtures::load", "reads 3 MB once, in tests only"),
//!        ("app::session::sign", "argon2 in the handler: issue 112"),
//!    ];
//!    ```
//!
//! 3. Without the variable what is new fails from now on.
//! 4. The list shrinks. As warnings, tests also tell which entries they made use of. One
//!    that none made use of is not needed any more:
//!
//!    ```sh
//!    STALLSCOPE_FINDINGS=warn cargo test -- --show-output |
//!        sed -n 's/^allowed in .* in all: //p' | sort | uniq -c
//!    ```
//!
//! An entry is for functions, so code that is tested needs no change, and no dependency. It
//! goes by stacks: where there are none, as on macOS, nothing is allowed by it. Nor is what
//! was not seen where, as can be on a machine so busy that the thread which looks got no CPU
//! for as long as it lasted; with `interpose`, blocking calls are always seen where.
//!
//! # A handler
//! Call it, or send a request through the router; no server is needed.
//!
//! ```ignore
//! #[tokio::test]
//! async fn greets_without_blocking() {
//!     let request = Request::get("/hello/world").body(Body::empty()).unwrap();
//!     let response = assert_no_blocking!(router().oneshot(request)).unwrap();
//!     assert_eq!(response.status(), 200);
//! }
//! ```
//!
//! # A stream
//! Audit the loop that consumes it: its polls are those of the stream.
//!
//! ```ignore
//! let images = assert_no_stalls!(stream.collect::<Vec<_>>(), under: Duration::from_millis(50));
//! ```
//!
//! # A tree of tasks
//! What is spawned by [`stallscope::spawn`](crate::spawn) from within an audited
//! future is audited with it, to any depth. What `tokio::spawn` spawns is not,
//! because nothing tells of it on stable. For that there is the whole runtime,
//! which in a test is usually the test's own:
//!
//! ```
//! # #[tokio::main] async fn main() {
//! use stallscope::Audit;
//!
//! let audited = Audit::new()
//!     .whole_runtime()
//!     .run(async { tokio::spawn(async { 1 + 1 }).await.unwrap() })
//!     .await;
//! audited.report.check_no_stalls().unwrap();
//! # }
//! ```
//!
//! The thread that looks then looks at the runtime's workers, too. Of tasks that nobody
//! audits themselves it finds, on Linux:
//! - each sleep of a millisecond and more, with its line; it is a stall if it takes as long
//!   as one. Waiting for locks and for the kernel's work on memory counts from there on, less
//!   what another thread waited for a CPU meanwhile;
//! - with `interpose` each blocking call, but for waiting for locks;
//! - computing, which may be one long poll or many short ones: it is listed by
//!   [`Report::unsure`](crate::Report::unsure), and fails nothing. Spawned by
//!   [`stallscope::spawn`](crate::spawn) a task is measured exactly.
//!
//! # What may never end
//! [`Audit::limit`](crate::Audit::limit) gives up a future that is pending, in real
//! time even where tokio's time is paused. One that is stuck in a poll cannot be
//! given up from within; [`Audit::block_on`](crate::Audit::block_on) runs it on a
//! thread of its own and returns with a report of where it is stuck.
//!
//! # An old code base
//! 1. Assert what holds today: `assert_no_stalls!(.., under: Duration::from_secs(1))`
//!    on the handlers that matter, then with less and less.
//! 2. Where something blocks and is to stay for now, say why, and the rest is
//!    checked: [`Audit::allow`](crate::Audit::allow), by the path of a function, or in
//!    the code [`allow_blocking`](crate::allow_blocking), or
//!    [`AllowBlocking`](crate::AllowBlocking) where a closure does not fit. That holds
//!    for its thread and its poll. [`Report::allowed`](crate::Report::allowed)
//!    lists what was made use of, and how often it slept: what never sleeps is not
//!    needed any more.
//! 3. For rules of one's own there is the [`Report`](crate::Report):
//!    `report.blocking().iter().all(|blocking| ..)`.
//!
//! `block_in_place` and `spawn_blocking` are always allowed.
//!
//! # In CI
//! Nothing is needed: the verdict does not depend on the machine's speed, nor on
//! how many tests run at the same time, in one process (`cargo test`) or in many
//! (nextest). For lines, debug info is needed, which test profiles have.
//!
//! # What is seen, and what is not
//! | | with `interpose` | Linux | elsewhere |
//! |---|---|---|---|
//! | sleeping, waiting for a child, a socket, a disk, a channel | with line | see below | polls of 10 ms and more |
//! | a blocking call that had no need to wait: a cached file, a connection on loopback | with line | no | no |
//! | reading a mapped file that is on disk | yes | yes | polls of 10 ms and more |
//! | waiting for a lock, for 10 ms and more | with line | yes | the same |
//! | waiting for a lock for less, an uncontended lock | no | no | no |
//! | linking, marking, sizing a file: `chmod`, `utimensat`, attributes | with line | if it slept | polls of 10 ms and more |
//! | `stat`, `readdir`, `close` that need no disk | no | no | no |
//! | system calls made by number, with the C library's `syscall` | with line | if it slept | polls of 10 ms and more |
//! | system calls made without the C library (`rustix`) | if it slept, see below | see below | polls of 10 ms and more |
//! | computing | polls of 10 ms of CPU time and more | the same | by the clock |
//!
//! Without `interpose`, or without the C library, a sleep is blamed
//! - if it was seen by the thread that looks every 0.25 ms, which then has its line;
//! - if it was not, but took 10 ms and more;
//! - if it took less, but no other thread of the process ran that could have been
//!   the reason: as it is where tests run one at a time (nextest).
//!
//! So where many tests share a process, a sleep of less than a millisecond may be
//! missed; `interpose` does not miss it.
//!
//! The 10 ms are those of the thresholds, or what `under:` says. Whether a thread
//! has to wait for a lock that others hold for a moment is an accident of timing
//! that no verdict should depend on: so is the kernel's own wait for memory.
//!
//! Writing to standard output and error is never blamed, nor are non-blocking
//! descriptors, devices, `/proc` and `/sys`; nor what a panic's message takes.
//!
//! Measured on 2 cores, kept busy by two other processes:
//!
//! - `cargo test --release --test verdicts false_alarms -- --ignored --nocapture`:
//!   of 120,000 innocent polls (allocating, mapping memory, printing to a pipe,
//!   locking, tokio's I/O, `stat`) none was said to block, with `interpose` or
//!   without.
//! - `STALLSCOPE_RUNS=1000 cargo test --release --test verdicts --features interpose
//!   -- --nocapture`: each of 24 blocking scenarios was found in 1,000 of 1,000 runs,
//!   with its line, and 13 innocent ones passed in 1,000 of 1,000. The nine that name and
//!   mark files came later, and are in no figure here.
//! - The same without `interpose`: of 19 scenarios that sleep, the 10 that do so for 10
//!   ms and more were found in 1,000 of 1,000 runs, three shorter ones as often, and
//!   six in 783 (a timer of 50 us) to 999 (one of 3 ms); the innocent ones passed in
//!   1,000 of 1,000.
//!
//! That is why `interpose` is there: counting sleeps alone cannot tell a short one from
//! an accident of timing.
