//! Whose a function is: the user's, a library's, or of no account.

use crate::error::Error;
use crate::function_name::{self, krate};
use crate::stall::Frame;

/// Directories below which only libraries lie: the standard library as it was built, what
/// it is built on, the same from source; crates from a registry, from git, from Debian;
/// what Nix and Guix have built.
const LIBRARY_PATHS: [&str; 10] = [
    "/rustc/",
    "/rust/deps/",
    "/rustlib/src/",
    "library/std/",
    "/registry/src/",
    "/git/checkouts/",
    "/cargo/registry/",
    "/nix/store/",
    "/gnu/store/",
    "/cargo-vendor-dir/",
];

/// Directories with copies of libraries: of `cargo vendor`, of Bazel, of monorepos. A
/// module of the user's may be called so, too, so a crate must follow: a folder that has
/// `src`, or a version in its name.
const COPIES: [&str; 4] = ["vendor", "external", "third_party", "third-party"];

/// Crates whose functions are not the user's, where no path says so.
const LIBRARY_CRATES: &[&str] = &[
    "__rustc",
    "actix_codec",
    "actix_http",
    "actix_router",
    "actix_rt",
    "actix_server",
    "actix_service",
    "actix_utils",
    "actix_web",
    "addr2line",
    "adler2",
    "ahash",
    "aho_corasick",
    "alloc",
    "argon2",
    "async_channel",
    "async_compression",
    "async_executor",
    "async_io",
    "async_lock",
    "async_stream",
    "axum",
    "axum_core",
    "axum_extra",
    "backtrace",
    "base64",
    "bb8",
    "bcrypt",
    "bincode",
    "blake2",
    "brotli",
    "brotli_decompressor",
    "bytes",
    "bzip2",
    "chrono",
    "compiler_builtins",
    "core",
    "crc32fast",
    "crossbeam_channel",
    "crossbeam_deque",
    "crossbeam_epoch",
    "crossbeam_utils",
    "csv",
    "csv_core",
    "dashmap",
    "deadpool",
    "deadpool_runtime",
    "diesel",
    "encoding_rs",
    "fdeflate",
    "flate2",
    "form_urlencoded",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_io",
    "futures_lite",
    "futures_sink",
    "futures_task",
    "futures_timer",
    "futures_util",
    "getrandom",
    "gimli",
    "h2",
    "h3",
    "handlebars",
    "hashbrown",
    "hickory_proto",
    "hickory_resolver",
    "hmac",
    "html5ever",
    "http",
    "http_body",
    "http_body_util",
    "httparse",
    "hyper",
    "hyper_rustls",
    "hyper_tls",
    "hyper_util",
    "image",
    "indexmap",
    "itoa",
    "jsonwebtoken",
    "libsqlite3_sys",
    "local_channel",
    "lock_api",
    "log",
    "lz4_flex",
    "matchit",
    "md5",
    "memchr",
    "mime",
    "miniz_oxide",
    "mio",
    "moka",
    "mongodb",
    "mysql_async",
    "native_tls",
    "num_bigint",
    "object",
    "once_cell",
    "openssl",
    "panic_unwind",
    "parking",
    "parking_lot",
    "parking_lot_core",
    "percent_encoding",
    "png",
    "poem",
    "polling",
    "pollster",
    "postgres",
    "prost",
    "quick_xml",
    "quinn",
    "quinn_proto",
    "r2d2",
    "r2d2_sqlite",
    "rand",
    "rand_chacha",
    "rand_core",
    "rayon",
    "rayon_core",
    "rdkafka",
    "redis",
    "regex",
    "regex_automata",
    "reqwest",
    "ring",
    "rmp_serde",
    "rocket",
    "rusqlite",
    "rustc_demangle",
    "rustix",
    "rustls",
    "rustls_pki_types",
    "ruzstd",
    "ryu",
    "salvo_core",
    "scrypt",
    "sea_orm",
    "serde",
    "serde_core",
    "serde_json",
    "serde_path_to_error",
    "serde_urlencoded",
    "serde_yaml",
    "sha1",
    "sha2",
    "simd_json",
    "sled",
    "smallvec",
    "smol",
    "socket2",
    "sqlx",
    "sqlx_core",
    "sqlx_mysql",
    "sqlx_postgres",
    "sqlx_sqlite",
    "stallscope",
    "std",
    "std_detect",
    "sync_wrapper",
    "tar",
    "tera",
    "time",
    "tokio",
    "tokio_native_tls",
    "tokio_postgres",
    "tokio_rustls",
    "tokio_stream",
    "tokio_tungstenite",
    "tokio_util",
    "toml",
    "tonic",
    "tower",
    "tower_http",
    "tower_layer",
    "tower_service",
    "tracing",
    "tracing_core",
    "tracing_futures",
    "tracing_log",
    "tracing_opentelemetry",
    "tracing_subscriber",
    "tungstenite",
    "unwind",
    "ureq",
    "url",
    "uuid",
    "warp",
    "webpki",
    "weezl",
    "zip",
    "zstd",
    "zstd_safe",
    "zstd_sys",
    "zune_core",
    "zune_jpeg",
];

/// This crate's own files, wherever it lies; not its examples and tests.
const OWN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");

/// Which code is the user's, as the user says it; what is not said, paths and names show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ownership {
    users: Vec<String>,
    libraries: Vec<String>,
}

/// Crates beyond this are looked through for each function of each stack in vain.
const MOST: usize = 256;

impl Ownership {
    pub(crate) fn add_users(&mut self, codes: impl IntoIterator<Item = impl Into<String>>) {
        self.users.extend(codes.into_iter().map(Into::into));
    }

    pub(crate) fn add_libraries(&mut self, codes: impl IntoIterator<Item = impl Into<String>>) {
        self.libraries.extend(codes.into_iter().map(Into::into));
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (field, codes) in [
            ("user_code", &self.users),
            ("library_code", &self.libraries),
        ] {
            if codes.len() > MOST {
                return Err(Error::config(
                    field,
                    format!("has {} crates and paths, more than {MOST}", codes.len()),
                    "name a directory that they have in common",
                ));
            }
            if let Some(code) = codes.iter().find(|code| !is_crate(code) && !is_path(code)) {
                return Err(Error::config(
                    field,
                    format!("has {code:?}, which is neither a crate's name nor part of a path"),
                    "name a crate as Cargo does, like `our-store`, or whole folders of a path, \
                     like `/build/ours/` or `ours/src/`",
                ));
            }
        }
        let said_twice = |code: &&String| self.libraries.iter().any(|other| is_same(code, other));
        match self.users.iter().find(said_twice) {
            Some(code) => Err(Error::config(
                "user_code",
                format!("has {code:?}, and so has `library_code`"),
                "leave it out of one of them",
            )),
            None => Ok(()),
        }
    }

    /// Whether a function is the user's.
    pub(crate) fn is_users(&self, frame: &Frame) -> bool {
        let function = frame.function.as_deref().unwrap_or("");
        if is_made_by_compiler(function) {
            return false;
        }
        match self.said_of(frame) {
            Some(is_users) => is_users && !is_own(frame),
            None => is_users_by_itself(frame, function),
        }
    }

    /// What the user says of it. The longest that fits decides, since it says most.
    fn said_of(&self, frame: &Frame) -> Option<bool> {
        let longest = |codes: &[String]| {
            let fitting = codes.iter().filter(|code| fits(code, frame));
            fitting.map(String::len).max()
        };
        match (longest(&self.users), longest(&self.libraries)) {
            (None, None) => None,
            (users, libraries) => Some(users >= libraries),
        }
    }
}

fn is_crate(code: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    !code.is_empty() && code.chars().all(is_letter)
}

/// Whole folders, so that `/ours` does not mean `/ourselves`.
fn is_path(code: &str) -> bool {
    code.trim() == code
        && code.len() > 1
        && code.contains('/')
        && !code.chars().any(char::is_control)
        && (code.ends_with('/') || code.ends_with(".rs"))
}

fn is_same(one: &str, other: &str) -> bool {
    one == other || is_crate(one) && one.replace('-', "_") == other.replace('-', "_")
}

fn fits(code: &str, frame: &Frame) -> bool {
    if code.contains('/') {
        let Some(file) = frame.file.as_deref() else {
            return false;
        };
        let mut found = file.match_indices(code);
        // Not within a folder's name.
        return found.any(|(at, _)| at == 0 || code.starts_with('/') || file[..at].ends_with('/'));
    }
    krate(frame).is_some_and(|krate| is_same(code, &krate))
}

/// Functions that no source has: of the allocator, and where threads and programs begin.
pub(crate) fn is_made_by_compiler(function: &str) -> bool {
    const MADE: [&str; 4] = ["__rust_", "__rdl_", "__rg_", "__rustc"];
    let name = function_name::base(function);
    MADE.iter()
        .any(|made| name.starts_with(made) || function.starts_with(made))
}

fn is_users_by_itself(frame: &Frame, function: &str) -> bool {
    match frame.file.as_deref() {
        // Inlined functions have bare names: the file must tell.
        Some(file) => {
            file.ends_with(".rs") && !file.starts_with(OWN_PATH) && !is_library_path(file)
        }
        None => {
            let krate = function_name::crate_of(function);
            !krate.is_empty() && !is_library_crate(krate)
        }
    }
}

/// Whether only libraries lie at such a path.
pub(crate) fn is_library_path(file: &str) -> bool {
    if LIBRARY_PATHS.iter().any(|part| file.contains(part)) {
        return true;
    }
    let folders: Vec<&str> = file.split('/').collect();
    // With paths trimmed, a crate from a registry is `NAME-VERSION/src/..`.
    if folders.first().is_some_and(|first| has_version(first)) {
        return true;
    }
    let copied = |at: usize| {
        let is_crate = folders.get(at + 1).is_some_and(|name| has_version(name));
        is_crate || folders[at + 1..].iter().skip(1).any(|name| *name == "src")
    };
    (0..folders.len()).any(|at| COPIES.contains(&folders[at]) && copied(at))
}

/// `NAME-1.2.3`.
fn has_version(folder: &str) -> bool {
    function_name::without_version(folder) != folder
}

/// Whether a crate of this name is known not to be the user's.
pub(crate) fn is_library_crate(krate: &str) -> bool {
    LIBRARY_CRATES.binary_search(&krate).is_ok()
}

/// Whether a function is this crate's.
pub(crate) fn is_own(frame: &Frame) -> bool {
    match frame.file.as_deref() {
        Some(file) => file.starts_with(OWN_PATH),
        None => function_name::crate_of(frame.function.as_deref().unwrap_or("")) == "stallscope",
    }
}

/// Whether a frame is one of ours that passes a call on to the C library: see
/// `os/linux/interpose.rs`.
pub(crate) fn passes_on_calls(frame: &Frame) -> bool {
    is_own(frame)
        && frame
            .file
            .as_deref()
            .is_some_and(|file| file.ends_with("/interpose.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str) -> Frame {
        Frame {
            function: Some(function.into()),
            file: (!file.is_empty()).then(|| file.into()),
            ..Frame::default()
        }
    }

    #[test]
    fn crates_are_in_order() {
        assert!(LIBRARY_CRATES.is_sorted());
    }

    #[test]
    fn paths_show_whose_it_is() {
        for (file, users) in [
            ("/home/me/app/src/main.rs", true),
            ("src/main.rs", true),
            ("/home/me/app/src/vendor/list.rs", true),
            ("/home/me/app/src/external/github.rs", true),
            ("/usr/src/app/src/vendor.rs", true),
            ("/build/app-1.2.0/src/main.rs", true),
            ("crates/store/src/lib.rs", true),
            ("/app/target/release/build/app-1f2e/out/greeter.rs", true),
            ("/usr/src/app/vendor/serde/src/lib.rs", false),
            ("/app/vendor/serde-1.0.200/build.rs", false),
            ("vendor/serde/src/de/mod.rs", false),
            ("/build/cargo-vendor-dir/tokio-1.54.1/src/lib.rs", false),
            (
                "/nix/store/abc-vendor-cargo-deps/x/axum-0.8.9/src/json.rs",
                false,
            ),
            ("external/crates__serde-1.0.200/src/lib.rs", false),
            (
                "/x/external/rules_rust++crate+crates__h2-0.4.1/src/lib.rs",
                false,
            ),
            ("third_party/rust/serde/v1/crate/src/lib.rs", false),
            ("/usr/share/cargo/registry/bytes-1.9.0/src/buf.rs", false),
            ("serde_json-1.0.154/src/ser.rs", false),
            (
                "/home/me/.cargo/registry/src/index-1/h2-0.4.1/src/lib.rs",
                false,
            ),
            ("/home/me/.cargo/git/checkouts/x-1/2/src/lib.rs", false),
            ("/rustc/abc/library/alloc/src/vec/mod.rs", false),
            ("/usr/src/zlib/deflate.c", false),
        ] {
            assert_eq!(
                Ownership::default().is_users(&frame("f", file)),
                users,
                "{file}"
            );
        }
    }

    #[test]
    fn names_show_whose_it_is_where_there_is_no_path() {
        for (function, users) in [
            ("app::work", true),
            (
                "<app::Store as serde::ser::Serialize>::serialize::<X>",
                true,
            ),
            ("serde_json::ser::to_writer", false),
            (
                "<axum::json::Json<app::X> as axum_core::IntoResponse>::into_response",
                false,
            ),
            ("__rustc::__rust_no_alloc_shim_is_unstable_v2", false),
            ("__rustc[7f]::__rdl_alloc", false),
            (
                "std::sys::backtrace::__rust_begin_short_backtrace::<app::f, ()>",
                false,
            ),
            ("core::ops::function::FnOnce::call_once::<app::f>", false),
            ("main", false),
        ] {
            assert_eq!(
                Ownership::default().is_users(&frame(function, "")),
                users,
                "{function}"
            );
        }
    }

    #[test]
    fn what_the_compiler_makes_is_nobodys_wherever_it_lies() {
        for function in [
            "__rust_no_alloc_shim_is_unstable_v2",
            "__rustc::__rust_alloc",
            "__rdl_dealloc",
            "__rg_alloc",
            "app::__rust_begin_short_backtrace",
        ] {
            let frame = frame(function, "/home/me/app/src/main.rs");
            assert!(!Ownership::default().is_users(&frame), "{function}");
        }
    }

    #[test]
    fn what_the_user_says_goes_before_what_shows() {
        let mut ownership = Ownership::default();
        ownership.add_users(["our-store", "/vendor/ours/"]);
        ownership.add_libraries([
            "/app/generated/",
            "made/",
            "helpers",
            "/vendor/ours/copied/",
        ]);
        ownership.check().unwrap();
        let registry = "/home/me/.cargo/registry/src/private-1/our-store-0.3.0/src/lib.rs";
        for (function, file, users) in [
            ("save", registry, true),
            ("our_store::save", "", true),
            ("<our_store::S as std::ops::Drop>::drop", "", true),
            ("our_store_more::save", "", true),
            ("x", "/app/vendor/ours/x/src/lib.rs", true),
            ("x", "/app/vendor/ours/copied/src/lib.rs", false),
            ("x", "/app/generated/src/lib.rs", false),
            ("x", "/app/helpers/src/lib.rs", false),
            ("x", "/app/made/by.rs", false),
            ("x", "/app/readymade/by.rs", true),
            ("helpers::x", "", false),
            ("x", "/app/src/helpers/src.rs", true),
        ] {
            assert_eq!(
                ownership.is_users(&frame(function, file)),
                users,
                "{function} {file}"
            );
        }
    }

    #[test]
    fn own_files_are_never_the_users() {
        let mut ownership = Ownership::default();
        ownership.add_users(["stallscope"]);
        let own = format!("{OWN_PATH}watched.rs");
        assert!(!ownership.is_users(&frame("poll", &own)));
    }
}
