//! The line that blocks, and why: scenarios at known lines of this file.
//!
//! `STALLSCOPE_RUNS=20 cargo test --release --test culprits` runs each as often.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]

mod common;

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::process::Command;
use std::sync::{Condvar, Mutex, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use common::{Told, alone, hold, leaked, ms, multi_thread, spin};
use stallscope::{Cause, Phase, Stall, WatchExt};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What blocks, and what its cause may be called; a mark tells the line.
struct Scenario {
    name: &'static str,
    causes: &'static [&'static str],
    make: fn() -> Task,
}

const BLOCK: Duration = ms(60);

#[inline(never)]
fn recurse(depth: u32) -> u32 {
    if depth == 0 {
        thread::sleep(BLOCK); // blocks: recursion
        return 0;
    }
    std::hint::black_box(recurse(std::hint::black_box(depth - 1))) + 1
}

#[inline(never)]
fn large_frame() -> u8 {
    let array = std::hint::black_box([1_u8; 64 * 1024]);
    thread::sleep(BLOCK); // blocks: large frame
    std::hint::black_box(&array)[17]
}

#[inline(always)]
fn inlined_three() {
    thread::sleep(BLOCK); // blocks: inlined
}

#[inline(always)]
fn inlined_two() {
    inlined_three();
}

#[inline(always)]
fn inlined_one() {
    inlined_two();
}

trait Job: Send {
    fn run(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

struct Sleeper;

impl Job for Sleeper {
    fn run(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            thread::sleep(BLOCK); // blocks: dyn trait
        })
    }
}

trait AsyncJob {
    fn run(&self) -> impl Future<Output = ()> + Send;
}

struct NativeSleeper;

impl AsyncJob for NativeSleeper {
    async fn run(&self) {
        thread::sleep(BLOCK); // blocks: async trait
    }
}

fn generic<F: FnOnce() -> T, T>(f: F) -> T {
    std::hint::black_box(f())
}

/// The lines of this file that say so.
fn lines_of(name: &str) -> Vec<u32> {
    let mark = format!("// blocks: {name}");
    let lines = include_str!("culprits.rs").lines();
    (1..)
        .zip(lines)
        .filter(|(_, line)| line.ends_with(&mark))
        .map(|(number, _)| number)
        .collect()
}

macro_rules! scenario {
    ($name:literal, $causes:expr, $block:block) => {
        Scenario {
            name: $name,
            causes: $causes,
            make: || Box::pin(async move { $block }),
        }
    };
}

/// A server that accepts and says nothing for a while.
fn silent_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        thread::sleep(BLOCK);
        let _ = stream.write_all(b"x");
    });
    address
}

fn scenarios() -> Vec<Scenario> {
    vec![
        scenario!("sleep", &["clock_nanosleep"], {
            thread::sleep(BLOCK); // blocks: sleep
        }),
        scenario!("mutex", &["lock"], {
            let mutex = leaked(Mutex::new(0));
            hold(BLOCK, || mutex.lock().unwrap());
            *mutex.lock().unwrap() += 1; // blocks: mutex
        }),
        scenario!("parking_lot", &["lock"], {
            let mutex = leaked(parking_lot::Mutex::new(0));
            hold(BLOCK, || mutex.lock());
            *mutex.lock() += 1; // blocks: parking_lot
        }),
        scenario!("rwlock", &["lock"], {
            let lock = leaked(RwLock::new(0));
            hold(BLOCK, || lock.write().unwrap());
            let _ = *lock.read().unwrap(); // blocks: rwlock
        }),
        scenario!("condvar", &["futex"], {
            let pair = (Mutex::new(()), Condvar::new());
            let guard = pair.0.lock().unwrap();
            let waited = pair.1.wait_timeout(guard, BLOCK); // blocks: condvar
            drop(waited);
        }),
        scenario!("channel", &["futex"], {
            let (send, receive) = mpsc::channel::<()>();
            thread::spawn(move || (thread::sleep(BLOCK), drop(send)));
            let _ = receive.recv(); // blocks: channel
        }),
        scenario!("spin", &["on CPU"], {
            let start = common::on_cpu();
            while common::on_cpu() - start < BLOCK {
                let before = Instant::now();
                while before.elapsed() < ms(2) {} // blocks: spin
            }
        }),
        scenario!("tcp read", &["recvfrom", "read"], {
            let mut stream = TcpStream::connect(silent_server()).unwrap();
            let _ = stream.read(&mut [0]); // blocks: tcp read
        }),
        scenario!("child", &["poll", "wait4", "waitid", "read", "pidfd"], {
            let mut command = Command::new("sleep");
            let _ = command.arg("0.06").output(); // blocks: child
        }),
        scenario!("fsync", &["fsync"], {
            let file = leaked(tempfile(64 << 20).await);
            file.sync_all().unwrap(); // blocks: fsync
        }),
        // On a fast disk they are half on CPU, half asleep.
        scenario!("short fsyncs", &["fsync", "on CPU"], {
            let file = leaked(tempfile(4096).await);
            let start = common::on_cpu();
            while common::on_cpu() - start < BLOCK / 2 {
                file.write_all_at(&[7; 4096], 0).unwrap(); // blocks: short fsyncs
                file.sync_all().unwrap(); // blocks: short fsyncs
            }
        }),
        // What waits for the disk here, the next disk has ready.
        scenario!("cold read", &["read", "on CPU", "page fault"], {
            let file = leaked(tempfile(256 << 20).await);
            evict(file).await;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let _ = std::fs::read(path).unwrap(); // blocks: cold read
        }),
        scenario!("connect", &["connect"], {
            let (address, _full) = full_server();
            let _ = TcpStream::connect(address); // blocks: connect
        }),
        scenario!("json", &["on CPU"], {
            let start = common::on_cpu();
            while common::on_cpu() - start < BLOCK {
                let _: Vec<Vec<u64>> = serde_json::from_str(&JSON).unwrap(); // blocks: json
            }
        }),
        scenario!("decode", &["on CPU"], {
            let picture = image::load_from_memory(&PNG).unwrap(); // blocks: decode
            drop(picture);
        }),
        scenario!("recursion", &["clock_nanosleep"], {
            std::hint::black_box(recurse(200));
        }),
        scenario!("large frame", &["clock_nanosleep"], {
            std::hint::black_box(large_frame());
        }),
        scenario!("inlined", &["clock_nanosleep"], {
            inlined_one();
        }),
        scenario!("dyn trait", &["clock_nanosleep"], {
            let job: Box<dyn Job> = Box::new(Sleeper);
            job.run().await;
        }),
        scenario!("async trait", &["clock_nanosleep"], {
            NativeSleeper.run().await;
        }),
        scenario!("generic closure", &["clock_nanosleep"], {
            generic(|| thread::sleep(BLOCK)); // blocks: generic closure
        }),
    ]
}

/// A file without a name, written on a thread where that may block.
async fn tempfile(length: usize) -> File {
    let write = move || {
        let path = std::env::temp_dir().join(format!("stallscope-{}", std::process::id()));
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all_at(&vec![7; length], 0).unwrap();
        file
    };
    tokio::task::spawn_blocking(write).await.unwrap()
}

/// Drops a file from the page cache.
async fn evict(file: &'static File) {
    let evict = || {
        file.sync_all().unwrap();
        // SAFETY: the descriptor is open as long as the file, which is forever.
        let result =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        assert_eq!(result, 0);
    };
    tokio::task::spawn_blocking(evict).await.unwrap();
}

/// A server whose queue of connections is full, until the kernel asks again.
fn full_server() -> (std::net::SocketAddr, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: the descriptor is open; listening again only sets the queue's length.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let full = TcpStream::connect(address).unwrap();
    thread::spawn(move || {
        thread::sleep(BLOCK);
        for _ in 0..2 {
            let _ = listener.accept();
        }
    });
    (address, full)
}

/// A picture that takes longer than the threshold to decode.
static PNG: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
    let picture = image::RgbImage::from_fn(3_000, 2_000, |x, y| {
        image::Rgb([(x * y) as u8, (x ^ y) as u8, (x / 7 + y) as u8])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
});

static JSON: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let rows: Vec<Vec<u64>> = (0..200).map(|row| (row..row + 1_000).collect()).collect();
    serde_json::to_string(&rows).unwrap()
});

#[derive(Default, Debug)]
struct Score {
    runs: usize,
    right: usize,
    wrong: usize,
    none: usize,
    cause: usize,
    notes: Vec<String>,
}

impl Score {
    fn add(&mut self, scenario: &Scenario, stall: &Stall) {
        self.runs += 1;
        match stall.stack().and_then(|stack| stack.culprit()) {
            None => self.none += 1,
            Some(culprit) => {
                let here = culprit
                    .file()
                    .is_some_and(|file| file.ends_with("tests/culprits.rs"));
                let line = culprit.line().unwrap_or(0);
                if here && lines_of(scenario.name).contains(&line) {
                    self.right += 1;
                } else {
                    self.wrong += 1;
                    self.notes.push(format!("{culprit}"));
                }
            }
        }
        let cause = stall.cause().to_string();
        if scenario.causes.iter().any(|part| cause.contains(part)) {
            self.cause += 1;
        } else {
            self.notes.push(cause);
        }
    }
}

#[test]
fn the_line_and_the_cause_are_right() {
    let _alone = alone();
    let runs = std::env::var("STALLSCOPE_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(3);
    let _ = (&*JSON, &*PNG);
    let runtime = multi_thread(2);
    // One watchdog: what it has symbolized once it knows, and the first stack of
    // a debug build takes half a second.
    let told = Told::default();
    let _watchdog = told.watch(&runtime);
    let mut problems = Vec::new();
    for watched in [true, false] {
        for scenario in scenarios() {
            let mut score = Score::default();
            for _ in 0..runs {
                told.clear();
                let task = (scenario.make)();
                let task = if watched {
                    runtime.spawn(task.watched(scenario.name))
                } else {
                    runtime.spawn(task)
                };
                runtime.block_on(task).unwrap();
                let deadline = Instant::now() + Duration::from_secs(5);
                while told.of(Phase::Ended).is_empty() && Instant::now() < deadline {
                    thread::sleep(ms(2));
                }
                // Anything else that is told belongs to this one.
                thread::sleep(ms(10));
                // The longest, should the machine have made more of them.
                let ended = told.of(Phase::Ended);
                let longest = ended.iter().max_by_key(|event| event.stall.duration());
                match longest {
                    Some(event) => score.add(&scenario, &event.stall),
                    None => score.notes.push("no stall".to_owned()),
                }
            }
            let name = scenario.name;
            println!(
                "{name:>16} watched {watched:5}: {} runs, line {} right {} wrong {} none, cause {} right {:?}",
                score.runs, score.right, score.wrong, score.none, score.cause, score.notes
            );
            // One of few runs may fall victim to the machine.
            let enough = (score.runs * 95 / 100).min(score.runs.saturating_sub(1));
            if score.right < enough || score.cause < enough || score.wrong > score.none.max(1) {
                problems.push(format!("{name} watched {watched}: {score:?}"));
            }
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn causes_have_shares() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let _watchdog = told.watch(&runtime);
    let mixed = async {
        spin(ms(60));
        thread::sleep(ms(200));
    };
    runtime
        .block_on(runtime.spawn(mixed.watched("mixed")))
        .unwrap();
    told.wait_for_end();
    let stall = &told.of(Phase::Ended)[0].stall;
    assert!(stall.off_cpu() >= ms(150), "{:?}", stall.off_cpu());
    assert!(
        stall.on_cpu() + stall.waiting() >= ms(30),
        "{:?}",
        stall.on_cpu()
    );
    assert!(matches!(stall.cause(), Cause::Blocked { .. }), "{stall}");
}
