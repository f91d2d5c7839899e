#!/bin/sh
# What `#[stallscope::test]` costs a suite in the dev profile, in CPU time of the process:
# as dependencies are by default, and with what makes lines of addresses optimized.
set -eu
cd "$(dirname "$0")/.."

measure() {
    echo "opt-level = $1"
    options=""
    for package in framehop gimli rustc-demangle stallscope; do
        options="$options --config profile.dev.package.$package.opt-level=$1"
    done
    # Options, each a word.
    # shellcheck disable=SC2086
    cargo test --quiet -p stallscope-macros --test cost $options -- \
        --ignored --exact --nocapture what_a_test_costs 2>/dev/null |
        grep -E '^(without|first|clean|each) '
}

measure 0
measure 3
