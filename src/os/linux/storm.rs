//! Captures under the worst that a program does: nothing may crash or hang.

use std::ffi::CString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::os::platform::capture::tests::of_this_thread;
use crate::os::platform::{Capturer, DEFAULT_SIGNAL, ThreadProbe};
use crate::os::{Miss, SignalUse, Subject};

static OVER: AtomicBool = AtomicBool::new(false);

fn allocate() {
    let sizes = (0..40).map(|power| 1_usize << (power % 20));
    let vectors: Vec<Vec<u8>> = sizes.map(|size| vec![1; size]).collect();
    drop(std::hint::black_box(vectors));
}

fn load_and_unload() {
    for name in ["libBrokenLocale.so.1", "libutil.so.1", "libanl.so.1"] {
        let name = CString::new(name).unwrap();
        // SAFETY: libraries of the C library, whose loading runs no foreign
        // code; what was loaded is unloaded once.
        unsafe {
            let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
            if !library.is_null() {
                libc::dlclose(library);
            }
        }
    }
}

fn unwind() {
    // Without the hook's message.
    let result = catch_unwind(AssertUnwindSafe(|| {
        std::panic::resume_unwind(Box::new(7_u8));
    }));
    assert!(result.is_err());
}

fn spawn() {
    thread::spawn(|| std::hint::black_box(7)).join().unwrap();
}

fn backtrace() {
    drop(std::hint::black_box(
        std::backtrace::Backtrace::force_capture(),
    ));
}

fn sleep_shortly() {
    thread::sleep(Duration::from_micros(200));
}

/// `STALLSCOPE_STORM_SECONDS=60 cargo test --release --lib storm -- --nocapture`
/// for as long as that.
#[test]
fn a_storm_of_captures_crashes_and_hangs_nothing() {
    let seconds = std::env::var("STALLSCOPE_STORM_SECONDS")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(3);
    let works: [fn(); 6] = [
        allocate,
        load_and_unload,
        unwind,
        spawn,
        backtrace,
        sleep_shortly,
    ];
    let (send, receive) = mpsc::channel();
    let threads: Vec<_> = works
        .into_iter()
        .map(|work| {
            let send = send.clone();
            thread::spawn(move || {
                send.send(of_this_thread()).unwrap();
                let mut rounds = 0_u64;
                while !OVER.load(Relaxed) {
                    work();
                    rounds += 1;
                }
                rounds
            })
        })
        .collect();
    let tids = receive.iter().take(threads.len());
    let probes: Vec<_> = tids
        .map(|(tid, stack)| {
            (
                ThreadProbe::open(tid, crate::os::Importance::Other).unwrap(),
                stack,
            )
        })
        .collect();
    let subject = Subject {
        id: 1,
        anchor: None,
        still: &|| true,
    };
    let mut capturer = Capturer::new(SignalUse::Signal {
        number: DEFAULT_SIGNAL,
        chosen: true,
    });
    let (mut captures, mut whole, mut late) = (0_u32, 0_u32, 0_u32);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        for (probe, stack) in &probes {
            let captured = capturer.capture(probe, stack, &subject);
            captures += 1;
            match captured.map(|captured| captured.stack) {
                Ok(Ok(_)) => whole += 1,
                Ok(Err(Miss::Late)) => late += 1,
                _ => {}
            }
        }
        // As fast as 500 a second and thread: far more than any watchdog.
        thread::sleep(Duration::from_millis(1));
    }
    OVER.store(true, Relaxed);
    let rounds: Vec<u64> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    #[allow(clippy::print_stdout)]
    {
        println!("{captures} captures, {whole} whole, {late} late; rounds {rounds:?}");
    }
    assert!(rounds.iter().all(|rounds| *rounds > 10), "{rounds:?}");
    assert!(whole > captures / 3, "{whole} of {captures}");
}
