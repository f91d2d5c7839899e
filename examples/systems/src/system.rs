//! Runs a system in one version or both, and says what came of it.

use std::process::ExitCode;
use std::time::Duration;

use crate::args::{Args, Version};
use crate::planted::Planted;
use crate::stage::Observed;
use crate::verdict::{Comparison, RunVerdict, Told};
use crate::{Failure, say};

/// No system may take longer, both versions together.
const LIMIT: Duration = Duration::from_secs(85);

/// One of the five.
#[derive(Debug)]
pub struct System {
    /// That of its binary.
    pub name: &'static str,
    /// The faults of its broken version.
    pub planted: &'static [Planted],
    /// One run, which ends by itself.
    pub run: fn(Version) -> Result<(Observed, Told), Failure>,
    /// What should hold between a broken run and a fixed one.
    pub compare: fn(&RunVerdict, &RunVerdict, &mut Told),
}

impl System {
    /// What a binary's `main` does.
    pub fn main(&self) -> ExitCode {
        let args = match Args::parse(std::env::args().skip(1)) {
            Ok(args) => args,
            Err(error) => {
                say!("{}: {error}", self.name);
                return ExitCode::from(2);
            }
        };
        if args.json {
            say::json_on_stdout();
        }
        self.end_in_time();
        match self.run_all(&args) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                say!("{}: {error}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    /// A system that freezes for good must not freeze who started it.
    fn end_in_time(&self) {
        let name = self.name;
        std::thread::spawn(move || {
            std::thread::sleep(LIMIT);
            say!("{name}: not over after {LIMIT:?}");
            std::process::exit(3);
        });
    }

    fn run_all(&self, args: &Args) -> Result<bool, Failure> {
        let mut verdicts = Vec::new();
        for version in &args.versions {
            say!("== {}, {version}", self.name);
            let (observed, told) = (self.run)(*version)?;
            if let Some(folder) = &args.report {
                let name = format!("{}-{version}", self.name);
                observed.report.write_all(folder, &name)?;
            }
            say!("\n{}", observed.report.terminal());
            let verdict = RunVerdict::new(self.name, *version, self.planted, &observed, told);
            verdict.show();
            say!("");
            say::json(&verdict);
            verdicts.push(verdict);
        }
        let mut passed = verdicts.iter().all(|verdict| verdict.passed);
        if let [broken, fixed] = &verdicts[..] {
            say!("== {}, side by side", self.name);
            let mut told = Told::default();
            (self.compare)(broken, fixed, &mut told);
            let comparison = Comparison::new(self.name, told);
            comparison.show(broken, fixed);
            say::json(&comparison);
            passed &= comparison.passed;
        }
        if let Some(folder) = &args.report {
            say!("reports are in {}", folder.display());
        }
        Ok(passed)
    }
}
