//! What blocks is found and what does not is not, while other processes keep all CPUs busy.
//!
//! `STALLSCOPE_RUNS=1000 cargo test --release --features interpose --test verdicts`
//! runs each scenario as often.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    unsafe_code
)]

mod common;

use std::ffi::CString;
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Condvar, Mutex, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use common::{alone, hold, leaked, ms};
use stallscope::{Detection, Report, audit};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Scenario {
    name: &'static str,
    /// For less than a stall: where only sleeps are counted, it is found if it is
    /// seen, or if no other thread could have been the reason.
    is_short: bool,
    make: fn() -> Task,
}

macro_rules! scenario {
    ($name:literal, $block:block) => {
        scenario!($name, is_short: false, $block)
    };
    (short $name:literal, $block:block) => {
        scenario!($name, is_short: true, $block)
    };
    ($name:literal, is_short: $is_short:literal, $block:block) => {
        Scenario {
            name: $name,
            is_short: $is_short,
            make: || Box::pin(async move { $block }),
        }
    };
}

const BLOCK: Duration = ms(3);
/// For what another thread does meanwhile: the audited one may have to wait for a
/// CPU before it comes to block.
const LONG: Duration = ms(60);

/// Runs what must not be audited on a thread where that is allowed.
async fn apart<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(f).await.unwrap()
}

/// A file without a name.
fn tempfile(length: usize) -> File {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("stallscope-{}-{number}", std::process::id()));
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
}

/// Drops a file from the page cache.
fn evict(file: &File) {
    file.sync_all().unwrap();
    // SAFETY: the descriptor is open as long as the file.
    let result = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(result, 0);
}

/// A server that says something after a while.
fn slow_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        thread::sleep(LONG);
        let _ = stream.write_all(b"x");
    });
    address
}

/// A server whose queue of connections is full.
fn full_server() -> (std::net::SocketAddr, TcpListener, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // SAFETY: the descriptor is open; listening again only sets the queue's length.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
    let address = listener.local_addr().unwrap();
    let full = TcpStream::connect(address).unwrap();
    (address, listener, full)
}

/// Connects as `TcpStream::connect` does, but gives up after a while: else the
/// kernel asks again after a second.
fn connect(address: std::net::SocketAddr) {
    let timeout = libc::timeval {
        tv_sec: 0,
        tv_usec: i64::try_from(BLOCK.as_micros()).unwrap(),
    };
    let ip = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the descriptor is ours from its making to its closing, and both
    // structures live through the calls that are told their sizes.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let (timeout, ip) = (&raw const timeout, &raw const ip);
        let length = size_of::<libc::timeval>() as u32;
        libc::setsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_SNDTIMEO,
            timeout.cast(),
            length,
        );
        libc::connect(socket, ip.cast(), size_of::<libc::sockaddr_in>() as u32);
        libc::close(socket);
    }
}

fn blocking() -> Vec<Scenario> {
    vec![
        scenario!(short "sleep", {
            thread::sleep(BLOCK);
        }),
        scenario!(short "shortest sleep", {
            thread::sleep(Duration::from_nanos(1));
        }),
        scenario!("mutex", {
            let mutex = leaked(Mutex::new(0));
            apart(|| hold(LONG, || mutex.lock().unwrap())).await;
            *mutex.lock().unwrap() += 1;
        }),
        // It yields its CPU a few times first, to those that are busy, and each of them may
        // keep it for as long as it is let.
        scenario!("parking_lot", {
            let mutex = leaked(parking_lot::Mutex::new(0));
            apart(|| hold(20 * LONG, || mutex.lock())).await;
            *mutex.lock() += 1;
        }),
        scenario!("rwlock", {
            let lock = leaked(RwLock::new(0));
            apart(|| hold(LONG, || lock.write().unwrap())).await;
            let _ = *lock.read().unwrap();
        }),
        scenario!(short "condvar", {
            let pair = (Mutex::new(()), Condvar::new());
            let guard = pair.0.lock().unwrap();
            drop(pair.1.wait_timeout(guard, BLOCK));
        }),
        scenario!("barrier", {
            let barrier = leaked(Barrier::new(2));
            thread::spawn(|| (thread::sleep(LONG), barrier.wait()));
            barrier.wait();
        }),
        scenario!("channel", {
            let (send, receive) = mpsc::channel::<()>();
            thread::spawn(move || (thread::sleep(LONG), drop(send)));
            let _ = receive.recv();
        }),
        scenario!("join", {
            let _ = thread::spawn(|| thread::sleep(LONG)).join();
        }),
        scenario!("tcp read", {
            let address = apart(slow_server).await;
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.read(&mut [0]);
        }),
        scenario!("tcp accept", {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            thread::spawn(move || (thread::sleep(LONG), TcpStream::connect(address)));
            let _ = listener.accept().unwrap();
        }),
        scenario!(short "tcp connect", {
            let (address, _listener, _full) = apart(full_server).await;
            connect(address);
        }),
        scenario!(short "udp receive", {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(BLOCK)).unwrap();
            let _ = socket.recv(&mut [0]);
        }),
        scenario!("pipe read", {
            let (mut reader, writer) = std::io::pipe().unwrap();
            thread::spawn(move || (thread::sleep(LONG), drop(writer)));
            let _ = reader.read(&mut [0]);
        }),
        scenario!(short "child", {
            let _ = Command::new("true").output();
        }),
        scenario!(short "fsync", {
            let file = apart(|| tempfile(4096)).await;
            file.sync_all().unwrap();
        }),
        scenario!(short "cold read", {
            let file = apart(|| {
                let file = tempfile(64 << 10);
                evict(&file);
                file
            })
            .await;
            file.read_exact_at(&mut [0; 4096], 0).unwrap();
        }),
        scenario!(short "page fault", {
            let (file, map) = apart(|| {
                let file = tempfile(1 << 20);
                // SAFETY: maps a file of this length; nobody truncates it.
                let map = unsafe {
                    libc::mmap(
                        std::ptr::null_mut(),
                        1 << 20,
                        libc::PROT_READ,
                        libc::MAP_SHARED,
                        file.as_raw_fd(),
                        0,
                    )
                };
                assert_ne!(map, libc::MAP_FAILED);
                evict(&file);
                (file, map as usize)
            })
            .await;
            // SAFETY: the mapping is never undone, so valid.
            let byte = unsafe { std::ptr::read_volatile(map as *const u8) };
            assert_eq!(byte, 7);
            drop(file);
        }),
        scenario!("nested block_on", {
            let nested = async { apart(|| thread::sleep(LONG)).await };
            futures_block_on(nested);
        }),
    ]
}

/// A file that is there, and another name beside it that is not.
fn named() -> (PathBuf, PathBuf) {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let name = format!("stallscope-named-{}-{number}", std::process::id());
    let file = std::env::temp_dir().join(name);
    std::fs::write(&file, b"x").unwrap();
    let link = file.with_extension("link");
    (file, link)
}

fn c_path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).unwrap()
}

fn to_path(path: &CString) -> PathBuf {
    PathBuf::from(path.to_str().unwrap())
}

fn remove<const N: usize>(files: [PathBuf; N]) {
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
}

/// What blocks by what it is, and may have no need to wait.
fn blocking_calls() -> Vec<Scenario> {
    vec![
        scenario!("cached read", {
            let _ = std::fs::read("/etc/hostname");
        }),
        scenario!("write", {
            let mut file = apart(|| tempfile(10)).await;
            file.write_all(b"x").unwrap();
        }),
        scenario!("loopback connect", {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let _ = TcpStream::connect(listener.local_addr().unwrap());
        }),
        scenario!("echo", {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let mut server = listener.accept().unwrap().0;
            client.write_all(b"x").unwrap();
            server.read_exact(&mut [0]).unwrap();
        }),
        scenario!("hard link", {
            let (file, link) = apart(named).await;
            std::fs::hard_link(&file, &link).unwrap();
            apart(move || remove([file, link])).await;
        }),
        scenario!("symbolic link", {
            let (file, link) = apart(named).await;
            std::os::unix::fs::symlink(&file, &link).unwrap();
            apart(move || remove([file, link])).await;
        }),
        scenario!("permissions", {
            let (file, _) = apart(named).await;
            let permissions = apart({
                let file = file.clone();
                move || std::fs::metadata(file).unwrap().permissions()
            });
            std::fs::set_permissions(&file, permissions.await).unwrap();
            apart(move || remove([file])).await;
        }),
        scenario!("times of an open file", {
            let file = apart(|| tempfile(10)).await;
            file.set_modified(std::time::SystemTime::UNIX_EPOCH)
                .unwrap();
        }),
        scenario!("times by path", {
            let path = c_path(&apart(named).await.0);
            // SAFETY: a C string, and no times: now.
            unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), std::ptr::null(), 0) };
            apart(move || remove([to_path(&path)])).await;
        }),
        scenario!("times, by the call's number", {
            let path = c_path(&apart(named).await.0);
            let now = std::ptr::null::<libc::timespec>();
            // SAFETY: as above.
            unsafe { libc::syscall(libc::SYS_utimensat, libc::AT_FDCWD, path.as_ptr(), now, 0) };
            apart(move || remove([to_path(&path)])).await;
        }),
        scenario!("attribute", {
            let path = c_path(&apart(named).await.0);
            let (name, value) = (c"user.stallscope", b"x");
            // SAFETY: C strings, and as many bytes as it says. It may fail: not each file
            // system has them.
            unsafe {
                libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), 1, 0);
            }
            apart(move || remove([to_path(&path)])).await;
        }),
        scenario!("allocate in a file", {
            let file = apart(|| tempfile(10)).await;
            // SAFETY: an open file.
            unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, 100) };
        }),
        scenario!("owner", {
            let (file, _) = apart(named).await;
            std::os::unix::fs::chown(&file, None, None).unwrap();
            apart(move || remove([file])).await;
        }),
        scenario!("resolve", {
            let _ = std::net::ToSocketAddrs::to_socket_addrs("localhost:80");
        }),
    ]
}

/// An executor within an async function, as people have it.
fn futures_block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let mut future = std::pin::pin!(future);
    let waker = std::sync::Arc::new(Unpark(thread::current())).into();
    loop {
        match future
            .as_mut()
            .poll(&mut std::task::Context::from_waker(&waker))
        {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

fn innocent() -> Vec<Scenario> {
    vec![
        scenario!("allocate", {
            for size in [64, 4096, 300_000, 2 << 20] {
                std::hint::black_box(vec![1_u8; size]);
            }
        }),
        scenario!("map", {
            for _ in 0..8 {
                // SAFETY: maps new memory and unmaps the same.
                unsafe {
                    let map = libc::mmap(
                        std::ptr::null_mut(),
                        1 << 20,
                        libc::PROT_READ | libc::PROT_WRITE,
                        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                        -1,
                        0,
                    );
                    map.cast::<u8>().write_volatile(1);
                    libc::munmap(map, 1 << 20);
                }
            }
        }),
        scenario!("print", {
            eprintln!("to whatever standard error is");
            // Not captured by the test's runner.
            let _ = std::io::stdout().write_all(b".");
            let _ = std::io::stdout().flush();
        }),
        scenario!("locks", {
            let (mutex, lock) = (Mutex::new(0), RwLock::new(0));
            for _ in 0..100 {
                *mutex.lock().unwrap() += 1;
                let read = *lock.read().unwrap();
                *lock.write().unwrap() = read + 1;
            }
        }),
        scenario!("compute", {
            common::spin(ms(2));
        }),
        scenario!("yield", {
            thread::yield_now();
            tokio::task::yield_now().await;
        }),
        scenario!("environment", {
            let _ = std::env::var("PATH");
            let _ = std::env::current_dir();
            let _ = std::time::SystemTime::now();
            let _ = std::fs::metadata("/etc/hostname");
        }),
        scenario!("timers", {
            tokio::time::sleep(ms(1)).await;
            let never = std::future::pending::<()>();
            let _ = tokio::time::timeout(ms(1), never).await;
        }),
        scenario!("channels", {
            let (send, mut receive) = tokio::sync::mpsc::channel(1);
            let (once, ready) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                for n in 0..10 {
                    send.send(n).await.unwrap();
                }
                once.send(()).unwrap();
            });
            while receive.recv().await.is_some() {}
            ready.await.unwrap();
        }),
        scenario!("sockets", {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(async move {
                let mut stream = listener.accept().await.unwrap().0;
                let mut buffer = [0; 4];
                stream.read_exact(&mut buffer).await.unwrap();
                stream.write_all(&buffer).await.unwrap();
            });
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(b"ping").await.unwrap();
            stream.read_exact(&mut [0; 4]).await.unwrap();
            server.await.unwrap();
        }),
        scenario!("spawn_blocking", {
            apart(|| thread::sleep(ms(1))).await;
        }),
        scenario!("tokio::fs", {
            tokio::fs::read("/etc/hostname").await.unwrap();
        }),
        scenario!("allowed", {
            stallscope::allow_blocking("a test", || thread::sleep(ms(1)));
        }),
    ]
}

/// Processes that keep all CPUs busy, until they are dropped.
struct Busy(Vec<Child>);

impl Busy {
    fn new() -> Self {
        let cores = thread::available_parallelism().unwrap().get();
        let busy = (0..cores).map(|_| {
            let mut shell = Command::new("sh");
            shell.args(["-c", "while :; do :; done"]);
            shell.stdin(Stdio::null()).spawn().unwrap()
        });
        Busy(busy.collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn runs() -> usize {
    std::env::var("STALLSCOPE_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(5)
}

/// On both kinds of runtime.
fn run(scenario: &Scenario, number: usize) -> Report {
    let runtime = match number % 2 {
        0 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        _ => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build(),
    };
    let runtime = runtime.unwrap();
    let audited = match number % 4 {
        0 | 1 => runtime.block_on(audit((scenario.make)())),
        _ => runtime
            .block_on(runtime.spawn(audit((scenario.make)())))
            .unwrap(),
    };
    audited.report
}

fn check(scenarios: &[Scenario], right: impl Fn(&Report) -> bool) {
    let _alone = alone();
    let _busy = Busy::new();
    let mut problems = Vec::new();
    for scenario in scenarios {
        let (mut good, mut placed, mut tried) = (0, 0, 0);
        let start = std::time::Instant::now();
        // How often a short one is found is chance, and less where both cores are busy:
        // six in ten of the shortest sleeps.
        let more = if scenario.is_short { 50 } else { 0 };
        for number in 0..runs() + more {
            if number >= runs() && good > 0 {
                break;
            }
            tried += 1;
            let report = run(scenario, number);
            let may_be_missed = scenario.is_short && report.detection() == Some(Detection::Sleeps);
            if right(&report) {
                good += 1;
            } else if !may_be_missed {
                problems.push(format!(
                    "{}, run {number}: {:?}",
                    scenario.name,
                    report.check_no_blocking()
                ));
            }
            let here = report.blocking().iter().any(|blocking| {
                let culprit = blocking.stack().and_then(|stack| stack.culprit());
                culprit
                    .and_then(|culprit| culprit.file())
                    .is_some_and(|file| file.ends_with("verdicts.rs"))
            });
            placed += usize::from(here);
        }
        if good == 0 {
            problems.push(format!("{}, never found", scenario.name));
        }
        println!(
            "{:>20}: {good} of {tried} right, {placed} with a line, {:.1?}",
            scenario.name,
            start.elapsed()
        );
    }
    problems.truncate(20);
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

fn sees_calls() -> bool {
    stallscope::self_test().unwrap() == Detection::Calls
}

#[test]
fn what_sleeps_is_found() {
    check(&blocking(), |report| report.check_no_blocking().is_err());
}

#[test]
fn calls_that_could_block_are_found_where_calls_are_seen() {
    if sees_calls() {
        check(&blocking_calls(), |report| {
            report.check_no_blocking().is_err()
        });
    }
}

#[test]
fn what_does_not_block_passes() {
    check(&innocent(), |report| {
        report.check_no_blocking().is_ok() && report.check_no_stalls().is_ok()
    });
}

/// Standard error goes down a pipe that another thread empties, until this is dropped.
struct StderrPiped {
    before: libc::c_int,
    emptied: Option<thread::JoinHandle<()>>,
}

impl StderrPiped {
    fn new() -> Self {
        let (mut reader, writer) = std::io::pipe().unwrap();
        // SAFETY: duplicates descriptors that are open.
        let before = unsafe { libc::dup(libc::STDERR_FILENO) };
        // SAFETY: as above.
        unsafe { libc::dup2(writer.as_raw_fd(), libc::STDERR_FILENO) };
        let emptied = thread::spawn(move || {
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        });
        StderrPiped {
            before,
            emptied: Some(emptied),
        }
    }
}

impl Drop for StderrPiped {
    fn drop(&mut self) {
        // SAFETY: puts back what was there; the pipe's last writer is closed by it.
        unsafe {
            libc::dup2(self.before, libc::STDERR_FILENO);
            libc::close(self.before);
        }
        let _ = self.emptied.take().unwrap().join();
    }
}

/// Innocent polls, so many of each kind, each kind in one audited future.
async fn polls(kind: usize, count: u32) {
    let mutex = Mutex::new(0);
    let (mut one, mut other) = tokio::io::duplex(64);
    let mut kept = Vec::new();
    for n in 0..count {
        match kind {
            0 => kept.push(vec![1_u8; 64 << (n % 12)]),
            1 => drop(std::hint::black_box(vec![1_u8; 1 << 20])),
            2 => {
                let _ = std::io::stderr().write_all(b"to a pipe\n");
            }
            3 => *mutex.lock().unwrap() += 1,
            4 => {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                one.write_all(b"x").await.unwrap();
                other.read_exact(&mut [0]).await.unwrap();
            }
            _ => {
                let _ = std::fs::metadata("/etc/hostname");
            }
        }
        if kept.len() == 64 {
            kept.clear();
        }
        tokio::task::yield_now().await;
    }
}

/// Prints how many of 120,000 innocent polls are said to have blocked.
///
/// `cargo test --release --test verdicts false_alarms -- --ignored --nocapture`, and
/// with `--features interpose`.
#[test]
#[ignore = "a measurement"]
fn false_alarms_of_innocent_polls() {
    let _alone = alone();
    let _busy = Busy::new();
    let names = ["allocate", "map", "print", "lock", "tokio's I/O", "stat"];
    let count = 20_000;
    println!("blocking is known by {}", stallscope::self_test().unwrap());
    for (kind, name) in names.into_iter().enumerate() {
        let piped = StderrPiped::new();
        let runtime = common::current_thread();
        let report = runtime.block_on(audit(polls(kind, count))).report;
        drop(piped);
        let alarms: u64 = report.blocking().iter().map(|b| b.count()).sum();
        println!("{name:>12}: {alarms} of {} polls", report.polls().count());
    }
}
