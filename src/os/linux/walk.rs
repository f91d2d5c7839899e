//! The calling thread's own stack, by the unwinder that panics use.

use std::ffi::{c_int, c_void};

/// Deeper stacks are cut.
const MAX_FRAMES: usize = 128;

unsafe extern "C" {
    /// Of the Itanium C++ ABI's exception handling, level I: what `std` itself
    /// links to for panics.
    safe fn _Unwind_Backtrace(
        trace: extern "C" fn(*mut c_void, *mut c_void) -> c_int,
        argument: *mut c_void,
    ) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

/// The addresses on the calling thread's stack, the innermost first.
///
/// Not in a signal handler: it takes the dynamic linker's lock.
#[inline(never)]
pub(crate) fn own_stack() -> Vec<u64> {
    let mut addresses: Vec<u64> = Vec::with_capacity(MAX_FRAMES);
    _Unwind_Backtrace(push, (&raw mut addresses).cast());
    addresses
}

extern "C" fn push(context: *mut c_void, addresses: *mut c_void) -> c_int {
    const GO_ON: c_int = 0;
    const STOP: c_int = 5;
    // SAFETY: `own_stack` passes its vector, which it does not touch meanwhile.
    let addresses = unsafe { &mut *addresses.cast::<Vec<u64>>() };
    if addresses.len() == MAX_FRAMES {
        return STOP;
    }
    // SAFETY: the unwinder passes a valid context for the length of this call.
    addresses.push(unsafe { _Unwind_GetIP(context) } as u64);
    GO_ON
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::Symbolizer;

    #[test]
    fn it_begins_here() {
        let addresses = own_stack();
        let frames = Symbolizer::default().symbolize(&addresses, crate::os::module_files());
        assert!(
            frames.iter().any(|frame| frame
                .function()
                .is_some_and(|name| name.contains("it_begins_here"))),
            "{frames:#?}"
        );
    }
}
