//! The README's example: one task blocks a worker, and is named while it does.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]
use stallscope::{WatchExt, Watchdog};
use std::{error::Error, thread, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let watchdog = Watchdog::builder()
        .on_stall(|event| eprintln!("{event}"))
        .start()?;
    let task = async { thread::sleep(Duration::from_millis(1_200)) };
    tokio::spawn(task.watched("thumbnail")).await?;
    println!("{}", watchdog.report());
    Ok(())
}
