#!/bin/sh
# Whether captures of running threads cut system calls of theirs short:
# 100,000 captures of threads that compute 200 us and wait in turns, by each call of
# signal(7)'s list that has a timeout; idle, and beside two threads that spin.
# usage: scripts/eintr.sh [CAPTURES]
set -u
cd "$(dirname "$0")/.." || exit 2
output=$(STALLSCOPE_CAPTURES="${1:-100000}" cargo test --release --lib -- \
    --ignored --exact --nocapture os::platform::eintr::no_call_is_cut_short_in_many 2>&1)
status=$?
echo "$output" | grep -E 'captures|interrupted|panicked|error' | sort | uniq -c | sort -rn | head -40
if [ $status -eq 0 ] && echo "$output" | grep -q '1 passed'; then
    echo "verdict: no call was cut short"
else
    echo "verdict: FAILED"
    exit 1
fi
