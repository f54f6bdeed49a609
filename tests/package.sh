#!/bin/sh
# Tests the Debian package and the container image as their users meet them. Run by `make package-test`.
#
# In a clean Debian with a real systemd, in namespaces of its own: times a newcomer's way from the package to the first
# sticky stream, installs the package, starts the service from the configuration as it comes, upgrades it while a stream runs, rotates the log, refuses a broken configuration,
# falls back to a restart, removes and purges. Then builds the image and runs it with a read-only root.
#
# Usage: tests/package.sh. Needs root, and Debian's mirrors as this machine's apt has them. ROOT=FOLDER keeps the
# clean Debian there and uses it again.
# shellcheck disable=SC2016 # scripts in single quotes are expanded inside
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" -eq 0 ] || {
    echo "package: run it as root: it makes a clean Debian and starts services in it" >&2
    exit 77
}

work=$(mktemp -d)
# Longest time from `dpkg -i` to the first sticky stream. Most of it is dpkg's.
NEWCOMER_MS=30000
root=${ROOT:-$work/root}
copy=$work/copy
passed=0
# Process numbers of what this script has started.
init=
cgroup=
# The image that it has made, and the container of it.
image=
made=

# shellcheck disable=SC2329 # called by trap
clean_up() {
    status=$?
    [ "$status" -eq 0 ] || [ -z "$init" ] || inside journalctl -n 30 --no-pager -u pushgate >&2 || true
    # The end of a namespace's first process ends all others in it.
    [ -z "$init" ] || kill -KILL "$init" 2>/dev/null || true
    [ -z "$made" ] || buildah rm "$made" >/dev/null || true
    [ -z "$image" ] || buildah rmi "$image" >/dev/null 2>&1 || true
    sleep 1
    [ -z "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    rm -rf --one-file-system "$work"
    exit "$status"
}
trap clean_up EXIT

fail() {
    echo "package: FAILED: $1" >&2
    exit 1
}

ok() {
    passed=$((passed + 1))
    echo "package: ok: $1"
}

# Runs a command inside the clean Debian.
inside() {
    nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup --root --wdns=/ -- "$@"
}

# Runs a shell script inside it.
script() {
    inside sh -euc "$1"
}

# Waits until a script inside succeeds, for 60 s at most.
await() {
    what=$1
    n=0
    until script "$2" >/dev/null 2>&1; do
        n=$((n + 1))
        [ "$n" -lt 300 ] || fail "$what"
        sleep 0.2
    done
    ok "$what"
}

expect() {
    script "$2" >/dev/null || fail "$1"
    ok "$1"
}

packages() {
    for version in 0.0.1 0.0.2; do
        make --silent deb VERSION="$version" >/dev/null
        mv target/debian/pushgate_"$version"*.deb "$work/$version.deb"
    done
    # The YAML library is linked in, and our changelog is no Debian changelog.
    lintian --allow-root --fail-on error --suppress-tags embedded-library,no-changelog "$work/0.0.2.deb" >"$work/lintian" ||
        fail "lintian: $(cat "$work/lintian")"
    ok "lintian has no error"
}

# A Debian of this machine's release, from this machine's mirrors.
clean_debian() {
    if [ ! -e "$root/etc/debian_version" ]; then
        # shellcheck disable=SC1091,SC2154 # it sets VERSION_CODENAME
        suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
        sources=
        for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
            [ ! -s "$file" ] || sources="$sources $file"
        done
        # shellcheck disable=SC2086 # a list of files
        mmdebstrap --quiet --variant=minbase \
            --include=systemd-sysv,adduser,logrotate,curl,python3-minimal,man-db "$suite" "$root" $sources
    fi
    mkdir "$copy"
    cp -a "$root/." "$copy"
}

# Starts systemd as the first process of new namespaces. Sets `init`.
boot() {
    # A cgroup of its own, where systemd can make the groups of its services.
    for mount in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        if [ "$(stat -f -c %T "$mount" 2>/dev/null)" = cgroup2fs ]; then
            cgroup=$mount/pushgate-package-$$
        fi
    done
    [ -n "$cgroup" ] || fail "no cgroup2 is mounted"
    mkdir "$cgroup"
    cat >"$work/boot" <<'BOOT'
set -eu
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for folder in dev/shm run tmp; do
    mount -t tmpfs tmpfs "$root/$folder"
done
ip link set lo up
cd "$root"
mkdir .old
pivot_root . .old
umount -l /.old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --log-target=console --show-status=0 >/boot.log 2>&1 </dev/null
BOOT
    sh -c 'echo $$ >"$1/cgroup.procs"
        exec unshare --mount --uts --ipc --pid --fork --net --cgroup sh "$2" "$3"' \
        sh "$cgroup" "$work/boot" "$copy" 2>"$work/boot.log" &
    outside=$!
    n=0
    until init=$(tr -d ' ' 2>/dev/null <"/proc/$outside/task/$outside/children") && [ -n "$init" ] &&
        inside systemctl is-system-running 2>/dev/null | grep -q 'running\|degraded'; do
        n=$((n + 1))
        [ "$n" -lt 150 ] || fail "systemd did not start: $(cat "$work/boot.log")"
        sleep 0.2
    done
    ok "systemd runs in a clean Debian"
}

# Two push servers: each answers with its port, and /stream with a line each 100 ms.
push_servers() {
    cat >"$copy/root/node.py" <<'NODE'
import socket, sys, threading, time

def serve(client, port):
    with client:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(4096)
            if not data:
                return
            head += data
        if head.startswith(b"GET /stream"):
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while True:
                client.sendall(b"%d\n" % port)
                time.sleep(0.1)
        client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\n%d\n" % port)

port = int(sys.argv[1])
listener = socket.create_server(("127.0.0.1", port))
while True:
    threading.Thread(target=serve, args=(listener.accept()[0], port), daemon=True).start()
NODE
    for port in 8081 8082; do
        inside systemd-run --quiet --unit="node-$port" python3 -SE /root/node.py "$port"
    done
}

# A newcomer's way, as docs/operations.md has it, without his typing: the package, the configuration as it comes, the
# service, a client that is stuck to its node, and the first line of its stream. Then all of it is purged.
newcomer() {
    cp "$work"/0.0.*.deb "$copy/root/"
    begun=$(date +%s%N)
    script '
        dpkg -i /root/0.0.1.deb
        pushgate check -c /etc/pushgate/pushgate.yaml
        systemctl enable --now pushgate
        until first=$(curl -sf -c /tmp/newcomer http://127.0.0.1/); do sleep 0.02; done
        [ "$(curl -sN -b /tmp/newcomer http://127.0.0.1/stream | head -n 1)" = "$first" ]
    ' >"$work/newcomer.log" 2>&1 || fail "a newcomer gets no sticky stream: $(cat "$work/newcomer.log")"
    took=$((($(date +%s%N) - begun) / 1000000))
    [ "$took" -lt "$NEWCOMER_MS" ] || fail "a newcomer waits $took ms for a sticky stream"
    ok "from dpkg -i to the first sticky stream: $took ms"
    script "rm /tmp/newcomer; systemctl disable --now pushgate; dpkg --purge pushgate"
}

install_it() {
    expect "the package installs" "dpkg -i /root/0.0.1.deb"
    expect "the user is there, without a shell" "getent passwd pushgate | grep -q nologin"
    expect "the configuration is for the service's group only" '
        [ "$(stat -c "%a %U %G" /etc/pushgate)" = "750 root pushgate" ]
        [ "$(stat -c "%a %U %G" /etc/pushgate/pushgate.yaml)" = "640 root pushgate" ]'
    expect "the service is not started before its nodes are known" "! systemctl is-active pushgate"
    expect "man pages and completions are there" '
        man -w pushgate pushgate-rebalance
        test -s /usr/share/bash-completion/completions/pushgate
        test -s /usr/share/fish/vendor_completions.d/pushgate.fish
        test -s /usr/share/zsh/vendor-completions/_pushgate'
    expect "the configuration as it comes is sound" "pushgate check -c /etc/pushgate/pushgate.yaml"
}

serve() {
    expect "the service starts" "systemctl enable --now pushgate"
    expect "it runs as its user" '
        [ "$(stat -c %U "/proc/$(systemctl show -P MainPID pushgate)")" = pushgate ]'
    expect "a client sticks to its node" '
        first=$(curl -sf -c /tmp/jar http://127.0.0.1/)
        for n in 1 2 3 4 5 6; do [ "$(curl -sf -b /tmp/jar http://127.0.0.1/)" = "$first" ]; done'
    expect "healthcheck succeeds" "pushgate healthcheck && pushgate healthcheck --ready"
    expect "reload serves" "systemctl reload pushgate && curl -sf http://127.0.0.1/"
    expect "the unit has little exposure" '
        systemd-analyze security pushgate | grep "Overall exposure" | grep -q "OK\|SAFE"'
}

upgrade() {
    script "systemd-run --quiet --unit=stream sh -c 'curl -sN http://127.0.0.1/stream >/root/stream'"
    await "a stream runs" "test -s /root/stream"
    old=$(inside systemctl show -P MainPID pushgate)
    # Asks all the time, and writes what failed.
    script "systemd-run --quiet --unit=asker sh -c \
        'while true; do curl -sf http://127.0.0.1/ >/dev/null || echo failed >>/root/failed; done'"
    expect "the package is upgraded" "dpkg -i /root/0.0.2.deb"
    expect "a new process serves" "
        [ \"\$(systemctl show -P MainPID pushgate)\" != $old ] && curl -sf http://127.0.0.1/"
    lines=$(inside wc -l /root/stream | cut -d' ' -f1)
    await "the stream goes on through the old process" "
        [ \$(wc -l </root/stream) -gt $((lines + 20)) ] && kill -0 $old"
    expect "no request failed meanwhile" "test ! -e /root/failed"
    script "systemctl stop asker stream"
    await "the old process ends with its last client" "! kill -0 $old"
    expect "the service is still active" "systemctl is-active pushgate"
}

rotate() {
    expect "logrotate accepts its file" "logrotate --force /etc/logrotate.d/pushgate"
    await "the log goes on in a new file" '
        curl -sf http://127.0.0.1/; sleep 0.3
        test -s /var/log/pushgate/access.log.1 && test -s /var/log/pushgate/access.log'
}

refuse() {
    old=$(inside systemctl show -P MainPID pushgate)
    script "cp -a /etc/pushgate/pushgate.yaml /root/good.yaml; echo 'wrong: 1' >>/etc/pushgate/pushgate.yaml"
    expect "an upgrade with a broken configuration leaves the old process" "
        dpkg -i /root/0.0.1.deb 2>&1 | grep -q 'the running program stays'
        [ \"\$(systemctl show -P MainPID pushgate)\" = $old ] && curl -sf http://127.0.0.1/"
    script "grep -v '^upgrade_socket' /root/good.yaml >/etc/pushgate/pushgate.yaml
        systemctl kill -s INT pushgate; systemctl restart pushgate"
    old=$(inside systemctl show -P MainPID pushgate)
    expect "without an upgrade socket the service is restarted" "
        dpkg -i --force-confold /root/0.0.2.deb 2>&1 | grep -q 'restarting'
        [ \"\$(systemctl show -P MainPID pushgate)\" != $old ]"
    await "it serves again" "curl -sf http://127.0.0.1/"
    expect "the owner and the mode of the configuration stay" '
        [ "$(stat -c "%a %U %G" /etc/pushgate/pushgate.yaml)" = "640 root pushgate" ]'
}

remove() {
    expect "the package is removed" "dpkg --remove pushgate"
    expect "the service has ended; the configuration stays" '
        ! systemctl is-active pushgate && ! curl -sf http://127.0.0.1/
        test -e /etc/pushgate/pushgate.yaml && test ! -e /usr/bin/pushgate'
    expect "the package is purged" "dpkg --purge pushgate"
    expect "nothing but the user is left" '
        test ! -e /etc/pushgate && test ! -e /var/log/pushgate && test ! -e /etc/logrotate.d/pushgate
        test ! -L /etc/systemd/system/multi-user.target.wants/pushgate.service
        getent passwd pushgate'
}

container() {
    name=pushgate-package-test-$$
    image=$name
    conf/container/build.sh "$name" >"$work/build.log" 2>&1 || {
        cat "$work/build.log" >&2
        fail "the image is not built"
    }
    ok "the image is built from scratch"
    made=$(buildah from "$name")
    buildah inspect --type image "$name" >"$work/image.json"
    unshare --mount --net --pid --fork --mount-proc \
        tests/container.py "$(buildah mount "$made")" <"$work/image.json" >"$work/container.log" 2>&1 || {
        cat "$work/container.log" >&2
        fail "the container does not serve"
    }
    ok "the container serves with a read-only root and without rights, and drains"
}

packages
clean_debian
boot
push_servers
newcomer
install_it
serve
upgrade
rotate
refuse
remove
container
echo "$passed passed, 0 failed"
