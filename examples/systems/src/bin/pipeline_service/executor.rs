//! What a stage is done with: its settings, its clients, its filters.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use regex::RegexSet;
use rustls::RootCertStore;
use serde::{Deserialize, Serialize};
use stallscope_systems::Failure;

static MADE: AtomicUsize = AtomicUsize::new(0);

/// How many were made since this was last asked.
pub(crate) fn take_made() -> usize {
    MADE.swap(0, Ordering::Relaxed)
}

/// What an executor is set up with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Where the model is served.
    pub(crate) model: String,
    /// What prompts may not ask for.
    filters: Vec<String>,
}

impl Settings {
    /// For a model at this address.
    pub(crate) fn new(model: String) -> Self {
        let filters = (0..FILTERS).map(|number| {
            let word = number.wrapping_mul(2_654_435_761);
            format!(r"(?i)\b{word:x}[a-z]*\s+{:x}s?\b", word.rotate_left(9))
        });
        Settings {
            model,
            filters: filters.collect(),
        }
    }
}

const FILTERS: u32 = 160;
/// A prompt like most.
const SAMPLE: &str = "a harbour in the morning, take 1";

/// What does one stage.
#[derive(Debug)]
pub(crate) struct Executor {
    stage: &'static str,
    model: String,
    filters: RegexSet,
    /// Whom its clients would trust, were the model not on loopback.
    trusted: usize,
}

impl Executor {
    /// Reads the settings, compiles the filters and loads the certificates to trust.
    ///
    /// Blocks: what matters is when and how often it is called.
    pub(crate) fn new(stage: &'static str, settings: &Path) -> Result<Self, Failure> {
        MADE.fetch_add(1, Ordering::Relaxed);
        let settings: Settings = serde_json::from_slice(&std::fs::read(settings)?)?;
        let mut roots = RootCertStore::empty();
        // fault: executor made for each run
        let (filters, (trusted, _)) = (
            // Part of a filter is compiled when it is first used.
            RegexSet::new(&settings.filters).inspect(|filters| drop(filters.matches(SAMPLE)))?,
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        );
        Ok(Executor {
            stage,
            model: settings.model,
            filters,
            trusted,
        })
    }

    /// What to ask the model, and where.
    pub(crate) fn question(&self, prompt: &str) -> Result<(String, String), Failure> {
        if self.filters.is_match(prompt) {
            return Err("the prompt asks for what it may not".into());
        }
        let question = format!("{} ({} trusted): {prompt}", self.stage, self.trusted);
        Ok((format!("{}/{}", self.model, self.stage), question))
    }
}
