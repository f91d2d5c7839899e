//! The call that a return address follows, and where it leads: proof that a word on the
//! stack is what it looks like.
//!
//! Below live frames lie the remains of dead ones, and some of those are return addresses
//! too. So the instruction before must be a call, and the call must lead to the function
//! of the next inner frame: directly, by the jump table between libraries, or by what the
//! called function jumps to as its last thing. A call of what was in a register or in
//! memory can have led anywhere. It refutes nothing and proves little.

use std::ops::Range;

use crate::os::platform::code::{self, Code};

/// How far a call and a return address agree with the frame further in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Agreement {
    /// No call before it can have led there.
    None,
    /// A call of anything, or one of what jumps to anything.
    Possible,
    /// A call of that very function.
    Direct,
}

/// What precedes a return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// A call of this address.
    To(u64),
    /// A call of this address by a word in memory, which may have been another then.
    #[cfg_attr(target_arch = "aarch64", allow(dead_code))]
    ByWord(u64),
    /// A call of what was in a register or in memory then.
    Somewhere,
}

/// Where code leads that is left by jumps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Exits {
    to: Vec<u64>,
    by_word: Vec<u64>,
    somewhere: bool,
}

/// What of a function without unwind tables is looked at.
const UNKNOWN_LENGTH: u64 = 256;
/// Code without tables is taken for one function no further than this.
const ONE_FUNCTION: u64 = 64 * 1024;
/// Of longer functions it is not known where they jump to.
const LONGEST: usize = 256 * 1024;
/// So many functions one after another that jump to the next.
const MOST_JUMPS: usize = 32;

/// How far a return address agrees with the frame further in, which is at `inner`.
pub(crate) fn agreement<C: Code + ?Sized>(code: &C, back: u64, inner: u64) -> Agreement {
    let call = |call| match call {
        Call::To(target) => leads(code, target, inner).0,
        Call::ByWord(target) => leads(code, target, inner).0.max(Agreement::Possible),
        Call::Somewhere => Agreement::Possible,
    };
    let calls = before(code, back).into_iter().flatten();
    calls.map(call).max().unwrap_or(Agreement::None)
}

/// Where the call before a return address enters the function that is at `inner`, if it
/// surely does.
pub(crate) fn entry<C: Code + ?Sized>(code: &C, back: u64, inner: u64) -> Option<u64> {
    let mut calls = before(code, back).into_iter().flatten();
    calls.find_map(|call| match call {
        Call::To(target) | Call::ByWord(target) => leads(code, target, inner).1,
        Call::Somewhere => None,
    })
}

/// Whether the kernel has put this address on the stack, for a signal's handler to return to.
pub(crate) fn is_signal_return<C: Code + ?Sized>(code: &C, back: u64) -> bool {
    let mut bytes = [0; SIGNAL_RETURN.len()];
    code.read(back, &mut bytes) == bytes.len() && bytes == SIGNAL_RETURN
}

/// Whether a call of `target` can have led to the code at `inner`, and where it enters that
/// function.
fn leads<C: Code + ?Sized>(code: &C, target: u64, inner: u64) -> (Agreement, Option<u64>) {
    let mut to_do = vec![target];
    let mut next = 0;
    let mut agreement = Agreement::None;
    while let Some(target) = to_do.get(next).copied() {
        if is_one_function(code, target, inner) {
            return (Agreement::Direct, Some(target));
        }
        if next == MOST_JUMPS {
            return (Agreement::Possible, None);
        }
        next += 1;
        let Some(exits) = exits_of(code, target) else {
            // What cannot be read can lead anywhere.
            agreement = Agreement::Possible;
            continue;
        };
        if exits.somewhere {
            agreement = Agreement::Possible;
        }
        let words = exits.by_word.iter();
        let words = words.filter_map(|address| code::word(code, *address));
        for target in words.chain(exits.to.iter().copied()) {
            if !to_do.contains(&target) {
                to_do.push(target);
            }
        }
    }
    (agreement, None)
}

/// Whether a call of `target` enters the function that holds `inner`.
fn is_one_function<C: Code + ?Sized>(code: &C, target: u64, inner: u64) -> bool {
    if let Some(function) = code.function_at(inner) {
        return function.contains(&target);
    }
    (target..target.saturating_add(ONE_FUNCTION)).contains(&inner)
        && code.function_at(target).is_none()
        && code.is_code(target) == code.is_code(inner)
}

fn exits_of<C: Code + ?Sized>(code: &C, target: u64) -> Option<Exits> {
    let function = code.function_at(target);
    let range = target
        ..function.as_ref().map_or_else(
            || target.saturating_add(UNKNOWN_LENGTH),
            |function| function.end,
        );
    let bytes = code::bytes(code, &range, LONGEST);
    exits(&range, &bytes, function.is_some())
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::SIGNAL_RETURN;
#[cfg(target_arch = "x86_64")]
use x86_64::{before, exits};

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use super::{Call, Code, Exits, Range, code};
    use crate::os::platform::instruction::{Does, decode};

    /// mov rax, 15; syscall: what libc has signals return to.
    pub(crate) const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];

    /// The longest call but for prefixes.
    const LONGEST_CALL: usize = 7;

    /// All that the bytes before can be: Intel's manual, volume 2, "CALL": E8 is relative,
    /// FF /2 indirect.
    pub(super) fn before<C: Code + ?Sized>(code: &C, back: u64) -> [Option<Call>; 2] {
        let mut bytes = [0; LONGEST_CALL];
        let start = back.wrapping_sub(LONGEST_CALL as u64);
        if code.read(start, &mut bytes) != LONGEST_CALL {
            return [None; 2];
        }
        let mut found = [None; 2];
        for length in 2..=LONGEST_CALL {
            let bytes = bytes.get(LONGEST_CALL - length..).unwrap_or_default();
            let is_call = matches!(bytes.first(), Some(0xe8 | 0xff));
            let decoded = decode(back.wrapping_sub(length as u64), bytes);
            let Some((found_length, Does::Call(target))) = decoded.filter(|_| is_call) else {
                continue;
            };
            if found_length != length {
                continue;
            }
            match (target, bytes) {
                (Some(target), _) => found[0] = Some(Call::To(target)),
                // call [rip + offset]
                (None, [0xff, 0x15, a, b, c, d]) => {
                    let offset = i64::from(i32::from_le_bytes([*a, *b, *c, *d]));
                    let word = code::word(code, back.wrapping_add_signed(offset));
                    found[1] = Some(word.map_or(Call::Somewhere, Call::ByWord));
                }
                (None, _) => found[1] = Some(Call::Somewhere),
            }
        }
        found
    }

    pub(super) fn exits(range: &Range<u64>, bytes: &[u8], is_whole: bool) -> Option<Exits> {
        let mut exits = Exits::default();
        let mut offset = 0;
        let (mut goes_on, mut branches) = (true, false);
        while offset < bytes.len() {
            let address = range.start.wrapping_add(offset as u64);
            let (length, does) = decode(address, bytes.get(offset..)?)?;
            offset += length;
            let ends = matches!(does, Does::End | Does::Jump(_) | Does::JumpByWord(_));
            // A call that never comes back can be the last thing.
            goes_on = !ends && !matches!(does, Does::JumpSomewhere | Does::Call(_));
            match does {
                Does::Jump(target) | Does::Branch(target) if range.contains(&target) => {
                    branches = true;
                }
                Does::Jump(target) | Does::Branch(target) => exits.to.push(target),
                Does::JumpByWord(word) => exits.by_word.push(word),
                Does::JumpSomewhere => {
                    exits.somewhere = true;
                    branches = true;
                }
                _ => {}
            }
            // What follows is reached from elsewhere: the next entry of a jump table.
            if ends && !(is_whole && branches) {
                return Some(exits);
            }
        }
        if goes_on && is_whole {
            // Hand-written functions run on into the next.
            exits.to.push(range.end);
        }
        (is_whole && !bytes.is_empty()).then_some(exits)
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use aarch64::SIGNAL_RETURN;
#[cfg(target_arch = "aarch64")]
use aarch64::{before, exits};

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use super::{Call, Code, Exits, Range};

    /// mov x8, 139; svc 0: what the kernel has signals return to.
    pub(crate) const SIGNAL_RETURN: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4];

    /// So many bits of words, with their sign.
    fn target(from: u64, code: u32, low: u32, bits: u32) -> u64 {
        let words = (code << (32 - low - bits)).cast_signed() >> (32 - bits);
        from.wrapping_add_signed(i64::from(words) * 4)
    }

    /// Arm's manual, "BL" and "BLR".
    pub(super) fn before<C: Code + ?Sized>(code: &C, back: u64) -> [Option<Call>; 2] {
        let mut bytes = [0; 4];
        let from = back.wrapping_sub(4);
        if code.read(from, &mut bytes) != bytes.len() {
            return [None; 2];
        }
        let code = u32::from_le_bytes(bytes);
        let direct = code & 0xfc00_0000 == 0x9400_0000;
        // With and without a signature of the address.
        let indirect = code & 0xffff_fc1f == 0xd63f_0000 || code & 0xfeff_f800 == 0xd63f_0800;
        [
            direct.then(|| Call::To(target(from, code, 0, 26))),
            indirect.then_some(Call::Somewhere),
        ]
    }

    /// Arm's manual, "B", "B.cond", "CBZ", "TBZ" and "BR".
    pub(super) fn exits(range: &Range<u64>, bytes: &[u8], is_whole: bool) -> Option<Exits> {
        let mut exits = Exits::default();
        let (words, _) = bytes.as_chunks::<4>();
        let mut goes_on = true;
        for (address, code) in (range.start..).step_by(4).zip(words) {
            let code = u32::from_le_bytes(*code);
            let jump = code & 0xfc00_0000 == 0x1400_0000;
            let by_register = code & 0xfe1f_0000 == 0xd61f_0000 && code >> 21 & 3 != 1;
            let target = if jump {
                Some(target(address, code, 0, 26))
            } else if code & 0xff00_0010 == 0x5400_0000 || code & 0x7e00_0000 == 0x3400_0000 {
                Some(target(address, code, 5, 19))
            } else if code & 0x7e00_0000 == 0x3600_0000 {
                Some(target(address, code, 5, 14))
            } else {
                None
            };
            exits
                .to
                .extend(target.filter(|target| !range.contains(target)));
            exits.somewhere |= by_register;
            goes_on = !jump && !by_register;
            if !goes_on && !is_whole {
                return Some(exits);
            }
        }
        if goes_on && is_whole {
            exits.to.push(range.end);
        }
        (is_whole && !bytes.is_empty()).then_some(exits)
    }
}

#[cfg(test)]
#[path = "calls_tests.rs"]
pub(super) mod tests;
