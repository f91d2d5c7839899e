//! Runs in the database.

use std::path::Path;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use stallscope_systems::{Failure, busy};

/// The stages of a run, one after the other.
pub(crate) const STAGES: [&str; 3] = ["generation", "refinement", "caption"];

pub(crate) const INSERT: &str = "INSERT INTO runs (id, prompt) VALUES (?1, ?2)";
pub(crate) const BEGIN: &str = "INSERT INTO stages (run, stage, began_us) VALUES (?1, ?2, ?3)";
pub(crate) const FINISH: &str =
    "UPDATE stages SET ended_us = ?3, output = ?4 WHERE run = ?1 AND stage = ?2";

/// What a client posts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) prompt: String,
}

/// What it is answered.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Accepted {
    pub(crate) id: i64,
}

/// A stage that has begun; times in microseconds since the program began.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Stage {
    pub(crate) run: i64,
    pub(crate) stage: String,
    pub(crate) began_us: i64,
    pub(crate) ended_us: Option<i64>,
}

/// A run as far as it has come.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) id: i64,
    pub(crate) prompt: String,
    pub(crate) stages: Vec<Stage>,
}

/// Makes the tables.
pub(crate) fn create(database: &Path) -> Result<(), Failure> {
    busy::connect(database)?.execute_batch(
        "CREATE TABLE runs (id INTEGER PRIMARY KEY, prompt TEXT NOT NULL);
         CREATE TABLE stages (run INTEGER, stage TEXT, began_us INTEGER, ended_us INTEGER,
                              output TEXT, PRIMARY KEY (run, stage));",
    )?;
    Ok(())
}

/// Finds a run.
pub(crate) fn find(connection: &Connection, id: i64) -> rusqlite::Result<Run> {
    let prompt = connection.query_row("SELECT prompt FROM runs WHERE id = ?1", [id], |row| {
        row.get(0)
    })?;
    let mut statement = connection
        .prepare("SELECT stage, began_us, ended_us FROM stages WHERE run = ?1 ORDER BY began_us")?;
    let stages = statement.query_map(params![id], |row| {
        Ok(Stage {
            run: id,
            stage: row.get(0)?,
            began_us: row.get(1)?,
            ended_us: row.get(2)?,
        })
    })?;
    Ok(Run {
        id,
        prompt,
        stages: stages.collect::<Result<_, _>>()?,
    })
}
