//! Tests that run in a process of their own: this executable again, with one of its
//! ignored tests.

#![allow(dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a child may say nothing or not end; it is killed then.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Child {
    /// Starts the test of this name.
    pub fn of(test: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--ignored", "--nocapture"])
            .args(["--test-threads", "1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Child { process, lines }
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The rest of the next line that begins like this.
    pub fn line_after(&mut self, word: &str) -> String {
        let line = self.line_with_any(&[word]);
        line[word.len()..].trim().to_owned()
    }

    /// The next line that begins like one of these.
    pub fn line_with_any(&mut self, words: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with one of {words:?}: {:?}", self.stopped());
            };
            if words.iter().any(|word| line.starts_with(word)) {
                return line;
            }
        }
    }

    /// How it ended by itself.
    pub fn wait(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "hangs: {:?}", self.stopped());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn stopped(&mut self) -> ExitStatus {
        let _ = self.process.kill();
        self.process.wait().unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
