//! Whether a thread runs, and if not, in which system call and where it sleeps.

use std::fs::File;
use std::time::Duration;

use crate::os::platform::thread::read_at_start;
use crate::os::{Doing, Miss};

/// How often a thread is looked at before it is given the CPU, and for how long.
pub(crate) const LOOKS_IN_A_ROW: usize = 8;
const GIVES_WAY: Duration = Duration::from_micros(20);

/// What `/proc/self/task/TID/syscall` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) doing: Doing,
    /// Program counter and stack pointer, unless it runs.
    pub(crate) at: Option<(u64, u64)>,
    /// The address of the futex that it waits on.
    pub(crate) futex: Option<u64>,
}

impl Position {
    pub(crate) fn read(file: &File) -> Result<Self, Miss> {
        let mut buffer = [0; 256];
        let text = read_at_start(file, &mut buffer).ok_or(Miss::Gone)?;
        Self::parse(text).ok_or(Miss::Gone)
    }

    /// Looks at a thread so often, until it is asleep; some 10 us a look, most of
    /// it idle.
    pub(crate) fn asleep_within(looks: usize, file: &File) -> Result<Self, Miss> {
        let mut position = Self::read(file)?;
        for number in 1..looks {
            if position.at.is_some() {
                break;
            }
            // It may wait for the very CPU that we take.
            if number % LOOKS_IN_A_ROW == 0 {
                Self::give_way();
            }
            position = Self::read(file)?;
        }
        Ok(position)
    }

    /// Leaves the CPU to others for a moment.
    pub(crate) fn give_way() {
        std::thread::sleep(GIVES_WAY);
    }

    /// `running`, or `-1 sp pc`, or `number six-arguments sp pc` (proc_pid_syscall(5)).
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.trim();
        if text == "running" {
            return Some(Position {
                doing: Doing::Running,
                at: None,
                futex: None,
            });
        }
        let mut words = text.split(' ');
        let number = words.next()?.parse().ok()?;
        let hexadecimal = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let (pc, sp) = (words.next_back()?, words.next_back()?);
        let mut argument = || words.next().and_then(hexadecimal);
        let futex = (number == libc::SYS_futex)
            .then(|| (argument(), argument()))
            .and_then(|(address, operation)| address.filter(|_| waits(operation)));
        Some(Position {
            doing: match number {
                -1 => Doing::Faulting,
                number => Doing::Blocked(number),
            },
            at: Some((hexadecimal(pc)?, hexadecimal(sp)?)),
            futex,
        })
    }
}

/// Whether an operation on a futex is to wait for a change of its word.
fn waits(operation: Option<u64>) -> bool {
    let operation = operation.and_then(|operation| i32::try_from(operation).ok());
    let kind = operation.map(|operation| operation & libc::FUTEX_CMD_MASK);
    matches!(kind, Some(libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_understood_and_others_refused() {
        let parse = |text: &str| {
            Position::parse(text.as_bytes()).map(|position| (position.doing, position.at))
        };
        assert_eq!(parse("running\n"), Some((Doing::Running, None)));
        assert_eq!(
            parse("-1 0x7ffd10 0x55a0\n"),
            Some((Doing::Faulting, Some((0x55a0, 0x7f_fd10))))
        );
        assert_eq!(
            parse("230 0x0 0x0 0x7f 0x7f 0x0 0x0 0x7ffd10 0x55a0\n"),
            Some((Doing::Blocked(230), Some((0x55a0, 0x7f_fd10))))
        );
        for bad in ["", "230", "230 0x1", "x 0x1 0x2", "230 y z"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_futex_is_known_where_it_is_waited_on() {
        let number = libc::SYS_futex;
        for (arguments, futex) in [
            ("0x7f08 0x80 0x2", Some(0x7f08)),
            ("0x7f08 0x189 0x2", Some(0x7f08)),
            ("0x7f08 0x81 0x1", None),
        ] {
            let text = format!("{number} {arguments} 0x0 0x0 0x0 0x7ffd10 0x55a0");
            let position = Position::parse(text.as_bytes()).unwrap();
            assert_eq!(position.futex, futex, "{arguments}");
        }
        let read = Position::parse(b"0 0x7f08 0x80 0x2 0x0 0x0 0x0 0x7ffd10 0x55a0").unwrap();
        assert_eq!(read.futex, None, "another call");
    }
}
