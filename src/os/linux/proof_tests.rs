//! Stacks that could be taken for others: through functions of assembly, with remains of
//! dead frames where live ones have not written.

use std::arch::global_asm;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::capture::tests::Subjected;
use crate::os::Miss;

// Each leaves 1 KiB of its frame as it was. `poll` touches no frame pointer, so that of a
// thread that sleeps there is not known.
global_asm!(
    // With a frame pointer, which its table counts from.
    ".pushsection .text",
    ".globl stallscope_test_framed",
    ".hidden stallscope_test_framed",
    ".type stallscope_test_framed, @function",
    "stallscope_test_framed:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "push rbx",
    ".cfi_offset rbx, -24",
    "sub rsp, 1032",
    "call [rip + poll@GOTPCREL]",
    "lea rsp, [rbp - 8]",
    "pop rbx",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size stallscope_test_framed, . - stallscope_test_framed",
    // Without a table.
    ".globl stallscope_test_bare",
    ".hidden stallscope_test_bare",
    ".type stallscope_test_bare, @function",
    "stallscope_test_bare:",
    "push rbx",
    "sub rsp, 1024",
    "call [rip + poll@GOTPCREL]",
    "add rsp, 1024",
    "pop rbx",
    "ret",
    ".size stallscope_test_bare, . - stallscope_test_bare",
    // Without a table, with a frame pointer: how code that is made at run time is.
    ".globl stallscope_test_spins_framed",
    ".hidden stallscope_test_spins_framed",
    ".type stallscope_test_spins_framed, @function",
    "stallscope_test_spins_framed:",
    "push rbp",
    "mov rbp, rsp",
    "push 0",
    "push 0",
    "2: cmp byte ptr [rdi], 0",
    "je 2b",
    "leave",
    "ret",
    ".size stallscope_test_spins_framed, . - stallscope_test_spins_framed",
    // With neither.
    ".globl stallscope_test_spins",
    ".hidden stallscope_test_spins",
    ".type stallscope_test_spins, @function",
    "stallscope_test_spins:",
    "sub rsp, 8",
    "2: cmp byte ptr [rdi], 0",
    "je 2b",
    "add rsp, 8",
    "ret",
    ".size stallscope_test_spins, . - stallscope_test_spins",
    // Calls what it is given, with a frame pointer.
    ".globl stallscope_test_calls",
    ".hidden stallscope_test_calls",
    ".type stallscope_test_calls, @function",
    "stallscope_test_calls:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "mov rbp, rsp",
    ".cfi_def_cfa_register rbp",
    "call rsi",
    "pop rbp",
    ".cfi_def_cfa rsp, 8",
    "ret",
    ".cfi_endproc",
    ".size stallscope_test_calls, . - stallscope_test_calls",
    ".popsection",
);

type Sleeps = unsafe extern "C" fn(usize, usize, i32) -> i32;
type Spins = unsafe extern "C" fn(*const AtomicBool);

unsafe extern "C" {
    fn stallscope_test_framed(files: usize, count: usize, ms: i32) -> i32;
    fn stallscope_test_bare(files: usize, count: usize, ms: i32) -> i32;
    fn stallscope_test_spins_framed(over: *const AtomicBool);
    fn stallscope_test_spins(over: *const AtomicBool);
    fn stallscope_test_calls(over: *const AtomicBool, what: Spins);
}

/// Calls it from further down than the one that counts, and is gone.
#[inline(never)]
fn is_dead(direct: fn(i32)) {
    let room = black_box([0_u8; 512]);
    direct(0);
    black_box(room);
}

#[inline(never)]
fn is_alive(direct: fn(i32), ms: i32) {
    direct(ms);
    black_box(ms);
}

#[inline(never)]
fn framed(ms: i32) {
    // SAFETY: `poll` of no files sleeps, and nothing else.
    unsafe { stallscope_test_framed(0, 0, black_box(ms)) };
    black_box(ms);
}

#[inline(never)]
fn framed_by_pointer(ms: i32) {
    let sleeps = black_box(stallscope_test_framed as Sleeps);
    // SAFETY: as above.
    unsafe { sleeps(0, 0, black_box(ms)) };
    black_box(ms);
}

#[inline(never)]
fn bare(ms: i32) {
    // SAFETY: as above.
    unsafe { stallscope_test_bare(0, 0, black_box(ms)) };
    black_box(ms);
}

#[inline(never)]
fn bare_by_pointer(ms: i32) {
    let sleeps = black_box(stallscope_test_bare as Sleeps);
    // SAFETY: as above.
    unsafe { sleeps(0, 0, black_box(ms)) };
    black_box(ms);
}

/// One that sleeps there, after the same was called from elsewhere.
fn asleep(dead: fn(i32), alive: fn(i32)) -> Subjected {
    Subjected::new(1 << 20, move |goes_on| {
        while goes_on() {
            is_dead(dead);
            is_alive(alive, 200);
        }
    })
}

#[test]
fn remains_of_dead_frames_are_not_taken_for_callers() {
    for (what, dead, alive) in [
        ("directly", framed as fn(i32), framed as fn(i32)),
        ("by pointer, after a direct call", framed, framed_by_pointer),
        ("directly, without a table", bare, bare),
        ("directly, after one by pointer", bare_by_pointer, bare),
    ] {
        let mut thread = asleep(dead, alive);
        let captured = thread.until(None, |captured| {
            captured.doing.is_asleep() && captured.stack != Err(Miss::Moved)
        });
        let stack = captured.stack;
        let names = thread.names(stack.as_ref().map_or(&[], Vec::as_slice));
        let has = |name: &str| names.iter().any(|one| one.ends_with(name));
        assert!(
            has("is_alive") && !has("is_dead"),
            "{what}: {stack:?} {names:?}"
        );
    }
}

#[test]
fn nobody_knows_who_has_called_code_without_a_table_by_pointer() {
    let mut thread = asleep(bare, bare_by_pointer);
    let captured = thread.until(None, |captured| {
        captured.doing.is_asleep() && captured.stack != Err(Miss::Moved)
    });
    assert_eq!(captured.stack, Err(Miss::NoTables));
}

#[inline(never)]
fn calls(goes_on: &dyn Fn() -> bool, what: Spins) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Another thread says when it is over.
        let ends = |over: &AtomicBool| over.store(true, Relaxed);
        let goes_on = Shared(goes_on);
        let over = &over;
        scope.spawn(move || {
            let goes_on = goes_on;
            while (goes_on.0)() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            ends(over);
        });
        // SAFETY: it reads the flag, which lives on, until that is set.
        unsafe { stallscope_test_calls(over, what) };
    });
}

struct Shared<'a>(&'a dyn Fn() -> bool);

// SAFETY: what `Subjected` hands out reads an atomic.
unsafe impl Send for Shared<'_> {}

#[test]
fn a_frame_pointer_counts_if_it_is_the_functions_own() {
    let spins = |what: Spins| Subjected::new(1 << 20, move |goes_on| calls(goes_on, what));
    let mut own = spins(stallscope_test_spins_framed);
    let stack = own.until(None, |captured| captured.stack.is_ok()).stack;
    let names = own.names(&stack.unwrap());
    let has = |name: &str| names.iter().any(|one| one.ends_with(name));
    assert!(has("stallscope_test_calls"), "{names:?}");
    drop(own);
    // The register has that of the caller, and the caller would be left out.
    let mut of_caller = spins(stallscope_test_spins);
    of_caller.until(None, |captured| {
        assert!(captured.stack.is_err(), "{:?}", captured.stack);
        captured.stack == Err(Miss::NoTables)
    });
}
