//! From registers and a copy of a stack to return addresses.

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind,
    UnwindRegsNative, Unwinder as _, UnwinderNative,
};

use crate::os::Miss;
use crate::os::platform::caller::{self, Caller, Place};
use crate::os::platform::calls::{self, Agreement};
use crate::os::platform::code::Code;
use crate::os::platform::depth::Depth;
use crate::os::platform::ends::Ends;
use crate::os::platform::known::Known;
use crate::os::platform::loaded::{Generation, generation};
use crate::os::platform::modules::{self, Bytes, Index, Module};

/// Deeper stacks are given up, after some 10 ms. 2 MiB, which tokio's workers have, hold
/// no more frames of 8 bytes than this.
const MAX_FRAMES: usize = 1 << 18;
/// Stands for a frame pointer that is not known. Not 0, which framehop 0.16 takes
/// for the end of the stack (`x86_64/unwind_rule.rs`); reading it must fail.
const UNKNOWN: u64 = 8;
/// How far above the stack pointer an unknown frame pointer is looked for.
const SEARCH: u64 = 256 * 1024;
/// In so many frames of one stack.
const MOST_SEARCHES: u32 = 3;
/// How many functions of one stack are looked at for guards.
const MOST_NOTED: usize = 128;
/// How many answers about calls and frames are kept.
const KEPT_AGREEMENTS: usize = 4096;
const KEPT_DEPTHS: usize = 256;

/// A copy of a piece of a stack. It stays in memory and is never printed.
#[derive(Default)]
pub(crate) struct StackCopy {
    pub(crate) start: u64,
    pub(crate) bytes: Vec<u8>,
}

impl std::fmt::Debug for StackCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StackCopy").finish_non_exhaustive()
    }
}

impl StackCopy {
    /// The byte at an address.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fn byte(&self, address: u64) -> Option<u8> {
        let offset = usize::try_from(address.checked_sub(self.start)?).ok()?;
        self.bytes.get(offset).copied()
    }

    pub(crate) fn read(&self, address: u64) -> Result<u64, ()> {
        let offset = usize::try_from(address.checked_sub(self.start).ok_or(())?).map_err(|_| ())?;
        let word = self.bytes.get(offset..offset + 8).ok_or(())?;
        Ok(u64::from_ne_bytes(word.try_into().map_err(|_| ())?))
    }
}

/// The registers that unwinding begins with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) pc: u64,
    pub(crate) sp: u64,
    /// The frame pointer; `None` where the system does not tell.
    pub(crate) fp: Option<u64>,
    /// The return address of a leaf on aarch64.
    #[cfg_attr(not(target_arch = "aarch64"), allow(dead_code))]
    pub(crate) lr: u64,
    pub(crate) kept: Kept,
}

/// The registers that a called function leaves as they were, as far as they are known; on
/// x86-64 `rbx`, `rbp` and `r12` to `r15`, elsewhere none.
pub(crate) type Kept = [Option<u64>; 6];

/// One function of a stack that was unwound.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unwound {
    pub(crate) pc: u64,
    /// Whether it goes on at `pc` after a call.
    pub(crate) is_return: bool,
    pub(crate) sp: u64,
}

/// What proves that a stack is right.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proof {
    /// It passes the frame that holds this address.
    Anchor(u64),
    /// It ends where threads begin.
    ThreadStart,
}

/// How far unwinding has come.
#[derive(Clone, Debug)]
struct Walk {
    addresses: Ends,
    /// The innermost ones.
    frames: Vec<Unwound>,
    at: FrameAddress,
    regs: UnwindRegsNative,
    /// The frame is what a signal's handler returns to.
    of_signal: bool,
    searches: u32,
}

impl Walk {
    fn note(&mut self) {
        if self.frames.len() < MOST_NOTED {
            self.frames.push(Unwound {
                pc: self.at.address(),
                is_return: self.at.is_return_address(),
                sp: self.regs.sp(),
            });
        }
    }

    fn place(&self) -> Place {
        Place {
            pc: self.at.address(),
            is_return: self.at.is_return_address(),
            sp: self.regs.sp(),
            fp: Some(frame_pointer(&self.regs)).filter(|fp| *fp != UNKNOWN),
        }
    }
}

/// Unwinds copies of stacks of this process; refreshes its tables as libraries come and go.
pub(crate) struct Unwinder {
    generation: Option<Generation>,
    modules: Vec<Module>,
    inner: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    /// Of a return address and an address further in.
    agreements: Known<(u64, u64), Agreement>,
    depths: Known<u64, Option<Depth>>,
    /// How many frames may be left yet, of all that are tried for one stack.
    frames_left: usize,
    /// Of the last stack that was proven.
    frames: Vec<Unwound>,
}

impl std::fmt::Debug for Unwinder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unwinder").finish_non_exhaustive()
    }
}

impl Unwinder {
    pub(crate) fn new() -> Self {
        Unwinder {
            generation: None,
            modules: Vec::new(),
            inner: UnwinderNative::new(),
            cache: CacheNative::new(),
            agreements: Known::new(KEPT_AGREEMENTS),
            depths: Known::new(KEPT_DEPTHS),
            frames_left: 0,
            frames: Vec::new(),
        }
    }

    /// Takes in the modules that are loaded now, if they have changed.
    pub(crate) fn refresh(&mut self) {
        if self.generation == Some(generation()) {
            return;
        }
        let (generation, modules) = modules::load();
        self.inner = UnwinderNative::new();
        self.cache = CacheNative::new();
        self.agreements.forget();
        self.depths.forget();
        self.modules = modules;
        for module in &self.modules {
            let Some(tables) = module.tables.clone() else {
                continue;
            };
            let header = match tables.index {
                Index::Header(address, header) => Some((address, header)),
                // framehop makes an index of its own.
                Index::Functions(_) => None,
            };
            let in_file = |start: u64, length: usize| {
                let start = start.wrapping_sub(module.bias);
                start..start + length as u64
            };
            let code = module.code.first().map(|code| {
                code.start.wrapping_sub(module.bias)..code.end.wrapping_sub(module.bias)
            });
            self.inner.add_module(framehop::Module::new(
                String::new(),
                module.range.clone(),
                module.bias,
                ExplicitModuleSectionInfo {
                    base_svma: 0,
                    text_svma: code,
                    eh_frame_hdr_svma: header
                        .as_ref()
                        .map(|(address, header)| in_file(*address, header.len())),
                    eh_frame_hdr: header.map(|(_, header)| header),
                    eh_frame_svma: Some(in_file(tables.frames_address, tables.frames.len())),
                    eh_frame: Some(tables.frames),
                    ..ExplicitModuleSectionInfo::default()
                },
            ));
        }
        self.generation = Some(generation);
    }

    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The functions of the stack that was proven last, the innermost first.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fn frames(&self) -> &[Unwound] {
        &self.frames
    }

    /// The stack as addresses, the innermost first; of many the two ends. Fails unless it
    /// is proven: each frame's return address must follow a call that can have led to the
    /// next inner frame, from the innermost on to where the stack must lead.
    pub(crate) fn unwind(
        &mut self,
        from: Registers,
        stack: &StackCopy,
        proof: Proof,
    ) -> Result<Vec<u64>, Miss> {
        let mut addresses = Ends::default();
        addresses.push(from.pc);
        self.frames.clear();
        let mut walk = Walk {
            addresses,
            frames: Vec::new(),
            at: FrameAddress::from_instruction_pointer(from.pc),
            regs: native(&from),
            of_signal: false,
            searches: 0,
        };
        walk.note();
        self.frames_left = MAX_FRAMES;
        self.walk(walk, stack, proof)
    }

    fn walk(&mut self, mut walk: Walk, stack: &StackCopy, proof: Proof) -> Result<Vec<u64>, Miss> {
        let mut proven = false;
        while self.frames_left > 0 {
            self.frames_left -= 1;
            let (place, regs) = (walk.place(), walk.regs);
            let left = self.leave(&mut walk, &place, stack);
            let next = match left {
                Ok(Some(next)) if self.agrees(&walk, &place, next) => next,
                Ok(None) => {
                    proven |=
                        matches!(proof, Proof::ThreadStart) && self.ends_in_libc(&walk.addresses);
                    break;
                }
                _ if proven => break,
                Err(Miss::NoTables) => return Err(Miss::NoTables),
                _ => {
                    walk.regs = regs;
                    return self.found(&walk, &place, stack, proof);
                }
            };
            if let Proof::Anchor(anchor) = proof {
                proven |= place.sp <= anchor && anchor < walk.regs.sp();
            }
            walk.addresses.push(next);
            // What a signal has interrupted is no call.
            walk.at = if std::mem::take(&mut walk.of_signal) {
                // What a signal has interrupted is no call.
                FrameAddress::from_instruction_pointer(next)
            } else {
                walk.of_signal = self.agreement(next, place.inner()) == Agreement::None;
                FrameAddress::from_return_address(next).ok_or(Miss::Unproven)?
            };
            walk.note();
        }
        if proven {
            self.frames = walk.frames;
            Ok(walk.addresses.into_addresses())
        } else if self.frames_left == 0 {
            Err(Miss::TooDeep)
        } else {
            Err(Miss::Unproven)
        }
    }

    /// Leaves a frame: the return address, or `None` where the stack ends.
    fn leave(
        &mut self,
        walk: &mut Walk,
        place: &Place,
        stack: &StackCopy,
    ) -> Result<Option<u64>, Miss> {
        if cfg!(target_arch = "x86_64") && self.code().function_at(place.inner()).is_none() {
            let read = |address| stack.read(address).ok();
            let caller = caller::without_table(self.code(), &read, place).ok_or(Miss::NoTables)?;
            go_to(&mut walk.regs, &caller);
            return Ok(Some(caller.back));
        }
        let mut read = |address| stack.read(address);
        let before = walk.regs;
        let next = self
            .inner
            .unwind_frame(walk.at, &mut walk.regs, &mut self.cache, &mut read);
        if next.is_ok() || place.fp.is_some() {
            return next.map_err(|_| Miss::Unproven);
        }
        // It needs the frame pointer, which points at two words from the frame's end.
        walk.regs = before;
        let depth = self.depth_at(place).ok_or(Miss::Unproven)?;
        let end = place.sp.checked_add(depth.stack).ok_or(Miss::Unproven)?;
        set_frame_pointer(&mut walk.regs, end - 16);
        self.inner
            .unwind_frame(walk.at, &mut walk.regs, &mut self.cache, &mut read)
            .map_err(|_| Miss::Unproven)
    }

    /// Goes on from a frame that needs the frame pointer, which nothing tells.
    ///
    /// It points at a word on the stack with a return address above. Each such word is
    /// tried, and taken only if all that follows proves itself, and no other does: below
    /// live frames lie the remains of dead ones, whose callers are alive. A call by
    /// pointer, which can be of any function, counts only if there is no direct one.
    fn found(
        &mut self,
        walk: &Walk,
        place: &Place,
        stack: &StackCopy,
        proof: Proof,
    ) -> Result<Vec<u64>, Miss> {
        if place.fp.is_some() || walk.searches == MOST_SEARCHES {
            return Err(Miss::Unproven);
        }
        let mut candidates = [Vec::new(), Vec::new()];
        let [direct, possible] = &mut candidates;
        let from = place.sp.next_multiple_of(16);
        for candidate in (from..from.saturating_add(SEARCH)).step_by(16) {
            // What the word itself holds says nothing: functions without frame
            // pointers use the register for anything.
            let Ok(back) = stack.read(candidate + 8) else {
                break;
            };
            if !self.code().is_code(back) {
                continue;
            }
            match self.agreement(back, place.inner()) {
                Agreement::Direct => direct.push(candidate),
                Agreement::Possible => possible.push(candidate),
                Agreement::None => {}
            }
        }
        for candidates in candidates {
            let mut found = None;
            for candidate in candidates {
                let mut walk = walk.clone();
                walk.searches += 1;
                set_frame_pointer(&mut walk.regs, candidate);
                let Ok(addresses) = self.walk(walk, stack, proof) else {
                    continue;
                };
                if found.replace(addresses).is_some() {
                    return Err(Miss::Unproven);
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(Miss::Unproven)
    }

    fn code(&self) -> &[Module] {
        &self.modules
    }

    /// Whether the frame at `place` can return to `back`.
    fn agrees(&mut self, walk: &Walk, place: &Place, back: u64) -> bool {
        walk.of_signal
            || self.agreement(back, place.inner()) > Agreement::None
            || calls::is_signal_return(self.code(), back)
    }

    fn agreement(&mut self, back: u64, inner: u64) -> Agreement {
        let modules = &*self.modules;
        let answer = || calls::agreement(modules, back, inner);
        // Other code can be another the next time.
        if !modules.is_code(back) || !modules.is_code(inner) {
            return answer();
        }
        let hash = back.rotate_left(32) ^ inner;
        self.agreements.get_or((back, inner), hash, answer)
    }

    fn depth_at(&mut self, place: &Place) -> Option<Depth> {
        let modules = &*self.modules;
        let answer = || caller::depth_at(modules, place);
        self.depths.get_or(place.pc, place.pc, answer)
    }

    /// Whether a stack ends where threads begin: in libc's `clone`, or one
    /// further out, in the executable's `_start`.
    ///
    /// Needed, because any frame pointer that happens to be 0 ends a stack too.
    fn ends_in_libc(&self, addresses: &Ends) -> bool {
        let starts_threads = libc::pthread_create as *const () as u64;
        let libc = self
            .modules
            .iter()
            .find(|module| module.range.contains(&starts_threads));
        // The first ones are the call that blocks, which is libc's as well.
        let others = addresses.count().saturating_sub(3);
        let mut outermost = addresses.outermost_first().take(others.min(2));
        libc.is_some_and(|libc| outermost.any(|at| libc.range.contains(&at)))
    }
}

#[cfg(target_arch = "x86_64")]
fn native(from: &Registers) -> UnwindRegsNative {
    UnwindRegsNative::new(from.pc, from.sp, from.fp.unwrap_or(UNKNOWN))
}

#[cfg(target_arch = "aarch64")]
fn native(from: &Registers) -> UnwindRegsNative {
    // User addresses have 48 bits or fewer: what is above may be a signature.
    let mask = framehop::aarch64::PtrAuthMask::from_max_known_address((1 << 48) - 1);
    UnwindRegsNative::new_with_ptr_auth_mask(mask, from.lr, from.sp, from.fp.unwrap_or(UNKNOWN))
}

#[cfg(target_arch = "x86_64")]
fn frame_pointer(regs: &UnwindRegsNative) -> u64 {
    regs.bp()
}

#[cfg(target_arch = "aarch64")]
fn frame_pointer(regs: &UnwindRegsNative) -> u64 {
    regs.fp()
}

#[cfg(target_arch = "x86_64")]
fn go_to(regs: &mut UnwindRegsNative, caller: &Caller) {
    *regs = UnwindRegsNative::new(caller.back, caller.sp, caller.fp.unwrap_or(UNKNOWN));
}

/// Code without tables is left by its frame pointer there.
#[cfg(target_arch = "aarch64")]
fn go_to(_regs: &mut UnwindRegsNative, _caller: &Caller) {}

#[cfg(target_arch = "x86_64")]
fn set_frame_pointer(regs: &mut UnwindRegsNative, fp: u64) {
    regs.set_bp(fp);
}

#[cfg(target_arch = "aarch64")]
fn set_frame_pointer(regs: &mut UnwindRegsNative, fp: u64) {
    regs.set_fp(fp);
}
