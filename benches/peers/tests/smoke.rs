//! The benchmark runs, and what it says can be: sound figures are for a quiet machine.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// Runs it quickly, and reads what it wrote.
fn run(name: &str, arguments: &[&str]) -> Value {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope-peers"))
        .args(["--quick", "--json"])
        .arg(&file)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap()
}

fn rows(measured: &Value, part: &str) -> Vec<Value> {
    measured[part].as_array().unwrap().clone()
}

#[test]
fn all_do_the_same_polls_and_none_is_free() {
    let measured = run(
        "cost.json",
        &[
            "--only",
            "cost",
            "--contender",
            "exact histogram",
            "--contender",
            "tokio-metrics",
        ],
    );
    let rows = rows(&measured, "cost");
    assert_eq!(rows.len(), 3, "{rows:#?}");
    assert_eq!(rows[0]["contender"], "bare");
    for row in &rows {
        for runtime in ["multi_thread", "current_thread"] {
            let cost = &row[runtime];
            // 64 tasks, each with so many yields and the poll that follows the last.
            let polls = cost["polls_a_round"].as_u64().unwrap();
            assert!([64 * 301, 64 * 3_001].contains(&polls), "{row:#}");
            assert!(cost["ns_a_poll"]["min"].as_f64().unwrap() > 1.0, "{row:#}");
            let ratio = &cost["cpu_to_bare"];
            let [min, median, max] =
                ["min", "median", "max"].map(|which| ratio[which].as_f64().unwrap());
            assert!(0.0 < min && min <= median && median <= max, "{row:#}");
        }
    }
}

#[test]
fn stallscope_tells_of_each_stall_and_of_nothing_else() {
    let measured = run(
        "detection.json",
        &["--only", "detection", "--contender", "exact histogram"],
    );
    let rows = rows(&measured, "detection");
    let stallscope = rows
        .iter()
        .find(|row| row["cannot"].is_null())
        .expect("a contender that tells");
    let scores = stallscope["scores"].as_array().unwrap();
    assert_eq!(scores.len(), 5, "{scores:#?}");
    let mut stalls = 0;
    for score in scores {
        let (scenario, score) = (&score[0], &score[1]);
        stalls += score["stalls"].as_u64().unwrap();
        assert_eq!(score["told"], score["stalls"], "{scenario}: {score:#}");
        assert_eq!(score["false_reports"], 0, "{scenario}: {score:#}");
    }
    assert_eq!(stalls, 3);
}

#[test]
fn wrong_arguments_are_refused_with_a_hint() {
    let output = Command::new(env!("CARGO_BIN_EXE_stallscope-peers"))
        .arg("--fast")
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("--fast") && said.contains("--quick"),
        "{said}"
    );
}
