//! One of five real systems, from symptom to fix.
//!
//! Below `examples/systems` are five systems that froze, in small, each as people wrote
//! it and as it should be. This page is about `upload_stoppage`; all output is of
//!
//! ```sh
//! cargo run --release -p stallscope-systems --bin upload_stoppage
//! ```
//!
//! on two cores, cut where it says "..".
//!
//! # The symptom
//! A job generates 20 items, in batches of 5, under a semaphore of 10, on a
//! current-thread runtime; each item ends with an upload. It "stops after
//! initialisation": the first few items are there, then nothing. No error, no
//! panic, no CPU, and the log ends. The first suspect is the semaphore: it looks
//! like a deadlock.
//!
//! ```ignore
//! async fn generate(store: String, board: Arc<Board>, item: usize) -> Result<(), Failure> {
//!     let _permit = board.permits.acquire().await?;
//!     // ..
//!     let stored = upload(&format!("{store}/{item}"), &vec![7; 64 << 10]);
//!     // ..
//! }
//!
//! fn upload(url: &str, picture: &[u8]) -> Result<(), Failure> {
//!     ureq::post(url).send(picture)?;
//!     Ok(())
//! }
//! ```
//!
//! # Watch it
//! Two changes: a [`Watchdog`](crate::Watchdog) on the runtime, and names for the
//! tasks, so that it can tell which item it is.
//!
//! ```ignore
//! let _watchdog = Watchdog::builder()
//!     .on_stall(|event| eprintln!("{event}"))
//!     .start()?;
//! ```
//! ```diff
//! -tokio::spawn(generate(..));
//! +stallscope::spawn_named(format!("item {item}"), generate(..));
//! ```
//!
//! # What it says while the job is stuck
//! ```text
//! escalated MEDIUM poll of 100.1ms in `item 3` on worker 0: blocked in recvfrom at upload examples/systems/src/bin/upload_stoppage/broken.rs:41 (send)
//! escalated HIGH poll of 1.0s in `item 3` on worker 0: blocked in recvfrom at upload examples/systems/src/bin/upload_stoppage/broken.rs:41 (send)
//! escalated CRITICAL poll of 5.0s in `item 3` on worker 0: blocked in recvfrom at upload examples/systems/src/bin/upload_stoppage/broken.rs:41 (send)
//! ```
//!
//! That is the line. One poll of item 3 has held the thread for 5 s, in `recvfrom`, below
//! `ureq`'s `send`: it waits for the store's answer, and with it the whole runtime does.
//! Nothing had to end for that to be told: a job that never goes on says as much.
//!
//! # Who waits, and who is innocent
//! The callback runs on a thread of its own, so it can look around while nothing else
//! moves. The example has a board of where each item is, and at the first CRITICAL
//! it asks that, the semaphore and `/proc/self`:
//!
//! ```text
//! item 3 has been uploading for 5.0s
//! item 4 waits: it could go on since 5.0s
//! item 5 waits: it could go on since 5.0s
//! semaphore: 7 of 10 permits left, 3 in use; a batch is 5
//! process: 230.0ms of CPU time so far, 53 MiB resident
//! ```
//!
//! Items 4 and 5 have been generated, but nobody polls them. The semaphore is cleared:
//! a batch of 5 cannot use up 10 permits, and 7 are left. Nothing computes.
//!
//! The store took 10 s for item 3, and never answered for item 8. There the example
//! stops the store, or it would not end.
//!
//! # The report
//! ```text
//! 8 stalls in 15.60 s on 1 worker, CRITICAL 2, MONITOR 6; score 1 of 10
//!
//!   held up by                                stalls   longest    in all  worst
//!   upload examp…ad_stoppage/broken.rs:41          8   10.00 s   15.14 s  CRITICAL
//!
//!   what to do
//!   - upload examples/systems/src/bin/upload_stoppage/broken.rs:41
//!     use an async client, or `tokio::task::spawn_blocking` with a timeout of the call's own
//! ..
//! ```
//!
//! The six MONITOR stalls are uploads that went well: 20 ms each, in which nothing else
//! ran. Nobody had noticed those.
//!
//! # The fix
//! As it says. Neither half is enough: without `spawn_blocking` each upload still
//! holds up everything, for less long; without a timeout a thread of the blocking
//! pool, and a permit, are gone for each upload that is never answered. A task that
//! is given up, by [`tokio::time::timeout`] for instance, does not end the call.
//!
//! ```ignore
//! let agent: Agent = Agent::config_builder()
//!     .timeout_global(Some(Duration::from_secs(1)))
//!     .build()
//!     .into();
//! // ..
//! let request = agent.post(url);
//! spawn_blocking(move || request.send(&*picture)).await??;
//! ```
//!
//! What times out is tried again, three times, after 100, 200 and 400 ms; that is
//! awaited in the task.
//!
//! # The difference
//! ```text
//!                                   broken          fixed
//! wall_ms                            15544           6214
//! cpu_ms                               470            100
//! ..
//! heartbeat_late_ms                  10078              4
//! stalls                                 8              0
//! longest_stall_ms                   10002              0
//! ..
//! completed                              7             20
//! peak_in_progress                       5              5
//! peak_uploads                           1              5
//! attempts                               8             25
//! ..
//! ```
//!
//! The heartbeat is a task that has nothing to do with the job, and is due every 20 ms.
//!
//! # Keep it fixed
//! That a service as a whole does not stall is an integration test away: the package
//! has one for each of its systems. For a single future it is
//! [`assert_no_blocking!`](crate::assert_no_blocking), see [`docs::testing`](super::testing).
