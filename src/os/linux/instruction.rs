//! How long an instruction of x86-64 is, and what it does to the stack pointer, the frame
//! pointer and the flow of control.
//!
//! Intel's manual, volume 2, appendix A ("Opcode Map"). What is not understood is `None`:
//! who asks then knows nothing, rather than something wrong.

/// The longest there is.
pub(crate) const LONGEST: usize = 15;

/// What an instruction does, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// Nothing of what follows.
    Other,
    Push {
        frame_pointer: bool,
    },
    Pop {
        frame_pointer: bool,
    },
    /// The stack pointer moves up by so much.
    Moves(i64),
    /// The stack pointer becomes the frame pointer and so much.
    ToFramePointer(i64),
    /// The frame pointer becomes the stack pointer and so much.
    SetsFramePointer(i64),
    /// The frame pointer becomes something else.
    SpoilsFramePointer,
    /// The stack pointer becomes something else.
    SpoilsStackPointer,
    Leave,
    /// A call; where to, if that is in the instruction.
    Call(Option<u64>),
    Jump(u64),
    /// A jump by what is in a register or in memory.
    JumpSomewhere,
    /// A jump by the word at this address.
    JumpByWord(u64),
    Branch(u64),
    /// It does not go on behind: a return or a trap.
    End,
}

const STACK_POINTER: u8 = 4;
const FRAME_POINTER: u8 = 5;

/// Reads one instruction.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// Prefixes and the byte after them.
    pub(super) fn opcode(&mut self) -> Option<(Prefixes, u8)> {
        let mut prefixes = Prefixes::default();
        loop {
            match self.byte()? {
                0x66 => prefixes.short = true,
                0x67 => prefixes.short_address = true,
                0xf0 => prefixes.lock = true,
                0x64 | 0x65 => prefixes.segment = true,
                0x26 | 0x2e | 0x36 | 0x3e | 0xf2 | 0xf3 => {}
                rex @ 0x40..=0x4f => {
                    prefixes.rex = rex;
                    return Some((prefixes, self.byte()?));
                }
                opcode => return Some((prefixes, opcode)),
            }
        }
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.at).copied();
        self.at += 1;
        byte
    }

    fn signed(&mut self, length: usize) -> Option<i64> {
        let bytes = self.bytes.get(self.at..self.at + length)?;
        self.at += length;
        let mut whole = [0; 8];
        whole.get_mut(..length)?.copy_from_slice(bytes);
        let unused = u32::try_from(64 - 8 * length).ok()?;
        Some(i64::from_le_bytes(whole) << unused >> unused)
    }
}

/// What follows most opcodes: a register, and a register or a place in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operands {
    pub(super) register: u8,
    /// The bits of `register` that belong to the opcode where there is no second operand.
    pub(super) extension: u8,
    /// The other register, unless it is a place in memory.
    pub(super) other: Option<u8>,
    /// The register that the place is counted from, unless there is an index as well, and
    /// how far it is from there.
    base: Option<u8>,
    pub(super) offset: i64,
    /// The place is counted from the next instruction.
    pub(super) by_word: bool,
    /// The register that the place is counted from, and the one that is added so often (as
    /// a power of 2).
    pub(super) from: Option<u8>,
    pub(super) index: Option<(u8, u8)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prefixes {
    pub(super) short: bool,
    short_address: bool,
    /// Other threads see the instruction as one.
    pub(super) lock: bool,
    /// Its place in memory is counted from one of the thread's own.
    pub(super) segment: bool,
    pub(super) rex: u8,
}

/// The instruction at `address`: how long it is, and what it does.
pub(crate) fn decode(address: u64, bytes: &[u8]) -> Option<(usize, Does)> {
    let mut reader = Reader::new(bytes);
    let (prefixes, opcode) = reader.opcode()?;
    let does = match opcode {
        0x0f => second_map(&mut reader, prefixes)?,
        0xc4 | 0xc5 | 0x62 => vector(&mut reader, opcode)?,
        _ => match (opcode, first_map(&mut reader, prefixes, opcode)?) {
            // Without a prefix, an operand of one byte is the second byte of another register.
            (
                0x00..=0x3f | 0x80..=0x8a | 0xb0..=0xb7 | 0xc0..=0xfe,
                Does::SpoilsStackPointer | Does::SpoilsFramePointer,
            ) if prefixes.rex == 0 && (opcode & 1 == 0 || opcode & 0xf8 == 0xb0) => Does::Other,
            (_, does) => does,
        },
    };
    if reader.at > LONGEST || reader.at > bytes.len() {
        return None;
    }
    // What is relative is so to the next instruction.
    let next = address.wrapping_add(reader.at as u64);
    let absolute = |offset: u64| next.wrapping_add(offset);
    let does = match does {
        Does::Call(Some(offset)) => Does::Call(Some(absolute(offset))),
        Does::Jump(offset) => Does::Jump(absolute(offset)),
        Does::Branch(offset) => Does::Branch(absolute(offset)),
        Does::JumpByWord(offset) => Does::JumpByWord(absolute(offset)),
        does => does,
    };
    Some((reader.at, does))
}

pub(super) fn operands(reader: &mut Reader<'_>, rex: u8) -> Option<Operands> {
    let mode = reader.byte()?;
    let (kind, low) = (mode >> 6, mode & 7);
    let mut operands = Operands {
        register: mode >> 3 & 7 | (rex & 4) << 1,
        extension: mode >> 3 & 7,
        other: None,
        base: None,
        offset: 0,
        by_word: false,
        from: None,
        index: None,
    };
    if kind == 3 {
        operands.other = Some(low | (rex & 1) << 3);
        return Some(operands);
    }
    let mut base = low;
    let mut has_index = false;
    if low == 4 {
        let third = reader.byte()?;
        base = third & 7;
        has_index = third >> 3 & 7 != 4 || rex & 2 != 0;
        if has_index {
            operands.index = Some((third >> 3 & 7 | (rex & 2) << 2, third >> 6));
        }
    }
    let length = match kind {
        0 if base == 5 => 4,
        0 => 0,
        1 => 1,
        _ => 4,
    };
    operands.offset = if length > 0 {
        reader.signed(length)?
    } else {
        0
    };
    operands.by_word = kind == 0 && low == 5;
    let has_base = kind != 0 || base != 5;
    operands.from = has_base.then_some(base | (rex & 1) << 3);
    operands.base = operands.from.filter(|_| !has_index);
    Some(operands)
}

/// What it does to write to this register.
const fn writes(register: u8) -> Does {
    match register {
        STACK_POINTER => Does::SpoilsStackPointer,
        FRAME_POINTER => Does::SpoilsFramePointer,
        _ => Does::Other,
    }
}

fn writes_other(operands: &Operands) -> Does {
    operands.other.map_or(Does::Other, writes)
}

fn first_map(reader: &mut Reader<'_>, prefixes: Prefixes, opcode: u8) -> Option<Does> {
    let rex = prefixes.rex;
    let wide = rex & 8 != 0;
    let immediate = if prefixes.short && !wide { 2 } else { 4 };
    let low = opcode & 7 | (rex & 1) << 3;
    let relative = |offset: i64| offset.cast_unsigned();
    Some(match opcode {
        0x00..=0x3f => match opcode & 7 {
            4 => reader.signed(1).map(|_| Does::Other)?,
            5 => reader.signed(immediate).map(|_| Does::Other)?,
            6 | 7 => return None,
            kind => {
                let operands = operands(reader, rex)?;
                if opcode >= 0x38 {
                    Does::Other
                } else if kind & 2 == 0 {
                    writes_other(&operands)
                } else {
                    writes(operands.register)
                }
            }
        },
        0x50..=0x57 if prefixes.short => return None,
        0x50..=0x57 => Does::Push {
            frame_pointer: low == FRAME_POINTER,
        },
        0x58..=0x5f if prefixes.short || low == STACK_POINTER => return None,
        0x58..=0x5f => Does::Pop {
            frame_pointer: low == FRAME_POINTER,
        },
        0x63 => writes(operands(reader, rex)?.register),
        0x68 => {
            reader.signed(immediate)?;
            Does::Push {
                frame_pointer: false,
            }
        }
        0x6a => {
            reader.signed(1)?;
            Does::Push {
                frame_pointer: false,
            }
        }
        0x69 | 0x6b => {
            let operands = operands(reader, rex)?;
            reader.signed(if opcode == 0x69 { immediate } else { 1 })?;
            writes(operands.register)
        }
        0x70..=0x7f | 0xe0..=0xe3 => Does::Branch(relative(reader.signed(1)?)),
        0x80 | 0x81 | 0x83 => {
            let operands = operands(reader, rex)?;
            let by = reader.signed(if opcode == 0x81 { immediate } else { 1 })?;
            match (operands.extension, operands.other) {
                (7, _) => Does::Other,
                (0, Some(STACK_POINTER)) if wide => Does::Moves(by),
                (5, Some(STACK_POINTER)) if wide => Does::Moves(-by),
                _ => writes_other(&operands),
            }
        }
        0x84 | 0x85 => operands(reader, rex).map(|_| Does::Other)?,
        0x86 | 0x87 => {
            let operands = operands(reader, rex)?;
            match writes(operands.register) {
                Does::Other => writes_other(&operands),
                other => other,
            }
        }
        0x88 | 0x89 => match operands(reader, rex)? {
            Operands {
                register: STACK_POINTER,
                other: Some(FRAME_POINTER),
                ..
            } if wide => Does::SetsFramePointer(0),
            Operands {
                register: FRAME_POINTER,
                other: Some(STACK_POINTER),
                ..
            } if wide => Does::ToFramePointer(0),
            operands => writes_other(&operands),
        },
        0x8a | 0x8b => match operands(reader, rex)? {
            Operands {
                register: FRAME_POINTER,
                other: Some(STACK_POINTER),
                ..
            } if wide => Does::SetsFramePointer(0),
            Operands {
                register: STACK_POINTER,
                other: Some(FRAME_POINTER),
                ..
            } if wide => Does::ToFramePointer(0),
            operands => writes(operands.register),
        },
        0x8d => {
            let operands = operands(reader, rex)?;
            match (operands.register, operands.base) {
                (STACK_POINTER, Some(STACK_POINTER)) if wide => Does::Moves(operands.offset),
                (STACK_POINTER, Some(FRAME_POINTER)) if wide => {
                    Does::ToFramePointer(operands.offset)
                }
                (FRAME_POINTER, Some(STACK_POINTER)) if wide => {
                    Does::SetsFramePointer(operands.offset)
                }
                (register, _) => writes(register),
            }
        }
        0x8c | 0x8e | 0xd8..=0xdf => operands(reader, rex).map(|_| Does::Other)?,
        0x8f => match operands(reader, rex)?.other {
            None => Does::Pop {
                frame_pointer: false,
            },
            Some(_) => return None,
        },
        0x90..=0x97 if opcode != 0x90 || rex & 1 != 0 => writes(low),
        0x90 | 0x98 | 0x99 | 0x9b..=0x9f => Does::Other,
        0xa0..=0xa3 => {
            reader.signed(if prefixes.short_address { 4 } else { 8 })?;
            Does::Other
        }
        0xa4..=0xa7 | 0xaa..=0xaf | 0x6c..=0x6f | 0xd7 | 0xec..=0xef | 0xf5 | 0xf8..=0xfd => {
            Does::Other
        }
        0xa8 | 0xe4..=0xe7 | 0xcd => reader.signed(1).map(|_| Does::Other)?,
        0xa9 => reader.signed(immediate).map(|_| Does::Other)?,
        0xb0..=0xb7 => {
            reader.signed(1)?;
            writes(low)
        }
        0xb8..=0xbf => {
            reader.signed(if wide { 8 } else { immediate })?;
            writes(low)
        }
        0xc0 | 0xc1 | 0xc6 | 0xc7 => {
            let operands = operands(reader, rex)?;
            reader.signed(if opcode == 0xc7 { immediate } else { 1 })?;
            writes_other(&operands)
        }
        0xc2 => reader.signed(2).map(|_| Does::End)?,
        0xc3 | 0xcb | 0xcc | 0xcf | 0xf1 | 0xf4 => Does::End,
        0xc9 => Does::Leave,
        0xd0..=0xd3 => writes_other(&operands(reader, rex)?),
        0xe8 => Does::Call(Some(relative(reader.signed(4)?))),
        0xe9 => Does::Jump(relative(reader.signed(4)?)),
        0xeb => Does::Jump(relative(reader.signed(1)?)),
        0xf6 | 0xf7 => {
            let operands = operands(reader, rex)?;
            match operands.extension {
                0 | 1 => reader
                    .signed(if opcode == 0xf7 { immediate } else { 1 })
                    .map(|_| Does::Other)?,
                2 | 3 => writes_other(&operands),
                _ => Does::Other,
            }
        }
        0xfe => writes_other(&operands(reader, rex)?),
        0xff => {
            let operands = operands(reader, rex)?;
            match operands.extension {
                0 | 1 => writes_other(&operands),
                2 => Does::Call(None),
                4 if operands.by_word => Does::JumpByWord(relative(operands.offset)),
                4 => Does::JumpSomewhere,
                6 => Does::Push {
                    frame_pointer: operands.other == Some(FRAME_POINTER),
                },
                _ => return None,
            }
        }
        _ => return None,
    })
}

/// Opcodes after 0F.
fn second_map(reader: &mut Reader<'_>, prefixes: Prefixes) -> Option<Does> {
    let rex = prefixes.rex;
    let opcode = reader.byte()?;
    Some(match opcode {
        0x38 => {
            reader.byte()?;
            operands(reader, rex).map(|_| Does::Other)?
        }
        0x3a => {
            reader.byte()?;
            operands(reader, rex)?;
            reader.signed(1).map(|_| Does::Other)?
        }
        0x0b | 0xff => Does::End,
        0x05..=0x09 | 0x0e | 0x30..=0x37 | 0x77 | 0xa0..=0xa2 | 0xa8..=0xaa => Does::Other,
        0x80..=0x8f => Does::Branch(reader.signed(4)?.cast_unsigned()),
        0xc8..=0xcf => writes(opcode & 7 | (rex & 1) << 3),
        // With a number behind.
        0x0f | 0x70..=0x73 | 0xa4 | 0xac | 0xba | 0xc2 | 0xc4..=0xc6 => {
            let operands = operands(reader, rex)?;
            reader.signed(1)?;
            match opcode {
                0xa4 | 0xac | 0xba => writes_other(&operands),
                0xc5 => writes(operands.register),
                _ => Does::Other,
            }
        }
        // What writes a general register, though not the others of its kind.
        0x40..=0x4f | 0x2c | 0x2d | 0x50 | 0xd7 | 0xaf | 0xb6..=0xb8 | 0xbc..=0xbf => {
            writes(operands(reader, rex)?.register)
        }
        0x90..=0x9f | 0xb0 | 0xc0 if rex == 0 => operands(reader, rex).map(|_| Does::Other)?,
        0x7e | 0x90..=0x9f | 0xa5 | 0xab | 0xad | 0xb0 | 0xb1 | 0xb3 | 0xbb | 0xc0 | 0xc1 => {
            writes_other(&operands(reader, rex)?)
        }
        _ => operands(reader, rex).map(|_| Does::Other)?,
    })
}

/// Instructions of AVX and of general registers in its form.
fn vector(reader: &mut Reader<'_>, opcode: u8) -> Option<Does> {
    let first = reader.byte()?;
    let map = match opcode {
        0xc5 => 1,
        0xc4 => {
            reader.byte()?;
            first & 0x1f
        }
        _ => {
            reader.byte()?;
            reader.byte()?;
            first & 7
        }
    };
    // The bits for registers above the eighth are there upside down.
    let rex = if opcode == 0xc5 {
        (!first >> 7 & 1) << 2
    } else {
        !first >> 5 & 7
    };
    let opcode = reader.byte()?;
    if (map, opcode) == (1, 0x77) {
        return Some(Does::Other);
    }
    let operands = operands(reader, rex)?;
    match (map, opcode) {
        (1, 0x70..=0x73 | 0xc2 | 0xc4..=0xc6) | (3, _) => {
            reader.signed(1)?;
        }
        (2, 0xf2 | 0xf5..=0xf7) => return Some(writes(operands.register)),
        _ => {}
    }
    Some(Does::Other)
}
