use super::*;

/// Code at made-up addresses.
#[derive(Default)]
pub(crate) struct Made {
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    /// What tables describe.
    pub(crate) functions: Vec<Range<u64>>,
    /// What is of a module.
    pub(crate) module: Range<u64>,
}

impl Code for Made {
    fn read(&self, from: u64, into: &mut [u8]) -> usize {
        let byte = |address: u64| {
            self.pieces.iter().rev().find_map(|(start, bytes)| {
                let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
                bytes.get(offset).copied()
            })
        };
        let all = (from..).map_while(byte).zip(into);
        all.map(|(byte, to)| *to = byte).count()
    }

    fn function_at(&self, address: u64) -> Option<Range<u64>> {
        let mut functions = self.functions.iter();
        functions
            .find(|function| function.contains(&address))
            .cloned()
    }

    fn is_code(&self, address: u64) -> bool {
        self.module.contains(&address)
    }
}

#[cfg(target_arch = "x86_64")]
mod on_x86_64 {
    use super::*;

    /// The function that the inner frame is in, and one that calls something.
    const INNER: u64 = 0x2000;
    const OUTER: u64 = 0x3000;
    /// Another function, and words and stubs.
    const OTHER: u64 = 0x4000;
    const NEXT: u64 = 0x5000;
    const WORD: u64 = 0x7000;
    const STUBS: u64 = 0x8000;
    /// Without a table.
    const BARE: u64 = 0x9000;

    fn relative(opcode: &[u8], at: u64, to: u64) -> Vec<u8> {
        let next = at + opcode.len() as u64 + 4;
        let offset = i32::try_from(to.wrapping_sub(next).cast_signed()).unwrap();
        [opcode, &offset.to_le_bytes()].concat()
    }

    fn code() -> Made {
        // And what is before, so that all bytes of a call can be read.
        let filled = |at: u64| (at - 8, vec![0x90; 0x108]);
        let mut made = Made {
            pieces: vec![
                filled(OUTER),
                filled(INNER),
                filled(OTHER),
                filled(NEXT),
                filled(BARE),
            ],
            functions: [OUTER, INNER, OTHER, NEXT]
                .map(|start| start..start + 0x20)
                .into(),
            module: 0x1000..0xa000,
        };
        made.functions.push(STUBS..STUBS + 32);
        // Each function returns.
        for at in [OUTER, INNER, OTHER, NEXT, BARE + 0x20] {
            made.pieces.push((at + 0x1f, vec![0xc3]));
        }
        let stub = |at, word| {
            [
                vec![0xf3, 0x0f, 0x1e, 0xfa],
                relative(&[0xff, 0x25], at + 4, word),
            ]
        };
        made.pieces.push((STUBS, stub(STUBS, WORD).concat()));
        made.pieces
            .push((STUBS + 16, stub(STUBS + 16, WORD + 8).concat()));
        made.pieces.push((WORD, (INNER).to_le_bytes().to_vec()));
        made.pieces.push((WORD + 8, (OTHER).to_le_bytes().to_vec()));
        made
    }

    /// Whether what stands in the outer function, and in the other one, agrees with the
    /// address further in.
    fn agrees(call: Vec<u8>, other: Vec<u8>, inner: u64) -> Agreement {
        let mut code = code();
        let back = OUTER + call.len() as u64;
        code.pieces.push((OUTER, call));
        code.pieces.push((OTHER, other));
        agreement(&code, back, inner)
    }

    fn calls(target: u64) -> Vec<u8> {
        relative(&[0xe8], OUTER, target)
    }

    #[test]
    fn a_call_must_lead_to_the_function_further_in() {
        use Agreement::{Direct, None, Possible};
        let jump = |to| relative(&[0xe9], OTHER, to);
        let inside = INNER + 5;
        for (what, call, other, inner, expected) in [
            ("of it", calls(INNER), vec![], inside, Direct),
            ("of its middle", calls(INNER + 4), vec![], inside, Direct),
            ("of another", calls(OTHER), vec![], inside, None),
            (
                "of one that jumps to it",
                calls(OTHER),
                jump(INNER),
                inside,
                Direct,
            ),
            (
                "of one that jumps elsewhere",
                calls(OTHER),
                jump(NEXT),
                inside,
                None,
            ),
            (
                "of one that jumps to it at times",
                calls(OTHER),
                relative(&[0x0f, 0x84], OTHER, INNER),
                inside,
                Direct,
            ),
            (
                "of one that jumps to anything",
                calls(OTHER),
                vec![0xff, 0xe0],
                inside,
                Possible,
            ),
            ("of its stub", calls(STUBS), vec![], inside, Direct),
            (
                "of the stub before its own",
                calls(STUBS),
                vec![],
                OTHER + 5,
                None,
            ),
            (
                "of a stub of one that jumps to it",
                calls(STUBS + 16),
                jump(INNER),
                inside,
                Direct,
            ),
            (
                "by a word that names it",
                relative(&[0xff, 0x15], OUTER, WORD),
                vec![],
                inside,
                Direct,
            ),
            (
                "by a word that names another by now",
                relative(&[0xff, 0x15], OUTER, WORD + 8),
                vec![],
                inside,
                Possible,
            ),
            ("of a register", vec![0xff, 0xd0], vec![], inside, Possible),
            (
                "of a later register",
                vec![0x41, 0xff, 0xd4],
                vec![],
                inside,
                Possible,
            ),
            (
                "of memory",
                vec![0xff, 0x50, 0x18],
                vec![],
                inside,
                Possible,
            ),
            (
                "of memory, far",
                vec![0xff, 0x90, 0, 1, 0, 0],
                vec![],
                inside,
                Possible,
            ),
            (
                "of the stack",
                vec![0xff, 0x54, 0x24, 0x18],
                vec![],
                inside,
                Possible,
            ),
            (
                "of thread-local memory",
                vec![0x64, 0xff, 0x14, 0x25, 0x40, 6, 0, 0],
                vec![],
                inside,
                Possible,
            ),
            ("none: a jump", vec![0xff, 0xe0], vec![], inside, None),
            ("none: nothing", vec![0x90; 8], vec![], inside, None),
            ("without a table", calls(BARE), vec![], BARE + 9, Direct),
            (
                "without a table, behind",
                calls(BARE + 16),
                vec![],
                BARE + 9,
                None,
            ),
            (
                "of a table's, and then none",
                calls(INNER),
                vec![],
                BARE + 9,
                None,
            ),
        ] {
            assert_eq!(agrees(call, other, inner), expected, "{what}");
        }
    }

    #[test]
    fn what_follows_a_last_call_is_not_reached() {
        let mut code = code();
        // The other function ends with a call, or with nothing; the inner one follows.
        code.functions = vec![
            OUTER..OUTER + 0x20,
            OTHER..OTHER + 5,
            OTHER + 5..OTHER + 0x20,
        ];
        code.pieces.push((OUTER, calls(OTHER)));
        let at = |code: &Made| agreement(code, OUTER + 5, OTHER + 9);
        code.pieces.push((OTHER, relative(&[0xe8], OTHER, NEXT)));
        assert_eq!(at(&code), Agreement::None);
        code.pieces.push((OTHER, vec![0x90; 5]));
        assert_eq!(at(&code), Agreement::Direct, "it runs on");
    }

    #[test]
    fn jumps_in_a_circle_come_to_an_end() {
        let mut code = code();
        code.pieces.push((OUTER, calls(OTHER)));
        code.pieces.push((OTHER, relative(&[0xe9], OTHER, NEXT)));
        code.pieces.push((NEXT, relative(&[0xe9], NEXT, OTHER)));
        assert_eq!(agreement(&code, OUTER + 5, INNER + 5), Agreement::None);
    }

    #[test]
    fn where_signals_return_to_is_known() {
        let mut code = code();
        assert!(!is_signal_return(&code, OTHER));
        code.pieces.push((OTHER, SIGNAL_RETURN.to_vec()));
        assert!(is_signal_return(&code, OTHER));
    }
}
