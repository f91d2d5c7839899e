//! What there is to say about each kind of blocking: data.

use crate::advice::{Complexity, RiskCategory};

/// What there is to say about one kind of blocking.
#[derive(Debug)]
pub(super) struct Kind {
    /// By what the tables of this folder's tests call it.
    pub(super) name: &'static str,
    pub(super) category: RiskCategory,
    /// What goes on, after "it".
    pub(super) does: &'static str,
    /// In one line: what to do, with the name of what does it.
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
    channel CHANNEL_CODE,
    cpu CPU_CODE,
    database DATABASE_CODE,
    dns DNS_CODE,
    drop DROP_CODE,
    file FILE_CODE,
    fork FORK_CODE,
    http HTTP_CODE,
    input INPUT_CODE,
    lazy LAZY_CODE,
    lock LOCK_CODE,
    memory MEMORY_CODE,
    model MODEL_CODE,
    nested NESTED_CODE,
    other OTHER_CODE,
    output OUTPUT_CODE,
    pieces PIECES_CODE,
    process PROCESS_CODE,
    rayon RAYON_CODE,
    request REQUEST_CODE,
    response RESPONSE_CODE,
    sleep SLEEP_CODE,
    socket SOCKET_CODE,
    watched WATCHED_CODE,
);

/// Not of the fixes that are compiled: there is nothing to compile, or a crate missing.
const ALLOCATOR_CODE: &str = "// In `main.rs`, with `mimalloc` among the dependencies.\n\
    #[global_allocator]\n\
    static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;\n";
const MESSAGE_CODE: &str = "let mut response = tonic::Response::new(page);\n\
    response.disable_compression();\n\
    Ok(response)\n";
const MESSAGE_IN_CODE: &str =
    "let service = StoreServer::new(store).max_decoding_message_size(1 << 20);\n";
const BACKTRACE_CODE: &str = "// In the environment of the service:\n\
    // RUST_BACKTRACE=0\n";
const SUSPENDED_CODE: &str = "// Nothing in the program is to be changed.\n";

pub(super) const SLEEP: &Kind = &Kind {
    name: "sleep",
    category: RiskCategory::Cpu,
    does: "sleeps on the thread instead of in the task",
    short: "sleep with `tokio::time::sleep(..).await`",
    fix: SLEEP_CODE,
    trade_off: "None: the task waits as long, the thread does not. tokio's timers have a \
                resolution of 1 ms.",
    complexity: Complexity::Low,
};

pub(super) const DNS: &Kind = &Kind {
    name: "dns",
    category: RiskCategory::ProcessDns,
    does: "resolves a name, which asks servers and waits for them",
    short: "resolve the name with `tokio::net::lookup_host(..).await`",
    fix: DNS_CODE,
    trade_off: "It runs on tokio's blocking pool, so many at once wait for each other; a \
                resolver of its own (hickory) scales further.",
    complexity: Complexity::Low,
};

pub(super) const PROCESS: &Kind = &Kind {
    name: "process",
    category: RiskCategory::ProcessDns,
    does: "waits for another process, or for what that writes",
    short: "run it with `tokio::process::Command` and `.await` its `output()` or `status()`",
    fix: PROCESS_CODE,
    trade_off: "Starting a process still takes the thread a moment; many at once want a bound.",
    complexity: Complexity::Low,
};

pub(super) const FORK: &Kind = &Kind {
    name: "fork",
    category: RiskCategory::ProcessDns,
    does: "starts a process; where this one forks for it, the kernel copies the page tables \
                of all its memory",
    short: "start processes in `tokio::task::spawn_blocking` or from a small helper process; \
                without `pre_exec`, `uid`, `gid` and `groups` they start by `posix_spawn`, which \
                copies nothing",
    fix: FORK_CODE,
    trade_off: "`tokio::process::Command::spawn` forks on the thread that calls it, so that \
                alone does not help. While a large process forks, its other threads wait when \
                they touch memory.",
    complexity: Complexity::Medium,
};

pub(super) const DATABASE: &Kind = &Kind {
    name: "database",
    category: RiskCategory::Database,
    does: "talks to a database with a driver that blocks, commits and waits for locks included",
    short: "keep the connection on a thread of its own, or run the whole transaction in \
                `tokio::task::spawn_blocking`",
    fix: DATABASE_CODE,
    trade_off: "One thread serves one request at a time, which is what SQLite does anyway, and \
                its wait for another writer then holds up nobody else; for a server, a pool of \
                connections on a bounded pool of threads, or an async driver.",
    complexity: Complexity::Medium,
};

pub(super) const ROWS: &Kind = &Kind {
    name: "rows",
    category: RiskCategory::Database,
    does: "decodes or drops the rows that a database has answered with, many at once",
    short: "fetch fewer rows at once: in pages, or one by one as a stream",
    fix: PIECES_CODE,
    trade_off: "A page more is a trip to the database more.",
    complexity: Complexity::Low,
};

pub(super) const POOL: &Kind = &Kind {
    name: "pool",
    category: RiskCategory::Database,
    does: "waits until a connection of the pool is free",
    short: "take the connection and use it in one `tokio::task::spawn_blocking`, or use a \
                pool that is awaited (deadpool, bb8)",
    fix: DATABASE_CODE,
    trade_off: "More threads than connections only wait: bound both alike.",
    complexity: Complexity::Medium,
};

pub(super) const HTTP: &Kind = &Kind {
    name: "http",
    category: RiskCategory::ExternalApi,
    does: "calls another service with a client that blocks: for as long as that one likes",
    short: "use an async client, or `tokio::task::spawn_blocking` with a timeout of the \
                call's own",
    fix: HTTP_CODE,
    trade_off: "A thread per call in progress; an async client needs none, but its users must \
                become async.",
    complexity: Complexity::Medium,
};

pub(super) const WEBSOCKET: &Kind = &Kind {
    name: "websocket",
    category: RiskCategory::WebSocket,
    does: "reads or writes a WebSocket that blocks",
    short: "use an async WebSocket (tokio-tungstenite, axum)",
    fix: SOCKET_CODE,
    trade_off: "None but the work of moving.",
    complexity: Complexity::Medium,
};

pub(super) const SOCKET: &Kind = &Kind {
    name: "socket",
    category: RiskCategory::ExternalApi,
    does: "waits for a socket",
    short: "use `tokio::net`, or an async client",
    fix: SOCKET_CODE,
    trade_off: "None but the work of moving; a time-out is `tokio::time::timeout` then.",
    complexity: Complexity::Medium,
};

pub(super) const BLOCK_ON: &Kind = &Kind {
    name: "block_on",
    category: RiskCategory::Cpu,
    does: "runs another executor on this thread until its future is done",
    short: "`.await` the future instead of `block_on`",
    fix: NESTED_CODE,
    trade_off: "What calls it must become async. Where that cannot be, call it in \
                `tokio::task::spawn_blocking`.",
    complexity: Complexity::Medium,
};

pub(super) const IN_PLACE: &Kind = &Kind {
    name: "block_in_place",
    category: RiskCategory::Cpu,
    does: "is in `block_in_place`, and no other thread has taken over the worker",
    short: "leave threads free to take over (`max_blocking_threads`), or use \
                `tokio::task::spawn_blocking` behind a semaphore instead of `block_in_place`",
    fix: CPU_CODE,
    trade_off: "Each `block_in_place` needs a thread of the blocking pool; a pool that is used \
                up makes it block its worker.",
    complexity: Complexity::Medium,
};

pub(super) const JOIN: &Kind = &Kind {
    name: "join",
    category: RiskCategory::Cpu,
    does: "waits for a thread to end",
    short: "use `tokio::task::spawn_blocking(..).await` instead of a thread to join",
    fix: OTHER_CODE,
    trade_off: "The blocking pool is shared; for long work, a thread that answers by a \
                `tokio::sync::oneshot`.",
    complexity: Complexity::Low,
};

pub(super) const CHANNEL: &Kind = &Kind {
    name: "channel",
    category: RiskCategory::Lock,
    does: "waits on a channel that blocks, for a message or for room",
    short: "use a channel of `tokio::sync` and `.await` it, or leave the waiting to a thread \
                or `tokio::task::spawn_blocking`",
    fix: CHANNEL_CODE,
    trade_off: "Sending from a thread then is `blocking_send`; a bound is part of the design.",
    complexity: Complexity::Medium,
};

pub(super) const WAIT: &Kind = &Kind {
    name: "wait",
    category: RiskCategory::Lock,
    does: "waits until another thread has done something",
    short: "wait with `tokio::sync::Notify`, `oneshot`, `Semaphore` or `Barrier`, which are \
                awaited",
    fix: CHANNEL_CODE,
    trade_off: "The thread that is waited for must use the same type, which needs no runtime to \
                do so.",
    complexity: Complexity::Medium,
};

pub(super) const SPAWN: &Kind = &Kind {
    name: "spawn",
    category: RiskCategory::Cpu,
    does: "hands work to the blocking pool, piece by piece: each takes the lock of its queue, \
                and wakes a thread",
    short: "hand over fewer and larger pieces: one `tokio::task::spawn_blocking` for all of \
                them",
    fix: CPU_CODE,
    trade_off: "Pieces of one closure run one after the other; some closures, as many as there \
                are cores, run beside each other.",
    complexity: Complexity::Low,
};

pub(super) const BACKTRACE: &Kind = &Kind {
    name: "backtrace",
    category: RiskCategory::Cpu,
    does: "takes or prints a backtrace, of a panic or an error: the debug info of the whole \
                program is read for it",
    short: "mend what panics or fails, or take no backtraces: unset `RUST_BACKTRACE`, and for \
                errors set `RUST_LIB_BACKTRACE=0`",
    fix: BACKTRACE_CODE,
    trade_off: "Without backtraces, logs of failures have less in them.",
    complexity: Complexity::Low,
};

pub(super) const RAYON: &Kind = &Kind {
    name: "rayon",
    category: RiskCategory::Cpu,
    does: "waits until rayon's threads have done the work",
    short: "start the work with `rayon::spawn` and have it answer by a \
                `tokio::sync::oneshot`, which is awaited",
    fix: RAYON_CODE,
    trade_off: "`tokio::task::spawn_blocking` round the call does it, too, with one more thread \
                that only waits. rayon's threads and tokio's share the CPUs.",
    complexity: Complexity::Low,
};

pub(super) const LAZY: &Kind = &Kind {
    name: "lazy",
    category: RiskCategory::Cpu,
    does: "makes what is made once, at its first use",
    short: "make it at start-up, before requests come: `LazyLock::force` in `main`, or in \
                `tokio::task::spawn_blocking` for what takes long",
    fix: LAZY_CODE,
    trade_off: "The start takes longer, and a fault shows there instead of in the first request. \
                `tokio::sync::OnceCell` makes it in a task, while others await it.",
    complexity: Complexity::Low,
};

pub(super) const LAZY_WAIT: &Kind = &Kind {
    name: "lazy_wait",
    category: RiskCategory::Lock,
    does: "waits while another thread makes what is made once, at its first use",
    short: "make it at start-up, before requests come: `LazyLock::force` in `main`, or in \
                `tokio::task::spawn_blocking` for what takes long",
    fix: LAZY_CODE,
    trade_off: "The start takes longer, and a fault shows there instead of in the first request. \
                With `tokio::sync::OnceCell` those who wait await.",
    complexity: Complexity::Low,
};

pub(super) const OUTPUT: &Kind = &Kind {
    name: "output",
    category: RiskCategory::FileIo,
    does: "writes to standard output or error, which waits when nobody reads the other end",
    short: "write lines on a thread of their own (with `tracing`: \
                `tracing_appender::non_blocking`)",
    fix: OUTPUT_CODE,
    trade_off: "Lines can be lost when the queue is full or the process dies.",
    complexity: Complexity::Low,
};

pub(super) const INPUT: &Kind = &Kind {
    name: "input",
    category: RiskCategory::FileIo,
    does: "reads standard input, which waits for whoever writes there",
    short: "read standard input on a thread of its own, which sends lines by a \
                `tokio::sync::mpsc` channel",
    fix: INPUT_CODE,
    trade_off: "`tokio::io::stdin()` does that, but its last read keeps the runtime from ending.",
    complexity: Complexity::Low,
};

pub(super) const FILE: &Kind = &Kind {
    name: "file",
    category: RiskCategory::FileIo,
    does: "reads or writes a file: from memory if the system has it there, else from disk",
    short: "use `tokio::fs`, or better all of the file's work in one \
                `tokio::task::spawn_blocking`",
    fix: FILE_CODE,
    trade_off: "A trip to another thread, some 10 us: one for all of a file's work, not one for \
                each call.",
    complexity: Complexity::Low,
};

pub(super) const DISK: &Kind = &Kind {
    name: "disk",
    category: RiskCategory::FileIo,
    does: "waits for the file system: for files, or for a database within the program",
    short: "do in `tokio::task::spawn_blocking`, as a whole, what works on files or on a \
                database within the program",
    fix: FILE_CODE,
    trade_off: "A trip to another thread, some 10 us: one for all of a file's work, not one for \
                each call.",
    complexity: Complexity::Low,
};

pub(super) const FILE_LOCK: &Kind = &Kind {
    name: "file_lock",
    category: RiskCategory::Lock,
    does: "waits for a lock on a file, which another process or thread holds",
    short: "take the lock and do the work in one `tokio::task::spawn_blocking`",
    fix: FILE_CODE,
    trade_off: "A thread per waiter; `try_lock` and `tokio::time::sleep` between tries need \
                none.",
    complexity: Complexity::Low,
};

pub(super) const READ_WRITE: &Kind = &Kind {
    name: "read",
    category: RiskCategory::FileIo,
    does: "reads or writes a file, pipe or socket",
    short: "use tokio's type for what is read or written (`tokio::fs`, `tokio::net`, \
                `tokio::process`), or `tokio::task::spawn_blocking`",
    fix: FILE_CODE,
    trade_off: "A trip to another thread, some 10 us, for files; none for sockets.",
    complexity: Complexity::Low,
};

pub(super) const DOCUMENT: &Kind = &Kind {
    name: "document",
    category: RiskCategory::Cpu,
    does: "parses or writes a large document in one go",
    short: "move the work to `tokio::task::spawn_blocking`, or make the documents smaller",
    fix: CPU_CODE,
    trade_off: "The document must be moved there; below some 100 KB that costs more than it \
                gains.",
    complexity: Complexity::Low,
};

pub(super) const RESPONSE: &Kind = &Kind {
    name: "response",
    category: RiskCategory::Cpu,
    does: "writes a large answer in one go, after its handler has returned",
    short: "write the answer to bytes in `tokio::task::spawn_blocking` and return those, or \
                send it in pages or as a stream",
    fix: RESPONSE_CODE,
    trade_off: "The whole answer lies in memory until it is sent; pages and streams do without.",
    complexity: Complexity::Low,
};

pub(super) const REQUEST: &Kind = &Kind {
    name: "request",
    category: RiskCategory::Cpu,
    does: "takes in and parses a large body before its handler is called",
    short: "take the body as `Bytes` and parse it in `tokio::task::spawn_blocking`, with a \
                limit to its size",
    fix: REQUEST_CODE,
    trade_off: "What was wrong with the body must be answered by the handler.",
    complexity: Complexity::Low,
};

pub(super) const MESSAGE: &Kind = &Kind {
    name: "message",
    category: RiskCategory::Cpu,
    does: "encodes gRPC messages, and compresses them where that is on, after the method has \
                returned them",
    short: "answer in smaller messages (in pages, or as a stream), or without compression \
                (`tonic::Response::disable_compression`)",
    fix: MESSAGE_CODE,
    trade_off: "More bytes on the wire; within a data centre these cost less than packing them.",
    complexity: Complexity::Low,
};

pub(super) const MESSAGE_IN: &Kind = &Kind {
    name: "message_in",
    category: RiskCategory::Cpu,
    does: "unpacks and decodes a gRPC message that came in",
    short: "take smaller messages (a stream of pieces instead of one), with a limit to their \
                size (`max_decoding_message_size`)",
    fix: MESSAGE_IN_CODE,
    trade_off: "Clients must cut their messages; those beyond the limit are refused.",
    complexity: Complexity::Medium,
};

pub(super) const COMPRESS: &Kind = &Kind {
    name: "compress",
    category: RiskCategory::Cpu,
    does: "compresses or unpacks",
    short: "move the work to `tokio::task::spawn_blocking` or a pool of threads",
    fix: CPU_CODE,
    trade_off: "More of it at once than there are cores only queues: bound it, so that memory is \
                bounded too.",
    complexity: Complexity::Low,
};

pub(super) const COMPRESS_BODY: &Kind = &Kind {
    name: "compress_body",
    category: RiskCategory::Cpu,
    does: "compresses or unpacks a body on the event loop, a chunk in each poll",
    short: "lower the level of compression (such as `CompressionLevel::Fastest`), send \
                smaller chunks, or compress large bodies before, in \
                `tokio::task::spawn_blocking`",
    fix: CPU_CODE,
    trade_off: "The fastest level makes texts a tenth or so larger; what is sent often is better \
                kept compressed.",
    complexity: Complexity::Low,
};

pub(super) const PICTURE: &Kind = &Kind {
    name: "picture",
    category: RiskCategory::Cpu,
    does: "decodes, encodes or changes pictures",
    short: "move the work to `tokio::task::spawn_blocking` or a pool of threads",
    fix: CPU_CODE,
    trade_off: "More of it at once than there are cores only queues: bound it, so that memory is \
                bounded too.",
    complexity: Complexity::Low,
};

pub(super) const PASSWORD: &Kind = &Kind {
    name: "password",
    category: RiskCategory::Cpu,
    does: "does cryptography that is slow on purpose",
    short: "move the work to `tokio::task::spawn_blocking`, bounded by a semaphore",
    fix: CPU_CODE,
    trade_off: "Logins queue under load, which is better than everything else doing so.",
    complexity: Complexity::Low,
};

pub(super) const HASH: &Kind = &Kind {
    name: "hash",
    category: RiskCategory::Cpu,
    does: "hashes, encrypts or signs a lot in one go",
    short: "move the work to `tokio::task::spawn_blocking`, or do a chunk of it as each \
                chunk of the data comes",
    fix: CPU_CODE,
    trade_off: "A trip to another thread, some 10 us: worth it from some 100 KB on.",
    complexity: Complexity::Low,
};

pub(super) const PDF: &Kind = &Kind {
    name: "pdf",
    category: RiskCategory::Cpu,
    does: "reads, writes or draws PDF documents",
    short: "move the work to `tokio::task::spawn_blocking`, bounded by a semaphore; for \
                documents of strangers, to a process of its own",
    fix: CPU_CODE,
    trade_off: "More of it at once than there are cores only queues. A process of its own can be \
                ended when a document takes too long.",
    complexity: Complexity::Medium,
};

pub(super) const INFERENCE: &Kind = &Kind {
    name: "inference",
    category: RiskCategory::Cpu,
    does: "runs a model, or loads one",
    short: "run the model on a thread of its own that takes jobs from a channel and answers \
                by `tokio::sync::oneshot`; load it at start-up",
    fix: MODEL_CODE,
    trade_off: "One model, one queue: several requests can be computed as one batch there.",
    complexity: Complexity::Medium,
};

pub(super) const REGEX: &Kind = &Kind {
    name: "regex",
    category: RiskCategory::Cpu,
    does: "compiles a regular expression",
    short: "compile it once, in a `LazyLock` that is forced at start-up",
    fix: LAZY_CODE,
    trade_off: "None for compiling once.",
    complexity: Complexity::Low,
};

pub(super) const SEARCH: &Kind = &Kind {
    name: "search",
    category: RiskCategory::Cpu,
    does: "searches a long text by a regular expression",
    short: "move searches of long texts to `tokio::task::spawn_blocking`",
    fix: CPU_CODE,
    trade_off: "The text must be moved there; below some 100 KB that costs more than it gains.",
    complexity: Complexity::Low,
};

pub(super) const TEMPLATE: &Kind = &Kind {
    name: "template",
    category: RiskCategory::Cpu,
    does: "renders a template in one go",
    short: "render in `tokio::task::spawn_blocking`, or render fewer rows: in pages",
    fix: CPU_CODE,
    trade_off: "What the template shows must be moved there.",
    complexity: Complexity::Low,
};

pub(super) const DROP: &Kind = &Kind {
    name: "drop",
    category: RiskCategory::Cpu,
    does: "drops values, which frees their memory piece by piece",
    short: "move the work to `tokio::task::spawn_blocking`; if one large value goes out of \
                scope here, have it dropped there: `spawn_blocking(move || drop(value))`",
    fix: DROP_CODE,
    trade_off: "The memory is free a little later.",
    complexity: Complexity::Low,
};

pub(super) const ALLOCATOR: &Kind = &Kind {
    name: "allocator",
    category: RiskCategory::Lock,
    does: "waits for the allocator's lock, which another thread holds: as it gives memory back \
                to the system, or while it has no CPU itself",
    short: "use an allocator with a heap for each thread (such as `mimalloc`), or keep what is \
                large and use it again instead of dropping it",
    fix: ALLOCATOR_CODE,
    trade_off: "A heap for each thread takes more memory. This line is not to blame: it is as \
                long as another thread holds the lock.",
    complexity: Complexity::Low,
};

pub(super) const MEMORY: &Kind = &Kind {
    name: "memory",
    category: RiskCategory::Cpu,
    does: "gives memory back to the system, or waits for the allocator that does",
    short: "drop what is large in `tokio::task::spawn_blocking(move || drop(value))`, or \
                keep the memory and use it again",
    fix: DROP_CODE,
    trade_off: "While the kernel takes memory back, other threads that map or touch new memory \
                wait, too: less of it at once is better.",
    complexity: Complexity::Medium,
};

pub(super) const COMPUTE: &Kind = &Kind {
    name: "compute",
    category: RiskCategory::Cpu,
    does: "computes",
    short: "move the work to `tokio::task::spawn_blocking` or a pool of threads, or cut it \
                into pieces with `tokio::task::yield_now().await` between them",
    fix: CPU_CODE,
    trade_off: "More of it at once than there are cores only queues: bound it. In pieces it \
                stays on the loop and takes its share of it.",
    complexity: Complexity::Low,
};

pub(super) const UNSEEN_COMPUTE: &Kind = &Kind {
    name: "unseen_compute",
    category: RiskCategory::Cpu,
    does: "computes, in no function that is known to be the program's",
    short: "see on its stack, or by naming futures with `stallscope::WatchExt::watched`, \
                which work it is: many short polls want a `tokio::task::yield_now().await`, one \
                long one `tokio::task::spawn_blocking`",
    fix: PIECES_CODE,
    trade_off: "A turn of a worker can be many polls, none of which is long.",
    complexity: Complexity::Medium,
};

pub(super) const LOCK: &Kind = &Kind {
    name: "lock",
    category: RiskCategory::Lock,
    does: "waits for a lock that another thread holds",
    short: "hold the lock shortly and release its guard before any `.await` and anything \
                slow; where it must be held across an `.await`, use `tokio::sync::Mutex`",
    fix: LOCK_CODE,
    trade_off: "Look at who holds it: the fix is there. An async mutex is slower, and its holder \
                must not block either.",
    complexity: Complexity::Medium,
};

pub(super) const UNSEEN_LOCK: &Kind = &Kind {
    name: "unseen_lock",
    category: RiskCategory::Lock,
    does: "waits for a lock that another thread holds, in no function that is known to be the \
                program's",
    short: "see which thread holds it, in a debugger or by the other stalls of that moment: what \
                that one does meanwhile is to be made shorter",
    fix: WATCHED_CODE,
    trade_off: "A lock within a server or a runtime is held shortly, unless its holder gets no \
                CPU.",
    complexity: Complexity::Medium,
};

pub(super) const SPIN_LOCK: &Kind = &Kind {
    name: "spin_lock",
    category: RiskCategory::Lock,
    does: "spins until another thread releases a lock",
    short: "use `std::sync::Mutex` instead of a lock that spins, and hold it shortly",
    fix: LOCK_CODE,
    trade_off: "Who holds it may have been taken off its CPU, and whoever spins keeps it off.",
    complexity: Complexity::Low,
};

pub(super) const FAULT: &Kind = &Kind {
    name: "fault",
    category: RiskCategory::FileIo,
    does: "touches memory that must be read from disk first",
    short: "touch memory that may be on disk (mapped files) in `tokio::task::spawn_blocking`",
    fix: MEMORY_CODE,
    trade_off: "If it is not mapped files, the machine swaps: then it is memory that is missing.",
    complexity: Complexity::Medium,
};

pub(super) const STARVED: &Kind = &Kind {
    name: "starved",
    category: RiskCategory::Starvation,
    does: "could run, but others had the CPUs",
    short: "run fewer busy threads than there are CPUs, or ask for a larger CPU quota",
    fix: PIECES_CODE,
    trade_off: "It is not this code's fault. A container with a quota of 2 CPUs wants 2 workers, \
                and blocking pools that are bounded.",
    complexity: Complexity::Medium,
};

pub(super) const SUSPENDED: &Kind = &Kind {
    name: "suspended",
    category: RiskCategory::Starvation,
    does: "stood still with its whole process, which was stopped, or its machine was",
    short: "look for who stops the process or pauses the machine: a signal, a debugger, a \
                snapshot, a laptop's lid",
    fix: SUSPENDED_CODE,
    trade_off: "It is not this code's fault.",
    complexity: Complexity::Low,
};

pub(super) const UNKNOWN: &Kind = &Kind {
    name: "unknown",
    category: RiskCategory::Cpu,
    does: "does not return",
    short: "move it to `tokio::task::spawn_blocking`",
    fix: OTHER_CODE,
    trade_off: "A trip to another thread, some 10 us.",
    complexity: Complexity::Low,
};

pub(super) const UNSEEN: &Kind = &Kind {
    name: "unseen",
    category: RiskCategory::Cpu,
    does: "does not return, from what is not known",
    short: "name the futures of this runtime with `stallscope::WatchExt::watched` to see \
                which of them it is",
    fix: WATCHED_CODE,
    trade_off: "None: a name costs nanoseconds a poll.",
    complexity: Complexity::Low,
};

#[cfg(test)]
pub(super) const ALL: &[&Kind] = &[
    SLEEP,
    DNS,
    PROCESS,
    FORK,
    DATABASE,
    ROWS,
    POOL,
    HTTP,
    WEBSOCKET,
    SOCKET,
    BLOCK_ON,
    IN_PLACE,
    JOIN,
    CHANNEL,
    WAIT,
    SPAWN,
    BACKTRACE,
    RAYON,
    LAZY,
    LAZY_WAIT,
    OUTPUT,
    INPUT,
    FILE,
    DISK,
    FILE_LOCK,
    READ_WRITE,
    DOCUMENT,
    RESPONSE,
    REQUEST,
    MESSAGE,
    MESSAGE_IN,
    COMPRESS,
    COMPRESS_BODY,
    PICTURE,
    PASSWORD,
    HASH,
    PDF,
    INFERENCE,
    REGEX,
    SEARCH,
    TEMPLATE,
    DROP,
    ALLOCATOR,
    MEMORY,
    COMPUTE,
    UNSEEN_COMPUTE,
    LOCK,
    UNSEEN_LOCK,
    SPIN_LOCK,
    FAULT,
    STARVED,
    SUSPENDED,
    UNKNOWN,
    UNSEEN,
];
