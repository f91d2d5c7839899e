//! Several reports as one: prints it, or writes it in all forms.
//!
//! `cargo run --example merge -- [--report DIR] FILE.json..`

// It is a program for people to look at.
#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::process::ExitCode;

use stallscope::Report;

fn merge() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut folder = None;
    if words.first().is_some_and(|word| word == "--report") && words.len() > 1 {
        folder = words.drain(..2).next_back();
    }
    let mut merged: Option<Report> = None;
    for file in &words {
        let json = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        let report = Report::from_json(&json).map_err(|error| format!("{file}: {error}"))?;
        merged = Some(match merged {
            Some(merged) => merged.merge(&report),
            None => report,
        });
    }
    let merged = merged.ok_or("usage: merge [--report DIR] FILE.json..")?;
    for origin in merged.origins() {
        println!("{origin}");
    }
    match folder {
        Some(folder) => merged.write_all(&folder, "merged")?,
        None => println!("{}", merged.terminal()),
    }
    Ok(())
}

fn main() -> ExitCode {
    match merge() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("merge: {error}");
            ExitCode::FAILURE
        }
    }
}
