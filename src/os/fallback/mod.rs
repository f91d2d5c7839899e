//! Platforms that are not written yet: nothing is known of other threads.

use std::sync::Arc;
use std::time::Instant;

use crate::blocking::Detection;
use crate::clock::Ticks;
use crate::detector::{Spent, ThreadTimes};
use crate::os::{
    Activity, Captured, Doing, Importance, Miss, ModuleFile, SignalUse, Subject, ThreadName, Usage,
    Wanted,
};
use crate::stall::Frame;

mod event;

pub(crate) use event::AutoResetEvent;

pub(crate) const DEFAULT_SIGNAL: i32 = 0;
pub(crate) const DETECTION: Detection = Detection::Nothing;

/// No id: threads are told apart by their entry only.
pub(crate) const fn thread_id() -> i32 {
    0
}

pub(crate) const fn syscall_name(_number: i64) -> Option<&'static str> {
    None
}

pub(crate) const fn module_files() -> Vec<ModuleFile> {
    Vec::new()
}

pub(crate) fn usage() -> (Option<Usage>, Instant) {
    (None, Instant::now())
}

pub(crate) const fn interpose() {}

pub(crate) const fn request_short_slice() {}

pub(crate) const fn touch_stack() {}

pub(crate) fn process_id() -> u32 {
    std::process::id()
}

pub(crate) const fn is_futex(_number: i64) -> bool {
    false
}

/// Nothing is known of the process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessClocks {
    pub(crate) cpu_ns: u64,
    pub(crate) suspended_ns: u64,
}

impl ProcessClocks {
    pub(crate) fn now() -> Self {
        ProcessClocks::default()
    }
}

pub(crate) const fn leave_out() {}

pub(crate) const fn page_faults() -> u64 {
    0
}

pub(crate) const fn terminal_columns() -> Option<usize> {
    None
}

/// None is ever sent.
pub(crate) const fn is_usable_signal(_signal: i32) -> bool {
    true
}

#[derive(Debug)]
pub(crate) struct ThreadProbe(std::convert::Infallible);

impl ThreadProbe {
    pub(crate) const fn open(_tid: i32, _importance: Importance) -> Result<Self, Miss> {
        Err(Miss::NotSupported)
    }

    pub(crate) const fn tid(&self) -> i32 {
        match self.0 {}
    }

    pub(crate) const fn times(&self) -> Option<ThreadTimes> {
        match self.0 {}
    }

    pub(crate) const fn wait_ns(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(crate) const fn spent(&self) -> Option<Spent> {
        match self.0 {}
    }

    pub(crate) const fn cpu_ns(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(crate) const fn activity(&self) -> Option<Activity> {
        match self.0 {}
    }

    pub(crate) const fn is_kept(&self) -> bool {
        match self.0 {}
    }

    pub(crate) const fn doing(&self, _looks: usize) -> Option<Doing> {
        match self.0 {}
    }
}

/// Nothing is known of it.
#[derive(Debug)]
pub(crate) struct OwnStack;

impl OwnStack {
    pub(crate) const fn new() -> Self {
        OwnStack
    }

    pub(crate) const fn note(&self) {}
}

#[derive(Debug)]
pub(crate) struct Capturer;

impl Capturer {
    pub(crate) const fn new(_signals: SignalUse) -> Self {
        Capturer
    }

    pub(crate) const fn prepare(&mut self) {}

    pub(crate) fn look_for(&mut self, _locks: Vec<Wanted>) {}

    pub(crate) fn capture(
        &mut self,
        thread: &ThreadProbe,
        _stack: &OwnStack,
        _of: &Subject<'_>,
    ) -> Result<Captured, Miss> {
        match thread.0 {}
    }

    pub(crate) fn ask_ahead(
        &mut self,
        thread: &ThreadProbe,
        _stack: &OwnStack,
        _of: &Subject<'_>,
    ) -> bool {
        match thread.0 {}
    }

    pub(crate) const fn withdraw(&mut self, _tid: i32, _subject: u64) {}

    pub(crate) fn last_words(
        &mut self,
        _tid: i32,
        _of: &Subject<'_>,
        _was_in_it: &dyn Fn(Ticks) -> bool,
    ) -> Option<Captured> {
        None
    }

    pub(crate) fn modules(&self) -> Vec<ModuleFile> {
        Vec::new()
    }
}

/// Threads are not listed here.
pub(crate) const fn waits_ns() -> Vec<(i32, u64)> {
    Vec::new()
}

pub(crate) const fn thread_ids() -> Option<Vec<i32>> {
    None
}

/// Threads have no numbers here.
pub(crate) const fn thread_comm(_tid: i32) -> Option<ThreadName> {
    None
}

/// Threads have no numbers here.
pub(crate) const fn thread_name(_tid: i32) -> Option<String> {
    None
}

/// In words: how many CPUs there are.
pub(crate) fn cpu_shortage() -> String {
    std::thread::available_parallelism()
        .map_or_else(|_| "CPUs".to_owned(), |cpus| format!("{cpus} CPUs"))
}

/// There is nothing to symbolize.
#[derive(Debug, Default)]
pub(crate) struct Symbolizer;

impl Symbolizer {
    pub(crate) fn symbolize(
        &mut self,
        _addresses: &[u64],
        _modules: impl Into<Arc<[ModuleFile]>>,
    ) -> Vec<Frame> {
        Vec::new()
    }

    pub(crate) fn at_hand(
        &mut self,
        _addresses: &[u64],
        _modules: &[ModuleFile],
    ) -> Option<Vec<Frame>> {
        None
    }

    pub(crate) const fn prepare(&mut self, _modules: &Arc<[ModuleFile]>) {}

    pub(crate) const fn release(&mut self) {}

    pub(crate) const fn panics(&self) -> u64 {
        0
    }

    pub(crate) const fn lack(&self) -> Option<String> {
        None
    }
}
