//! tokio as it is.

use tokio::runtime::{Builder, Runtime};

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
}
