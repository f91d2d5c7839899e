//! The words of the command line, the same for all systems.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::Failure;

/// How the system is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// As people wrote it.
    Broken,
    /// As it should be.
    Fixed,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Version::Broken => "broken",
            Version::Fixed => "fixed",
        })
    }
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Args {
    /// What to run, in this order.
    pub versions: Vec<Version>,
    /// Where reports go.
    pub report: Option<PathBuf>,
    /// Lines of JSON on standard output, instead of text for people.
    pub json: bool,
}

impl Args {
    /// What is to be said of these words.
    pub const USAGE: &str = "[--broken | --fixed | --both] [--report DIR] [--json]";

    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// If one of them is not known.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, Failure> {
        let mut args = Args::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--broken" => args.versions = vec![Version::Broken],
                "--fixed" => args.versions = vec![Version::Fixed],
                "--both" => args.versions.clear(),
                "--report" => {
                    let folder = words.next().ok_or("--report needs a folder")?;
                    args.report = Some(folder.into());
                }
                "--json" => args.json = true,
                other => return Err(format!("{other} is none of {}", Self::USAGE).into()),
            }
        }
        if args.versions.is_empty() {
            args.versions = vec![Version::Broken, Version::Fixed];
        }
        Ok(args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, String> {
        Args::parse(words.split_whitespace().map(str::to_owned)).map_err(|error| error.to_string())
    }

    #[test]
    fn both_versions_unless_one_is_asked_for() {
        let both = vec![Version::Broken, Version::Fixed];
        for (words, versions) in [
            ("", both.clone()),
            ("--both", both),
            ("--broken", vec![Version::Broken]),
            ("--fixed --json", vec![Version::Fixed]),
        ] {
            assert_eq!(
                parse(words).map(|args| args.versions),
                Ok(versions),
                "{words}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (words, part) in [("--brocken", "--brocken"), ("--report", "folder")] {
            let error = parse(words).err().unwrap_or_default();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
