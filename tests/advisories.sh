#!/bin/sh
# Checks the dependencies for known vulnerabilities (RustSec database) and for yanked versions (registry).
# The database comes from GitHub, or from the clone whose path is in PUSHGATE_ADVISORY_DB. Without a database
# this checks only for yanked versions, says so, and exits with 77 (not checked).
set -eu
cd "$(dirname "$0")/.."

url=https://github.com/RustSec/advisory-db
mkdir -p target
rm -rf target/advisory-dbs

# cargo-deny accepts no path, so git is told to read directory $1 instead of the URL.
check_with() {
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$1.insteadOf" GIT_CONFIG_VALUE_0=$url \
        cargo deny --all-features check advisories
}

if [ -n "${PUSHGATE_ADVISORY_DB:-}" ]; then
    echo "database: clone of $(git -C "$PUSHGATE_ADVISORY_DB" log -1 --format=%cs)"
    check_with "$(realpath "$PUSHGATE_ADVISORY_DB")"
    exit
fi
if cargo deny fetch db 2>target/advisories.log; then
    cargo deny --all-features check advisories
    exit
fi

# cargo-deny checks for yanked versions only if it has a database with an entry. This one is about no real crate.
none=$(mktemp -d)
trap 'rm -rf "$none"' EXIT
mkdir -p "$none/crates/none"
cat >"$none/crates/none/RUSTSEC-2000-0001.md" <<'ENTRY'
```toml
[advisory]
id = "RUSTSEC-2000-0001"
package = "none"
date = "2000-01-01"
[versions]
patched = []
```
# None
ENTRY
git -C "$none" init -q -b main
git -C "$none" add .
git -C "$none" -c user.name=none -c user.email=none commit -q -m none
cat target/advisories.log
check_with "$none" >target/advisories.log 2>&1 || {
    cat target/advisories.log
    exit 1
}
rm -rf target/advisory-dbs
echo "KNOWN VULNERABILITIES WERE NOT CHECKED: $url cannot be fetched; yanked versions were."
exit 77
