//! The call that a return address follows, and the function it calls: proof
//! that a word on the stack is what it looks like.

use std::ops::Range;

use crate::os::platform::memory;

/// What precedes a return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A call of this address.
    To(u64),
    /// A call of what was in a register or in memory then.
    Somewhere,
}

/// The call before `back`, if there is one.
pub(crate) fn before(back: u64) -> Option<Call> {
    decode(
        back,
        &memory::array::<7>(back.checked_sub(7)?)?,
        &|address| memory::array::<8>(address).map(u64::from_ne_bytes),
    )
}

/// Where a jump table's entry leads, as calls between libraries go through one.
pub(crate) fn through_stub(target: u64) -> Option<u64> {
    stub(target, &memory::array::<10>(target)?, &|address| {
        memory::array::<8>(address).map(u64::from_ne_bytes)
    })
}

/// Whether this code ends in a jump to a function: a call of the one can then
/// turn up on the stack as one of the other.
pub(crate) fn jumps_to(code: Range<u64>, target: u64) -> bool {
    const LONGEST: usize = 4096;
    let length = code.end.saturating_sub(code.start);
    let length = usize::try_from(length).unwrap_or(LONGEST).min(LONGEST);
    let mut bytes = Vec::new();
    memory::append(code.start, length, &mut bytes);
    has_jump(code.start, &bytes, target)
}

type ReadWord<'a> = &'a dyn Fn(u64) -> Option<u64>;

#[cfg(target_arch = "x86_64")]
fn relative(from: u64, offset: [u8; 4]) -> u64 {
    from.wrapping_add_signed(i64::from(i32::from_le_bytes(offset)))
}

/// Intel's manual, volume 2, "CALL": E8 is relative; FF /2 is indirect.
#[cfg(target_arch = "x86_64")]
fn decode(back: u64, before: &[u8; 7], read_word: ReadWord<'_>) -> Option<Call> {
    match *before {
        // call [rip + offset]: its word is constant once the module is loaded.
        [_, 0xff, 0x15, a, b, c, d] => {
            Some(read_word(relative(back, [a, b, c, d])).map_or(Call::Somewhere, Call::To))
        }
        [_, _, 0xe8, a, b, c, d] => Some(Call::To(relative(back, [a, b, c, d]))),
        _ => {
            // The middle three bits of the byte after FF say that it is a call;
            // the others, and those of a third byte, how long it is.
            let is_call = |at: usize, length: usize| {
                let (Some(0xff), Some(mode)) = (before.get(at), before.get(at + 1)) else {
                    return false;
                };
                let (kind, register) = (mode >> 6, mode & 7);
                let third = (register == 4 && kind != 3)
                    .then(|| before.get(at + 2))
                    .flatten();
                let offset = match kind {
                    0 if third.is_some_and(|third| third & 7 == 5) => 4,
                    1 => 1,
                    2 => 4,
                    _ => 0,
                };
                mode >> 3 & 7 == 2 && 2 + usize::from(third.is_some()) + offset == length
            };
            (2..=7)
                .any(|length| is_call(7 - length, length))
                .then_some(Call::Somewhere)
        }
    }
}

/// jmp [rip + offset], where the processor checks branches after an endbr64.
#[cfg(target_arch = "x86_64")]
fn stub(target: u64, code: &[u8; 10], read_word: ReadWord<'_>) -> Option<u64> {
    match *code {
        [0xff, 0x25, a, b, c, d, ..] => read_word(relative(target + 6, [a, b, c, d])),
        [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, ..] => through_stub(target + 4),
        _ => None,
    }
}

/// Intel's manual, volume 2, "JMP": E9 is relative.
#[cfg(target_arch = "x86_64")]
fn has_jump(start: u64, code: &[u8], target: u64) -> bool {
    (start..)
        .zip(code.windows(5))
        .any(|(address, code)| match *code {
            [0xe9, a, b, c, d] => relative(address + 5, [a, b, c, d]) == target,
            _ => false,
        })
}

/// Arm's manual, "B".
#[cfg(target_arch = "aarch64")]
fn has_jump(start: u64, code: &[u8], target: u64) -> bool {
    let (words, _) = code.as_chunks::<4>();
    (start..).step_by(4).zip(words).any(|(address, code)| {
        let code = u32::from_le_bytes(*code);
        code & 0xfc00_0000 == 0x1400_0000 && branch(address, code) == target
    })
}

/// 26 bits of words, with their sign.
#[cfg(target_arch = "aarch64")]
fn branch(from: u64, code: u32) -> u64 {
    let words = (code << 6).cast_signed() >> 6;
    from.wrapping_add_signed(i64::from(words) * 4)
}

/// Arm's manual, "BL" and "BLR".
#[cfg(target_arch = "aarch64")]
fn decode(back: u64, before: &[u8; 7], _read_word: ReadWord<'_>) -> Option<Call> {
    let [_, _, _, a, b, c, d] = *before;
    let code = u32::from_le_bytes([a, b, c, d]);
    if code & 0xfc00_0000 == 0x9400_0000 {
        Some(Call::To(branch(back.wrapping_sub(4), code)))
    } else {
        (code & 0xffff_fc1f == 0xd63f_0000).then_some(Call::Somewhere)
    }
}

/// Stubs are not followed here: their calls prove nothing and are not believed.
#[cfg(target_arch = "aarch64")]
fn stub(_target: u64, _code: &[u8; 10], _read_word: ReadWord<'_>) -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn decoded(before: [u8; 7]) -> Option<Call> {
        decode(0x1000, &before, &|address| Some(address * 2))
    }

    #[test]
    fn calls_are_told_from_other_code() {
        assert_eq!(
            decoded([0, 0, 0xe8, 0, 1, 0, 0]),
            Some(Call::To(0x1100)),
            "relative"
        );
        assert_eq!(
            decoded([0, 0, 0xe8, 0xf0, 0xff, 0xff, 0xff]),
            Some(Call::To(0xff0)),
            "backwards"
        );
        assert_eq!(
            decoded([0, 0xff, 0x15, 0, 1, 0, 0]),
            Some(Call::To(0x2200)),
            "by a word of the module"
        );
        assert_eq!(
            decoded([0, 0, 0, 0, 0, 0xff, 0xd0]),
            Some(Call::Somewhere),
            "call rax"
        );
        assert_eq!(
            decoded([0, 0, 0, 0, 0, 0xff, 0x10]),
            Some(Call::Somewhere),
            "call [rax]"
        );
        assert_eq!(
            decoded([0, 0, 0, 0, 0xff, 0x50, 0x18]),
            Some(Call::Somewhere),
            "call [rax + 24]"
        );
        assert_eq!(
            decoded([0, 0xff, 0x90, 0, 1, 0, 0]),
            Some(Call::Somewhere),
            "call [rax + 256]"
        );
        assert_eq!(
            decoded([0, 0, 0, 0xff, 0x54, 0x24, 0x18]),
            Some(Call::Somewhere),
            "call [rsp + 24]"
        );
        assert_eq!(
            decoded([0xff, 0x14, 0x25, 0x40, 6, 0, 0]),
            Some(Call::Somewhere),
            "call fs:[1600], after a prefix: how glibc starts a thread's function"
        );
        assert_eq!(decoded([0x90; 7]), None, "nop");
        assert_eq!(decoded([0, 0, 0, 0, 0, 0xff, 0xe0]), None, "jmp rax");
    }

    #[test]
    fn jumps_are_found() {
        let code = [0x90, 0xe9, 0xfa, 0x0f, 0, 0, 0xc3];
        assert!(has_jump(0x1000, &code, 0x2000));
        assert!(!has_jump(0x1000, &code, 0x2001));
        assert!(!has_jump(0x1000, &code[..5], 0x2000), "cut off");
    }

    #[inline(never)]
    fn called() -> u64 {
        std::hint::black_box(7)
    }

    #[test]
    fn a_real_call_is_found_in_real_code() {
        #[inline(never)]
        fn calls() -> u64 {
            called() + 1
        }
        assert_eq!(calls(), 8);
        let start = calls as *const () as u64;
        let target = called as *const () as u64;
        let found = (start + 5..start + 200).any(|back| before(back) == Some(Call::To(target)));
        assert!(found);
    }
}
