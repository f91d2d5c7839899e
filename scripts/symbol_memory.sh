#!/bin/sh
# How much memory symbolizing takes beside the size of debug info (RssAnon: without pages
# of files): of this crate's test program, of one with all debug info, and of files that
# are named. Fails where more is taken than the design allows.
#
#   scripts/symbol_memory.sh [file]...
set -eu
cd "$(dirname "$0")/.."

measure() {
    verdict=0
    printed=$(STALLSCOPE_DEBUG_FILE="$1" cargo test --quiet -p stallscope --lib -- \
        --ignored --exact --nocapture \
        os::platform::symbolize::tests::memory_beside_the_size_of_debug_info 2>&1) || verdict=1
    printf '%s\n' "$printed" | grep ' MB'
    [ "$verdict" = 0 ] || failed=1
}

failed=0
measure /proc/self/exe
# A test program with full debug info: some 80 MB.
full=$(CARGO_PROFILE_DEV_DEBUG=2 CARGO_TARGET_DIR=target/full \
    cargo test --no-run -p stallscope --test culprits 2>&1 |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
measure "$(realpath "$full")"
for file in "$@"; do
    measure "$(realpath "$file")"
done
exit "$failed"
