#![cfg(target_arch = "x86_64")]

use super::*;
use crate::os::platform::calls::tests::Made;

/// Where code without a table begins, and its only call ends.
const BARE: u64 = 0x10_0000;
/// Two callers of it, directly and by pointer, with tables; where the calls return to.
const DIRECT: u64 = 0x2000;
const POINTER: u64 = 0x3000;
const SP: u64 = 0x7f00_0000;

/// A function without a table that has `prologue` before its call.
fn code(prologue: &[u8]) -> (Made, u64) {
    let call = [0xe8, 0, 0, 0, 0];
    let bytes = [prologue, &call, &[0x90, 0xc3]].concat();
    let offset = i32::try_from(BARE - DIRECT - 5).unwrap();
    let direct = [&[0xe8][..], &offset.to_le_bytes(), &[0xc3]].concat();
    let made = Made {
        pieces: vec![
            (BARE, bytes),
            (DIRECT, direct),
            // Two bytes before them, so that all seven can be read.
            (DIRECT - 8, vec![0x90; 8]),
            (POINTER - 8, vec![0x90; 8]),
            (POINTER, vec![0xff, 0xd0, 0x90, 0x90, 0x90, 0xc3]),
            (BARE - 8, vec![0x90; 8]),
        ],
        functions: vec![DIRECT..DIRECT + 6, POINTER..POINTER + 6],
        module: 0x1000..0x4000,
    };
    (made, BARE + prologue.len() as u64 + 5)
}

const BACK_DIRECT: u64 = DIRECT + 5;
const BACK_POINTER: u64 = POINTER + 2;

/// push rbx; sub rsp, 32
const WITHOUT: &[u8] = &[0x53, 0x48, 0x83, 0xec, 0x20];
/// push rbp; mov rbp, rsp; sub rsp, 32
const WITH: &[u8] = &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20];
/// push rbp; mov ebp, edi; sub rsp, 32
const SPOILT: &[u8] = &[0x55, 0x89, 0xfd, 0x48, 0x83, 0xec, 0x20];

fn caller(prologue: &[u8], words: [u64; 8], fp: Option<u64>) -> Option<(u64, u64, Option<u64>)> {
    let (code, pc) = code(prologue);
    let place = Place {
        pc,
        is_return: true,
        sp: SP,
        fp,
    };
    let stack = |address: u64| {
        let offset = usize::try_from(address.checked_sub(SP)?).ok()?;
        words.get(offset / 8).copied()
    };
    without_table(&code, &stack, &place).map(|caller| (caller.back, caller.sp - SP, caller.fp))
}

/// Five words of the frame itself, then the return address.
fn stack(frame: [u64; 5], back: u64) -> [u64; 8] {
    let [a, b, c, d, e] = frame;
    [a, b, c, d, e, back, 11, 12]
}

#[test]
fn without_a_table_a_direct_call_counts_where_the_code_says() {
    let fp = Some(SP + 32);
    for (what, prologue, words, fp, expected) in [
        (
            "no frame pointer",
            WITHOUT,
            stack([1; 5], BACK_DIRECT),
            None,
            Some(None),
        ),
        (
            "that of another",
            WITHOUT,
            stack([1; 5], BACK_DIRECT),
            Some(77),
            Some(Some(77)),
        ),
        (
            "a frame pointer",
            WITH,
            stack([1, 2, 3, 4, 5], BACK_DIRECT),
            fp,
            Some(Some(5)),
        ),
        (
            "unknown, and pushed",
            WITH,
            stack([1, 2, 3, 4, 5], BACK_DIRECT),
            None,
            Some(Some(5)),
        ),
        (
            "another use of it",
            SPOILT,
            stack([1, 2, 3, 4, 5], BACK_DIRECT),
            None,
            Some(Some(5)),
        ),
        (
            "remains of another call of it",
            WITHOUT,
            stack([1, BACK_DIRECT, 3, BACK_POINTER, 5], BACK_DIRECT),
            None,
            Some(None),
        ),
        (
            "remains alone",
            WITHOUT,
            stack([1, BACK_DIRECT, 3, 4, 5], 6),
            None,
            None,
        ),
        (
            "by pointer, nothing says where",
            WITHOUT,
            stack([1; 5], BACK_POINTER),
            None,
            None,
        ),
    ] {
        let expected = expected.map(|fp| (BACK_DIRECT, 48, fp));
        assert_eq!(caller(prologue, words, fp), expected, "{what}");
    }
}

#[test]
fn without_a_table_the_frame_pointer_counts_if_nothing_nearer_does() {
    let fp = Some(SP + 32);
    let by_pointer = |frame| caller(WITH, stack(frame, BACK_POINTER), fp);
    assert_eq!(
        by_pointer([1, 2, 3, 4, 5]),
        Some((BACK_POINTER, 48, Some(5)))
    );
    let near = [1, 2, BACK_POINTER, 4, 5];
    assert_eq!(by_pointer(near), None, "another that may be it");
    let dead = [1, 2, BACK_DIRECT, 4, 5];
    assert_eq!(
        by_pointer(dead),
        None,
        "a direct call that is not where the code says"
    );
    let elsewhere = stack([1, 2, 3, 4, 5], 0x3003);
    assert_eq!(caller(WITH, elsewhere, fp), None, "no call");
    let beyond = Some(SP + 4096);
    assert_eq!(
        caller(WITH, stack([1; 5], BACK_POINTER), beyond),
        None,
        "off the stack"
    );
}
