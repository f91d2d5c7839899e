//! What is known of what blocks: data, the first entry that fits is used.

use crate::advice::{Complexity, RiskCategory};

/// What a stall is known by, and what there is to say about it.
#[derive(Debug)]
pub(super) struct Entry {
    /// Parts of names of functions on the stack, from the culprit's callee inwards.
    pub(super) functions: &'static [&'static str],
    /// Names of system calls, where no function told.
    pub(super) syscalls: &'static [&'static str],
    pub(super) category: RiskCategory,
    /// What goes on, after "it".
    pub(super) does: &'static str,
    /// In one line.
    pub(super) short: &'static str,
    /// As code; lines that begin with `# ` only make it compile.
    pub(super) fix: &'static str,
    pub(super) trade_off: &'static str,
    pub(super) complexity: Complexity,
}

macro_rules! fixes {
    ($($name:ident $constant:ident),* $(,)?) => {
        $(pub(super) const $constant: &str = include_str!(concat!("fixes/", stringify!($name), ".rs"));)*

        /// The fixes that advice is given with, so that they are known to compile.
        mod fixes {
            $(
                #[doc = concat!("```no_run\n", include_str!(concat!("fixes/", stringify!($name), ".rs")), "```")]
                mod $name {}
            )*
        }
    };
}

fixes!(
    sleep SLEEP,
    file FILE,
    cpu CPU,
    lock LOCK,
    database DATABASE,
    http HTTP,
    socket SOCKET,
    process PROCESS,
    dns DNS,
    channel CHANNEL,
    nested NESTED,
    output OUTPUT,
    memory MEMORY,
    pieces PIECES,
    other OTHER,
);

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        functions: &["thread::sleep", "thread::functions::sleep"],
        syscalls: &["nanosleep", "clock_nanosleep", "sleep", "usleep"],
        category: RiskCategory::Cpu,
        does: "sleeps on the thread instead of in the task",
        short: "`tokio::time::sleep(..).await`",
        fix: SLEEP,
        trade_off: "None: the task waits as long, the thread does not. tokio's timers have a \
                    resolution of 1 ms.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "getaddrinfo",
            "ToSocketAddrs",
            "to_socket_addrs",
            "lookup_host",
        ],
        syscalls: &["getaddrinfo"],
        category: RiskCategory::ProcessDns,
        does: "resolves a name, which asks servers and waits for them",
        short: "`tokio::net::lookup_host(..).await`",
        fix: DNS,
        trade_off: "It runs on tokio's blocking pool, so many at once wait for each other; a \
                    resolver of its own (hickory) scales further.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &["process::Command", "process::Child"],
        syscalls: &["wait4", "waitid", "waitpid", "posix_spawn", "posix_spawnp"],
        category: RiskCategory::ProcessDns,
        does: "starts a process or waits for one",
        short: "`tokio::process::Command`",
        fix: PROCESS,
        trade_off: "Starting a process still takes the thread a moment; many at once want a bound.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "rusqlite",
            "sqlite3",
            "diesel",
            "postgres::",
            "mysql::",
            "redis::Connection",
        ],
        syscalls: &[],
        category: RiskCategory::Database,
        does: "talks to a database with a driver that blocks, commits to disk included",
        short: "keep the connection on a thread of its own, or use `tokio::task::spawn_blocking`",
        fix: DATABASE,
        trade_off: "One thread serves one request at a time, which is what SQLite does anyway; for \
                    a server, a pool of connections on a bounded pool of threads, or an async driver.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &[
            "reqwest::blocking",
            "ureq::",
            "minreq::",
            "attohttpc::",
            "curl::easy",
        ],
        syscalls: &[],
        category: RiskCategory::ExternalApi,
        does: "calls another service with a client that blocks: for as long as that one likes",
        short: "an async client, or `tokio::task::spawn_blocking` with a timeout of the call's own",
        fix: HTTP,
        trade_off: "A thread per call in progress; an async client needs none, but its users must \
                    become async.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &["tungstenite"],
        syscalls: &[],
        category: RiskCategory::WebSocket,
        does: "reads or writes a WebSocket that blocks",
        short: "an async WebSocket (tokio-tungstenite, axum)",
        fix: SOCKET,
        trade_off: "None but the work of moving.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &[
            "runtime::Runtime>::block_on",
            "Runtime::block_on",
            "Handle::block_on",
            "executor::block_on",
            "pollster::block_on",
            "park::CachedParkThread",
        ],
        syscalls: &[],
        category: RiskCategory::Cpu,
        does: "runs another executor on this thread until its future is done",
        short: "`.await` it instead of `block_on`",
        fix: NESTED,
        trade_off: "What calls it must become async; where that cannot be, call it in \
                    `spawn_blocking`.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &[
            "thread::JoinHandle",
            "JoinInner",
            "join_inner",
            "thread::scope",
        ],
        syscalls: &["pthread_join"],
        category: RiskCategory::Cpu,
        does: "waits for a thread to end",
        short: "`tokio::task::spawn_blocking(..).await` instead of a thread to join",
        fix: OTHER,
        trade_off: "The blocking pool is shared; for long work, a thread that answers by a \
                    `tokio::sync::oneshot`.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "sync::mpsc",
            "sync::mpmc",
            "mpmc::",
            "crossbeam_channel",
            "flume::",
        ],
        syscalls: &[],
        category: RiskCategory::Lock,
        does: "waits for a message on a channel that blocks",
        short: "a channel of `tokio::sync`, or receive on a thread or in `spawn_blocking`",
        fix: CHANNEL,
        trade_off: "Sending from a thread then is `blocking_send`; a bound is part of the design.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &["Condvar", "condvar", "Barrier", "rayon_core", "rayon::"],
        syscalls: &["pthread_cond_wait", "pthread_cond_timedwait", "sem_wait"],
        category: RiskCategory::Lock,
        does: "waits until another thread has done something",
        short: "`tokio::sync::Notify`, `oneshot`, `Semaphore` or `Barrier`",
        fix: CHANNEL,
        trade_off: "For rayon: spawn the work there and have it answer by a oneshot channel.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &[
            "serde_json",
            "serde_yaml",
            "toml::",
            "quick_xml",
            "bincode",
            "csv::",
        ],
        syscalls: &[],
        category: RiskCategory::Cpu,
        does: "parses or writes a large document in one go",
        short: "move the work to `tokio::task::spawn_blocking`, or make the documents smaller",
        fix: CPU,
        trade_off: "The document must be moved there; below some 100 KB that costs more than it \
                    gains.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "image::", "png::", "zune_", "jpeg", "webp", "resvg", "zip::", "flate2", "miniz",
            "zstd", "brotli", "lz4", "fdeflate",
        ],
        syscalls: &[],
        category: RiskCategory::Cpu,
        does: "decodes, encodes or compresses",
        short: "move the work to `tokio::task::spawn_blocking` or a pool of threads",
        fix: CPU,
        trade_off: "More of it at once than there are cores only queues: bound it, so that memory \
                    is bounded too.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "bcrypt",
            "argon2",
            "scrypt",
            "pbkdf2",
            "rsa::",
            "num_bigint_dig",
        ],
        syscalls: &[],
        category: RiskCategory::Cpu,
        does: "does cryptography that is slow on purpose",
        short: "move the work to `tokio::task::spawn_blocking`, bounded by a semaphore",
        fix: CPU,
        trade_off: "Logins queue under load, which is better than everything else doing so.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &["regex::", "regex_automata", "aho_corasick"],
        syscalls: &[],
        category: RiskCategory::Cpu,
        does: "searches text, or compiles a regular expression each time",
        short: "compile once (`LazyLock`); for long texts `tokio::task::spawn_blocking`",
        fix: CPU,
        trade_off: "None for compiling once.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &["io::stdio", "_print", "_eprint", "Stdout", "Stderr"],
        syscalls: &[],
        category: RiskCategory::FileIo,
        does: "writes to standard output, which waits when nobody reads the other end",
        short: "write lines on a thread of their own",
        fix: OUTPUT,
        trade_off: "Lines can be lost when the queue is full or the process dies.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "std::fs::",
            "fs::File",
            "os::unix::fs",
            "fs::read",
            "fs::write",
            "memmap",
        ],
        syscalls: &[
            "fsync",
            "fdatasync",
            "open",
            "open64",
            "openat",
            "openat64",
            "pread64",
            "pwrite64",
            "rename",
            "unlink",
            "mkdir",
            "rmdir",
            "ftruncate64",
            "sendfile64",
            "flock",
            "sync",
            "syncfs",
            "statx",
            "getdents64",
            "opendir",
        ],
        category: RiskCategory::FileIo,
        does: "reads or writes a file: from memory if the system has it there, else from disk",
        short: "`tokio::fs`, or better all of the file's work in one `tokio::task::spawn_blocking`",
        fix: FILE,
        trade_off: "A trip to another thread, some 10 us: one for all of a file's work, not one \
                    for each call.",
        complexity: Complexity::Low,
    },
    Entry {
        functions: &[
            "std::net::",
            "TcpStream",
            "TcpListener",
            "UdpSocket",
            "UnixStream",
        ],
        syscalls: &[
            "connect",
            "accept",
            "accept4",
            "recv",
            "recvfrom",
            "recvmsg",
            "send",
            "sendto",
            "sendmsg",
            "poll",
            "ppoll",
            "select",
            "pselect6",
            "epoll_wait",
        ],
        category: RiskCategory::ExternalApi,
        does: "waits for a socket",
        short: "`tokio::net`, or an async client",
        fix: SOCKET,
        trade_off: "None but the work of moving; a time-out is `tokio::time::timeout` then.",
        complexity: Complexity::Medium,
    },
    Entry {
        functions: &[],
        syscalls: &["read", "write", "readv", "writev"],
        category: RiskCategory::FileIo,
        does: "reads or writes a file, pipe or socket",
        short: "tokio's type for what is read or written (`tokio::fs`, `tokio::net`, \
                `tokio::io`), or `tokio::task::spawn_blocking`",
        fix: FILE,
        trade_off: "A trip to another thread, some 10 us, for files; none for sockets.",
        complexity: Complexity::Low,
    },
];

pub(super) const COMPUTING: Entry = Entry {
    functions: &[],
    syscalls: &[],
    category: RiskCategory::Cpu,
    does: "computes",
    short: "move the work to `tokio::task::spawn_blocking` or a pool of threads, or cut it into \
            pieces with `tokio::task::yield_now().await` between them",
    fix: CPU,
    trade_off: "More of it at once than there are cores only queues: bound it. In pieces it stays \
                on the loop and takes its share of it.",
    complexity: Complexity::Low,
};

pub(super) const LOCKING: Entry = Entry {
    functions: &[],
    syscalls: &[],
    category: RiskCategory::Lock,
    does: "waits for a lock that another thread holds",
    short: "hold the lock shortly and never while waiting for something slow; where it must be \
            held across an await, `tokio::sync::Mutex`",
    fix: LOCK,
    trade_off: "Look at who holds it: the fix is there. An async mutex is slower, and its holder \
                must not block either.",
    complexity: Complexity::Medium,
};

pub(super) const FAULTING: Entry = Entry {
    functions: &[],
    syscalls: &[],
    category: RiskCategory::FileIo,
    does: "touches memory that must be read from disk first",
    short: "touch memory that may be on disk (mapped files) in `tokio::task::spawn_blocking`",
    fix: MEMORY,
    trade_off: "If it is not mapped files, the machine swaps: then it is memory that is missing.",
    complexity: Complexity::Medium,
};

pub(super) const STARVING: Entry = Entry {
    functions: &[],
    syscalls: &[],
    category: RiskCategory::Starvation,
    does: "could run, but others had the CPUs",
    short: "fewer busy threads than CPUs, or a larger CPU quota",
    fix: PIECES,
    trade_off: "It is not this code's fault. A container with a quota of 2 CPUs wants 2 workers, \
                and blocking pools that are bounded.",
    complexity: Complexity::Medium,
};

pub(super) const UNKNOWN: Entry = Entry {
    functions: &[],
    syscalls: &[],
    category: RiskCategory::Cpu,
    does: "does not return",
    short: "move it to `tokio::task::spawn_blocking`",
    fix: OTHER,
    trade_off: "A trip to another thread, some 10 us.",
    complexity: Complexity::Low,
};
