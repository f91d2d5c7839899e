//! A SQLite database that a job of somebody else keeps busy.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::Failure;

/// How long each of its transactions keeps other writers out, and how long it
/// then leaves the database to them.
const HOLDS: Duration = Duration::from_millis(60);
const PAUSES: Duration = Duration::from_millis(40);
/// How long its last transaction takes, after it was told to stop.
const LAST: Duration = Duration::from_millis(300);

/// A nightly export that has not got through by the morning: it writes down how
/// far it is, and waits for a slow line within its transactions.
#[derive(Debug)]
pub struct Export {
    stop: Sender<()>,
    thread: JoinHandle<rusqlite::Result<()>>,
}

impl Export {
    /// Begins to export.
    ///
    /// # Errors
    /// If there is no such database or no thread.
    pub fn start(database: &Path) -> Result<Self, Failure> {
        let mut connection = connect(database)?;
        connection.execute_batch("CREATE TABLE IF NOT EXISTS export (round INTEGER)")?;
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("export".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(PAUSES) == Err(RecvTimeoutError::Timeout) {
                    export(&mut connection, HOLDS)?;
                }
                export(&mut connection, LAST)
            })?;
        Ok(Export { stop, thread })
    }

    /// Has it stop; the thread ends when its last transaction is over.
    pub fn stop(self) -> JoinHandle<rusqlite::Result<()>> {
        drop(self.stop);
        self.thread
    }
}

fn export(connection: &mut Connection, holds: Duration) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute("INSERT INTO export (round) VALUES (1)", [])?;
    std::thread::sleep(holds);
    transaction.commit()
}

/// Opens a database whose readers do not wait for writers, and whose writers wait
/// for each other.
///
/// # Errors
/// If it cannot be opened.
pub fn connect(database: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    connection.busy_timeout(Duration::from_secs(30))?;
    Ok(connection)
}
