#!/bin/sh
# Installs the real push clients of tests/js for the integration tests and CI, once a lockfile.
# Usage: tests/npm.sh FOLDER (the tests use target/npm). Safe to run from many tests at once.
set -eu
js=$(cd "$(dirname "$0")/js" && pwd)
mkdir -p "$1"
cd "$1"
command -v npm >/dev/null || { echo "npm is missing: install nodejs (18 or later) and npm" >&2; exit 1; }
exec 9>.lock
flock 9
if [ -f .installed ] && cmp -s "$js/package-lock.json" .installed; then
  exit 0
fi
cp "$js/package.json" "$js/package-lock.json" "$js/.npmrc" .
# No package here needs a build; scripts of dependencies stay off.
npm ci --ignore-scripts --loglevel=error >&2
cp package-lock.json .installed
