//! Names and lines where debug info is not in the file that was loaded, and where that
//! file is not there any more: libraries that are built, changed and called.

#![cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, unsafe_code)]

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{Told, alone, ms, multi_thread};
use stallscope::{Frame, Phase, Stack, WatchExt};

/// The functions of the library; the first line is the one that blocks.
const LIBRARY: &str = "\
#[inline(always)] fn innermost() { std::thread::sleep(std::time::Duration::from_millis(150)) }
#[inline(never)] pub fn function() { innermost(); std::hint::black_box(()); }
#[unsafe(no_mangle)] pub extern \"C\" fn work() { function(); std::hint::black_box(()); }
";

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("stallscope-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        // As the kernel has it.
        Folder(fs::canonicalize(path).unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {told}{error}");
    told
}

fn rustc() -> Command {
    // cargo and rustc lie side by side.
    let beside = std::env::var("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    let beside = beside.ok().filter(|path| path.exists());
    Command::new(beside.unwrap_or_else(|| "rustc".into()))
}

/// The objcopy that comes with Rust, for rustc strips by it.
fn objcopy(arguments: &[&str], files: &[&Path]) {
    let sysroot = run(rustc().args(["--print", "sysroot"]));
    let libraries = Path::new(sysroot.trim()).join("lib");
    let ours = libraries.join("rustlib/x86_64-unknown-linux-gnu/bin/rust-objcopy");
    let tool = if ours.exists() {
        ours
    } else {
        "objcopy".into()
    };
    let mut command = Command::new(tool);
    run(command
        .env("LD_LIBRARY_PATH", libraries)
        .args(arguments)
        .args(files));
}

/// A library with the function of this name.
fn library(folder: &Folder, name: &str, function: &str, options: &[&str]) -> PathBuf {
    let source = folder.at("plugin.rs");
    fs::write(&source, LIBRARY.replace("function", function)).unwrap();
    let library = folder.at(name);
    run(rustc()
        .current_dir(&folder.0)
        .args(["--edition=2024", "--crate-type=cdylib", "-Copt-level=2"])
        .args(["-Cdebuginfo=2", "-Clink-arg=-Wl,--build-id=sha1"])
        .args(options)
        .arg("-o")
        .args([&library, &source]));
    library
}

/// The library without debug info and symbols, and its debug file.
fn stripped(folder: &Folder, options: &[&str]) -> (PathBuf, PathBuf) {
    let whole = library(folder, "whole.so", "function", options);
    let debug = folder.at("plugin.debug");
    objcopy(&["--only-keep-debug"], &[&whole, &debug]);
    let link = format!("--add-gnu-debuglink={}", debug.display());
    let stripped = folder.at("libplugin.so");
    objcopy(&["--strip-all", &link], &[&whole, &stripped]);
    fs::remove_file(whole).unwrap();
    (stripped, debug)
}

fn loaded(library: &Path) -> extern "C" fn() {
    let path = CString::new(library.as_os_str().as_bytes()).unwrap();
    // SAFETY: the library is Rust's, and has no initializers but those of std.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!handle.is_null());
    // SAFETY: the handle is valid, and stays so.
    let work = unsafe { libc::dlsym(handle, c"work".as_ptr()) };
    assert!(!work.is_null());
    // SAFETY: this is how the library has declared it.
    unsafe { std::mem::transmute::<*mut libc::c_void, extern "C" fn()>(work) }
}

/// The frames in the library of a stall in it, and what is lacking where some are missing.
fn frames_of(work: extern "C" fn(), library: &Path) -> (Vec<Frame>, String) {
    let runtime = multi_thread(1);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let name = library.file_name().unwrap().to_str();
    let mut found = Vec::new();
    // Whether the machine lets the watchdog look in time is not the question here.
    for _ in 0..20 {
        told.clear();
        let stall = async move { work() };
        let task = runtime.spawn(stall.watched("stall"));
        runtime.block_on(task).unwrap();
        let deadline = Instant::now() + ms(5000);
        while told.of(Phase::Ended).is_empty() && Instant::now() < deadline {
            std::thread::sleep(ms(5));
        }
        for event in told.of(Phase::Ended) {
            let frames = event.stall.stack().map_or(&[][..], Stack::frames).iter();
            let frames: Vec<Frame> = frames
                .filter(|frame| frame.module() == name)
                .cloned()
                .collect();
            if !frames.is_empty() {
                found = frames;
            }
        }
        let lack = watchdog.health().no_stacks().unwrap_or_default().to_owned();
        let is_whole = names(&found).iter().any(|name| name.contains("innermost"));
        if is_whole || !found.is_empty() && !lack.is_empty() {
            return (found, lack);
        }
    }
    (found, String::new())
}

/// Loads the library and looks at a stall in it.
fn frames_in(library: &Path) -> (Vec<Frame>, String) {
    frames_of(loaded(library), library)
}

fn names(frames: &[Frame]) -> Vec<String> {
    let function = |frame: &Frame| frame.function().unwrap_or("?").to_owned();
    frames.iter().map(function).collect()
}

fn assert_all_is_known(frames: &[Frame], lack: &str) {
    let expected = [("innermost", 1), ("function", 2), ("work", 3)];
    for (function, line) in expected {
        let is_it = |frame: &&Frame| {
            let name = frame.function().unwrap_or_default();
            name == function || name.ends_with(&format!("::{function}"))
        };
        let found = frames.iter().find(is_it);
        let found = found.unwrap_or_else(|| panic!("no {function}; {lack}: {frames:#?}"));
        assert_eq!(found.line(), Some(line), "{function}: {frames:#?}");
        assert!(found.file().unwrap().ends_with("plugin.rs"), "{found:?}");
    }
    assert_eq!(lack, "");
}

#[test]
fn what_was_split_off_is_read_from_packages_and_single_files() {
    let _alone = alone();
    for kind in ["packed", "unpacked"] {
        for version in ["4", "5"] {
            let folder = Folder::new(&format!("split-{kind}-{version}"));
            let split = format!("-Csplit-debuginfo={kind}");
            let version = format!("-Cdwarf-version={version}");
            let library = library(&folder, "libplugin.so", "function", &[&split, &version]);
            let (frames, lack) = frames_in(&library);
            assert_all_is_known(&frames, &lack);
        }
    }
}

#[test]
fn without_the_package_it_is_said_that_names_are_missing() {
    let _alone = alone();
    let folder = Folder::new("no-package");
    let options = ["-Csplit-debuginfo=packed"];
    let library = library(&folder, "libplugin.so", "function", &options);
    let package = folder.at("libplugin.so.dwp");
    fs::remove_file(&package).unwrap();
    let (frames, lack) = frames_in(&library);
    assert!(!names(&frames).iter().any(|name| name.contains("innermost")));
    let expected = format!(
        "names of inlined functions are missing: neither {}",
        package.display()
    );
    assert!(lack.starts_with(&expected), "{lack}");
}

#[test]
fn a_debug_file_is_found_by_the_name_in_the_library() {
    let _alone = alone();
    for (number, place) in ["plugin.debug", ".debug/plugin.debug"].iter().enumerate() {
        let folder = Folder::new(&format!("link-{number}"));
        let (library, debug) = stripped(&folder, &[]);
        fs::rename(debug, folder.at(place)).unwrap();
        let (frames, lack) = frames_in(&library);
        assert_all_is_known(&frames, &lack);
    }
}

#[test]
fn without_build_ids_the_checksum_of_the_debug_file_counts() {
    let _alone = alone();
    let none = ["-Clink-arg=-Wl,--build-id=none"];
    let folder = Folder::new("checksum");
    let (library, _) = stripped(&folder, &none);
    let (frames, lack) = frames_in(&library);
    assert_all_is_known(&frames, &lack);
    let folder = Folder::new("wrong-checksum");
    let (library, debug) = stripped(&folder, &none);
    let mut bytes = fs::read(&debug).unwrap();
    bytes.push(0);
    fs::write(&debug, bytes).unwrap();
    let (frames, lack) = frames_in(&library);
    assert!(!names(&frames).iter().any(|name| name.contains("innermost")));
    let expected = format!(
        "names and lines are missing: {} is of another build",
        debug.display()
    );
    assert_eq!(lack, expected);
}

#[test]
fn a_debug_file_is_found_by_the_build_id() {
    let _alone = alone();
    let folder = Folder::new("build-id");
    let (library, debug) = stripped(&folder, &[]);
    let work = loaded(&library);
    let id = build_id_of(work, &library);
    let (first, rest) = id.split_at(2);
    let folder_and_name = format!(".build-id/{first}/{rest}.debug");
    // Under its name it was not to be found any more.
    fs::rename(debug, folder.at(&folder_and_name)).unwrap();
    let copy = folder.at("libcopy.so");
    fs::copy(&library, &copy).unwrap();
    let (frames, lack) = frames_in(&copy);
    assert_all_is_known(&frames, &lack);
}

fn build_id_of(work: extern "C" fn(), library: &Path) -> String {
    let (frames, _) = frames_of(work, library);
    frames[0].build_id().unwrap().to_owned()
}

#[test]
fn compressed_debug_info_is_read() {
    let _alone = alone();
    for method in ["zlib", "zstd"] {
        let folder = Folder::new(method);
        let (library, debug) = stripped(&folder, &[]);
        let compressed = folder.at("compressed");
        let option = format!("--compress-debug-sections={method}");
        objcopy(&[&option], &[&debug, &compressed]);
        assert!(fs::metadata(&compressed).unwrap().len() < fs::metadata(&debug).unwrap().len());
        // The checksum is another one; the build id counts.
        fs::rename(compressed, debug).unwrap();
        let (frames, lack) = frames_in(&library);
        assert_all_is_known(&frames, &lack);
    }
}

#[test]
fn a_debug_file_that_is_written_over_is_no_danger_and_not_believed() {
    let _alone = alone();
    let folder = Folder::new("written-over");
    let (library, debug) = stripped(&folder, &[]);
    let work = loaded(&library);
    let (frames, lack) = frames_of(work, &library);
    assert_all_is_known(&frames, &lack);
    // Shorter, and in place: of a mapping nothing could be read without a signal.
    fs::write(&debug, b"short").unwrap();
    // What is known stays known, so that it is asked for by another name.
    let copy = folder.at("libcopy.so");
    fs::copy(&library, &copy).unwrap();
    let (frames, _) = frames_in(&copy);
    assert!(!names(&frames).iter().any(|name| name.contains("innermost")));
}

#[test]
fn a_library_that_was_replaced_gets_no_names_of_the_new_one() {
    let _alone = alone();
    for options in [&[][..], &["-Clink-arg=-Wl,--build-id=none"][..]] {
        let folder = Folder::new(&format!("replaced-{}", options.len()));
        let old = library(&folder, "libplugin.so", "the_old_one", options);
        let new = library(&folder, "libnew.so", "the_new_one", options);
        let work = loaded(&old);
        fs::rename(new, &old).unwrap();
        let (frames, lack) = frames_of(work, &old);
        let names = names(&frames).join(" ");
        assert!(!names.contains("the_new_one"), "{names}");
        if names.contains("the_old_one") {
            // As root the file that is mapped can still be read.
            assert_eq!(lack, "");
        } else {
            let why = "names and lines are missing: libplugin.so was replaced on disk since it \
                       was loaded";
            assert_eq!(lack, why);
        }
    }
}

/// The test program itself, stripped, with its debug file where `debuginfod` keeps them.
#[test]
fn the_program_s_debug_file_is_found_in_the_cache_of_debuginfod() {
    let folder = Folder::new("cache");
    let program = std::env::current_exe().unwrap();
    let stripped = folder.at("program");
    objcopy(&["--strip-all"], &[&program, &stripped]);
    let run_it = || {
        let mut command = Command::new(&stripped);
        command.args(["--exact", "cases::own_name", "--ignored", "--nocapture"]);
        run(command.env("DEBUGINFOD_CACHE_PATH", &folder.0))
    };
    let told = run_it();
    let id = told.lines().find_map(|line| line.strip_prefix("build id "));
    assert!(told.contains("has no name"), "{told}");
    let debug = folder.at(&format!("{}/debuginfo", id.unwrap()));
    objcopy(&["--only-keep-debug"], &[&program, &debug]);
    let told = run_it();
    assert!(told.contains("has a name and a line"), "{told}");
}

mod cases {
    use super::*;

    #[test]
    #[ignore = "run by a test that has stripped the program"]
    #[allow(clippy::print_stdout)]
    fn own_name() {
        extern "C" fn sleeps_in_the_program() {
            std::thread::sleep(common::ms(150));
        }
        let program = std::env::current_exe().unwrap();
        let (frames, _) = frames_of(sleeps_in_the_program, &program);
        println!("\nbuild id {}", frames[0].build_id().unwrap());
        let named = frames.iter().find(|frame| {
            let name = frame.function().unwrap_or_default();
            name.contains("sleeps_in_the_program") && frame.line().is_some()
        });
        println!("has {}", named.map_or("no name", |_| "a name and a line"));
    }
}
