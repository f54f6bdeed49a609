#!/bin/sh
# Runs every check that a change must pass. Continues after a failure, so that one run shows all faults.
# The last line has the totals of the tests. Fails if any check failed.
set -u
cd "$(dirname "$0")/.."
mkdir -p target
log=target/test.log
failed=
skipped=
# Tests that passed only at the second try.
unstable=

# A step that cannot run here prints the reason and exits with 77. The totals count it as skipped.
step() {
    name=$1
    shift
    echo "== $name"
    "$@"
    case $? in
    0) ;;
    77) skipped="$skipped, $name" ;;
    *) failed="$failed, $name" ;;
    esac
}

# House rule: source files stay below 400 lines.
short_files() {
    find . -path ./target -prune -o -name '*.rs' -exec awk '
        FNR == 400 { print FILENAME ": 400 lines or more"; long = 1 } END { exit long }' {} +
}

# Through a file, because a pipe would hide cargo's exit status.
tests() {
    cargo test --workspace --no-fail-fast >"$log" 2>&1 &
    pid=$!
    beside "$pid" >target/beside.log 2>&1 &
    beside=$!
    tail -n +1 -f --pid="$pid" "$log"
    wait "$pid" || again
}

# Runs up to three failed tests once more, alone: what computes beside them delays tests of timers and sockets. A test
# that passes only then is named in the last lines, for someone to mend.
again() {
    unstable=$(sed -n 's/^test \([^ ]*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
    count=$(echo "$unstable" | wc -w)
    failures=$(grep -c '^error: .*test failed' "$log")
    # Of what does not compile, ends its process, or is a test in a comment, this knows nothing.
    if [ "$count" -lt 1 ] || [ "$count" -gt 3 ] || [ "$count" -ne "$(results "$log" failed)" ] ||
        [ "$failures" -ne "$(grep -c '^test result: FAILED' "$log")" ]; then
        unstable=
        return 1
    fi
    # Not beside the steps that compute.
    wait "$beside"
    echo "once more: $unstable"
    # shellcheck disable=SC2086 # One word for each test.
    if cargo test --workspace --no-fail-fast -- --exact $unstable >target/again.log 2>&1 &&
        [ "$(results target/again.log passed)" -eq "$count" ]; then
        grep '^test ' target/again.log
        return
    fi
    cat target/again.log
    unstable=
    return 1
}

# Prints how many tests of a log have passed, failed or were ignored.
results() {
    awk -v word="$2" '/^test result: / {
        for (i = 2; i <= NF; i++) if ($i ~ "^" word) sum += $(i - 1)
    } END { print sum + 0 }' "$1"
}

# What only computes, at the lowest priority, and the pair, which mostly waits. They run beside the tests, which
# mostly wait for timers and sockets. Both together take as long as the tests alone.
beside() {
    # The tests are built first: cargo builds one thing at a time.
    until grep -q '^ *Running ' "$log" || ! kill -0 "$1" 2>/dev/null; do sleep 1; done
    failed=
    skipped=
    step fuzz nice -n 19 fuzz/run.sh 20
    step docs env RUSTDOCFLAGS="-D warnings" nice -n 19 cargo doc --workspace --no-deps --quiet
    step dependencies cargo deny --all-features check bans licenses sources
    step advisories tests/advisories.sh
    step "what is linked" tests/current.sh
    # Last: while the unit tests and the fuzz targets compute, an edge answers its checks late.
    step "pair of edges" tests/pair.py
    printf '%s\n%s\n' "$failed" "$skipped" >target/beside.steps
}

totals() {
    again=$(echo "$unstable" | wc -w)
    steps=$(echo "$skipped" | tr -cd , | wc -c)
    printf '%d passed, ' "$(results "$log" passed)"
    [ "$again" -eq 0 ] || printf '%d passed at the second try, ' "$again"
    printf '%d failed, %d skipped\n' $(($(results "$log" failed) - again)) $(($(results "$log" ignored) + steps))
}

: >"$log"
step layout cargo fmt --all --check
# A macro makes the `mod` lines of the plugins, and cargo fmt does not follow macros.
step "layout of plugins" sh -c 'rustfmt --check --edition 2024 $(find plugins -name "*.rs" ! -path "*/target/*")'
step "file length" short_files
step "circles of files" python3 tests/circles.py
# One run for all targets, because another set of targets has other features and builds all crates again. The cfg
# shows it the fuzz targets too.
step "lints and function length" cargo clippy --workspace --all-targets --features pushgate-fuzz/libfuzzer -- \
    -D warnings -W clippy::too_many_lines --cfg fuzzing
rm -f target/beside.steps
step tests tests
wait "$beside"
cat target/beside.log
{ read -r also_failed && read -r also_skipped; } <target/beside.steps || also_failed=", steps beside the tests"
failed="$failed${also_failed-}"
skipped="$skipped${also_skipped-}"
# The tests have built it. Through cargo it would have other features and be built again.
step "instruction budget" "${CARGO_TARGET_DIR:-target}/debug/examples/budget"
step "dashboard and alerts" python3 tests/dashboards.py
step "page of errors" python3 tests/errors.py
# nginx is there only if `tests/setup.sh bench` installed it: its package may start a server at port 80.
step "migration pairs" python3 tests/migration.py
[ -z "$unstable" ] || echo "UNSTABLE:" $unstable
[ -z "$skipped" ] || echo "NOT CHECKED: ${skipped#, }"
# Once more at the end, because a CI that shows the last lines shows no more of a long log.
[ -z "$failed" ] || grep -hE '^[^ ]+ FAILED|libFuzzer: |^thread .* panicked|^test .* FAILED' target/beside.log "$log"
[ -z "$failed" ] || echo "FAILED: ${failed#, }"
totals
[ -z "$failed" ]
