#!/bin/sh
# Builds the container image from target/release/pushgate and this machine's libraries, without a base image.
# Usage: conf/container/build.sh [NAME]; the name is `pushgate` by default. Needs buildah, which may need root.
set -eu
cd "$(dirname "$0")/../.."

program=target/release/pushgate
context=target/container
root=$context/root
certificates=/etc/ssl/certs/ca-certificates.crt

rm -rf "$context"
install -D -m 755 -t "$root/usr/bin" "$program"
# Each library under the path at which the program or the loader looks for it.
ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    install -D -m 755 "$library" "$root$library"
done
# Authorities for nodes and OCSP responders whose certificates are public.
[ ! -e "$certificates" ] || install -D -m 644 "$certificates" "$root$certificates"
install -d -m 755 "$root/etc/pushgate" "$root/run/pushgate"
echo "pushgate:x:65532:65532:Pushgate:/nonexistent:/usr/sbin/nologin" >"$root/etc/passwd"
echo "pushgate:x:65532:" >"$root/etc/group"
install -D -m 644 LICENSE "$root/usr/share/doc/pushgate/LICENSE"

# HEALTHCHECK is a field of Docker's format only.
buildah bud --format docker --file conf/container/Containerfile --tag "${1:-pushgate}" "$context"
