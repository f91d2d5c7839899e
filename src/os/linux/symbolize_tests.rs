//! Against addr2line, and where something is missing or broken.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::function_name::{Body, base, body};

/// A look-up of this address panics.
static PANICS_AT: AtomicU64 = AtomicU64::new(0);

pub(super) fn panic_at(address: u64) {
    let at = PANICS_AT.load(Relaxed);
    assert!(at == 0 || at != address, "as the test wants");
}

pub(super) fn set_panic_at(address: u64) {
    PANICS_AT.store(address, Relaxed);
}

/// Addresses all over the code of the executable, relative to the file.
fn addresses(file: &str, count: u64) -> Vec<u64> {
    let loader = addr2line::Loader::new(file).unwrap();
    let text = loader.get_section_range(b".text").unwrap();
    let step = (text.end - text.begin) / count;
    (0..count)
        .map(|number| text.begin + number * step)
        .collect()
}

fn by_addr2line(loader: &addr2line::Loader, relative: u64) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut frames = loader.find_frames(relative).unwrap();
    while let Ok(Some(frame)) = frames.next() {
        let name = frame.function.as_ref().map(|name| name.raw_name().unwrap());
        let location = frame.location;
        found.push(Frame {
            function: name.map(|name| demangle(&name)),
            file: location.as_ref().and_then(|at| at.file).map(Into::into),
            line: location.as_ref().and_then(|at| at.line),
            column: location.as_ref().and_then(|at| at.column),
            ..Frame::default()
        });
    }
    found
}

#[test]
fn all_that_addr2line_finds_is_found() {
    finds_the_same(&debug_file());
}

/// The test itself, or what is to be looked at in its place.
fn debug_file() -> String {
    std::env::var("STALLSCOPE_DEBUG_FILE").unwrap_or("/proc/self/exe".into())
}

#[test]
fn compressed_debug_info_is_read_as_well() {
    for method in ["zlib", "zstd"] {
        let name = format!("stallscope-{method}-{}", std::process::id());
        let packed = std::env::temp_dir().join(name);
        let pack = std::process::Command::new("objcopy")
            .arg(format!("--compress-debug-sections={method}"))
            .args([&std::env::current_exe().unwrap(), &packed])
            .output();
        // Not every machine has the tool, nor every version of the tool each method.
        if pack.is_ok_and(|pack| pack.status.success()) {
            let file =
                DebugFile::open(&module_of(packed.to_str().unwrap())[0], MemoryLeft::default);
            if let Some(lack) = file.lack() {
                // With full debug info this very program is too large.
                assert!(lack.reason.contains("compressed"), "{lack:?}");
            } else {
                assert!(file.own_bytes() > 1 << 20, "it was compressed");
                finds_the_same(packed.to_str().unwrap());
            }
        }
        let _ = std::fs::remove_file(packed);
    }
}

/// But that bare names have their paths.
fn is_the_same(expected: &[Frame], found: &[Frame]) -> bool {
    let same = |(expected, found): (&Frame, &Frame)| {
        let (Some(name), Some(ours)) = (&expected.function, &found.function) else {
            return false;
        };
        let end = name.find('<').unwrap_or(name.len());
        let is_bare = !name[..end].contains("::");
        let ours_as_theirs = Frame {
            function: expected.function.clone(),
            within: None,
            in_source: None,
            ..found.clone()
        };
        // In symbols all that has no name is a closure.
        let has_none = |name: &str| body(name) != Body::Named;
        let completed = is_bare && (base(name) == base(ours) || has_none(name) && has_none(ours));
        (name == ours || completed) && *expected == ours_as_theirs
    };
    expected.len() == found.len() && expected.iter().zip(found).all(same)
}

fn finds_the_same(file: &str) {
    let loader = addr2line::Loader::new(file).unwrap();
    let mut ours = DebugFile::open(&module_of(file)[0], MemoryLeft::default);
    let (mut same, mut other) = (0, Vec::new());
    for address in addresses(file, 20_000) {
        let expected = by_addr2line(&loader, address);
        if expected.iter().any(|frame| frame.function.is_none()) {
            continue;
        }
        let found = frames_at(&mut ours, address, &Frame::default());
        if is_the_same(&expected, &found) || expected.is_empty() {
            same += 1;
        } else {
            other.push((address, expected, found));
        }
    }
    let worst = other.first();
    assert!(
        other.len() * 1000 <= same,
        "{} of {same} differ, as {worst:#x?}",
        other.len()
    );
}

fn symbolize_with(left: fn() -> MemoryLeft) -> (Vec<Frame>, Option<String>) {
    let mut symbolizer = Symbolizer {
        left,
        ..Symbolizer::default()
    };
    let here = symbolize_with as fn(fn() -> MemoryLeft) -> _ as usize as u64;
    let frames = symbolizer.symbolize(&[here], crate::os::module_files());
    (frames, symbolizer.lack())
}

#[test]
fn without_memory_names_are_left_and_then_addresses() {
    let (frames, lack) = symbolize_with(MemoryLeft::default);
    assert!(frames[0].line.is_some(), "{frames:#?}");
    assert_eq!(lack, None);
    let (frames, lack) = symbolize_with(|| MemoryLeft::of_address_space(30 << 20));
    assert!(frames[0].function().unwrap().contains("symbolize_with"));
    assert_eq!(frames[0].line, None);
    let lack = lack.unwrap();
    assert!(
        lack.starts_with("lines are missing: 31 MB of address space are left"),
        "{lack}"
    );
    let (frames, lack) = symbolize_with(|| MemoryLeft::of_address_space(16 << 20));
    assert_eq!(frames[0].function, None);
    assert!(frames[0].address != 0 && frames[0].module.is_some());
    let lack = lack.unwrap();
    assert!(lack.starts_with("names and lines are missing"), "{lack}");
}

#[test]
fn what_there_was_no_memory_for_is_read_when_there_is() {
    let here = symbolize_with as fn(fn() -> MemoryLeft) -> _ as usize as u64;
    let mut symbolizer = Symbolizer {
        left: || MemoryLeft::of_address_space(0),
        ..Symbolizer::default()
    };
    let modules: Arc<[ModuleFile]> = crate::os::module_files().into();
    let frames = symbolizer.symbolize(&[here], Arc::clone(&modules));
    assert_eq!(frames[0].function, None);
    symbolizer.left = MemoryLeft::default;
    // As if it were later.
    symbolizer.release();
    let frames = symbolizer.symbolize(&[here], modules);
    assert!(frames[0].line.is_some(), "{frames:#?}");
    assert_eq!(symbolizer.lack(), None);
}

#[test]
fn a_file_that_has_replaced_the_loaded_one_says_nothing() {
    let here = symbolize_with as fn(fn() -> MemoryLeft) -> _ as usize as u64;
    let mut modules = crate::os::module_files();
    let id = modules[0].build_id.clone().unwrap();
    let replaced = |modules: Vec<ModuleFile>| {
        let frames = Symbolizer::default().symbolize(&[here], modules);
        frames[0].function.is_none()
    };
    assert!(!replaced(modules.clone()));
    modules[0].build_id = Some(format!("{}00", &id[2..]).into());
    assert!(replaced(modules));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut symbolizer = Symbolizer::default();
    let modules: Arc<[ModuleFile]> = crate::os::module_files().into();
    let text = modules[0].bias;
    let mut most = 0;
    for address in addresses("/proc/self/exe", 40_000) {
        symbolizer.symbolize(&[text + address], Arc::clone(&modules));
        most = most.max(symbolizer.cached_bytes);
    }
    assert!(most > MAX_CACHED_BYTES / 2 && most < MAX_CACHED_BYTES * 2);
}

/// In bytes.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes = line.unwrap().split_whitespace().next().unwrap();
    kilobytes.parse::<u64>().unwrap() << 10
}

/// A file as if it were the program's, at address 0.
fn module_of(file: &str) -> Arc<[ModuleFile]> {
    let module = ModuleFile {
        path: file.into(),
        bias: 0,
        range: 0..u64::MAX,
        build_id: None,
    };
    Arc::new([module])
}

/// Of the file that `STALLSCOPE_DEBUG_FILE` names, else of the test itself.
#[test]
#[ignore = "measures: scripts/symbol_memory.sh"]
#[allow(clippy::print_stdout)]
fn memory_beside_the_size_of_debug_info() {
    // A thread of its own, as the symbolizer has: what its allocator keeps counts.
    let measured = std::thread::spawn(|| {
        let file = debug_file();
        let elf =
            super::super::elf::Elf::open(Path::new(&file), super::super::elf::Kind::Image).unwrap();
        let sections = super::super::dwarf::NEEDED
            .iter()
            .filter_map(|name| elf.named(name));
        let debug: u64 = sections.map(|section| section.size).sum();
        let size = std::fs::metadata(&file).unwrap().len();
        let many = super::super::symbol_table::SymbolTable::open(&elf, false).unwrap();
        let many: Vec<u64> = many
            .functions()
            .map(|(_, start, size)| start + size / 2)
            .collect();
        let step = (many.len() / 20_000).max(1);
        let many: Vec<u64> = many.into_iter().step_by(step).collect();
        let stack: Vec<u64> = many.iter().copied().step_by(many.len() / 60).collect();
        println!(
            "{file}: {} MB, {} MB of it debug info",
            size >> 20,
            debug >> 20
        );
        let modules = module_of(&file);
        let mut symbolizer = Symbolizer::default();
        let base = status("RssAnon:");
        let mut most = 0;
        let mut say = |what: &str, since: Instant| {
            let own = status("RssAnon:").saturating_sub(base);
            most = most.max(own);
            println!(
                "{what:>24}: {:6.2} MB own, took {:?}",
                own as f64 / 1e6,
                since.elapsed()
            );
            own
        };
        let start = Instant::now();
        symbolizer.prepare(&modules);
        say("prepared", start);
        let start = Instant::now();
        symbolizer.symbolize(&stack[..1], Arc::clone(&modules));
        say("the first address", start);
        let start = Instant::now();
        symbolizer.symbolize(&stack, Arc::clone(&modules));
        say("a stack of 60", start);
        let start = Instant::now();
        symbolizer.symbolize(&stack, Arc::clone(&modules));
        say("the same again", start);
        let start = Instant::now();
        for address in &many {
            symbolizer.symbolize(&[*address], Arc::clone(&modules));
        }
        say(&format!("{} addresses", many.len()), start);
        let start = Instant::now();
        symbolizer.release();
        let quiet = say("let go", start);
        let start = Instant::now();
        symbolizer.symbolize(&[stack[30] + 1, stack[31] + 1], modules);
        say("two addresses after that", start);
        (most, quiet)
    });
    let (most, quiet) = measured.join().unwrap();
    assert!(most <= 64 << 20, "at most 64 MB");
    assert!(quiet <= 10 << 20, "10 MB when it is quiet");
}
