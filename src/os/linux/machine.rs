//! Follows code of x86-64 on paper: registers and words of a stack, as far as they are known.
//!
//! What is not known stays unknown and spreads. Nothing is executed, and no memory is read
//! but the copy of a stack and what cannot be written to: other memory may have changed since
//! the copy was made.
//!
//! Intel's manual, volume 2. An instruction that is not followed makes unknown whatever it
//! may write to; one that cannot even be read ends the way.

use std::collections::BTreeMap;

use crate::os::platform::instruction::{Does, Operands, Prefixes, Reader, decode, operands};
use crate::os::platform::unwind::StackCopy;

pub(crate) const RAX: u8 = 0;
const RCX: u8 = 1;
pub(crate) const RDX: u8 = 2;
pub(crate) const RBX: u8 = 3;
pub(crate) const RSP: u8 = 4;
pub(crate) const RBP: u8 = 5;
pub(crate) const RSI: u8 = 6;
pub(crate) const RDI: u8 = 7;
pub(crate) const R12: u8 = 12;
pub(crate) const R15: u8 = 15;
/// What a called function may change (System V ABI, x86-64, 3.2.1).
const OF_CALLEE: [u8; 9] = [RAX, RCX, RDX, RSI, RDI, 8, 9, 10, 11];
/// What an instruction writes to that names no register.
const IMPLIED: [u8; 5] = [RAX, RCX, RDX, RSI, RDI];
/// Written by one instruction at most.
const WIDEST_STORE: u64 = 64;
/// How many bytes of memory may be known or unknown by what was followed.
const MOST_WRITTEN: usize = 4096;

/// An operation that other threads see as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// `xchg`: this value is put there.
    Swap(Option<u64>),
    /// This much is added, in so many bytes.
    Add(Option<u64>),
    /// The second is put there if the first is there.
    CompareExchange(Option<u64>, Option<u64>),
    Other,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    On,
    /// Both ways are possible: on, and to there.
    Fork(u64),
    Jump(u64),
    /// To there, if that is known: the machine is at the instruction behind.
    Call(Target),
    Return,
    Atomic(Option<u64>, Operation),
    /// Not known, or nowhere.
    End,
}

/// Where a call leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    At(u64),
    /// To what the word at this address says.
    ByWord(u64),
    Unknown,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    zero: Option<bool>,
    carry: Option<bool>,
    sign: Option<bool>,
    overflow: Option<bool>,
}

/// So many bytes of what no program can write to.
pub(crate) type Constants<'a> = &'a dyn Fn(u64, u64) -> Option<u64>;

/// A thread's state, as far as it is known.
#[derive(Clone)]
pub(crate) struct Machine<'a> {
    pub(crate) pc: u64,
    registers: [Register; 16],
    flags: Flags,
    /// What was written since, `None` for what is not known.
    written: BTreeMap<u64, Option<u8>>,
    stack: &'a StackCopy,
    constants: Constants<'a>,
    /// Below this the copy has frames that are gone.
    live_from: u64,
}

impl std::fmt::Debug for Machine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// A register, of which so many bytes are known from the lowest on.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    value: u64,
    known: u64,
}

/// A register or a place in memory.
#[derive(Clone, Copy, Debug)]
enum Place {
    Register(u8),
    Memory(Option<u64>),
}

impl<'a> Machine<'a> {
    pub(crate) fn new(pc: u64, sp: u64, stack: &'a StackCopy, constants: Constants<'a>) -> Self {
        let mut machine = Machine {
            pc,
            registers: [Register::default(); 16],
            flags: Flags::default(),
            written: BTreeMap::new(),
            stack,
            constants,
            live_from: sp,
        };
        machine.set(RSP, Some(sp));
        machine
    }

    pub(crate) fn register(&self, register: u8) -> Option<u64> {
        self.low(register, 8)
    }

    /// So many of a register's bytes.
    fn low(&self, register: u8, size: u64) -> Option<u64> {
        let Register { value, known } = self.registers[usize::from(register & 15)];
        (known >= size).then(|| cut(value, size))
    }

    pub(crate) fn set(&mut self, register: u8, value: Option<u64>) {
        self.registers[usize::from(register & 15)] = Register {
            value: value.unwrap_or(0),
            known: if value.is_some() { 8 } else { 0 },
        };
    }

    /// The word at an address, if it is known.
    pub(crate) fn word(&self, address: u64) -> Option<u64> {
        self.load(Some(address), 8)
    }

    /// A function has been called and has returned, which is all that is known of it.
    pub(crate) fn skip_call(&mut self) {
        for register in OF_CALLEE {
            self.set(register, None);
        }
        self.flags = Flags::default();
    }

    /// Goes into a function.
    pub(crate) fn enter(&mut self, target: u64) {
        self.push(Some(self.pc));
        self.pc = target;
    }

    /// Goes back to where the function was called.
    pub(crate) fn leave(&mut self) -> Option<()> {
        self.pc = self.pop()?;
        Some(())
    }

    /// Follows one instruction, of these bytes.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Flow {
        let Some((length, does)) = decode(self.pc, bytes) else {
            return Flow::End;
        };
        let Some(bytes) = bytes.get(..length) else {
            return Flow::End;
        };
        self.pc = self.pc.wrapping_add(length as u64);
        match does {
            Does::Jump(target) => return Flow::Jump(target),
            Does::Branch(target) => return self.branch(bytes, target),
            Does::Call(Some(target)) => return Flow::Call(Target::At(target)),
            Does::Call(None) => return Flow::Call(self.called(bytes)),
            Does::JumpSomewhere => {
                return match self.called(bytes) {
                    Target::At(target) => Flow::Jump(target),
                    _ => Flow::End,
                };
            }
            Does::JumpByWord(_) => return Flow::End,
            Does::End => {
                let returns = bytes.last() == Some(&0xc3);
                return if returns { Flow::Return } else { Flow::End };
            }
            _ => {}
        }
        self.follow(bytes)
            .unwrap_or_else(|| self.spoil(bytes, does))
    }

    fn branch(&self, bytes: &[u8], target: u64) -> Flow {
        let opcode = match bytes {
            [0x0f, opcode, ..] | [opcode @ 0x70..=0x7f, ..] => *opcode & 15,
            _ => return Flow::Fork(target),
        };
        match self.condition(opcode) {
            Some(true) => Flow::Jump(target),
            Some(false) => Flow::On,
            None => Flow::Fork(target),
        }
    }

    /// Intel's manual, volume 1, appendix B ("EFLAGS Condition Codes").
    fn condition(&self, code: u8) -> Option<bool> {
        let Flags {
            zero,
            carry,
            sign,
            overflow,
        } = self.flags;
        let less = || Some(sign? != overflow?);
        let holds = match code >> 1 {
            0 => overflow,
            1 => carry,
            2 => zero,
            3 => Some(carry? || zero?),
            4 => sign,
            6 => less(),
            7 => Some(zero? || less()?),
            _ => None,
        };
        holds.map(|holds| holds != (code & 1 == 1))
    }

    /// Where a call leads that is made by a register or by a word in memory.
    fn called(&self, bytes: &[u8]) -> Target {
        let Some((prefixes, operands, opcode)) = parsed(bytes) else {
            return Target::Unknown;
        };
        match (opcode, self.place(&prefixes, &operands)) {
            (0xff, Place::Memory(Some(word))) => Target::ByWord(word),
            (0xff, Place::Register(register)) => {
                self.register(register).map_or(Target::Unknown, Target::At)
            }
            _ => Target::Unknown,
        }
    }

    fn place(&self, prefixes: &Prefixes, operands: &Operands) -> Place {
        if let Some(register) = operands.other {
            return Place::Register(register);
        }
        let address = if prefixes.segment {
            None
        } else if operands.by_word {
            Some(self.pc.wrapping_add_signed(operands.offset))
        } else {
            self.address(operands)
        };
        Place::Memory(address)
    }

    fn address(&self, operands: &Operands) -> Option<u64> {
        let base = match operands.from {
            Some(base) => self.register(base)?,
            None => 0,
        };
        let index = match operands.index {
            Some((index, scale)) => self.register(index)? << scale,
            None => 0,
        };
        let address = base.wrapping_add(index);
        Some(address.wrapping_add_signed(operands.offset))
    }

    fn load(&self, address: Option<u64>, size: u64) -> Option<u64> {
        let address = address?;
        if address < self.live_from || self.stack.byte(address).is_none() {
            let is_written = || {
                self.written
                    .range(address..address.saturating_add(size))
                    .next()
                    .is_some()
            };
            if !is_written() {
                return (self.constants)(address, size);
            }
        }
        let mut value = 0;
        for byte in 0..size {
            let at = address.wrapping_add(byte);
            let known = match self.written.get(&at) {
                Some(written) => *written,
                None if at >= self.live_from => self.stack.byte(at),
                None => None,
            };
            value |= u64::from(known?) << (8 * byte);
        }
        Some(value)
    }

    fn store(&mut self, address: Option<u64>, size: u64, value: Option<u64>) {
        // Where that is not known it is not the stack, whose places compilers count from
        // the stack pointer or the frame pointer.
        let Some(address) = address else { return };
        for byte in 0..size {
            let at = address.wrapping_add(byte);
            let value = value.map(|value| (value >> (8 * byte.min(7))) as u8);
            if self.written.len() < MOST_WRITTEN || self.written.contains_key(&at) {
                self.written.insert(at, value.filter(|_| byte < 8));
            }
        }
    }

    fn push(&mut self, value: Option<u64>) {
        let sp = self.register(RSP).map(|sp| sp.wrapping_sub(8));
        self.set(RSP, sp);
        self.store(sp, 8, value);
    }

    fn pop(&mut self) -> Option<u64> {
        let sp = self.register(RSP);
        let value = self.load(sp, 8);
        self.set(RSP, sp.map(|sp| sp.wrapping_add(8)));
        value
    }

    fn read(&self, place: Place, size: u64, rex: u8) -> Option<u64> {
        match place {
            Place::Memory(address) => self.load(address, size),
            // Without a prefix, the second byte of another.
            Place::Register(register) if size == 1 && rex == 0 && register >= 4 => None,
            Place::Register(register) => self.low(register, size),
        }
    }

    fn write(&mut self, place: Place, size: u64, rex: u8, value: Option<u64>) {
        match place {
            Place::Memory(address) => self.store(address, size, value),
            Place::Register(register) if size == 1 && rex == 0 && register >= 4 => {
                self.set(register - 4, None);
            }
            Place::Register(register) if size >= 4 => {
                self.set(register, value.map(|value| cut(value, size)));
            }
            // The rest stays.
            Place::Register(register) => {
                match (value, self.registers[usize::from(register & 15)]) {
                    (None, _) => self.set(register, None),
                    (Some(value), before) => {
                        self.registers[usize::from(register & 15)] = Register {
                            value: before.value & !mask(size) | cut(value, size),
                            known: before.known.max(size),
                        };
                    }
                }
            }
        }
    }

    /// Follows an instruction; `None` if it is not one of those that are.
    fn follow(&mut self, bytes: &[u8]) -> Option<Flow> {
        let (prefixes, operand, opcode) = match parsed(bytes) {
            Some(parsed) => parsed,
            None => return self.follow_short(bytes),
        };
        let rex = prefixes.rex;
        let wide = if rex & 8 != 0 {
            8
        } else if prefixes.short {
            2
        } else {
            4
        };
        let is_of_bytes = opcode & 1 == 0 && (opcode < 0x100 || matches!(opcode, 0x1b0 | 0x1c0));
        let size = if is_of_bytes { 1 } else { wide };
        let place = self.place(&prefixes, &operand);
        let register = Place::Register(operand.register);
        if let Some(flow) = self.atomic(&prefixes, &operand, place, opcode, size, bytes) {
            return Some(flow);
        }
        match opcode {
            0x88 | 0x89 => {
                let value = self.read(register, size, rex);
                self.write(place, size, rex, value);
            }
            0x8a | 0x8b => {
                let value = self.read(place, size, rex);
                self.write(register, size, rex, value);
            }
            0x8d => {
                let Place::Memory(address) = place else {
                    return None;
                };
                self.write(register, wide, rex, address);
            }
            0xc6 | 0xc7 => {
                let value = immediate(bytes, size.min(4));
                self.write(place, size, rex, value);
            }
            0x63 => {
                let value = self.read(place, 4, rex).map(|value| extend(value, 4));
                self.write(register, wide, rex, value);
            }
            // movzx and movsx.
            0x1b6 | 0x1b7 | 0x1be | 0x1bf => {
                let from = if opcode & 1 == 0 { 1 } else { 2 };
                let value = self.read(place, from, rex);
                let value = value.map(|value| match opcode {
                    0x1b6 | 0x1b7 => value,
                    _ => extend(value, from),
                });
                self.write(register, wide, rex, value);
            }
            0x00..=0x3f if opcode & 7 < 4 => {
                let (to, from) = if opcode & 2 == 0 {
                    (place, register)
                } else {
                    (register, place)
                };
                let same = matches!((to, from), (Place::Register(a), Place::Register(b)) if a == b);
                let (a, b) = (self.read(to, size, rex), self.read(from, size, rex));
                self.compute((opcode >> 3) as u8, to, size, rex, (a, b), same);
            }
            0x80 | 0x81 | 0x83 => {
                let length = if opcode == 0x81 { size.min(4) } else { 1 };
                let value = immediate(bytes, length).map(|value| cut(extend(value, length), size));
                let a = self.read(place, size, rex);
                self.compute(operand.extension, place, size, rex, (a, value), false);
            }
            0x84 | 0x85 => {
                let (a, b) = (self.read(place, size, rex), self.read(register, size, rex));
                self.logic(size, a.zip(b).map(|(a, b)| a & b));
            }
            0xf6 | 0xf7 if operand.extension < 2 => {
                let value = immediate(bytes, size.min(4));
                let value = value.map(|value| cut(extend(value, size.min(4)), size));
                let a = self.read(place, size, rex);
                self.logic(size, a.zip(value).map(|(a, b)| a & b));
            }
            0xfe | 0xff if operand.extension < 2 => {
                let a = self.read(place, size, rex);
                let by = if operand.extension == 0 { 1 } else { u64::MAX };
                let value = a.map(|a| cut(a.wrapping_add(by), size));
                self.write(place, size, rex, value);
                self.flags = Flags {
                    zero: value.map(|value| value == 0),
                    ..Flags::default()
                };
            }
            0xff if operand.extension == 6 => {
                let value = self.read(place, 8, rex);
                self.push(value);
            }
            // setcc.
            0x190..=0x19f => {
                let value = self.condition((opcode & 15) as u8).map(u64::from);
                self.write(place, 1, rex, value);
            }
            // cmovcc.
            0x140..=0x14f => {
                let value = match self.condition((opcode & 15) as u8) {
                    Some(true) => self.read(place, wide, rex),
                    Some(false) => self.read(register, wide, rex),
                    None => None,
                };
                self.write(register, wide, rex, value);
            }
            _ => return None,
        }
        Some(Flow::On)
    }

    /// Those without a byte for operands.
    fn follow_short(&mut self, bytes: &[u8]) -> Option<Flow> {
        let (prefixes, opcode) = unparsed(bytes)?;
        let low = opcode & 7 | (prefixes.rex & 1) << 3;
        let wide = prefixes.rex & 8 != 0;
        match opcode {
            0x50..=0x57 => self.push(self.register(low)),
            0x58..=0x5f => {
                let value = self.pop();
                self.set(low, value);
            }
            0x68 | 0x6a => self.push(None),
            0xb8..=0xbf => {
                let length = if wide { 8 } else { 4 };
                let value = immediate(bytes, length).filter(|_| !prefixes.short);
                self.set(low, value);
            }
            0xb0..=0xb7 => {
                let value = immediate(bytes, 1);
                self.write(Place::Register(low), 1, prefixes.rex, value);
            }
            // With the first register and a number.
            0x00..=0x3f if matches!(opcode & 7, 4 | 5) => {
                let size = match (opcode & 1, wide, prefixes.short) {
                    (0, ..) => 1,
                    (_, true, _) => 8,
                    (_, _, true) => 2,
                    _ => 4,
                };
                let length = size.min(4);
                let value = immediate(bytes, length).map(|value| cut(extend(value, length), size));
                let (to, rex) = (Place::Register(RAX), prefixes.rex);
                let a = self.read(to, size, rex);
                self.compute(opcode >> 3, to, size, rex, (a, value), false);
            }
            0xa8 | 0xa9 if !wide && !prefixes.short => {
                let size = if opcode == 0xa8 { 1 } else { 4 };
                let a = self.read(Place::Register(RAX), size, 1);
                let value = immediate(bytes, size);
                self.logic(size, a.zip(value).map(|(a, b)| a & b));
            }
            0xc9 => {
                let fp = self.register(RBP);
                self.set(RSP, fp);
                let value = self.pop();
                self.set(RBP, value);
            }
            0x90 if prefixes.rex & 1 == 0 => {}
            _ => return None,
        }
        Some(Flow::On)
    }

    fn atomic(
        &mut self,
        prefixes: &Prefixes,
        operand: &Operands,
        place: Place,
        opcode: u16,
        size: u64,
        bytes: &[u8],
    ) -> Option<Flow> {
        let Place::Memory(address) = place else {
            return None;
        };
        let rex = prefixes.rex;
        let register = Place::Register(operand.register);
        let value = self.read(register, size, rex);
        let operation = match opcode {
            0x86 | 0x87 => Operation::Swap(value),
            _ if !prefixes.lock => return None,
            0x1c0 | 0x1c1 | 0x00 | 0x01 => Operation::Add(value),
            0x28 | 0x29 => Operation::Add(value.map(|value| cut(value.wrapping_neg(), size))),
            0x80 | 0x81 | 0x83 if matches!(operand.extension, 0 | 5) => {
                let length = if opcode == 0x81 { size.min(4) } else { 1 };
                let value = immediate(bytes, length).map(|value| extend(value, length));
                Operation::Add(value.map(|value| match operand.extension {
                    0 => cut(value, size),
                    _ => cut(value.wrapping_neg(), size),
                }))
            }
            0xfe | 0xff if operand.extension == 0 => Operation::Add(Some(1)),
            0xfe | 0xff if operand.extension == 1 => Operation::Add(Some(mask(size))),
            0x1b0 | 0x1b1 => {
                Operation::CompareExchange(self.read(Place::Register(RAX), size, 1), value)
            }
            _ => Operation::Other,
        };
        // What was there is not known.
        if matches!(opcode, 0x86 | 0x87 | 0x1c0 | 0x1c1) {
            self.write(register, size, rex, None);
        }
        if matches!(opcode, 0x1b0 | 0x1b1) {
            self.set(RAX, None);
        }
        self.store(address, size, None);
        self.flags = Flags::default();
        Some(Flow::Atomic(address, operation))
    }

    /// add, or, adc, sbb, and, sub, xor, cmp.
    fn compute(
        &mut self,
        kind: u8,
        to: Place,
        size: u64,
        rex: u8,
        (a, b): (Option<u64>, Option<u64>),
        same: bool,
    ) {
        if same && matches!(kind, 5 | 6) {
            self.write(to, size, rex, Some(0));
            return self.logic(size, Some(0));
        }
        let both = a.zip(b);
        let sign = |value: u64| value >> (8 * size - 1) & 1 == 1;
        match kind {
            1 | 4 | 6 => {
                let value = match (kind, a, b) {
                    (4, Some(0), _) | (4, _, Some(0)) => Some(0),
                    (4, ..) => both.map(|(a, b)| a & b),
                    (1, ..) => both.map(|(a, b)| a | b),
                    _ => both.map(|(a, b)| a ^ b),
                };
                self.write(to, size, rex, value);
                self.logic(size, value);
            }
            0 | 5 | 7 => {
                let value = both.map(|(a, b)| {
                    cut(
                        if kind == 0 {
                            a.wrapping_add(b)
                        } else {
                            a.wrapping_sub(b)
                        },
                        size,
                    )
                });
                if kind != 7 {
                    self.write(to, size, rex, value);
                }
                let known = both.zip(value);
                self.flags = Flags {
                    zero: value.map(|value| value == 0),
                    sign: value.map(sign),
                    carry: known.map(|((a, b), value)| if kind == 0 { value < a } else { a < b }),
                    overflow: known.map(|((a, b), value)| {
                        let (a, b, value) = (sign(a), sign(b), sign(value));
                        (a == b) == (kind == 0) && value != a
                    }),
                };
            }
            _ => {
                self.write(to, size, rex, None);
                self.flags = Flags::default();
            }
        }
    }

    fn logic(&mut self, size: u64, value: Option<u64>) {
        self.flags = Flags {
            zero: value.map(|value| value == 0),
            sign: value.map(|value| value >> (8 * size - 1) & 1 == 1),
            carry: Some(false),
            overflow: Some(false),
        };
    }

    /// Makes unknown what an instruction may write to that is not followed.
    fn spoil(&mut self, bytes: &[u8], does: Does) -> Flow {
        if !matches!(does, Does::Other | Does::SpoilsFramePointer) {
            return Flow::End;
        }
        self.flags = Flags::default();
        let Some((prefixes, operands, opcode)) = parsed(bytes) else {
            // Of AVX and the like: which register it is, is not looked at.
            for register in (0..16).filter(|register| *register != RSP) {
                self.set(register, None);
            }
            return Flow::On;
        };
        if is_of_vectors(opcode) {
            if let Place::Memory(address) = self.place(&prefixes, &operands) {
                self.store(address, 16, None);
            }
            return Flow::On;
        }
        // Shifts, products of two, and what tests or changes bits.
        let names_all = match opcode {
            0xf6 | 0xf7 => matches!(operands.extension, 2 | 3),
            0x69 | 0x6b | 0x86 | 0x87 | 0xc0 | 0xc1 | 0xd0..=0xd3 => true,
            0x1a3..=0x1a5 | 0x1ab..=0x1ad | 0x1af | 0x1b3 | 0x1b8..=0x1bd => true,
            _ => false,
        };
        for register in IMPLIED.into_iter().filter(|_| !names_all) {
            self.set(register, None);
        }
        if does == Does::SpoilsFramePointer {
            self.set(RBP, None);
        }
        // Of some the bits are a part of the opcode.
        let is_register = !matches!(opcode, 0xc0 | 0xc1 | 0xd0..=0xd3 | 0xf6 | 0xf7 | 0x1ba);
        if is_register && operands.register == RSP || operands.other == Some(RSP) {
            return Flow::End;
        }
        if is_register {
            self.set(operands.register, None);
        }
        match self.place(&prefixes, &operands) {
            Place::Register(register) => self.set(register, None),
            Place::Memory(address) => self.store(address, WIDEST_STORE, None),
        }
        Flow::On
    }
}

/// Whether an instruction writes to no general register, but to those of vectors or memory.
const fn is_of_vectors(opcode: u16) -> bool {
    matches!(
        opcode,
        0x110..=0x117
            | 0x128..=0x12b
            | 0x12e
            | 0x12f
            | 0x151..=0x176
            | 0x17c
            | 0x17d
            | 0x17f
            | 0x1c2
            | 0x1c6
            | 0x1d0..=0x1d6
            | 0x1d8..=0x1fe
    )
}

const fn mask(size: u64) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (8 * size)) - 1
    }
}

const fn cut(value: u64, size: u64) -> u64 {
    value & mask(size)
}

/// With the sign of so many bytes.
const fn extend(value: u64, size: u64) -> u64 {
    let unused = 64 - 8 * if size > 8 { 8 } else { size };
    ((value << unused).cast_signed() >> unused).cast_unsigned()
}

/// The number at the end of an instruction.
fn immediate(bytes: &[u8], length: u64) -> Option<u64> {
    let length = usize::try_from(length).ok()?;
    let from = bytes.len().checked_sub(length)?;
    let mut whole = [0; 8];
    whole.get_mut(..length)?.copy_from_slice(bytes.get(from..)?);
    Some(u64::from_le_bytes(whole))
}

/// Opcode and operands of an instruction that has a byte for them; 0x100 and more for those
/// after 0F.
fn parsed(bytes: &[u8]) -> Option<(Prefixes, Operands, u16)> {
    let mut reader = Reader::new(bytes);
    let (prefixes, opcode) = reader.opcode()?;
    let opcode = match opcode {
        0x0f => 0x100 | u16::from(reader.byte()?),
        opcode => u16::from(opcode),
    };
    let has_operands = match opcode {
        0x00..=0x3f => opcode & 7 < 4,
        0x63 | 0x69 | 0x6b | 0x80 | 0x81 | 0x83..=0x8f => true,
        0xc0 | 0xc1 | 0xc6 | 0xc7 | 0xd0..=0xd3 | 0xd8..=0xdf | 0xf6 | 0xf7 | 0xfe | 0xff => true,
        0x110..=0x17f | 0x190..=0x19f | 0x1a3..=0x1a5 | 0x1ab..=0x1c7 | 0x1d0..=0x1fe => {
            opcode != 0x177
        }
        _ => false,
    };
    if !has_operands {
        return None;
    }
    let operands = operands(&mut reader, prefixes.rex)?;
    Some((prefixes, operands, opcode))
}

fn unparsed(bytes: &[u8]) -> Option<(Prefixes, u8)> {
    Reader::new(bytes).opcode()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of the registers after these instructions, each of which goes on.
    fn after(code: &[&[u8]], set: &[(u8, u64)]) -> [Option<u64>; 16] {
        let stack = StackCopy::default();
        let mut machine = Machine::new(0x1000, 0x8000, &stack, &|_, _| None);
        for (register, value) in set {
            machine.set(*register, Some(*value));
        }
        for bytes in code {
            assert_eq!(machine.step(bytes), Flow::On, "{bytes:02x?}");
        }
        std::array::from_fn(|register| machine.register(register as u8))
    }

    #[test]
    fn what_is_not_followed_spoils_its_own_register_alone() {
        // shl rax; imul ecx, edx; not ebx.
        let code: [&[u8]; 3] = [&[0x48, 0xd1, 0xe0], &[0x0f, 0xaf, 0xca], &[0xf7, 0xd3]];
        let all = after(
            &code,
            &[(RAX, 1), (RCX, 2), (RDX, 3), (RBX, 4), (RSI, 3), (RDI, 5)],
        );
        assert_eq!(all[usize::from(RAX)], None);
        assert_eq!(all[usize::from(RCX)], None);
        assert_eq!(all[usize::from(RBX)], None);
        assert_eq!(all[usize::from(RSI)], Some(3));
        assert_eq!(all[usize::from(RDI)], Some(5));
        assert_eq!(all[usize::from(RSP)], Some(0x8000));
    }

    #[test]
    fn parts_of_registers_are_known_by_themselves() {
        // mov al, 7; movzx ecx, al.
        let code: [&[u8]; 2] = [&[0xb0, 7], &[0x0f, 0xb6, 0xc8]];
        let all = after(&code, &[]);
        assert_eq!(all[usize::from(RAX)], None);
        assert_eq!(all[usize::from(RCX)], Some(7));
    }

    #[test]
    fn words_come_back_from_the_stack() {
        // push rdi; mov [rsp+8], rsi; pop rax; mov rcx, [rsp].
        let code: [&[u8]; 4] = [
            &[0x57],
            &[0x48, 0x89, 0x74, 0x24, 8],
            &[0x58],
            &[0x48, 0x8b, 0x0c, 0x24],
        ];
        let all = after(&code, &[(RDI, 5), (RSI, 6)]);
        assert_eq!(all[usize::from(RAX)], Some(5));
        assert_eq!(all[usize::from(RCX)], Some(6));
        assert_eq!(all[usize::from(RSP)], Some(0x8000));
    }
}
