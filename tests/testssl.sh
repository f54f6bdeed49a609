#!/bin/sh
# Has testssl.sh (Debian package, or TESTSSL) judge a listener with the profile `intermediate`; fails if it
# finds anything above LOW or gives less than A, where its version gives grades (3.2 and later). The
# summary of the last run is in docs/security.md.
#
# An authority, two certificates of it, an OCSP responder and a node are made for the run, all on loopback.
# Usage: [TESTSSL=PROGRAM] tests/testssl.sh [PUSHGATE], by default target/release/pushgate; some three minutes.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
program=${1:-$root/target/release/pushgate}
testssl=${TESTSSL:-testssl}
command -v "$testssl" >/dev/null || { echo "testssl is missing: apt-get install testssl.sh" >&2; exit 2; }
dir=$(mktemp -d)
pids=
end() {
    # shellcheck disable=SC2086 # a list of numbers
    [ -z "$pids" ] || kill $pids 2>/dev/null || true
    rm -rf "$dir"
}
trap end EXIT
cd "$dir"
host=push.mycompany.com

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
tls=$(free_port) admin=$(free_port) node=$(free_port) ocsp=$(free_port)

openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 365 \
    -subj "/CN=testssl authority" -addext "keyUsage=critical,keyCertSign,cRLSign" 2>/dev/null
cat >leaf.ext <<END
basicConstraints=critical,CA:FALSE
subjectAltName=DNS:$host
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
authorityInfoAccess=OCSP;URI:http://127.0.0.1:$ocsp/
END
issue() {
    word=$1
    shift
    openssl req -new "$@" -nodes -keyout "$word.key" -out "$word.csr" -subj "/CN=$host" 2>/dev/null
    openssl x509 -req -in "$word.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -extfile leaf.ext -out "$word.crt" 2>/dev/null
    cat "$word.crt" ca.pem >"$word.pem"
    serial=$(openssl x509 -in "$word.crt" -noout -serial | cut -d= -f2)
    printf 'V\t491231235959Z\t\t%s\tunknown\t/CN=%s\n' "$serial" "$word" >>index
}
issue ec -newkey ec -pkeyopt ec_paramgen_curve:P-256
issue rsa -newkey rsa:2048
openssl ocsp -port "$ocsp" -index index -CA ca.pem -rsigner ca.pem -rkey ca.key -nmin 60 -ignore_err >/dev/null 2>&1 &
pids="$pids $!"
mkdir www && echo hello >www/index.html
python3 -m http.server -b 127.0.0.1 -d www "$node" >/dev/null 2>&1 &
pids="$pids $!"
cat >edge.yaml <<END
admin: { bind: "127.0.0.1:$admin" }
nodes: { n1: { address: "127.0.0.1:$node" } }
certificates:
  ec: { chain: ec.pem, key: ec.key, ocsp: responder }
  rsa: { chain: rsa.pem, key: rsa.key, ocsp: responder }
listeners:
  - name: push
    bind: ["127.0.0.1:$tls"]
    mode: http
    tls: { certificates: [ec, rsa], profile: intermediate }
    to: n1
    plugins:
      - headers: { response: { set: { Strict-Transport-Security: max-age=63072000, X-Content-Type-Options: nosniff } } }
END
"$program" run -c edge.yaml >edge.log 2>&1 &
pids="$pids $!"
until curl -s "http://127.0.0.1:$admin/api/certificates" | grep -q '"ocsp":true.*"ocsp":true'; do sleep 0.2; done

"$testssl" --quiet --color 0 --warnings off --nodns none --ip 127.0.0.1 --add-ca "$dir/ca.pem" \
    --jsonfile found.json "$host:$tls" >report.txt 2>&1 || true
cat report.txt
python3 - found.json <<'END'
import collections, json, sys
found = json.load(open(sys.argv[1]))
count = collections.Counter(f["severity"] for f in found)
print("\nfindings by severity: " + ", ".join(f"{n} {s}" for s, n in sorted(count.items())))
bad = [f for f in found if f["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")]
for f in found:
    if f["severity"] not in ("OK", "INFO"):
        print(f"  {f['severity']}: {f['id']}: {f['finding']}")
grade = next((f["finding"] for f in found if f["id"] == "overall_grade"), None)
print(f"overall grade: {grade or 'this version gives none (3.2 and later do)'}")
sys.exit(bool(bad) or not found or not (grade or "A").startswith("A"))
END
