//! From addresses to functions and lines, with inlined ones.
//!
//! The heavy part of a stack: the first address of a program costs
//! milliseconds and the memory of its debug info. So what is not at hand is left to
//! a thread of its own, results are kept, and the debug info is let go after a while.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use addr2line::Loader;

use crate::os::ModuleFile;
use crate::stall::Frame;

/// How many addresses are remembered.
const MAX_CACHED: usize = 4096;
/// How far from an address that has been looked up another counts as beside it: most
/// likely in the same function, and so in the same unit of debug info.
const BESIDE: u64 = 256;
/// How far back a line is looked for.
const MAX_BACK: u64 = 32;

/// Symbolizes addresses of this process.
#[derive(Default)]
pub(crate) struct Symbolizer {
    /// `None` for a file that cannot be read.
    loaders: HashMap<PathBuf, Option<Loader>>,
    cache: BTreeMap<u64, Vec<Frame>>,
    modules: Vec<ModuleFile>,
}

impl std::fmt::Debug for Symbolizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbolizer").finish_non_exhaustive()
    }
}

impl Symbolizer {
    /// The functions at these addresses, innermost first; all but the first
    /// address are return addresses.
    pub(crate) fn symbolize(
        &mut self,
        addresses: &[u64],
        modules: impl Into<std::sync::Arc<[ModuleFile]>>,
    ) -> Vec<Frame> {
        let modules: Vec<ModuleFile> = modules.into().to_vec();
        if self.modules != modules {
            // What lies at an address may have changed.
            self.cache.clear();
            self.modules = modules;
        }
        let mut frames = Vec::new();
        for (depth, address) in addresses.iter().enumerate() {
            frames.extend_from_slice(self.frames_of(within(depth, *address)));
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
        if self.modules != modules {
            return None;
        }
        let mut frames = Vec::new();
        for (depth, address) in addresses.iter().enumerate() {
            let address = within(depth, *address);
            if !self.cache.contains_key(&address) && !self.is_beside_known(address) {
                return None;
            }
            frames.extend_from_slice(self.frames_of(address));
        }
        Some(frames)
    }

    fn is_beside_known(&self, address: u64) -> bool {
        let around = address.saturating_sub(BESIDE)..=address.saturating_add(BESIDE);
        self.cache.range(around).next().is_some()
            && module_at(&self.modules, address)
                .is_none_or(|module| self.loaders.contains_key(&module.path))
    }

    pub(crate) const fn prepare(&mut self, _modules: &std::sync::Arc<[ModuleFile]>) {}

    pub(crate) const fn panics(&self) -> u64 {
        0
    }

    pub(crate) const fn lack(&self) -> Option<String> {
        None
    }

    /// Lets go of debug info; what has been symbolized stays.
    pub(crate) fn release(&mut self) {
        self.loaders.clear();
    }

    fn frames_of(&mut self, address: u64) -> &[Frame] {
        if !self.cache.contains_key(&address) {
            let found = self.look_up(address);
            if self.cache.len() >= MAX_CACHED {
                self.cache.clear();
            }
            self.cache.insert(address, found);
        }
        self.cache.get(&address).map_or(&[], Vec::as_slice)
    }

    fn look_up(&mut self, address: u64) -> Vec<Frame> {
        let Some(module) = module_at(&self.modules, address) else {
            return vec![Frame {
                address,
                ..Frame::default()
            }];
        };
        let relative = address.wrapping_sub(module.bias);
        let bare = Frame {
            module: module
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into()),
            build_id: module.build_id.clone(),
            address: relative,
            ..Frame::default()
        };
        let loader = self
            .loaders
            .entry(module.path.clone())
            .or_insert_with(|| Loader::new(&module.path).ok());
        let mut found = loader
            .as_ref()
            .map(|loader| frames_near(loader, relative, &bare))
            .unwrap_or_default();
        if found.is_empty() {
            found.push(bare);
        }
        found
    }
}

fn module_at(modules: &[ModuleFile], address: u64) -> Option<&ModuleFile> {
    modules
        .iter()
        .find(|module| module.range.contains(&address))
}

/// An address of the call: a return address may already belong to the next statement.
fn within(depth: usize, address: u64) -> u64 {
    address.saturating_sub(u64::from(depth > 0))
}

/// Some instructions, like the jump back in a loop, belong to no line: the one
/// before them of the same function does.
fn frames_near(loader: &Loader, relative: u64, bare: &Frame) -> Vec<Frame> {
    let found = frames_at(loader, relative, bare);
    let Some(innermost) = found.first().filter(|frame| frame.line.is_none()) else {
        return found;
    };
    (1..=MAX_BACK)
        .map(|back| frames_at(loader, relative.saturating_sub(back), bare))
        .find(|near| {
            near.iter()
                .any(|frame| frame.function == innermost.function && frame.line.is_some())
        })
        .unwrap_or(found)
}

fn frames_at(loader: &Loader, relative: u64, bare: &Frame) -> Vec<Frame> {
    let mut found = Vec::new();
    if let Ok(mut frames) = loader.find_frames(relative) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame
                .function
                .as_ref()
                .and_then(|name| name.raw_name().ok());
            let location = frame.location;
            found.push(Frame {
                function: name.map(|name| demangle(&name)),
                file: location.as_ref().and_then(|at| at.file).map(Into::into),
                line: location.as_ref().and_then(|at| at.line),
                column: location.as_ref().and_then(|at| at.column),
                ..bare.clone()
            });
        }
    }
    // The outermost is the function that the symbol table knows; where debug
    // info names none, or is missing, it does.
    let symbol = || loader.find_symbol(relative).map(demangle);
    match found.last_mut() {
        Some(outermost) if outermost.function.is_none() => outermost.function = symbol(),
        Some(_) => {}
        None => found.extend(symbol().map(|function| Frame {
            function: Some(function),
            ..bare.clone()
        })),
    }
    found
}

fn demangle(name: &str) -> Arc<str> {
    // Alternate: without the hash.
    format!("{:#}", rustc_demangle::demangle(name)).into()
}
