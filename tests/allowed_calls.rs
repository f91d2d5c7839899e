//! A filter of system calls that kills for what a plain tokio program never calls.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

#[path = "common/child.rs"]
mod child;
mod common;

use std::time::Duration;

use child::Child;
use common::{Told, alone, ms, multi_thread};
use stallscope::{Audit, Phase, Stall, StallEvent, WatchExt, Watchdog};
use tokio::runtime::Runtime;

/// What std, tokio, glibc and its allocator call in any program, or can.
const ALLOWED: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_prlimit64,
    libc::SYS_read,
    libc::SYS_readlink,
    libc::SYS_recvfrom,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_socketpair,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
];

/// What the library calls besides: `docs::design` names each, and systemd has these in
/// groups without which no program starts a thread.
const OURS: &[i64] = &[libc::SYS_getrusage];

/// Says the number of the call and ends the process.
extern "C" fn ends(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands over the signal's description. That of SIGSYS by a filter
    // has the call's number at byte 24 (`_call_addr`, `_syscall`; sigaction(2)).
    let number = unsafe { info.cast::<u8>().add(24).cast::<libc::c_int>().read() };
    let mut text = *b"\ndied of 0000\n";
    let (mut rest, mut at) = (number.unsigned_abs(), 12);
    while rest > 0 && at > 8 {
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        at -= 1;
    }
    // SAFETY: both may be called in a handler; the text is a local array.
    unsafe {
        libc::write(1, text.as_ptr().cast(), text.len());
        libc::_exit(1);
    }
}

/// Has every other call of this thread, and of those that it starts, end the process.
///
/// The filter raises a signal where one of systemd would kill, to name the call: the
/// kernel unblocks such a signal, and ends what does not handle it.
fn allow_only(lists: &[&[i64]]) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    // Word 0 of `seccomp_data` is the call's number.
    let mut filter = vec![step(LOAD, 0, 0)];
    for call in lists.iter().copied().flatten() {
        filter.push(step(JUMP_IF_EQUAL, u32::try_from(*call).unwrap(), 1));
        filter.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0));
    }
    filter.push(step(RETURN, libc::SECCOMP_RET_TRAP, 0));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).unwrap(),
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the handler has the signature of SA_SIGINFO and calls only what a handler
    // may call. The filter lives until the kernel has copied it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler = ends as extern "C" fn(_, _, _);
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()),
            0
        );
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        );
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Polls that sleep and polls that compute, of all severities but the highest.
fn stall(runtime: &Runtime) {
    for time in [ms(60), ms(150), ms(1_050)] {
        let naps = runtime.spawn(async move { std::thread::sleep(time) }.watched("naps"));
        let computes = runtime.spawn(async move { common::spin(time) }.watched("computes"));
        runtime.block_on(async {
            naps.await.unwrap();
            computes.await.unwrap();
            tokio::task::spawn_blocking(|| ()).await.unwrap();
        });
    }
}

/// Not a test: shows that the list has what a program calls that is not watched.
#[test]
#[ignore = "runs in a process of its own"]
fn is_not_watched() {
    allow_only(&[ALLOWED]);
    let runtime = multi_thread(2);
    stall(&runtime);
    drop(runtime);
    println!("\nlives");
}

/// Not a test: shows that another call ends the process.
#[test]
#[ignore = "runs in a process of its own"]
fn calls_another() {
    allow_only(&[ALLOWED]);
    // SAFETY: getppid has no preconditions.
    unsafe { libc::getppid() };
    println!("\nlives");
}

/// Where a stall was, in this crate.
fn line_of(stall: &Stall) -> String {
    let culprit = stall.stack().and_then(|stack| stack.culprit());
    let file = culprit.and_then(|culprit| culprit.file());
    let file = file.filter(|file| file.contains("tests/"));
    file.unwrap_or("none").to_owned()
}

/// The longest that computes, which a machine with many others' work lets compute, too.
fn is_the_long(event: &StallEvent) -> bool {
    let name = event.stall.task().map(stallscope::Task::name);
    name == Some("computes") && event.stall.duration() > ms(1_000)
}

fn run_watched(builder: stallscope::Builder, runtime: &Runtime) {
    let told = Told::default();
    let watchdog = told.watch_with(builder, runtime);
    stall(runtime);
    // A busy machine may hide a short one.
    told.wait_for(|all| {
        all.iter()
            .filter(|event| event.phase == Phase::Ended)
            .count()
            >= 4
            && all
                .iter()
                .any(|event| is_the_long(event) && event.phase == Phase::Ended)
    });
    let long = told.of(Phase::Ended).into_iter().find(is_the_long).unwrap();
    println!("\nline {}", line_of(&long.stall));
    let report = watchdog.report();
    println!("\nno stacks {:?}", watchdog.health().no_stacks());
    println!("stalls {}", report.counts().total());
    drop(watchdog);
    // The threads of the process end with its last watchdog.
    std::thread::sleep(Duration::from_millis(200));
    println!("\nlives");
}

/// Not a test: what must live.
#[test]
#[ignore = "runs in a process of its own"]
fn is_watched() {
    allow_only(&[ALLOWED, OURS]);
    run_watched(Watchdog::builder(), &multi_thread(2));
}

/// Not a test: what must live, too.
#[test]
#[ignore = "runs in a process of its own"]
fn is_watched_with_hooks_and_tracked() {
    allow_only(&[ALLOWED, OURS]);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all();
    let builder = Watchdog::builder()
        .track(true)
        .stuck_after(Some(ms(500)))
        .install(&mut runtime);
    run_watched(builder, &runtime.build().unwrap());
}

/// Not a test: what must live, too, where the user vouches for these calls.
#[test]
#[ignore = "runs in a process of its own"]
fn is_watched_by_timers() {
    const VOUCHED_FOR: &[i64] = &[
        libc::SYS_timer_create,
        libc::SYS_timer_delete,
        libc::SYS_timer_settime,
        libc::SYS_uname,
    ];
    allow_only(&[ALLOWED, OURS, VOUCHED_FOR]);
    let builder = Watchdog::builder().signal(Some(libc::SIGURG));
    run_watched(builder, &multi_thread(2));
}

/// Not a test: what must live, too.
#[test]
#[ignore = "runs in a process of its own"]
fn is_audited() {
    allow_only(&[ALLOWED, OURS]);
    let runtime = multi_thread(2);
    let audit = Audit::new().run(async { common::spin(ms(1_000)) });
    let report = runtime.block_on(audit).report;
    let [stall] = report.stalls() else {
        panic!("{:#?}", report.stalls());
    };
    println!("\nline {}", line_of(stall));
    println!("\nlives");
}

/// Whether it lives and has the line of what computed, or else which call it died of.
fn run_and_find(test: &str) -> Result<(), String> {
    let mut child = Child::of(test);
    let line = child.line_with_any(&["line", "died of"]);
    if line.starts_with("line") && !line.ends_with("tests/common/mod.rs") {
        return Err(line);
    }
    if let Some(number) = line.strip_prefix("died of ") {
        return Err(number.to_owned());
    }
    lives(child)
}

/// Whether it lives, or else which call it died of.
fn run(test: &str) -> Result<(), String> {
    lives(Child::of(test))
}

fn lives(mut child: Child) -> Result<(), String> {
    let line = child.line_with_any(&["lives", "died of"]);
    match line.strip_prefix("died of ") {
        Some(number) => Err(number.to_owned()),
        None if child.wait().success() => Ok(()),
        None => Err("no call".to_owned()),
    }
}

#[test]
fn the_default_path_calls_what_every_service_calls() {
    let _alone = alone();
    assert_eq!(run("is_not_watched"), Ok(()));
    let another = format!("{:04}", libc::SYS_getppid);
    assert_eq!(run("calls_another"), Err(another));
    for watched in [
        "is_watched",
        "is_watched_with_hooks_and_tracked",
        "is_audited",
    ] {
        assert_eq!(run_and_find(watched), Ok(()), "{watched}");
    }
    assert_eq!(run_and_find("is_watched_by_timers"), Ok(()));
}
