//! The protocol of requests, with handlers that are called by hand.

use super::*;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One test after another fills the table.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn want(tid: i32, bounds: Range<usize>) -> Want {
    Want {
        tid,
        up_to: bounds.end,
        bounds,
        room: 0,
    }
}

fn registers(sp: usize) -> Registers {
    Registers {
        pc: 1,
        sp: sp as u64,
        fp: None,
        lr: 0,
        kept: [None; 6],
    }
}

fn request(want: &Want) -> Request {
    loop {
        // Other tests capture meanwhile.
        if let Ok(request) = Request::new(want) {
            return request;
        }
    }
}

#[test]
fn what_lies_on_the_stack_is_copied_up_to_its_end() {
    let _alone = alone();
    let stack: Vec<u64> = (0..100).collect();
    let low = stack.as_ptr().expose_provenance();
    let bounds = low..low + 800;
    let mut copy = StackCopy::default();
    let asked = request(&want(7, bounds.clone()));
    assert!(claim(asked.number(), 8).is_none(), "another thread");
    let handler = claim(asked.number(), 7).unwrap();
    assert!(claim(asked.number(), 7).is_none(), "twice");
    assert!(matches!(asked.answer(&mut copy), Answer::Late));
    handler.copy(&registers(low + 80));
    handler.done(5, 6);
    let Answer::Copied(sample) = asked.answer(&mut copy) else {
        panic!();
    };
    assert_eq!((sample.task, sample.at), (Some(5), 6));
    assert_eq!((copy.start, copy.bytes.len()), (low as u64 + 80, 720));
    assert_eq!(copy.bytes[..8], 10_u64.to_ne_bytes());

    let asked = request(&want(7, bounds));
    let handler = claim(asked.number(), 7).unwrap();
    handler.copy(&registers(low + 800));
    handler.done(0, 0);
    assert!(matches!(asked.answer(&mut copy), Answer::Foreign(_)));
}

#[test]
fn a_stack_that_is_too_large_for_the_buffer_says_how_large() {
    let _alone = alone();
    let stack = vec![3_u64; SMALL / 8 + 10];
    let low = stack.as_ptr().expose_provenance();
    let mut wanted = want(7, low..low + stack.len() * 8);
    let mut copy = StackCopy::default();
    for room in [0, stack.len() * 8] {
        wanted.room = room;
        let asked = request(&wanted);
        let handler = claim(asked.number(), 7).unwrap();
        handler.copy(&registers(low));
        handler.done(0, 0);
        match asked.answer(&mut copy) {
            Answer::Larger(_, length) => assert_eq!((room, length), (0, stack.len() * 8)),
            Answer::Copied(_) => assert_eq!((room, copy.bytes.len()), (stack.len() * 8, room)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn of_a_request_that_is_taken_back_nothing_is_left() {
    let _alone = alone();
    let word = [0_u64; 4];
    let low = word.as_ptr().expose_provenance();
    let wanted = want(7, low..low + 32);
    // Before the handler, while it is at work, and after.
    for when in 0..3 {
        let asked = request(&wanted);
        let number = asked.number();
        let entry = asked.entry();
        let handler = (when > 0).then(|| claim(number, 7).unwrap());
        if when == 1 {
            drop(asked);
            assert_eq!(entry.state.load(Relaxed) & LOW, ABANDONED);
            handler.unwrap().done(0, 0);
        } else {
            if let Some(handler) = handler {
                handler.done(0, 0);
            }
            drop(asked);
        }
        assert!(claim(number, 7).is_none(), "{when}");
        assert_ne!(entry.state.load(Relaxed) >> BITS << BITS | REQUESTED, 0);
    }
}

#[test]
fn a_large_buffer_is_let_go_when_its_request_is_over() {
    let _alone = alone();
    let word = [0_u64; 4];
    let low = word.as_ptr().expose_provenance();
    let mut wanted = want(7, low..low + 32);
    for room in [0, LARGEST] {
        wanted.room = room;
        for is_answered in [false, true] {
            let asked = request(&wanted);
            let entry = asked.entry();
            assert_eq!(entry.capacity.load(Relaxed), room.max(SMALL));
            if is_answered {
                claim(asked.number(), 7).unwrap().done(0, 0);
            }
            // Nobody takes the entry in between: all others are free.
            drop(asked);
            let kept = entry.capacity.load(Relaxed);
            assert!(kept <= SMALL, "{kept}");
        }
    }
}

#[test]
fn without_memory_there_is_no_request() {
    let case = "os::platform::request::tests::without_memory";
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case, "--ignored", "--test-threads=1"])
        .status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "limits its process, so it runs in one of its own"]
fn without_memory() {
    let limit = libc::rlimit {
        // Less than is in use: nothing is mapped any more.
        rlim_cur: 1 << 20,
        rlim_max: libc::RLIM_INFINITY,
    };
    let mut wanted = want(7, 8..16);
    wanted.room = LARGEST;
    // SAFETY: the kernel reads the limit, which lives through the call.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) };
    assert_eq!(set, 0);
    // The allocator may have room for some in what is mapped already, 64 MiB at most.
    let requests: [_; ENTRIES] = std::array::from_fn(|_| Request::new(&wanted));
    let last = requests.iter().find_map(|request| request.as_ref().err());
    assert_eq!(last, Some(&Miss::NoMemory));
    drop(requests);
    // The entries are free again.
    wanted.room = 0;
    let requests: [_; ENTRIES] = std::array::from_fn(|_| Request::new(&wanted));
    let busy = |request: &Result<_, _>| request.as_ref().err() == Some(&Miss::Busy);
    assert!(!requests.iter().any(busy));
}

#[test]
fn no_buffer_ever_has_two_writers() {
    let _alone = alone();
    let words: Vec<u64> = vec![9; 64];
    let low = words.as_ptr().expose_provenance();
    let (send, receive) = std::sync::mpsc::channel::<u64>();
    let handlers = std::thread::spawn(move || {
        let mut claimed = 0;
        for number in receive {
            if let Some(claim) = claim(number, 7) {
                claim.copy(&registers(low));
                claim.done(number, 0);
                claimed += 1;
            }
        }
        claimed
    });
    let mut copy = StackCopy::default();
    let mut answered = 0;
    for round in 0..20_000 {
        let asked = request(&want(7, low..low + 512));
        send.send(asked.number()).unwrap();
        for _ in 0..round % 500 {
            if let Answer::Copied(sample) = asked.answer(&mut copy) {
                assert_eq!(sample.task, Some(asked.number()), "another's answer");
                answered += 1;
                break;
            }
            std::hint::spin_loop();
        }
    }
    drop(send);
    assert!(handlers.join().unwrap() >= answered);
    drop(words);
}

#[test]
fn a_signal_without_a_number_finds_the_request_by_its_file() {
    let _alone = alone();
    let stack = [5_u64; 10];
    let low = stack.as_ptr().expose_provenance();
    let wanted = want(7, low..low + 80);
    let (first, second) = (request(&wanted), request(&want(8, low..low + 80)));
    assert!(claim_by(3, 7).is_none() && claim_by(-1, 7).is_none());
    first.expect_by(3);
    second.expect_by(4);
    assert!(claim_by(4, 7).is_none(), "the file of another request");
    assert!(claim_by(3, 8).is_none(), "another thread");
    let handler = claim_by(3, 7).unwrap();
    assert!(claim_by(3, 7).is_none(), "twice");
    handler.copy(&registers(low));
    handler.done(0, 6);
    assert!(matches!(
        first.answer(&mut StackCopy::default()),
        Answer::Copied(_)
    ));
    drop(first);
    let later = request(&wanted);
    assert!(claim_by(3, 7).is_none(), "it expects no file");
    assert!(claim(later.number(), 7).is_some());
}
