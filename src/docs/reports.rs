//! Reports: from findings to what to do.
//!
//! A [`Report`](crate::Report) is made by [`Watchdog::report`](crate::Watchdog::report) at
//! any time, or by an [audit](crate::audit()). Its forms:
//!
//! | form | for |
//! |---|---|
//! | `Display` | a terminal or a log |
//! | [`to_markdown`](crate::Report::to_markdown) | a comment on a pull request |
//! | [`to_html`](crate::Report::to_html) | people: one file, without scripts, that needs no network |
//! | [`to_json`](crate::Report::to_json) | programs, and [`from_json`](crate::Report::from_json) |
//! | [`to_folded`](crate::Report::to_folded) | flame graph tools |
//! | [`to_chrome_trace`](crate::Report::to_chrome_trace) | Perfetto, `chrome://tracing` |
//!
//! [`write_all`](crate::Report::write_all) writes all of them to a folder:
//! `cargo run --release --example quickstart -- --report DIR`.
//!
//! # Findings
//! Stalls of the same function and cause are one finding, a
//! [`Hotspot`](crate::Hotspot): its [`Fingerprint`](crate::Fingerprint) is made of the
//! function's name, its file's name and the cause, so it stays the same while lines
//! move from build to build. A stall without a line goes by the name of its task, or its
//! worker. A stall whose time went to [several places](crate::Stall::places) is in the
//! finding of each, with the time that it spent there and the severity of that time. Where
//! less than half of it was seen, or a turn of what may be many polls was seen there once,
//! it counts by its task or worker: no line is blamed. Each finding has a category, a fix in code and its trade-off from a
//! catalogue of what blocks; [`Report::advise`](crate::Report::advise) puts one's own
//! advice in its place.
//!
//! At most 1,000 stalls that are over and 256 findings are kept one by one; what is
//! beyond is in the sums.
//!
//! # The score
//! By the rule in [`Report::score`](crate::Report::score). It says how the program
//! behaved in the time that was watched: a run without load scores well.
//!
//! # Threads for it
//! What pools the blocking work would need, with the arithmetic. Work that waits: by
//! Little's law, arrivals per second times seconds each are in progress at once; twice
//! as many threads, for bursts. Work that computes: as many as CPUs. Where more
//! arrives than that, a queue that refuses is needed, not a larger pool.
//!
//! # Texts of others
//! Names come from requests, functions from libraries, reports from other machines.
//! All forms show control and invisible characters by number, as `\u{1b}` or `\n`: those
//! that break lines, drive terminals, change the writing direction, take no room or are
//! for private use. One text takes at most 256 characters of a line, prose 2,000; of what
//! is longer, beginning and end are shown. HTML and Markdown escape the rest. Data is as
//! it came: what methods return, and JSON, which writes such characters as `\uXXXX`.
//!
//! # Several processes
//! [`Report::merge`](crate::Report::merge) makes one of several, in any order;
//! `cargo run --example merge -- --report DIR FILE.json..` does so with files.
//! Each stall keeps the [`Origin`](crate::Origin) it comes from. What comes of it is
//! bounded: by [`Report::merge`](crate::Report::merge).
//!
//! # JSON
//! One object. `version` is 1, and rises when a field changes its meaning or goes; a
//! reader of an older version says so. Durations are whole nanoseconds, in fields that
//! end in `_ns`. `hotspots`, `stalls`, `tasks`, `origins`, `blocking` and `allowed` are
//! lists of objects with the names of the methods that return their parts; `polls`,
//! `lag` and `durations` have `buckets`, pairs of a bucket's lowest value and its count,
//! from which any percentile can be had.
