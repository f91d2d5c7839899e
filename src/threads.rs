//! The library's own threads.

use std::thread::{Builder, JoinHandle};

use crate::error::Error;
use crate::os;

/// Starts one that is given a CPU soon after it wakes, also while all are busy: what
/// it has to see or to tell is late otherwise.
pub(crate) fn start(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            os::be_prompt();
            work();
        })
        .map_err(|source| Error::thread(name, source))
}
