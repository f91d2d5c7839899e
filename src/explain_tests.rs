//! The symbolizer that the process has once.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::Instant;

use super::*;
use crate::os::module_files;

/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);

fn modules() -> Arc<[ModuleFile]> {
    module_files().into()
}

fn job(addresses: &[u64], reply: Reply) -> Job {
    Job {
        addresses: addresses.to_vec(),
        modules: modules(),
        reply,
    }
}

fn sends<T: Send + 'static>(to: &Sender<(T, Vec<Frame>)>, what: T) -> Reply {
    let to = to.clone();
    Box::new(move |frames| to.send((what, frames.unwrap())).unwrap())
}

/// An address of nothing, and beside none that has been asked for.
fn unknown() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1 << 12, Relaxed) + 1
}

/// Holds up the thread until something is sent.
fn hold_up(explainer: &Explainer) -> Sender<()> {
    let (go, gone) = channel::<()>();
    let (here, arrived) = channel();
    let reply: Reply = Box::new(move |_| {
        here.send(()).unwrap();
        let _ = gone.recv_timeout(LONG);
    });
    let sent = explainer.send(job(&[unknown()], reply));
    assert!(matches!(sent, Sent::Queued));
    arrived.recv_timeout(LONG).unwrap();
    go
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < LONG, "{what}");
        sleep(Duration::from_millis(1));
    }
}

fn here() -> u64 {
    sleep as fn(Duration) as usize as u64
}

fn there() -> u64 {
    Instant::now as fn() -> Instant as usize as u64
}

/// A home of its own, as other tests of this process have watchdogs.
fn home() -> &'static Home {
    Box::leak(Box::new(Home::new()))
}

fn acquire(home: &Home) -> Explainer {
    Explainer::of(home, QUIET).unwrap()
}

#[test]
fn what_takes_microseconds_needs_no_thread_unless_a_stack_is_ahead_of_it() {
    let explainer = acquire(home());
    let go = hold_up(&explainer);
    let (answers, answered) = channel();
    for (number, address) in [here(), there(), here()].into_iter().enumerate() {
        let sent = explainer.send(job(&[address], sends(&answers, number)));
        assert!(matches!(sent, Sent::Queued), "{sent:?}");
    }
    go.send(()).unwrap();
    for number in 0..3 {
        let (of, frames) = answered.recv_timeout(LONG).unwrap();
        assert_eq!(of, number);
        assert!(frames[0].function.is_some());
    }
    wait_for("all replied", || explainer.asker.pending.load(Relaxed) == 0);
    // The same again, and one beside it.
    for address in [there(), there() + 1] {
        let Sent::AtHand(frames) = explainer.send(job(&[address], Box::new(|_| ()))) else {
            panic!("it waits for the thread");
        };
        let function = frames[0].function().unwrap();
        assert!(function.contains("now"), "{function}");
    }
    // Another asker's stacks that wait are none of its business.
    let other = Explainer {
        live: explainer.live.clone(),
        asker: Arc::default(),
        pid: explainer.pid,
    };
    let go = hold_up(&other);
    let sent = explainer.send(job(&[there()], Box::new(|_| ())));
    assert!(matches!(sent, Sent::AtHand(_)));
    let sent = other.send(job(&[there()], Box::new(|_| ())));
    assert!(matches!(sent, Sent::Queued));
    drop(go);
}

/// The threads of this name.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    // The kernel keeps 15 characters of a name.
    tasks
        .filter_map(|task| name(task.unwrap()).ok())
        .filter(|name| name.trim_end() == &THREAD_NAME[..15])
        .count()
}

#[test]
fn many_handles_are_one_thread_which_ends_after_the_last() {
    // Threads of this name are counted: alone in a process.
    if std::env::var_os("STALLSCOPE_ALONE").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .env("STALLSCOPE_ALONE", "1")
            .args(["--exact", "--nocapture"])
            .arg("explain::tests::many_handles_are_one_thread_which_ends_after_the_last")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    for _ in 0..3 {
        let handles: Vec<Explainer> = (0..20).map(|_| Explainer::acquire().unwrap()).collect();
        wait_for("one thread", || threads() == 1);
        let (answers, answered) = channel();
        for (number, explainer) in handles.iter().enumerate() {
            if let Sent::AtHand(_) = explainer.send(job(&[here()], sends(&answers, number))) {
                answers.send((number, Vec::new())).unwrap();
            }
        }
        for _ in &handles {
            answered.recv_timeout(LONG).unwrap();
        }
        assert_eq!(threads(), 1);
        drop(handles);
        wait_for("no thread", || threads() == 0);
    }
}

#[test]
fn a_drop_does_not_wait_and_a_later_handle_works() {
    let home = home();
    let explainer = acquire(home);
    let service = Arc::downgrade(&explainer.live.as_ref().unwrap().service);
    let go = hold_up(&explainer);
    let (answers, unanswered) = channel();
    let sent = explainer.send(job(&[here()], sends(&answers, ())));
    assert!(matches!(sent, Sent::Queued));
    drop(answers);
    // The thread is held up until the end of this test: a drop that waits does not return.
    drop(explainer);
    let explainer = acquire(home);
    let answered = answer(&explainer, here());
    assert!(answered[0].function.is_some());
    drop(go);
    assert!(unanswered.recv_timeout(LONG).is_err(), "nobody is left");
    wait_for("the memory is let go", || service.upgrade().is_none());
}

fn answer(explainer: &Explainer, address: u64) -> Vec<Frame> {
    let (answers, answered) = channel();
    match explainer.send(job(&[address], sends(&answers, ()))) {
        Sent::AtHand(frames) => frames,
        Sent::Queued => answered.recv_timeout(LONG).unwrap().1,
        Sent::Rejected => panic!("rejected"),
    }
}

#[test]
fn too_many_are_rejected_and_those_of_who_is_gone_are_not_replied_to() {
    let home = home();
    let (explainer, gone) = (acquire(home), acquire(home));
    let go = hold_up(&explainer);
    let (answers, answered) = channel();
    let sent = |of: &Explainer, number: usize| of.send(job(&[here()], sends(&answers, number)));
    for number in 0..QUEUE / 2 {
        assert!(matches!(sent(&gone, number), Sent::Queued));
    }
    for number in QUEUE / 2..QUEUE {
        assert!(matches!(sent(&explainer, number), Sent::Queued));
    }
    assert!(matches!(sent(&explainer, QUEUE), Sent::Rejected));
    assert!(matches!(sent(&gone, QUEUE), Sent::Rejected));
    drop(gone);
    go.send(()).unwrap();
    for number in QUEUE / 2..QUEUE {
        assert_eq!(answered.recv_timeout(LONG).unwrap().0, number);
    }
    // Rejected ones count as pending no more.
    wait_for("none pending", || {
        explainer.asker.pending.load(Relaxed) == 0
    });
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        std::panic::panic_any("as the test wants");
    }
}

#[test]
fn panics_of_replies_end_nothing() {
    let explainer = acquire(home());
    let replies: [Reply; 2] = [
        Box::new(|_| panic!("as the test wants")),
        Box::new(|_| std::panic::panic_any(PanicsWhenDropped)),
    ];
    for reply in replies {
        let sent = explainer.send(job(&[unknown()], reply));
        assert!(matches!(sent, Sent::Queued));
        wait_for("done", || explainer.asker.pending.load(Relaxed) == 0);
    }
    assert_eq!(explainer.panics(), 2);
    // Nor do those of replies that nobody waits for.
    let home = home();
    let (kept, gone) = (acquire(home), acquire(home));
    let go = hold_up(&kept);
    let captured = PanicsWhenDropped;
    let reply: Reply = Box::new(move |_| drop(captured));
    let sent = gone.send(job(&[unknown()], reply));
    assert!(matches!(sent, Sent::Queued));
    drop(gone);
    drop(go);
    assert!(answer(&kept, here())[0].function.is_some());
}

#[test]
fn a_panic_in_debug_info_leaves_one_address_bare_and_is_counted() {
    let explainer = acquire(home());
    let broken = there() + 2;
    Symbolizer::panic_at(broken);
    let (answers, answered): (_, Receiver<((), Vec<Frame>)>) = channel();
    // All but the first are return addresses.
    let stack = job(&[here(), broken + 1, there() + 1], sends(&answers, ()));
    assert!(matches!(explainer.send(stack), Sent::Queued));
    let (_, frames) = answered.recv_timeout(LONG).unwrap();
    Symbolizer::panic_at(0);
    let is_bare = |frame: &&Frame| frame.function.is_none();
    assert_eq!(frames.iter().filter(is_bare).count(), 1, "{frames:#?}");
    let bare = frames.iter().find(is_bare).unwrap();
    assert!(bare.module.is_some() && bare.address != 0);
    assert_eq!(explainer.panics(), 1);
    assert!(answer(&explainer, here())[0].function.is_some());
}

#[test]
fn debug_info_is_there_before_the_first_stack_and_let_go_when_it_is_quiet() {
    let explainer = Explainer::of(home(), Duration::from_millis(50)).unwrap();
    assert!(!explainer.is_prompt());
    explainer.prepare(modules());
    wait_for("prepared", || explainer.is_prompt());
    wait_for("let go", || !explainer.is_prompt());
    assert!(answer(&explainer, here())[0].function.is_some());
    assert_eq!(explainer.lack(), None);
}

#[test]
fn after_a_fork_a_handle_of_the_parent_is_of_no_use() {
    let home = home();
    let explainer = acquire(home);
    let service = Arc::downgrade(&explainer.live.as_ref().unwrap().service);
    let go = hold_up(&explainer);
    // As it looks in the child.
    let inherited = Explainer {
        live: explainer.live.clone(),
        asker: Arc::default(),
        pid: explainer.pid + 1,
    };
    let sent = inherited.send(job(&[here()], Box::new(|_| panic!("a reply"))));
    assert!(matches!(sent, Sent::Rejected));
    inherited.prepare(modules());
    assert!(service.upgrade().unwrap().queue.is_empty());
    drop(inherited);
    drop(explainer);
    drop(go);
    // Its drop touched nothing: the service is still referred to.
    assert!(!service.upgrade().unwrap().closed.load(Relaxed));
}
