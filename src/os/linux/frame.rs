//! How large the kernel's frame of a signal is on this machine.
//!
//! `getauxval(AT_MINSIGSTKSZ)` is the frame with all registers that the processor has
//! (kernel 6.18, `arch/x86/kernel/signal.c`, `init_sigframe_size`, by
//! `fpu__get_fpstate_size`: `fpu_user_cfg.max_size`). With AMX that counts 8 KiB of tiles.
//! But a thread's frame is as large as its own state (`arch/x86/kernel/fpu/signal.c`,
//! `fpu__alloc_mathframe`), and the state holds tiles only once the process has asked for
//! the permission (`arch_prctl(ARCH_REQ_XCOMP_PERM)`; Documentation/arch/x86/xstate.rst).
//! The kernel refuses the permission with ENOSPC where a thread's alternate stack has no
//! room for the larger frame (`arch/x86/kernel/fpu/xstate.c`, `validate_sigaltstack`). So
//! without the permission the tiles are left out here. std's threads, whose alternate
//! stack is as large as `AT_MINSIGSTKSZ`, would never have room otherwise.
//!
//! A process may get the permission later, even while a signal is on its way. So the
//! permission is looked up each time a thread is to be signalled.
//!
//! It is not asked for by `arch_prctl(ARCH_GET_XCOMP_PERM)`, which a filter of system calls
//! may kill for, but by `sigaltstack`, which std calls for each thread: the kernel refuses
//! an alternate stack without room for the frame with ENOMEM, and only a process with the
//! permission has a frame that needs more than 8 KiB (`arch/x86/kernel/signal.c`,
//! `sigaltstack_size_valid`). A kernel that is set to refuse such stacks in any case
//! (`strict_sas_size`) seems to permit tiles.

/// The frame where the kernel does not say: kernels before 5.14 on x86-64, which know of
/// no larger state than that of AVX-512.
const UNTOLD: usize = if cfg!(target_arch = "aarch64") {
    5120
} else {
    3632
};

/// The size of a signal's frame of a thread of this process, as of now.
pub(crate) fn frame() -> usize {
    // SAFETY: no preconditions; 0 where the kernel does not say.
    let told = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) };
    match usize::try_from(told) {
        Ok(told @ 1..) => told.saturating_sub(absent()),
        _ => UNTOLD,
    }
}

#[cfg(not(target_arch = "x86_64"))]
const fn absent() -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
use tiles::absent;

#[cfg(target_arch = "x86_64")]
mod tiles {
    use std::arch::x86_64::{self, CpuidResult};
    use std::mem::MaybeUninit;
    use std::ops::Range;
    use std::sync::{Mutex, OnceLock};

    use crate::registry::lock;

    /// The number of the tiles' state (Intel SDM 1, 13.1; `XFEATURE_XTILE_DATA`).
    const TILES: u32 = 18;
    /// The leaf of CPUID that describes states (SDM 2A, CPUID).
    const STATES: u32 = 0xD;
    /// An alternate stack as std has it without AMX: with room for a frame of AVX-512 and a
    /// handler, and without room for the tiles.
    const SMALL: usize = 8 * 1024;

    /// What of the largest frame no thread of this process has.
    pub(super) fn absent() -> usize {
        static TILES_TAKE: OnceLock<usize> = OnceLock::new();
        let tiles = *TILES_TAKE.get_or_init(|| of_tiles(&states()));
        if tiles == 0 || is_permitted() {
            return 0;
        }
        tiles
    }

    /// Whether the process may use tiles; yes where the kernel does not say.
    ///
    /// The calling thread, which is this library's own, has a small alternate stack for the
    /// time of a call.
    fn is_permitted() -> bool {
        static STACK: Mutex<[u8; SMALL]> = Mutex::new([0; SMALL]);
        let mut stack = lock(&STACK);
        let small = libc::stack_t {
            ss_sp: stack.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: SMALL,
        };
        let mut before = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: the lock is held as long as the memory is this thread's alternate stack,
        // so no other thread uses it, and nothing reads it. The kernel fills `before`, if it
        // takes the stack at all. What was before is put back: it is what this thread had.
        unsafe {
            if libc::sigaltstack(&raw const small, before.as_mut_ptr()) != 0 {
                return true;
            }
            let before = before.assume_init();
            if before.ss_flags & libc::SS_DISABLE == 0 {
                libc::sigaltstack(&raw const before, std::ptr::null_mut());
            } else {
                let none = libc::stack_t {
                    ss_flags: libc::SS_DISABLE,
                    ..small
                };
                libc::sigaltstack(&raw const none, std::ptr::null_mut());
            }
        }
        false
    }

    /// What CPUID says of the area that states are saved to.
    #[derive(Clone, Debug, Default)]
    pub(super) struct States {
        /// How large the area is, with the states that the kernel has enabled.
        pub(super) enabled: usize,
        /// The number of each state the processor has beyond the first two, and where in
        /// the area it lies.
        pub(super) places: Vec<(u32, Range<usize>)>,
    }

    /// A call that is unsafe before Rust 1.94 only.
    #[allow(unused_unsafe)]
    fn cpuid(leaf: u32, part: u32) -> CpuidResult {
        // SAFETY: every x86-64 processor has the instruction.
        unsafe { x86_64::__cpuid_count(leaf, part) }
    }

    fn states() -> States {
        /// The states that each processor has, in the area's first bytes.
        const FIRST: u32 = 2;
        if cpuid(0, 0).eax < STATES {
            return States::default();
        }
        let all = cpuid(STATES, 0);
        let bits = u64::from(all.edx) << 32 | u64::from(all.eax);
        let places = (FIRST..u64::BITS - 1).filter(|state| bits >> state & 1 == 1);
        let places = places.map(|state| {
            let of = cpuid(STATES, state);
            let start = of.ebx as usize;
            (state, start..start + of.eax as usize)
        });
        States {
            enabled: all.ebx as usize,
            places: places.collect(),
        }
    }

    /// How many bytes the area is larger for the tiles.
    ///
    /// States that the kernel has not enabled count as if they were there: the difference
    /// is then too small, and the frame too large, never the other way round.
    pub(super) fn of_tiles(States { enabled, places }: &States) -> usize {
        /// The first two states, and the header.
        const LEAST: usize = 512 + 64;
        let tiles = places.iter().find(|(state, _)| *state == TILES);
        if tiles.is_none_or(|(_, place)| place.end > *enabled) {
            // There are none, or the kernel has not enabled them.
            return 0;
        }
        let others = places.iter().filter(|(state, _)| *state != TILES);
        let others = others.map(|(_, place)| place.end).max().unwrap_or(0);
        enabled.saturating_sub(others.max(LEAST))
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::tiles::{States, of_tiles};
    use super::*;

    /// AVX, AVX-512 and protection keys.
    const NO_TILES: [(u32, std::ops::Range<usize>); 5] = [
        (2, 576..832),
        (5, 1088..1152),
        (6, 1152..1664),
        (7, 1664..2688),
        (9, 2688..2696),
    ];

    fn states(enabled: usize, more: &[(u32, std::ops::Range<usize>)]) -> States {
        let places = [NO_TILES.as_slice(), more].concat();
        States { enabled, places }
    }

    #[test]
    fn tiles_are_left_out_where_the_processor_has_them() {
        let amx = [(17, 2752..2816), (18, 2816..11_008)];
        let apx = [(17, 2752..2816), (18, 2816..11_008), (19, 960..1088)];
        let beyond = [(18, 2816..11_008), (20, 11_008..11_072)];
        for (what, states, tiles) in [
            ("none", States::default(), 0),
            ("AVX-512: a frame of 3,376", states(2696, &[]), 0),
            ("AMX: a frame of 11,952", states(11_008, &amx), 8192),
            ("AMX, not enabled", states(2696, &amx), 0),
            ("AMX and APX", states(11_008, &apx), 8192),
            ("a state above the tiles", states(11_072, &beyond), 0),
        ] {
            assert_eq!(of_tiles(&states), tiles, "{what}");
        }
    }

    /// Not a test: asks for tiles, which cannot be given back.
    #[test]
    #[ignore = "runs in a process of its own"]
    fn tiles_are_permitted_from_now_on() {
        const ARCH_REQ_XCOMP_PERM: libc::c_int = 0x1023;
        const TILES: libc::c_int = 18;
        let before = frame();
        // SAFETY: no memory is involved.
        let asked = unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILES) };
        println!("\nasked {asked}, larger {}", frame() > before);
    }

    #[test]
    fn a_process_that_may_use_tiles_has_larger_frames() {
        if !std::fs::read_to_string("/proc/cpuinfo")
            .unwrap()
            .contains("amx_tile")
        {
            return;
        }
        let program = std::env::current_exe().unwrap();
        let child = std::process::Command::new(program)
            .args([
                "tiles_are_permitted_from_now_on",
                "--ignored",
                "--nocapture",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(
            text.contains("asked 0, larger true") || text.contains("asked -1"),
            "{text}"
        );
    }

    #[test]
    fn the_alternate_stack_stays_as_it_was() {
        let here = || {
            let mut now = std::mem::MaybeUninit::<libc::stack_t>::uninit();
            // SAFETY: nothing is set, and the kernel fills `now`.
            let now = unsafe {
                assert_eq!(libc::sigaltstack(std::ptr::null(), now.as_mut_ptr()), 0);
                now.assume_init()
            };
            (now.ss_sp.addr(), now.ss_size, now.ss_flags)
        };
        let before = here();
        frame();
        assert_eq!(here(), before);
    }

    #[test]
    fn the_frame_is_the_largest_without_what_is_absent() {
        // SAFETY: no preconditions.
        let told = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        let has_tiles = std::fs::read_to_string("/proc/cpuinfo")
            .unwrap()
            .contains("amx_tile");
        if told > 0 {
            assert_eq!(frame() < told, has_tiles, "{} {told}", frame());
        }
    }
}
