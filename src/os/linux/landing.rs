//! Where a function goes on if a call that it makes panics: by its table of call sites.
//!
//! The layout is the one that LLVM and GCC write for the Itanium C++ ABI's "exception
//! handling tables", level II, as `std` reads it (1.95, `sys/personality/dwarf/eh.rs`).

use crate::os::platform::code::Code;

/// Longer tables are not read.
const LONGEST: usize = 256 * 1024;

/// Where the call at this address leads if it panics; `None` for nowhere in the function, and
/// for one that cannot panic.
pub(crate) fn landing<C: Code + ?Sized>(code: &C, call: u64) -> Option<u64> {
    let (function, table) = code.call_sites(call)?;
    search(code, function, table, call)
}

struct Table<'a, C: ?Sized> {
    code: &'a C,
    at: u64,
    left: usize,
    chunk: [u8; 256],
    chunk_at: u64,
    chunk_length: usize,
}

impl<C: Code + ?Sized> Table<'_, C> {
    fn byte(&mut self) -> Option<u8> {
        self.left = self.left.checked_sub(1)?;
        let mut offset = self.at.wrapping_sub(self.chunk_at) as usize;
        if offset >= self.chunk_length {
            self.chunk_at = self.at;
            self.chunk_length = self.code.read(self.at, &mut self.chunk);
            offset = 0;
        }
        self.at = self.at.wrapping_add(1);
        self.chunk.get(..self.chunk_length)?.get(offset).copied()
    }

    fn unsigned(&mut self, length: u32) -> Option<u64> {
        let mut value = 0;
        for byte in 0..length {
            value |= u64::from(self.byte()?) << (8 * byte);
        }
        Some(value)
    }

    fn leb(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A distance, in one of the forms that call sites have.
    fn distance(&mut self, encoding: u8) -> Option<u64> {
        match encoding {
            0x01 => self.leb(),
            0x02 => self.unsigned(2),
            0x03 => self.unsigned(4),
            0x04 => self.unsigned(8),
            _ => None,
        }
    }
}

fn search<C: Code + ?Sized>(code: &C, function: u64, table: u64, call: u64) -> Option<u64> {
    const NONE: u8 = 0xff;
    let mut table = Table {
        code,
        at: table,
        left: LONGEST,
        chunk: [0; 256],
        chunk_at: 0,
        chunk_length: 0,
    };
    // Pads are counted from another address than the function's in no compiler's output.
    if table.byte()? != NONE {
        return None;
    }
    if table.byte()? != NONE {
        table.leb()?;
    }
    let encoding = table.byte()?;
    let length = table.leb()?;
    let end = table.at.checked_add(length)?;
    let offset = call.checked_sub(function)?;
    while table.at < end {
        let start = table.distance(encoding)?;
        let length = table.distance(encoding)?;
        let pad = table.distance(encoding)?;
        table.leb()?;
        // They are in order.
        if offset < start {
            break;
        }
        if offset - start < length {
            return function.checked_add(pad).filter(|_| pad != 0);
        }
    }
    None
}
