//! Which calls are known, and what kind of blocking each is: data.
//!
//! To make one more known, add its path to a row, or a row, and a stack that shows it to
//! `stacks.txt`. Where two rows fit one function, the first counts.

use crate::advice::kinds::*;

/// A call that is known.
#[derive(Debug)]
pub(super) struct Operation {
    /// Beginnings of paths: `flate2` is all of that crate, `std::..::Condvar::wait*` each
    /// function of such a type whose name begins so, `extern` is C.
    pub(super) calls: &'static str,
    /// It counts only below one of these; empty is anywhere.
    pub(super) inside: &'static str,
    /// With which causes it agrees.
    pub(super) when: &'static [When],
    pub(super) reach: Reach,
    pub(super) kind: &'static Kind,
}

/// What a cause says; an unknown one agrees with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Computing,
    Blocked,
    Locked,
}

/// Where on a stack a call counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Anywhere, before all else: who called it, and what it calls, does not matter.
    Anywhere,
    /// As `Anywhere`, but only if it calls nothing but the standard library and C.
    Leaf,
    /// Between the thread's position and the user's code; of several the outermost, as
    /// the user's code calls that one.
    Call,
    /// As `Call`; where a library lies in between, the user's code calls that library,
    /// and cannot replace the call.
    Primitive,
    /// As `Call`, and round the user's code where nothing is known that this calls.
    Around,
    /// As `Call`, where nothing else is known; of several the innermost.
    Rest,
}

use Reach::{Anywhere, Around, Call, Leaf, Primitive, Rest};
use When::{Blocked, Computing, Locked};

const ANY: &[When] = &[Computing, Blocked];
const EVEN_LOCKED: &[When] = &[Computing, Blocked, Locked];
const COMPUTING: &[When] = &[Computing];
const BLOCKED: &[When] = &[Blocked];

const ROW: Operation = Operation {
    calls: "",
    inside: "",
    when: ANY,
    reach: Call,
    kind: UNKNOWN,
};

pub(super) const OPERATIONS: &[Operation] = &[
    // What decides wherever it is.
    Operation {
        calls: "tokio::task::blocking::block_in_place tokio::runtime::..::block_in_place \
            tokio::task::block_in_place",
        when: EVEN_LOCKED,
        reach: Anywhere,
        kind: IN_PLACE,
        ..ROW
    },
    Operation {
        calls: ONCE,
        when: &[Blocked, Locked],
        reach: Leaf,
        kind: LAZY_WAIT,
        ..ROW
    },
    Operation {
        calls: ONCE,
        when: ANY,
        reach: Anywhere,
        kind: LAZY,
        ..ROW
    },
    Operation {
        // From Rust 1.95, `sys/process/unix/unix.rs`: both ways to start a process.
        calls: "std::process::Command::spawn std::process::spawn std::sys::process::..::spawn \
            std::sys::process::..::do_fork std::sys::process::..::posix_spawn extern::fork \
            extern::vfork extern::_Fork extern::__libc_fork extern::posix_spawn* \
            extern::__posix_spawn* extern::__spawni*",
        reach: Anywhere,
        when: EVEN_LOCKED,
        kind: FORK,
        ..ROW
    },
    Operation {
        calls: "std::panicking::default_hook std::panicking::panic_with_hook \
            std::panicking::rust_panic_with_hook std::backtrace::Backtrace std::backtrace_rs \
            std::sys::backtrace::BacktraceLock std::sys::backtrace::_print_fmt backtrace",
        reach: Anywhere,
        kind: BACKTRACE,
        ..ROW
    },
    Operation {
        calls: "std::io::stdio::print* std::io::stdio::eprint* std::io::stdio::_print \
            std::io::stdio::_eprint std::io::stdio::Stdout* std::io::stdio::Stderr* \
            std::io::stdio::lock",
        when: &[Blocked, Locked],
        kind: OUTPUT,
        ..ROW
    },
    Operation {
        calls: "std::io::stdio::Stdin* std::io::stdio::stdin std::io::stdio::read_line",
        when: &[Blocked, Locked],
        kind: INPUT,
        ..ROW
    },
    Operation {
        calls: SHARED_HEAPS,
        when: &[Locked],
        reach: Anywhere,
        kind: ALLOCATOR,
        ..ROW
    },
    Operation {
        calls: OWN_HEAPS,
        when: &[Locked],
        reach: Anywhere,
        kind: MEMORY,
        ..ROW
    },
    // Executors within executors.
    Operation {
        calls: "..::block_on ..::block_on_stream futures_executor::local_pool \
            tokio::runtime::park::CachedParkThread",
        reach: Around,
        kind: BLOCK_ON,
        ..ROW
    },
    // Other services.
    Operation {
        calls: "reqwest::blocking ureq minreq attohttpc curl::easy isahc::..::send tiny_http \
            lettre::transport::smtp::SmtpTransport tonic::..::blocking elasticsearch::blocking \
            imap ftp suppaftp ssh2",
        when: BLOCKED,
        kind: HTTP,
        ..ROW
    },
    Operation {
        calls: "tungstenite websocket::sync",
        when: BLOCKED,
        kind: WEBSOCKET,
        ..ROW
    },
    // Databases.
    Operation {
        calls: "r2d2 scheduled_thread_pool",
        when: BLOCKED,
        kind: POOL,
        ..ROW
    },
    Operation {
        // Their connections are on threads of their own, or are awaited.
        calls: "sqlx sqlx_core sqlx_sqlite sqlx_postgres sqlx_mysql sea_orm tokio_postgres \
            mysql_async tokio_rusqlite",
        when: COMPUTING,
        kind: ROWS,
        ..ROW
    },
    Operation {
        calls: "rusqlite sqlite libsqlite3_sys diesel rocksdb sled redb heed lmdb duckdb \
            extern::sqlite3*",
        when: ANY,
        kind: DATABASE,
        ..ROW
    },
    Operation {
        calls: "postgres mysql redis mongodb::sync memcache oracle odbc_api extern::PQ* \
            extern::mysql_*",
        when: BLOCKED,
        kind: DATABASE,
        ..ROW
    },
    // Documents, bodies and templates.
    Operation {
        calls: "tonic::codec::encode",
        when: COMPUTING,
        kind: MESSAGE,
        ..ROW
    },
    Operation {
        calls: "tonic::codec::decode",
        when: COMPUTING,
        kind: MESSAGE_IN,
        ..ROW
    },
    Operation {
        // Their level is not theirs to choose.
        calls: UNPACKERS,
        when: COMPUTING,
        kind: COMPRESS,
        ..ROW
    },
    Operation {
        calls: COMPRESSORS,
        inside: BODIES,
        when: COMPUTING,
        kind: COMPRESS_BODY,
        ..ROW
    },
    Operation {
        calls: FORMATS,
        inside: RESPONSES,
        when: COMPUTING,
        reach: Around,
        kind: RESPONSE,
    },
    Operation {
        calls: FORMATS,
        inside: REQUESTS,
        when: COMPUTING,
        reach: Around,
        kind: REQUEST,
    },
    Operation {
        // Where the work is not known, the place itself says what it is for.
        calls: RESPONSES,
        when: COMPUTING,
        kind: RESPONSE,
        ..ROW
    },
    Operation {
        calls: REQUESTS,
        when: COMPUTING,
        kind: REQUEST,
        ..ROW
    },
    Operation {
        calls: FORMATS,
        when: COMPUTING,
        reach: Around,
        kind: DOCUMENT,
        ..ROW
    },
    Operation {
        calls: "tera minijinja askama handlebars liquid* rinja sailfish maud ramhorns",
        when: COMPUTING,
        reach: Around,
        kind: TEMPLATE,
        ..ROW
    },
    Operation {
        calls: "lopdf pdf pdf_extract pdfium_render printpdf genpdf mupdf poppler typst* krilla \
            extern::FPDF* extern::fz_* extern::pdf_*",
        when: COMPUTING,
        kind: PDF,
        ..ROW
    },
    Operation {
        calls: "candle_core candle_nn candle_transformers candle_onnx ort ort_sys tch torch_sys \
            tract_* burn burn_* tokenizers fastembed rust_bert llama_cpp* whisper_rs* \
            onnxruntime* tesseract* leptess ocrs rten* extern::_ZN11onnxruntime* \
            extern::_ZN9tesseract* extern::_ZN2at* extern::_ZN5torch* extern::_ZN3c10* \
            extern::ggml_* extern::llama_* extern::whisper_* extern::TessBaseAPI* gemm*",
        when: COMPUTING,
        kind: INFERENCE,
        ..ROW
    },
    Operation {
        calls: "image png zune_* jpeg_decoder jpeg_encoder mozjpeg* turbojpeg* webp image_webp \
            ravif rav1e gif tiff exr resvg usvg tiny_skia* imageproc fast_image_resize \
            photon_rs opencv libvips* magick_rust kamadak_exif qoi avif* extern::_ZN2cv* \
            extern::vips_* extern::jpeg_* extern::png_* extern::WebP*",
        when: COMPUTING,
        kind: PICTURE,
        ..ROW
    },
    Operation {
        calls: COMPRESSORS,
        when: COMPUTING,
        kind: COMPRESS,
        ..ROW
    },
    Operation {
        calls: "bcrypt argon2 argon2_sys rust_argon2 argon2rs scrypt pbkdf2 rust_scrypt \
            ring::pbkdf2 balloon_hash rsa num_bigint_dig password_auth djangohashers pwhash",
        when: COMPUTING,
        kind: PASSWORD,
        ..ROW
    },
    Operation {
        calls: "sha1 sha2 sha3 md5 md_5 blake2* blake3 crc32fast crc xxhash* twox_hash digest hmac \
            aes aes_gcm chacha20* ring::digest ring::aead ring::hmac ring::rsa aws_lc_rs \
            ed25519_dalek curve25519_dalek k256 p256 jsonwebtoken openssl::hash openssl::sha \
            openssl::rsa openssl::symm openssl::sign",
        when: COMPUTING,
        kind: HASH,
        ..ROW
    },
    Operation {
        calls: "regex::..::new regex::builders regex_automata::..::build* \
            regex_automata::..::compile* regex_automata::nfa::thompson::compiler regex_syntax \
            regex_automata::..::builder fancy_regex::..::new fancy_regex::..::compile* \
            onig::..::new pcre2::..::build globset::..::build aho_corasick::..::build*",
        when: COMPUTING,
        kind: REGEX,
        ..ROW
    },
    Operation {
        calls: "regex regex_automata aho_corasick fancy_regex onig pcre2 grep_searcher tantivy",
        when: COMPUTING,
        kind: SEARCH,
        ..ROW
    },
    // Other threads and processes.
    Operation {
        calls: "tokio::runtime::blocking::pool::spawn* tokio::runtime::blocking::pool::..::spawn* \
            tokio::task::blocking::spawn_blocking tokio::task::spawn_blocking",
        when: EVEN_LOCKED,
        kind: SPAWN,
        ..ROW
    },
    Operation {
        calls: "rayon rayon_core",
        when: EVEN_LOCKED,
        kind: RAYON,
        ..ROW
    },
    Operation {
        calls: "std::process std::sys::process std::sys::pipe std::sys::..::pipe::read2 \
            tokio::process duct subprocess xshell cmd_lib extern::system extern::wait4 \
            extern::waitpid",
        when: BLOCKED,
        kind: PROCESS,
        ..ROW
    },
    Operation {
        calls: "std::thread::join_handle std::thread::JoinHandle::join \
            std::thread::JoinInner::join std::thread::lifecycle::JoinInner std::thread::join \
            std::thread::scoped::scope std::thread::scope crossbeam_utils::thread \
            std::sys::thread::..::join extern::pthread_join extern::__pthread_clockjoin_ex \
            threadpool::..::join",
        when: BLOCKED,
        kind: JOIN,
        ..ROW
    },
    Operation {
        calls: "std::sync::mpsc std::sync::mpmc crossbeam_channel flume kanal \
            async_channel::..::*_blocking async_channel::..::recv_blocking \
            async_channel::..::send_blocking futures_channel::..::recv_blocking \
            tokio::sync::mpsc::..::blocking_* tokio::sync::oneshot::..::blocking_recv \
            tokio::sync::broadcast::..::blocking_recv",
        when: BLOCKED,
        reach: Primitive,
        kind: CHANNEL,
        ..ROW
    },
    Operation {
        calls: "std::..::Condvar::wait* std::..::Barrier::wait parking_lot::..::Condvar::wait* \
            parking_lot::condvar::..::wait* std::thread::park* std::thread::functions::park* \
            std::thread::current::park* crossbeam_utils::sync::parker \
            crossbeam_utils::sync::wait_group extern::pthread_cond_* extern::sem_wait \
            extern::sem_timedwait",
        when: BLOCKED,
        kind: WAIT,
        reach: Primitive,
        ..ROW
    },
    Operation {
        calls: "spin",
        when: COMPUTING,
        kind: SPIN_LOCK,
        ..ROW
    },
    Operation {
        // What is contended spins before it waits, and may be seen as it wakes.
        calls: "std::sys::sync::..::lock_contended std::sys::sync::..::read_contended \
            std::sys::sync::..::write_contended parking_lot::..::lock_slow \
            parking_lot::..::lock_shared_slow parking_lot::..::lock_exclusive_slow",
        when: COMPUTING,
        reach: Primitive,
        kind: LOCK,
        ..ROW
    },
    // The operating system's own.
    Operation {
        calls: "std::thread::sleep* std::thread::functions::sleep* std::sys::thread::..::sleep* \
            extern::nanosleep extern::clock_nanosleep* extern::__clock_nanosleep* \
            extern::__nanosleep extern::sleep extern::usleep",
        when: BLOCKED,
        reach: Primitive,
        kind: SLEEP,
        ..ROW
    },
    Operation {
        calls: "std::net::..::to_socket_addrs std::net::socket_addr::resolve_socket_addr \
            std::sys::net::..::LookupHost std::sys::net::..::lookup_host* \
            std::sys_common::net::..::lookup_host dns_lookup extern::getaddrinfo \
            extern::gethostby* extern::gaih_* extern::_nss_* extern::__res_*",
        when: ANY,
        reach: Primitive,
        kind: DNS,
        ..ROW
    },
    Operation {
        calls: "fs2 fs4 fd_lock file_lock std::fs::File::lock* std::fs::lock* extern::flock \
            extern::lockf*",
        when: BLOCKED,
        kind: FILE_LOCK,
        ..ROW
    },
    Operation {
        calls: "walkdir tar ignore glob globwalk tempfile fs_extra fs_err jwalk notify cap_std::fs \
            camino dotenvy dotenv config",
        kind: FILE,
        ..ROW
    },
    Operation {
        // What is read below a pipe of a process, too.
        calls: "std::sys::fs::..::File::read* std::sys::fs::..::File::write*",
        reach: Primitive,
        kind: READ_WRITE,
        ..ROW
    },
    Operation {
        calls: "std::fs std::sys::fs std::path::Path::exists std::path::Path::metadata \
            std::path::Path::is_* std::path::Path::canonicalize std::os::unix::fs \
            std::os::fd::..::drop extern::fsync extern::fdatasync extern::open extern::open64 \
            extern::openat extern::openat64 extern::__open* extern::__libc_open* \
            extern::pread* extern::pwrite* extern::readdir* extern::getdents* \
            extern::copy_file_range extern::sendfile* extern::rename* extern::unlink* \
            extern::statx",
        reach: Primitive,
        kind: FILE,
        ..ROW
    },
    Operation {
        // Their sockets do not block.
        calls: "mio tokio::net tokio::io::poll_evented tokio::runtime::io async_io",
        when: BLOCKED,
        kind: UNSEEN,
        ..ROW
    },
    Operation {
        calls: "std::net std::sys::net std::os::unix::net native_tls socket2",
        when: BLOCKED,
        reach: Primitive,
        kind: SOCKET,
        ..ROW
    },
    // Memory.
    Operation {
        calls: "extern::munmap extern::__munmap extern::madvise extern::__madvise \
            extern::malloc_trim extern::systrim* extern::malloc_consolidate \
            extern::_rjem_je_*purge* extern::mi_*purge* extern::mi_*collect* extern::brk \
            extern::__brk extern::sbrk",
        reach: Rest,
        kind: MEMORY,
        ..ROW
    },
    Operation {
        // Not `drop_in_place` alone, in which whatever a type's `drop` does is.
        calls: "extern::cfree extern::free extern::_int_free* extern::__libc_free \
            alloc::alloc::dealloc* alloc::..::drop_slow hashbrown::..::drop*",
        when: COMPUTING,
        reach: Rest,
        kind: DROP,
        ..ROW
    },
];

const ONCE: &str = "std::sync::LazyLock std::sync::lazy_lock std::sync::OnceLock::get_or_init \
    std::sync::OnceLock::get_or_try_init std::sync::OnceLock::initialize std::sync::once_lock \
    std::sync::..::Once::call_once* std::sync::..::Once::call_inner std::sync::..::Once::wait* \
    std::sys::sync::once once_cell lazy_static parking_lot::once \
    spin::once spin::lazy";

const FORMATS: &str = "serde_json serde_yaml serde_yml serde_urlencoded serde_qs serde_cbor simd_json sonic_rs \
    toml toml_edit quick_xml roxmltree xml bincode postcard rmp_serde rmp ciborium csv \
    csv_core prost rkyv bson ron calamine rust_xlsxwriter umya_spreadsheet arrow* parquet \
    polars* html5ever scraper pulldown_cmark comrak syntect base64 hex data_encoding";

const COMPRESSORS: &str = "flate2 miniz_oxide libz_sys libz_rs_sys zlib_rs zune_inflate fdeflate brotli \
    brotli_decompressor zstd zstd_safe ruzstd lz4 lz4_flex lzma_rs xz2 liblzma bzip2 bzip2_rs \
    snap zip async_zip sevenz_rust* zopfli compression_codecs \
    extern::ZSTD_* extern::LZ4_* extern::BZ2_* extern::lzma_* extern::deflate* \
    extern::inflate*";

const UNPACKERS: &str = "compression_codecs::..::decoder async_compression::codec::..::decoder \
    brotli_decompressor miniz_oxide::inflate flate2::mem::Decompress flate2::..::decompress* \
    zstd_safe::DCtx zstd::stream::..::decoder zstd::..::Decoder fdeflate::decompress \
    lz4_flex::..::decompress* snap::decompress snap::..::decompress* extern::inflate* \
    extern::ZSTD_decompress* extern::LZ4_decompress* extern::BrotliDecoder*";

const RESPONSES: &str = "axum::json::..::into_response axum_extra::..::into_response \
    actix_web::types::json::..::respond_to actix_web::types::json::..::error_response \
    actix_web::response::builder::..::json warp::reply poem::web::json::..::into_response \
    rocket::serde::..::respond_to salvo_core::..::render";

const REQUESTS: &str = "axum::json::..::from_request axum::json::..::from_bytes axum::form \
    actix_web::types::json actix_web::types::form warp::filters::body poem::web::json \
    rocket::serde";

const BODIES: &str = "tower_http::compression tower_http::decompression tower_http::compression_utils \
    actix_http::encoding async_compression warp::filters::compression \
    poem::middleware::compression tonic::codec::compression";

/// The C library's allocator, whose heaps several threads share.
const SHARED_HEAPS: &str = "extern::malloc extern::__libc_malloc extern::free extern::__libc_free \
    extern::cfree extern::realloc extern::__libc_realloc extern::calloc extern::__libc_calloc \
    extern::_int_malloc extern::_int_free* extern::_int_realloc extern::_int_memalign \
    extern::memalign extern::__libc_memalign extern::aligned_alloc extern::posix_memalign";

/// Allocators that wait for each other only where memory is given back, or taken anew.
const OWN_HEAPS: &str = "extern::_rjem_* extern::je_* extern::mi_* tikv_jemallocator mimalloc";

/// What a system call says where no function does. Names are the kernel's, or in tests
/// the C library's.
pub(super) const SYSCALLS: &[(&str, &Kind)] = &[
    ("nanosleep clock_nanosleep sleep usleep", SLEEP),
    ("getaddrinfo", DNS),
    ("wait4 waitid waitpid", PROCESS),
    ("clone clone3 fork vfork posix_spawn posix_spawnp", FORK),
    ("pthread_join", JOIN),
    (
        "pthread_cond_wait pthread_cond_timedwait sem_wait futex futex_waitv",
        WAIT,
    ),
    ("flock", FILE_LOCK),
    ("munmap madvise brk", MEMORY),
    (
        "fsync fdatasync msync sync_file_range open open64 openat openat64 openat2 pread64 \
        pwrite64 preadv pwritev rename renameat2 unlink unlinkat mkdir rmdir ftruncate \
        ftruncate64 fallocate sendfile sendfile64 copy_file_range sync syncfs statx stat \
        newfstatat getdents64 opendir",
        FILE,
    ),
    (
        "connect accept accept4 recv recvfrom recvmsg recvmmsg send sendto sendmsg sendmmsg \
        poll ppoll select pselect6",
        SOCKET,
    ),
    ("read write readv writev", READ_WRITE),
];
