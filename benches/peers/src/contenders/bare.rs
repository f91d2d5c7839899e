//! tokio as it is.

use std::future::Future;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::contender::{Contender, Failure, Like, Settings, Tells, build};

pub(crate) struct Bare;

impl Contender for Bare {
    const NAME: &'static str = "bare";
    const DOES: &'static str = "nothing: what the others are compared with";
    const LIKE: Like = Like::Bare;
    const TELLS: Tells = Tells::Nobody("nothing watches");

    fn start(builder: Builder, _: &Settings) -> Result<(Runtime, Self), Failure> {
        Ok((build(builder)?, Bare))
    }

    fn spawn<F>(&self, on: &Handle, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        on.spawn(future)
    }
}
