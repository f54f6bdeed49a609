#!/bin/sh
# Runs the fuzz targets, two at a time: fuzz/run.sh [SECONDS [TARGET]]. Each begins with its seeds in fuzz/corpus and
# with what earlier runs have found, which is kept in target/fuzz. Fails on the first input that a target refuses.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-20}
target=${CARGO_TARGET_DIR:-target}
fuzz=$target/debug/examples/fuzz

one() {
    name=$1
    found=$target/fuzz/$name
    mkdir -p "$found/corpus"
    set -- "$found/corpus" "fuzz/corpus/$name"
    [ "$name" != configuration ] || set -- "$@" conf
    [ ! -f "fuzz/dictionaries/$name" ] || set -- -dict="fuzz/dictionaries/$name" "$@"
    # A target must not read what the terminal has. libFuzzer counts the 30 s by the clock, and beside the tests this
    # process gets little of a core.
    if FUZZ_TARGET=$name "$fuzz" -max_total_time="$seconds" -timeout=30 -rss_limit_mb=1024 -max_len=16384 \
        -artifact_prefix="$found/" -print_final_stats=1 "$@" </dev/null >"$found/log" 2>&1; then
        told=$(grep -E '^#[0-9]+.DONE' "$found/log" | sed 's/.*\(cov:.*corp: [0-9]*\).*/\1/')
        runs=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$found/log")
        echo "$name: $runs executions a second, $told"
    else
        tail -n 40 "$found/log"
        # libFuzzer has written the path of the input: `Test unit written to …`.
        echo "$name FAILED; to see it again: FUZZ_TARGET=$name $fuzz $(sed -n 's/.*written to //p' "$found/log")"
        return 1
    fi
}

if [ "${3:-}" = one ]; then
    one "$2"
    exit
fi
# The whole workspace, and an example: so the crates of others get the features of the tests, and are not built again.
RUSTC_WORKSPACE_WRAPPER=$PWD/fuzz/rustc cargo build --quiet --workspace \
    --features pushgate-fuzz/libfuzzer --example fuzz

names=${2:-$(FUZZ_TARGET=list "$fuzz" 2>/dev/null)}
export CARGO_TARGET_DIR="$target"
echo "$names" | tr ' ' '\n' | xargs -P 2 -I '{}' "$0" "$seconds" '{}' one
