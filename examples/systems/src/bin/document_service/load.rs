//! The clients: a process of their own, so that what they feel is the service's doing.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stallscope_systems::Failure;

use crate::{clients, documents};

/// The word that makes this program the clients, with the service's address after it.
pub(crate) const WORD: &str = "--load";

/// What there is to do.
pub(crate) const UPLOADS: usize = 50;
pub(crate) const WEBSOCKETS: usize = 10;
pub(crate) const IN_BACKGROUND: usize = 5;
/// How long all of it may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(33);

/// What the clients have felt.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Felt {
    /// Uploads that were taken, those for the background included.
    pub(crate) uploaded: usize,
    /// Documents whose stages are over.
    pub(crate) processed: usize,
    pub(crate) heartbeats: usize,
    /// How late they came.
    pub(crate) late_p99: Duration,
    pub(crate) late_max: Duration,
    /// WebSockets given up.
    pub(crate) drops: usize,
    pub(crate) answers: usize,
    pub(crate) api_p50: Duration,
    pub(crate) api_p99: Duration,
    pub(crate) upload_p50: Duration,
}

/// Starts the process, and waits for what it has to say.
pub(crate) fn start(service: SocketAddr) -> Result<Felt, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args([WORD, &service.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What that process does.
pub(crate) fn main(service: &str) -> Result<Felt, Failure> {
    let service = service.parse()?;
    let scans = (0..IN_BACKGROUND + UPLOADS).map(documents::scan);
    let scans = scans.collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(clients::load(service, scans))
}
