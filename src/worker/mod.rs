//! Which worker of its runtime the calling thread is.
//!
//! tokio 1.54 and later say it (`tokio::runtime::worker_index`). With earlier versions it
//! follows from [`evidence`]. The compiler chooses: within a function, what a glob imports
//! hides what the module around it defines, and a glob may lack a name.
//!
//! Cargo.toml asks for 1.54 all the same: with what is only concluded, a thread that has
//! handed its worker on (`block_in_place`) is still taken for it now and then, and blamed.

mod evidence;

pub(crate) use evidence::Asked;

/// Stands in for tokio's function of the same name, where tokio has none.
#[allow(dead_code)]
const fn worker_index() -> NotTold {
    NotTold
}

/// tokio does not tell which worker a thread is.
#[derive(Debug)]
struct NotTold;

/// What there is to know: tokio's answer, or what follows without one.
trait Answer {
    fn or_evidence(self, asked: Asked) -> Option<usize>;
}

impl Answer for Option<usize> {
    fn or_evidence(self, _: Asked) -> Option<usize> {
        self
    }
}

impl Answer for NotTold {
    fn or_evidence(self, asked: Asked) -> Option<usize> {
        evidence::index(asked)
    }
}

/// The worker that the calling thread is; `None` where it is none, or where that is not
/// known. It is always known since tokio 1.54.
pub(crate) fn index(asked: Asked) -> Option<usize> {
    #[allow(unused_imports)]
    use tokio::runtime::*;
    worker_index().or_evidence(asked)
}
