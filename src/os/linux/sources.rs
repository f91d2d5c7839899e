//! Names from source files, where those are at hand.
//!
//! With line tables only, an `async fn` that is inlined into the one that awaits it has no
//! name at all; where the program was built, its source has.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::async_name::is_bare;
use crate::os::platform::outline::Outline;
use crate::owner::is_library_path;
use crate::stall::Frame;

/// Longer files are not read.
const MAX_BYTES: u64 = 2 << 20;
/// How many files' outlines are kept.
const MAX_FILES: usize = 32;

/// The outlines of source files that have been read.
#[derive(Debug, Default)]
pub(super) struct Sources(HashMap<Arc<str>, Outline>);

impl Sources {
    /// Names the functions of the program's own files that have no name but `{async_fn#0}`.
    pub(super) fn name(&mut self, frames: &mut [Frame], program: &Path) {
        for frame in frames {
            let is_bare = frame.function.as_deref().is_some_and(is_bare);
            let file = frame.file.as_ref().filter(|file| !is_library_path(file));
            if let (true, Some(file), Some(line)) = (is_bare, file, frame.line) {
                let name = self.outline(file, program).around(line, frame.column);
                frame.in_source = name.map(Into::into);
            }
        }
    }

    fn outline(&mut self, file: &Arc<str>, program: &Path) -> &Outline {
        if self.0.len() >= MAX_FILES && !self.0.contains_key(file) {
            self.0.clear();
        }
        let read = || read(Path::new(&**file), program).map(|text| Outline::of(&text));
        self.0
            .entry(Arc::clone(file))
            .or_insert_with(|| read().unwrap_or_default())
    }
}

/// A file that has not changed since the program was built. A relative path means nothing
/// where the program runs.
fn read(file: &Path, program: &Path) -> Option<String> {
    if !file.is_absolute() || file.extension()? != "rs" {
        return None;
    }
    let (of_file, of_program) = (file.metadata().ok()?, program.metadata().ok()?);
    let is_unchanged = of_file.modified().ok()? <= of_program.modified().ok()?;
    if !is_unchanged || !of_file.is_file() || of_file.len() > MAX_BYTES {
        return None;
    }
    std::fs::read_to_string(file).ok()
}
