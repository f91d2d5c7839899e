//! Runs a system both ways and reads what it says.

// Each test uses its part.
#![allow(dead_code)]

use std::process::{Command, Stdio};

use serde_json::Value;

/// What both runs have shown.
pub(crate) struct Verdicts {
    pub(crate) broken: Value,
    pub(crate) fixed: Value,
    comparison: Value,
}

/// Runs a system both ways.
pub(crate) fn both(binary: &str) -> Verdicts {
    let output = Command::new(binary)
        .args(["--both", "--json"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    // Shown where the test fails.
    eprintln!("{told}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [broken, fixed, comparison] = <[Value; 3]>::try_from(verdicts).unwrap();
    assert_eq!(broken["version"], "broken");
    assert_eq!(fixed["version"], "fixed");
    assert_eq!(comparison["kind"], "comparison");
    let verdicts = Verdicts {
        broken,
        fixed,
        comparison,
    };
    let failed = verdicts.failed_claims();
    assert!(failed.is_empty(), "these do not hold: {failed:#?}");
    assert!(output.status.success(), "{}", output.status);
    verdicts
}

impl Verdicts {
    fn failed_claims(&self) -> Vec<String> {
        [&self.broken, &self.fixed, &self.comparison]
            .iter()
            .flat_map(|verdict| verdict["claims"].as_array().unwrap())
            // Other tests may keep the machine busy, and make times longer.
            .filter(|claim| claim["holds"] != true && claim["timed"] != true)
            .map(|claim| claim["claim"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The faults are told, each with its category, at the line where it was planted,
    /// and nothing else; in the fixed version there are none.
    pub(crate) fn tell_of(&self, faults: &[(&str, &str)]) {
        let planted = self.broken["planted"].as_array().unwrap();
        assert_eq!(planted.len(), faults.len());
        for (name, category) in faults {
            let fault = planted.iter().find(|fault| fault["name"] == *name).unwrap();
            assert_eq!(fault["found"], true, "{fault}");
            let told = fault["category"].as_str().unwrap();
            // All there is to say on a machine that is too busy.
            assert!(told == *category || told == "Starvation", "{fault}");
            // That the line is one of the statement's is what `found` says.
            let file = |field: &str| {
                let place = fault[field].as_str().unwrap();
                let file = place.rsplit(['/', ' ']).next().unwrap();
                file.split(':').next().unwrap().to_owned()
            };
            assert_eq!(file("culprit"), file("planted"), "{fault}");
        }
        for verdict in [&self.broken, &self.fixed] {
            assert!(verdict["blamed"].as_array().unwrap().is_empty());
        }
        assert!(self.fixed["planted"].as_array().unwrap().is_empty());
    }
}

/// A figure of a run.
pub(crate) fn figure(verdict: &Value, name: &str) -> f64 {
    let figure = &verdict["figures"][name];
    figure
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is {figure}"))
}
