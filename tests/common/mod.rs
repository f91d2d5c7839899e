//! What the tests on real runtimes share.

#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use stallscope::{Phase, StallEvent, Thresholds, Watchdog};

/// One test on real time after another: the machine may have few cores.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Holds a lock for so long, on another thread, from before the return on.
pub fn hold<T>(time: Duration, take: impl FnOnce() -> T + Send + 'static) {
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        let held = take();
        send.send(()).unwrap();
        thread::sleep(time);
        drop(held);
    });
    receive.recv().unwrap();
}

pub fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

/// MONITOR from 20 ms on.
pub fn from_20_ms() -> Thresholds {
    Thresholds {
        monitor: ms(20),
        ..Thresholds::default()
    }
}

pub fn multi_thread(workers: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()
        .unwrap()
}

pub fn current_thread() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Events with the time at which they were told.
#[derive(Clone, Debug, Default)]
pub struct Told(Arc<Mutex<Vec<(Instant, StallEvent)>>>);

impl Told {
    pub fn watch(&self, runtime: &tokio::runtime::Runtime) -> Watchdog {
        self.watch_with(Watchdog::builder().thresholds(from_20_ms()), runtime)
    }

    pub fn watch_with(
        &self,
        builder: stallscope::Builder,
        runtime: &tokio::runtime::Runtime,
    ) -> Watchdog {
        let told = self.clone();
        let watchdog = builder
            .on_stall(move |event| told.push(event))
            .start_on(runtime.handle())
            .unwrap();
        // Workers that have never run cannot be told from stuck ones; let them.
        std::thread::sleep(ms(50));
        watchdog
    }

    pub fn push(&self, event: &StallEvent) {
        let mut told = self.0.lock().unwrap();
        told.push((Instant::now(), event.clone()));
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    pub fn timed(&self) -> Vec<(Instant, StallEvent)> {
        self.0.lock().unwrap().clone()
    }

    pub fn all(&self) -> Vec<StallEvent> {
        self.timed().into_iter().map(|(_, event)| event).collect()
    }

    pub fn of(&self, phase: Phase) -> Vec<StallEvent> {
        let mut all = self.all();
        all.retain(|event| event.phase == phase);
        all
    }

    /// Waits until `enough`; what matters is that it comes, not how soon.
    pub fn wait_for(&self, enough: impl Fn(&[StallEvent]) -> bool) -> Vec<StallEvent> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let all = self.all();
            if enough(&all) {
                return all;
            }
            assert!(Instant::now() < deadline, "still waiting: {all:#?}");
            std::thread::sleep(ms(1));
        }
    }

    pub fn wait_for_end(&self) -> Vec<StallEvent> {
        self.wait_for(|all| all.iter().any(|event| event.phase == Phase::Ended))
    }
}

/// Computes for so long, however long it has to wait for a CPU meanwhile.
pub fn spin(duration: Duration) {
    let start = on_cpu();
    while on_cpu().saturating_sub(start) < duration {
        let before = Instant::now();
        while before.elapsed() < duration.min(Duration::from_micros(10)) {
            std::hint::spin_loop();
        }
    }
}

/// How long this thread has been on a CPU; where that cannot be known, the time.
pub fn on_cpu() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        #[allow(unsafe_code)]
        // SAFETY: a valid timespec for the length of the call.
        let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        Duration::new(
            time.tv_sec.unsigned_abs(),
            time.tv_nsec.unsigned_abs() as u32,
        )
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        START.get_or_init(Instant::now).elapsed()
    }
}

/// Tasks that work for `poll` and then yield, over and over, until `stop`.
pub fn keep_busy(
    runtime: &tokio::runtime::Runtime,
    tasks: usize,
    poll: Duration,
) -> Vec<tokio::task::JoinHandle<()>> {
    (0..tasks)
        .map(|_| {
            runtime.spawn(async move {
                loop {
                    spin(poll);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect()
}

pub fn stop(tasks: Vec<tokio::task::JoinHandle<()>>) {
    for task in tasks {
        task.abort();
    }
}
