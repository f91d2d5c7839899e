//! From registers and a copy of a stack to return addresses.

use std::ops::Range;

use framehop::{
    CacheNative, ExplicitModuleSectionInfo, FrameAddress, MayAllocateDuringUnwind,
    UnwindRegsNative, Unwinder as _, UnwinderNative,
};

use crate::os::Miss;
use crate::os::platform::calls::{self, Call};
use crate::os::platform::ends::Ends;
use crate::os::platform::loaded::{Generation, generation};
use crate::os::platform::modules::{self, Bytes, Index, Module};

/// Deeper stacks are given up, after some 10 ms. 2 MiB, which tokio's workers have, hold
/// no more frames of 8 bytes than this.
const MAX_FRAMES: usize = 1 << 18;
/// Stands for a frame pointer that is not known. Not 0, which framehop 0.16 takes
/// for the end of the stack (`x86_64/unwind_rule.rs`); reading it must fail.
const UNKNOWN: u64 = 8;
/// How far above the stack pointer an unknown frame pointer is looked for, where
/// the call before the return address proves it.
const SEARCH: u64 = 256 * 1024;
/// The same where it proves nothing.
const SHORT_SEARCH: u64 = 4096;

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
    fn read(&self, address: u64) -> Result<u64, ()> {
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
    at: FrameAddress,
    regs: UnwindRegsNative,
    fp_known: bool,
}

/// Unwinds copies of stacks of this process; refreshes its tables as libraries come and go.
pub(crate) struct Unwinder {
    generation: Option<Generation>,
    modules: Vec<Module>,
    inner: UnwinderNative<Bytes, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
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

    /// The stack as addresses, the innermost first; of many the two ends. Fails unless it
    /// is proven.
    pub(crate) fn unwind(
        &mut self,
        from: Registers,
        stack: &StackCopy,
        proof: Proof,
    ) -> Result<Vec<u64>, Miss> {
        let mut addresses = Ends::default();
        addresses.push(from.pc);
        let walk = Walk {
            addresses,
            at: FrameAddress::from_instruction_pointer(from.pc),
            regs: native(&from),
            fp_known: from.fp.is_some(),
        };
        self.walk(walk, stack, proof)
    }

    fn walk(&mut self, mut walk: Walk, stack: &StackCopy, proof: Proof) -> Result<Vec<u64>, Miss> {
        let mut proven = false;
        while walk.addresses.count() < MAX_FRAMES {
            let before = walk.regs;
            let mut read = |address| stack.read(address);
            let next = self
                .inner
                .unwind_frame(walk.at, &mut walk.regs, &mut self.cache, &mut read);
            match next {
                Ok(Some(next)) => {
                    if let Proof::Anchor(anchor) = proof {
                        proven |= before.sp() <= anchor && anchor < walk.regs.sp();
                    }
                    walk.addresses.push(next);
                    walk.at = FrameAddress::from_return_address(next).ok_or(Miss::Unproven)?;
                }
                Ok(None) => {
                    proven |=
                        matches!(proof, Proof::ThreadStart) && self.ends_in_libc(&walk.addresses);
                    break;
                }
                Err(_) if !walk.fp_known && frame_pointer(&before) == UNKNOWN && !proven => {
                    walk.regs = before;
                    let found = self.with_found_frame_pointer(&walk, stack, proof);
                    return found.ok_or(Miss::Unproven);
                }
                Err(_) => break,
            }
        }
        if proven {
            Ok(walk.addresses.into_addresses())
        } else if walk.addresses.count() >= MAX_FRAMES {
            Err(Miss::TooDeep)
        } else {
            Err(Miss::Unproven)
        }
    }

    /// Goes on from a frame that needs the frame pointer, which nobody tells.
    ///
    /// It points at a word on the stack with a return address above. Each such
    /// word is tried, the nearest first, and taken only if all that follows
    /// proves itself. That is not enough: below live frames lie the remains of
    /// dead ones, whose callers are alive. So the return address must follow a
    /// call of this very function; a call by pointer, which can be of any, is
    /// believed only if there is no such.
    fn with_found_frame_pointer(
        &mut self,
        walk: &Walk,
        stack: &StackCopy,
        proof: Proof,
    ) -> Option<Vec<u64>> {
        let function = self.function_at(walk.at.address_for_lookup())?.start;
        let from = walk.regs.sp().next_multiple_of(16);
        let mut by_pointer = Vec::new();
        for candidate in (from..from.saturating_add(SEARCH)).step_by(16) {
            // What the word itself holds says nothing: functions without frame
            // pointers use the register for anything.
            let Ok(back) = stack.read(candidate + 8) else {
                break;
            };
            if !self.is_code(back) {
                continue;
            }
            match calls::before(back) {
                Some(Call::To(target)) if self.leads_to(target, function) => {}
                Some(Call::Somewhere) if candidate < from + SHORT_SEARCH => {
                    by_pointer.push(candidate);
                    continue;
                }
                _ => continue,
            }
            if let found @ Some(_) = self.with(candidate, walk, stack, proof) {
                return found;
            }
        }
        by_pointer
            .into_iter()
            .find_map(|candidate| self.with(candidate, walk, stack, proof))
    }

    fn with(
        &mut self,
        frame_pointer: u64,
        walk: &Walk,
        stack: &StackCopy,
        proof: Proof,
    ) -> Option<Vec<u64>> {
        let mut walk = walk.clone();
        set_frame_pointer(&mut walk.regs, frame_pointer);
        walk.fp_known = true;
        self.walk(walk, stack, proof).ok()
    }

    /// Whether a call of `target` can have become one of `function`.
    fn leads_to(&self, target: u64, function: u64) -> bool {
        target == function
            || calls::through_stub(target) == Some(function)
            || self
                .function_at(target)
                .is_some_and(|code| code.start == target && calls::jumps_to(code, function))
    }

    fn function_at(&self, address: u64) -> Option<Range<u64>> {
        self.modules
            .iter()
            .find(|module| module.range.contains(&address))?
            .tables
            .as_ref()?
            .function_at(address)
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

    fn is_code(&self, address: u64) -> bool {
        // Asked for each word of a stack: most are in no module.
        let module = |module: &&Module| module.range.contains(&address);
        let module = self.modules.iter().find(module);
        module.is_some_and(|module| module.code.iter().any(|code| code.contains(&address)))
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
fn set_frame_pointer(regs: &mut UnwindRegsNative, fp: u64) {
    regs.set_bp(fp);
}

#[cfg(target_arch = "aarch64")]
fn set_frame_pointer(regs: &mut UnwindRegsNative, fp: u64) {
    regs.set_fp(fp);
}
