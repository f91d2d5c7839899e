//! From addresses to functions and lines, with inlined ones.
//!
//! The heavy part of a stack, so what is not at hand is left to a thread of its own.
//! Results are kept, in bounds; debug info stays in the file's pages.
//!
//! # Memory
//! Measured by `scripts/symbol_memory.sh`, as RssAnon beside what the process had
//! before: pages of files are not in it, which the kernel takes back when it needs them.
//!
//! | file | of it debug info | index read | stack of 60 functions | all functions | when quiet |
//! |---|---|---|---|---|---|
//! | 39 MB, line tables | 23 MB | 2.1 MB | 3.8 MB | 6.2 MB | 6.2 MB |
//! | 82 MB, all debug info | 62 MB | 1.1 MB | 3.3 MB | 8.0 MB | 8.0 MB |
//! | 146 MB, symbols only | none | 1.7 MB | 1.7 MB | 3.8 MB | 3.8 MB |
//!
//! addr2line 0.27 with its `Loader` takes 16 MB for the index of the second and 50 MB
//! after 2,000 addresses; it keeps all lines of each unit, and 49 MB stay with glibc 2.36
//! when it is dropped. Here what is kept beside the index has a bound, so it matters
//! little that an allocator keeps what is freed.
//!
//! Debug info that is compressed has to be in memory: [`super::memory_left`] bounds that.
//!
//! # Time
//! To read the index takes 6 to 15 ms of an optimized build, 50 to 120 ms of one that is
//! not; a stack of 60 functions, all in units of their own, 10 to 30 ms; again, 50 us.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::debug_file::DebugFile;
use super::image::EXECUTABLE;
use super::memory_left::MemoryLeft;
use super::sources::Sources;
use crate::async_name;
use crate::isolate::isolated;
use crate::os::ModuleFile;
use crate::stall::Frame;

/// How much memory the results that are kept may take.
const MAX_CACHED_BYTES: usize = 2 << 20;
/// How far from an address that has been looked up another counts as beside it: most
/// likely in the same function, and so in the same unit of debug info.
const BESIDE: u64 = 256;
/// How far back a line is looked for.
const MAX_BACK: u64 = 32;
/// After how long it is tried again whether there is memory for what was left out.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Symbolizes addresses of this process.
#[derive(Debug)]
pub(crate) struct Symbolizer {
    files: HashMap<FileId, Opened>,
    cache: BTreeMap<u64, Arc<[Frame]>>,
    /// Texts of frames that are kept, each once.
    texts: HashSet<Arc<str>>,
    cached_bytes: usize,
    modules: Arc<[ModuleFile]>,
    panics: u64,
    sources: Sources,
    /// For want of memory not all of some file has been read.
    lacking: bool,
    left: fn() -> MemoryLeft,
}

/// A library may have been replaced by another of the same name.
type FileId = (PathBuf, Option<Arc<str>>);

#[derive(Debug)]
struct Opened {
    file: DebugFile,
    at: Instant,
}

impl Default for Symbolizer {
    fn default() -> Self {
        Symbolizer {
            files: HashMap::new(),
            cache: BTreeMap::new(),
            texts: HashSet::new(),
            cached_bytes: 0,
            modules: Arc::new([]),
            panics: 0,
            sources: Sources::default(),
            lacking: false,
            left: MemoryLeft::read,
        }
    }
}

impl Symbolizer {
    /// The functions at these addresses, innermost first; all but the first
    /// address are return addresses.
    ///
    /// A panic over one address, for its debug info is broken in a way that nobody
    /// thought of, leaves this address bare.
    pub(crate) fn symbolize(
        &mut self,
        addresses: &[u64],
        modules: impl Into<Arc<[ModuleFile]>>,
    ) -> Vec<Frame> {
        self.learn(&modules.into());
        let mut frames = Vec::new();
        for (depth, address) in addresses.iter().enumerate() {
            frames.extend_from_slice(&self.frames_of(within(depth, *address)));
        }
        frames
    }

    /// The same, if it takes microseconds: where all of these have been symbolized
    /// before, or lie beside one that has been, so that its debug info is read already.
    pub(crate) fn at_hand(
        &mut self,
        addresses: &[u64],
        modules: &[ModuleFile],
    ) -> Option<Vec<Frame>> {
        if *self.modules != *modules {
            return None;
        }
        let mut frames = Vec::new();
        for (depth, address) in addresses.iter().enumerate() {
            let address = within(depth, *address);
            if !self.cache.contains_key(&address) && !self.is_beside_known(address) {
                return None;
            }
            frames.extend_from_slice(&self.frames_of(address));
        }
        Some(frames)
    }

    /// Opens the executable's debug info, so that the first stack need not wait for it.
    pub(crate) fn prepare(&mut self, modules: &Arc<[ModuleFile]>) {
        self.learn(modules);
        let opened = modules
            .first()
            .map(|module| isolated(|| self.open(module).is_usable()));
        self.panics += u64::from(opened == Some(None));
    }

    /// Lets go of debug info; what has been symbolized stays.
    pub(crate) fn release(&mut self) {
        self.files.retain(|_, opened| opened.file.shrink());
        self.sources = Sources::default();
    }

    /// How often code that reads debug info has panicked.
    pub(crate) const fn panics(&self) -> u64 {
        self.panics
    }

    /// Why lines or names are missing: where memory is, else of the first module that
    /// lacks something.
    pub(crate) fn lack(&self) -> Option<String> {
        let of = |module: &ModuleFile| self.files.get(&id_of(module))?.file.lack();
        let mut lacks = self.modules.iter().filter_map(of).peekable();
        let first = lacks.peek().cloned();
        let lack = lacks.find(|lack| lack.is_of_memory).or(first)?;
        Some(lack.reason)
    }

    /// Has the look-up of this address panic.
    #[cfg(test)]
    pub(crate) fn panic_at(address: u64) {
        tests::set_panic_at(address);
    }

    /// Forgets what was at addresses whose module is gone or another one.
    fn learn(&mut self, modules: &Arc<[ModuleFile]>) {
        if self.modules == *modules {
            return;
        }
        let before = std::mem::replace(&mut self.modules, Arc::clone(modules));
        let is_same = |address: u64| {
            let module = module_at(&before, address);
            module.is_some() && module == module_at(modules, address)
        };
        self.cache.retain(|address, _| is_same(*address));
        if self.cache.is_empty() {
            self.forget_cached();
        }
        self.files.retain(|(path, build_id), _| {
            let is_it = |module: &ModuleFile| module.path == *path && module.build_id == *build_id;
            modules.iter().any(is_it)
        });
    }

    fn is_beside_known(&self, address: u64) -> bool {
        let around = address.saturating_sub(BESIDE)..=address.saturating_add(BESIDE);
        self.cache.range(around).next().is_some()
            && module_at(&self.modules, address)
                .is_none_or(|module| self.files.contains_key(&id_of(module)))
    }

    fn frames_of(&mut self, address: u64) -> Arc<[Frame]> {
        self.forget_what_is_due(address);
        if let Some(known) = self.cache.get(&address) {
            return Arc::clone(known);
        }
        let found = isolated(|| self.look_up(address)).unwrap_or_else(|| {
            self.panics += 1;
            self.bare(address)
        });
        self.keep(address, found)
    }

    /// Keeps what has been found, with equal texts as one.
    fn keep(&mut self, address: u64, mut found: Vec<Frame>) -> Arc<[Frame]> {
        /// Of an entry in a map, and an allocation.
        const ENTRY: usize = 96;
        if self.cached_bytes >= MAX_CACHED_BYTES {
            self.forget_cached();
        }
        let mut bytes = ENTRY + found.len() * size_of::<Frame>();
        for frame in &mut found {
            let texts = [&mut frame.function, &mut frame.file, &mut frame.module];
            for text in texts.into_iter().flatten() {
                if let Some(known) = self.texts.get(text) {
                    *text = Arc::clone(known);
                } else {
                    bytes += ENTRY + text.len();
                    self.texts.insert(Arc::clone(text));
                }
            }
        }
        let found: Arc<[Frame]> = found.into();
        self.cached_bytes += bytes;
        self.cache.insert(address, Arc::clone(&found));
        found
    }

    fn forget_cached(&mut self) {
        self.cache = BTreeMap::new();
        self.texts = HashSet::new();
        self.cached_bytes = 0;
    }

    fn bare(&self, address: u64) -> Vec<Frame> {
        vec![match module_at(&self.modules, address) {
            Some(module) => bare_in(module, address),
            None => Frame {
                address,
                ..Frame::default()
            },
        }]
    }

    fn look_up(&mut self, address: u64) -> Vec<Frame> {
        #[cfg(test)]
        tests::panic_at(address);
        let mut found = self.bare(address);
        let modules = Arc::clone(&self.modules);
        if let (Some(module), Some(bare)) = (module_at(&modules, address), found.first().cloned()) {
            let frames = frames_near(self.open(module), bare.address, &bare);
            if !frames.is_empty() {
                found = frames;
                async_name::complete(&mut found);
                self.sources.name(&mut found, &module.path);
            }
        }
        found
    }

    /// Forgets what is known of the module at this address if there was too little memory
    /// for its debug info, and that is long ago.
    fn forget_what_is_due(&mut self, address: u64) {
        // Most often there is no lack, and this is all.
        if !self.lacking {
            return;
        }
        let Some(module) = module_at(&self.modules, address) else {
            return;
        };
        let id = id_of(module);
        let is_due = self
            .files
            .get(&id)
            .is_none_or(|opened| opened.file.lacks_memory() && opened.at.elapsed() >= TRY_AGAIN);
        if is_due {
            let range = module.range.clone();
            self.cache.retain(|address, _| !range.contains(address));
            self.files.remove(&id);
            self.lacking = self.files.values().any(|opened| opened.file.lacks_memory());
        }
    }

    fn open(&mut self, module: &ModuleFile) -> &mut DebugFile {
        let left = self.left;
        let opened = self.files.entry(id_of(module)).or_insert_with(|| Opened {
            file: DebugFile::open(module, left),
            at: Instant::now(),
        });
        self.lacking |= opened.file.lacks_memory();
        &mut opened.file
    }
}

fn id_of(module: &ModuleFile) -> FileId {
    (module.path.clone(), module.build_id.clone())
}

fn module_at(modules: &[ModuleFile], address: u64) -> Option<&ModuleFile> {
    modules
        .iter()
        .find(|module| module.range.contains(&address))
}

fn bare_in(module: &ModuleFile, address: u64) -> Frame {
    Frame {
        module: name_of(module),
        build_id: module.build_id.clone(),
        address: address.wrapping_sub(module.bias),
        ..Frame::default()
    }
}

fn name_of(module: &ModuleFile) -> Option<Arc<str>> {
    if module.path != Path::new(EXECUTABLE) {
        return Some(module.path.file_name()?.to_string_lossy().into());
    }
    let file = std::fs::read_link(EXECUTABLE).ok()?;
    let name = file.file_name()?.to_string_lossy();
    // What the kernel appends where the file has been replaced.
    Some(name.strip_suffix(" (deleted)").unwrap_or(&name).into())
}

/// An address of the call: a return address may already belong to the next statement.
fn within(depth: usize, address: u64) -> u64 {
    address.saturating_sub(u64::from(depth > 0))
}

/// Some instructions, like the jump back in a loop, belong to no line: the one
/// before them of the same function does.
fn frames_near(file: &mut DebugFile, relative: u64, bare: &Frame) -> Vec<Frame> {
    let found = frames_at(file, relative, bare);
    let Some(innermost) = found.first().filter(|frame| frame.line.is_none()) else {
        return found;
    };
    // Without any file there are no lines at all.
    if found.iter().all(|frame| frame.file.is_none()) {
        return found;
    }
    (1..=MAX_BACK)
        .map(|back| frames_at(file, relative.saturating_sub(back), bare))
        .find(|near| {
            near.iter()
                .any(|frame| frame.function == innermost.function && frame.line.is_some())
        })
        .unwrap_or(found)
}

fn frames_at(file: &mut DebugFile, relative: u64, bare: &Frame) -> Vec<Frame> {
    let found = file.find(relative).into_iter();
    found
        .map(|found| Frame {
            function: found.function.as_deref().map(demangle),
            file: found.file.map(Into::into),
            line: found.line,
            column: found.column,
            ..bare.clone()
        })
        .collect()
}

fn demangle(name: &str) -> Arc<str> {
    // Alternate: without the hash.
    format!("{:#}", rustc_demangle::demangle(name)).into()
}

#[cfg(test)]
#[path = "symbolize_tests.rs"]
mod tests;
