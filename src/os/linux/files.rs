//! Which files of `/proc` stay open: few, whatever the number of threads and watchdogs.
//!
//! Open files are the host's: a program that has no descriptor left cannot accept a
//! connection. So all watchdogs of the process share one small allowance, and what is
//! beyond is opened for one reading and closed. A reading then takes some 10 us instead
//! of 3 (open, read and close against read).

use std::cell::OnceCell;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::os::{Importance, Miss};

/// How many files stay open at most, and which share of the process's limit.
const MAX_OPEN: usize = 64;
const SHARE: usize = 16;

/// How many are open now.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// How many may stay open.
fn allowance() -> usize {
    static ALLOWANCE: OnceLock<usize> = OnceLock::new();
    *ALLOWANCE.get_or_init(|| {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: `limit` is valid for writes for the length of the call.
        let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        let limit = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX);
        if got == 0 {
            (limit / SHARE).min(MAX_OPEN)
        } else {
            0
        }
    })
}

/// A part of the allowance, given back at drop.
#[derive(Debug)]
struct Allowed;

impl Allowed {
    /// The files of workers may take all of it, others half: a worker is looked at as
    /// long as its runtime lives.
    fn take(importance: Importance) -> Option<Self> {
        let most = match importance {
            Importance::Worker => allowance(),
            Importance::Other => allowance() / 2,
            Importance::Never => 0,
        };
        let one_more = |open| (open < most).then_some(open + 1);
        let taken = OPEN.fetch_update(Relaxed, Relaxed, one_more);
        taken.is_ok().then(|| Allowed)
    }
}

impl Drop for Allowed {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Relaxed);
    }
}

/// One file below `/proc/self/task/TID`. Reading it allocates nothing.
#[derive(Debug)]
pub(super) struct ThreadFile {
    tid: i32,
    name: &'static str,
    importance: Importance,
    kept: OnceCell<(File, Allowed)>,
}

/// An open file, which is closed with this unless it is kept.
#[derive(Debug)]
pub(super) enum Opened<'a> {
    Kept(&'a File),
    Once(File),
}

impl Deref for Opened<'_> {
    type Target = File;

    fn deref(&self) -> &File {
        match self {
            Opened::Kept(file) => file,
            Opened::Once(file) => file,
        }
    }
}

impl ThreadFile {
    pub(super) const fn new(tid: i32, name: &'static str, importance: Importance) -> Self {
        ThreadFile {
            tid,
            name,
            importance,
            kept: OnceCell::new(),
        }
    }

    /// Whether it stays open from one reading to the next.
    pub(super) fn is_kept(&self) -> bool {
        self.kept.get().is_some()
    }

    pub(super) fn open(&self) -> Result<Opened<'_>, Miss> {
        if let Some((file, _)) = self.kept.get() {
            return Ok(Opened::Kept(file));
        }
        // std opens a path of less than 384 bytes without allocating.
        let mut path = [0_u8; 64];
        let mut rest = &mut path[..];
        let written = write!(rest, "/proc/self/task/{}/{}", self.tid, self.name);
        let left = rest.len();
        let length = path.len() - left;
        let path = written.ok().and_then(|()| path.get(..length));
        let path = Path::new(OsStr::from_bytes(path.ok_or(Miss::Gone)?));
        let file = File::open(path).map_err(|error| Miss::from_open(&error))?;
        Ok(match Allowed::take(self.importance) {
            Some(allowed) => Opened::Kept(&self.kept.get_or_init(|| (file, allowed)).0),
            None => Opened::Once(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::thread_id;

    #[test]
    fn few_files_stay_open_and_all_can_be_read() {
        let tid = thread_id();
        let files: Vec<_> = (0..200)
            .map(|number| {
                let importance = match number {
                    0..100 => Importance::Other,
                    _ => Importance::Worker,
                };
                ThreadFile::new(tid, "stat", importance)
            })
            .collect();
        for file in &files {
            file.open().unwrap().metadata().unwrap();
        }
        let kept = |files: &[ThreadFile]| files.iter().filter(|file| file.is_kept()).count();
        // Other tests keep some open at the same time.
        assert!(kept(&files[..100]) <= allowance() / 2);
        assert!(kept(&files[100..]) >= 1, "some are left for workers");
        assert!(OPEN.load(Relaxed) <= MAX_OPEN);
        drop(files);
        assert!(OPEN.load(Relaxed) < MAX_OPEN);
    }
}
