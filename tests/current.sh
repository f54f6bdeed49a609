#!/bin/sh
# Compares the crates that read bytes from the network, encrypt them or carry OpenSSL's source with the newest that
# the registry has. Prints those that are behind, and then exits with 1. Exits with 77 (not checked) if the registry
# cannot be reached.
set -eu
cd "$(dirname "$0")/.."

crates="openssl-src openssl openssl-sys tokio-openssl tls-parser
    pingora-core pingora-proxy pingora-load-balancing
    h2 hyper httparse ppp axum tokio mimalloc rustix hickory-proto hickory-resolver"

# Each line that `cargo info` prints is `version: LOCKED`, or `version: LOCKED (latest NEWEST)`.
behind=
for crate in $crates; do
    version=$(cargo info "$crate" 2>/dev/null | sed -n 's/^version: //p')
    case "$version" in
    "")
        echo "NOT COMPARED WITH THE REGISTRY: it has no answer for $crate"
        exit 77
        ;;
    *latest*) behind="$behind
  $crate $version" ;;
    esac
done
[ -z "$behind" ] || {
    echo "behind what is current (\`cargo update -p CRATE\`, or Cargo.toml):$behind"
    exit 1
}
