use super::*;
use crate::os::platform::code;
use crate::os::platform::modules;
use gimli::{BaseAddresses, CfaRule, EhFrame, NativeEndian, UnwindContext, UnwindSection, X86_64};

/// The depth at the end of the first call, as the tables have it, of up to so many functions
/// of each module of this process, and what the instructions say.
fn compare(most: usize) -> (usize, usize, Vec<String>) {
    let (_, modules) = modules::load();
    let (mut same, mut unknown, mut wrong) = (0, 0, Vec::new());
    for module in &modules {
        let Some(tables) = &module.tables else {
            continue;
        };
        let frames = EhFrame::new(&tables.frames, NativeEndian);
        let bases = BaseAddresses::default().set_eh_frame(tables.frames_address);
        let mut entries = frames.entries(&bases);
        let mut context = UnwindContext::new();
        let mut seen = 0;
        while let Ok(Some(entry)) = entries.next() {
            let gimli::CieOrFde::Fde(entry) = entry else {
                continue;
            };
            let Ok(entry) = entry.parse(EhFrame::cie_from_offset) else {
                continue;
            };
            let start = entry.initial_address();
            let function = start..start + entry.len();
            let bytes = code::bytes(&*modules, &function, 16 * 1024);
            // Its last call, which much comes before.
            let mut offset = 0;
            let mut last = None;
            while let Some((length, does)) = bytes
                .get(offset..)
                .and_then(|rest| decode(start + offset as u64, rest))
            {
                offset += length;
                if matches!(does, Does::Call(_)) {
                    last = Some(start + offset as u64);
                }
            }
            let Some(back) = last else { continue };
            let row = entry.unwind_info_for_address(&frames, &bases, &mut context, back - 1);
            let Ok(row) = row else { continue };
            // Only what begins as functions do: parts of one are jumped to.
            let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
                continue;
            };
            if register != X86_64::RSP {
                continue;
            }
            let mut first = UnwindContext::new();
            let first = entry.unwind_info_for_address(&frames, &bases, &mut first, start);
            let begins = matches!(
                first.map(|row| row.cfa().clone()),
                Ok(CfaRule::RegisterAndOffset {
                    register: X86_64::RSP,
                    offset: 8
                })
            );
            if !begins {
                continue;
            }
            match depth(start, &bytes, back, true) {
                None => unknown += 1,
                Some(found) if found.stack.cast_signed() == offset => same += 1,
                Some(found) => wrong.push(format!(
                    "{:?} {:#x}: {} and not {offset}",
                    module.path,
                    back - module.bias,
                    found.stack
                )),
            }
            seen += 1;
            if seen == most {
                break;
            }
        }
    }
    (same, unknown, wrong)
}

#[test]
fn instructions_say_what_the_tables_do() {
    let (same, unknown, wrong) = compare(1_000);
    println!(
        "{same} the same, {unknown} unknown, {} wrong: {wrong:#?}",
        wrong.len()
    );
    assert!(same > 1_000);
    assert!(wrong.is_empty());
    assert!(unknown * 50 < same);
}
