//! The command line.

use std::path::PathBuf;

use crate::contender::Failure;

pub(crate) const HELP: &str = "\
What stallscope and its peers cost and detect, in the same run.

  --quick             less of everything, and no instructions: under a minute
  --only PART         cost, detection or scale; may be given more than once
  --contender TEXT    bare and those whose name contains it; may be given more than once
  --json FILE         where to write the tables as JSON";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Cost,
    Detection,
    Scale,
}

#[derive(Debug, Default)]
pub(crate) struct Arguments {
    pub help: bool,
    pub quick: bool,
    pub json: Option<PathBuf>,
    only: Vec<Part>,
    contenders: Vec<String>,
}

impl Arguments {
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut parsed = Arguments::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .cloned()
                    .ok_or_else(|| format!("{argument} needs a value"))
            };
            match argument.as_str() {
                "--help" | "-h" => parsed.help = true,
                "--quick" => parsed.quick = true,
                "--json" => parsed.json = Some(value()?.into()),
                "--contender" => parsed.contenders.push(value()?),
                "--only" => parsed.only.push(match value()?.as_str() {
                    "cost" => Part::Cost,
                    "detection" => Part::Detection,
                    "scale" => Part::Scale,
                    other => return Err(format!("{other} is not a part\n\n{HELP}").into()),
                }),
                other => return Err(format!("{other} is not an argument\n\n{HELP}").into()),
            }
        }
        Ok(parsed)
    }

    pub(crate) fn does(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    pub(crate) fn wants(&self, contender: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|part| contender.contains(part))
    }
}
