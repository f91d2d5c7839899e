//! Five systems that froze, in small and with real parts: as people wrote them,
//! and as they should be. The library is to find the difference.
//!
//! | binary | what froze |
//! |---|---|
//! | `image_assessment` | reading, decoding and encoding pictures in the future |
//! | `upload_stoppage` | a synchronous upload to a server that never answers |
//! | `pipeline_service` | a pipeline of services that block in their handlers |
//! | `streaming_batch` | saving each picture in the body of the stream |
//! | `document_service` | documents, a database and certificates on the event loop |
//!
//! Each takes `--broken | --fixed | --both`, `--report DIR` and `--json`, ends by
//! itself, and fails if the library has not found what was planted in it, or has
//! blamed something else.
//!
//! # Map
//! | what | where |
//! |---|---|
//! | the words of the command line | [`args`] |
//! | text for people, or lines of JSON | [`mod@say`] |
//! | a runtime and a watchdog to run a system on | [`stage`] |
//! | faults, marked in the source, and whether a report has them | [`mod@planted`] |
//! | what a run has shown | [`verdict`] |
//! | both runs of a system, one after the other | [`system`] |
//! | servers that are no part of what is watched | [`server`] |
//! | CPU and memory of the process | [`usage`] |
//! | a task that should never be late | [`heartbeat`] |
//! | pictures | [`pictures`] |
//! | a database that somebody else keeps busy | [`busy`] |
//! | a database, and work, on threads of their own | [`database`], [`pool`] |
//! | requests watched by a layer, and their failures answered | [`routes`], [`failed`] |
//! | percentiles | [`figures`] |

pub mod args;
pub mod busy;
pub mod database;
pub mod failed;
pub mod figures;
pub mod heartbeat;
pub mod pictures;
pub mod planted;
pub mod pool;
pub mod routes;
pub mod say;
pub mod server;
pub mod stage;
pub mod system;
pub mod usage;
pub mod verdict;

/// What any of the systems may fail with.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
