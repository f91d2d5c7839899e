//! A database on threads of its own, for services that must not wait for it.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use crate::{Failure, busy};

/// Says what came of a job, once that is on the disk.
type Answer = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce(&Connection) -> Answer + Send>;

/// How many writes are committed together at most.
const TOGETHER: usize = 64;

/// One thread reads, so that it does not wait for writers; another writes, and
/// commits what has come meanwhile in one transaction.
#[derive(Clone, Debug)]
pub struct Database {
    reads: Sender<Job>,
    writes: Sender<Job>,
}

impl Database {
    /// Opens it; both threads end when this and its clones are dropped.
    ///
    /// # Errors
    /// If it cannot be opened, or there are no threads.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Database {
            reads: spawn("database-read", busy::connect(path)?, read)?,
            writes: spawn("database-write", busy::connect(path)?, write)?,
        })
    }

    /// Reads.
    ///
    /// # Errors
    /// If `work` fails, or the database.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        ask(&self.reads, work).await
    }

    /// Writes; returns when it is committed.
    ///
    /// # Errors
    /// If `work` fails, or the database.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        ask(&self.writes, work).await
    }
}

async fn ask<T: Send + 'static>(
    thread: &Sender<Job>,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let (sender, receiver) = oneshot::channel();
    let job: Job = Box::new(move |connection| {
        let done = work(connection);
        Box::new(move || {
            let _ = sender.send(done);
        })
    });
    thread.send(job).map_err(|_| "the database is closed")?;
    Ok(receiver.await??)
}

fn spawn(
    name: &str,
    connection: Connection,
    work: fn(Connection, &Receiver<Job>),
) -> Result<Sender<Job>, Failure> {
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || work(connection, &receiver))?;
    Ok(sender)
}

fn read(connection: Connection, jobs: &Receiver<Job>) {
    for job in jobs {
        job(&connection)();
    }
}

fn write(mut connection: Connection, jobs: &Receiver<Job>) {
    // SQLite's own way to wait sleeps for 25 ms and more between two looks.
    let _ = connection.busy_handler(Some(|tries| {
        std::thread::sleep(std::time::Duration::from_millis(1));
        tries < 30_000
    }));
    while let Ok(first) = jobs.recv() {
        let begun = connection.transaction_with_behavior(TransactionBehavior::Immediate);
        // Without a transaction, or its end, nobody is answered: they are told so
        // by their channel.
        let Ok(transaction) = begun else { continue };
        let together = std::iter::once(first).chain(jobs.try_iter().take(TOGETHER - 1));
        let answers: Vec<Answer> = together.map(|job| job(&transaction)).collect();
        if transaction.commit().is_ok() {
            answers.into_iter().for_each(|answer| answer());
        }
    }
}
