//! The library's own threads.

use std::thread::{Builder, JoinHandle};

use crate::error::Error;
use crate::os;

/// Starts one. With `short_slices` it is given a CPU soon after it wakes, also while all
/// are busy, see [`Builder::short_slices`](crate::Builder::short_slices).
pub(crate) fn start(
    name: &'static str,
    short_slices: bool,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            if short_slices {
                os::request_short_slice();
            }
            work();
        })
        .map_err(|source| Error::thread(name, source))
}
