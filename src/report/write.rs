//! The report's files.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::error::Error;
use crate::escape::{self, part};
use crate::report::Report;

/// How long a name may be: file systems allow 255 bytes, with ending and all.
const MAX_NAME: usize = 200;
/// Have a meaning of their own in paths: of Windows, and `/` everywhere.
const SPECIAL: [char; 9] = ['/', '\\', ':', '*', '?', '"', '<', '>', '|'];
/// Devices that Windows has in each folder, whatever the ending.
const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"];

impl Report {
    /// Writes all forms to a folder, which is made if it is not there: `NAME.txt`,
    /// `.md`, `.html`, `.json`, `.folded` and `.trace.json`.
    ///
    /// Each file is there as a whole or as it was before, and nothing outside of the
    /// folder is written to: the name may not lead out of it, and a link that has a
    /// file's name is replaced, not followed.
    ///
    /// Blocks: not to be called in a task.
    ///
    /// # Errors
    /// If a file cannot be written. If the name is no file's name on some platform, of
    /// kind [`InvalidInput`](io::ErrorKind::InvalidInput): empty, longer than 200 bytes, a
    /// name of dots, one that ends in a dot or a space, a device of Windows, or one with
    /// any of `/ \ : * ? " < > |` or with a control or invisible character.
    pub fn write_all(&self, folder: impl AsRef<Path>, name: &str) -> io::Result<()> {
        check(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let folder = folder.as_ref();
        fs::create_dir_all(folder)?;
        let forms = [
            ("txt", self.to_string()),
            ("md", self.to_markdown()),
            ("html", self.to_html()),
            ("json", self.to_json()),
            ("folded", self.to_folded()),
            ("trace.json", self.to_chrome_trace()),
        ];
        for (ending, text) in forms {
            replace(folder, &format!("{name}.{ending}"), &text)?;
        }
        Ok(())
    }
}

/// Puts a file of this text in the place of whatever has its name.
fn replace(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // Relaxed: nothing but the number itself goes by it.
    let number = NUMBER.fetch_add(1, Relaxed);
    let draft = folder.join(format!(".stallscope-{}-{number}.tmp", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        // Follows no link, and takes nobody else's file.
        .create_new(true)
        .open(&draft)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&draft, folder.join(name)));
    if written.is_err() {
        // It may not even be there; why it could not be written is what matters.
        let _ = fs::remove_file(&draft);
    }
    written
}

/// Whether files of this name stay in their folder, on each platform: reports travel.
fn check(name: &str) -> Result<(), Error> {
    let no = |problem: String| {
        let remedy = "use letters, digits, `-`, `_` and `.`";
        Err(Error::config("name", problem, remedy))
    };
    let shown = part(name);
    if name.is_empty() {
        return no("is empty".to_owned());
    }
    if name.len() > MAX_NAME {
        return no(format!("has {} bytes, above {MAX_NAME}", name.len()));
    }
    if let Some(c) = name.chars().find(|c| SPECIAL.contains(c)) {
        return no(format!(
            "has `{c}`, which is no part of a file's name: `{shown}`"
        ));
    }
    if name.contains(escape::is_hidden) {
        return no(format!("has a control or invisible character: `{shown}`"));
    }
    if name.ends_with(['.', ' ']) {
        return no(format!("ends in a dot or a space: `{shown}`"));
    }
    if is_device(name) {
        return no(format!("is a device of Windows: `{shown}`"));
    }
    Ok(())
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end();
    let stem = stem.to_ascii_uppercase();
    let port = stem
        .strip_prefix("COM")
        .or_else(|| stem.strip_prefix("LPT"));
    let is_port = port.is_some_and(|number| {
        let mut digits = number.chars();
        // Windows takes the raised ones for digits, too.
        let digit = |c: char| c.is_ascii_digit() || "\u{b9}\u{b2}\u{b3}".contains(c);
        digits.next().is_some_and(digit) && digits.next().is_none()
    });
    is_port || DEVICES.contains(&stem.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of a test's own, with another beside the report's.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let name = format!("stallscope-{test}-{}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            let _ = fs::remove_dir_all(&folder.0);
            fs::create_dir_all(&folder.0).unwrap();
            folder
        }

        fn files(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
            let names = entries.map(|entry| entry.file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_name_cannot_leave_its_folder() {
        let folder = Folder::new("names");
        let reports = folder.0.join("reports");
        let long = "n".repeat(300);
        for name in [
            "../escape",
            "..",
            ".",
            "...",
            "",
            " ",
            "a/b",
            "/tmp/escape",
            "a\\b",
            "..\\escape",
            "C:escape",
            "file:stream",
            "x\0y",
            "a\nb",
            "a\u{202e}b",
            "a\u{200b}",
            "what?",
            "*",
            "end.",
            "end ",
            "CON",
            "con.old",
            "Aux",
            "nul",
            "COM1",
            "lpt9.x",
            "COM\u{b9}",
            "conin$",
            &long,
        ] {
            let error = Report::default().write_all(&reports, name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name:?}");
            let text = error.to_string();
            assert!(text.starts_with("`name` "), "{text}");
            assert!(
                text.ends_with("use letters, digits, `-`, `_` and `.`"),
                "{text}"
            );
            assert!(!text.contains(escape::is_hidden), "{text:?}");
        }
        assert_eq!(folder.files(), [""; 0], "not even the folder");
        for name in [
            "report",
            "2024-05-01_web.3",
            "größe",
            "com",
            "console",
            "COM10",
            "a b",
        ] {
            Report::default().write_all(&reports, name).unwrap();
        }
        assert_eq!(fs::read_dir(&reports).unwrap().count(), 7 * 6);
        assert_eq!(folder.files(), ["reports"]);
    }

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let folder = Folder::new("whole");
        fs::create_dir(folder.0.join("report.md")).unwrap();
        let error = Report::default()
            .write_all(&folder.0, "report")
            .unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(
            folder.files(),
            ["report.md", "report.txt"],
            "no draft is left"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_replaced_and_not_followed() {
        let folder = Folder::new("links");
        let others = folder.0.join("others");
        fs::write(&others, "others' own").unwrap();
        let reports = folder.0.join("reports");
        fs::create_dir(&reports).unwrap();
        std::os::unix::fs::symlink(&others, reports.join("report.json")).unwrap();
        Report::default().write_all(&reports, "report").unwrap();
        assert_eq!(fs::read_to_string(&others).unwrap(), "others' own");
        let json = fs::read_to_string(reports.join("report.json")).unwrap();
        assert_eq!(Report::from_json(&json).unwrap(), Report::default());
    }
}
