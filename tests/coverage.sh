#!/bin/sh
# Measures which lines the tests run, by folder. Tests in the same file count as lines, too.
# Usage: tests/coverage.sh [arguments of cargo test], `--workspace --lib` without: the unit tests.
# Needs llvm-profdata and llvm-cov of the same LLVM as rustc (`rustc -vV`): `rustup component add llvm-tools`, or
# the folder that contains them in LLVM_TOOLS. Debian's are too old to read the profile.
# The integration tests kill the programs they start. A killed program writes no profile, so its lines count as
# not run.
set -eu

# Cargo runs this script as the wrapper of rustc for our crates. Dependencies are neither instrumented nor built
# again.
# Names are not compressed: not every llvm-profdata can read zlib.
case "${1:-}" in
*rustc) exec "$@" -C instrument-coverage -C llvm-args=-enable-name-compression=false ;;
esac

cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
tools=${LLVM_TOOLS:-$(dirname "$(find "$(rustc --print sysroot)/lib/rustlib" -name llvm-profdata)")}
[ -x "$tools/llvm-cov" ] || {
    echo "coverage: no llvm-cov; run: rustup component add llvm-tools" >&2
    exit 1
}
[ $# -gt 0 ] || set -- --workspace --lib

profiles=$(realpath -m "$target/coverage")
rm -rf "$profiles"
mkdir -p "$profiles"
export RUSTC_WORKSPACE_WRAPPER="$PWD/tests/coverage.sh"
export LLVM_PROFILE_FILE="$profiles/%p-%m.profraw"
cargo test --no-fail-fast --no-run "$@" 2>"$profiles/build" || {
    cat "$profiles/build" >&2
    exit 1
}
cargo test --no-fail-fast "$@"

objects=$(sed -n 's/^ *Executable .*(\(.*\))$/-object \1/p' "$profiles/build")
[ ! -x "$target/debug/pushgate" ] || objects="$objects -object $target/debug/pushgate"
"$tools/llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$profiles/all.profdata"
# shellcheck disable=SC2086 # a list of words
"$tools/llvm-cov" export -format=lcov -summary-only -instr-profile "$profiles/all.profdata" $objects \
    -ignore-filename-regex '/registry/|/rustc/|/tests/|/tests\.rs|/fixtures\.rs' |
    awk -F: -v here="$PWD/" '
    $1 == "SF" { folder = substr($2, length(here) + 1); split(folder, part, "/")
                 folder = part[1] "/" part[2]; sub(/\.rs$/, "", folder) }
    $1 == "LF" { lines[folder] += $2; lines["all"] += $2 }
    $1 == "LH" { run[folder] += $2; run["all"] += $2 }
    END { for (f in lines) printf "%-28s %6.1f %% of %6d lines\n", f, 100 * run[f] / lines[f], lines[f] }' | sort
