#!/usr/bin/env python3
"""Shows that the pairs of files in conf/migration do the same.

Starts HAProxy and nginx with their file and the edge with the file beside it, all before the same two push
servers on loopback. Asks both the same and compares: status, certificate, cookie and its attributes, the node a
client sticks to, a pinned host, X-Forwarded-For, WebSocket, a stream, PROXY protocol at layer 4, and what happens
when a node fails. The pair of F5 is only read by `pushgate check`.

Usage: tests/migration.py. Exit code: 0 passed, 1 failed, 77 a part could not be checked here (no HAProxy, no nginx
with its module `stream`, no openssl or no built program; PUSHGATE names another one).
"""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ROOT / "conf/migration"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = pathlib.Path(os.environ.get("PUSHGATE", TARGET / "debug/pushgate"))
STREAM_MODULE = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")
# Servers are in sbin, which many PATHs lack.
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"

HOST, PINNED, UNKNOWN = "push.mycompany.com", "push1.mycompany.com", "other.mycompany.com"
# Address of the clients, so that it differs from the proxy's own.
CLIENT = "127.0.0.7"
# Longest wait for a start, for an answer, and until a node that fails is Down.
DEADLINE_SECONDS = 15
# Streams of clients without a cookie, among which both nodes must be.
MAX_STREAMS = 8
# Requests of one client that must reach one node.
SAME = 4

faults = []


def fault(text):
    faults.append(text)
    print(f"migration: {text}", file=sys.stderr)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, until):
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if until():
                return
        time.sleep(0.05)
    raise TimeoutError(what)


class Node:
    """A push server: an HTTP port, and a port for TCP clients behind the PROXY protocol."""

    def __init__(self, name):
        self.name, self.is_well, self.open = name, True, set()
        self.ports = [0, 0]
        self.start()

    def start(self):
        """Listens, after the first time on the same ports."""
        serves = self.serve, self.serve_raw
        self.listeners = [self.listen(port, serve) for port, serve in zip(self.ports, serves)]
        self.ports = [listener.getsockname()[1] for listener in self.listeners]

    def listen(self, port, serve):
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.accept, args=(listener, serve), daemon=True).start()
        return listener

    def accept(self, listener, serve):
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.guarded, args=(peer, serve), daemon=True).start()

    def guarded(self, peer, serve):
        self.open.add(peer)
        with peer, contextlib.suppress(OSError, ValueError):
            serve(peer)
        self.open.discard(peer)

    def stop(self):
        """Ends the server: its ports refuse, and its connections close."""
        for listener in self.listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for peer in list(self.open):
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def serve(self, peer):
        reader = peer.makefile("rb")
        while line := reader.readline():
            target = line.split()[1].decode()
            heads = {}
            while (field := reader.readline()) not in (b"\r\n", b""):
                name, _, value = field.decode().partition(":")
                heads.setdefault(name.lower(), []).append(value.strip())
            self.answer(peer, reader, target, heads)

    def answer(self, peer, reader, target, heads):
        if target == "/lightstreamer/healthcheck":
            status = "200 OK" if self.is_well else "500 Ill"
            peer.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
        elif target == "/ws":
            key = heads["sec-websocket-key"][0] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
            peer.sendall(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\nX-Node: {self.name}\r\n\r\n".encode()
            )
            while bytes_ := reader.read1():
                # The client's frames come back as they are; only this test reads them.
                peer.sendall(bytes_)
        elif target == "/stream":
            peer.sendall(
                f"HTTP/1.1 200 OK\r\nX-Node: {self.name}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".encode()
            )
            # Silence, until either side ends the connection.
            reader.read(1)
        else:
            body = json.dumps({"node": self.name, "heads": heads}).encode()
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def serve_raw(self, peer):
        """Reads a PROXY protocol header, and answers the client's first line with what the header said."""
        got = peer.recv(4096)
        if got.startswith(b"\r\n\r\n\0\r\nQUIT\n"):
            if got[12] & 15 == 0:  # LOCAL: a check.
                return
            version, end = 2, 16 + int.from_bytes(got[14:16], "big")
            source, to = socket.inet_ntoa(got[16:20]), socket.inet_ntoa(got[20:24])
            port = int.from_bytes(got[26:28], "big")
        else:
            line = got[: got.index(b"\r\n")].decode().split()
            if line[1] == "UNKNOWN":
                return
            version, end = 1, got.index(b"\r\n") + 2
            source, to, port = line[2], line[3], int(line[5])
        said = got[end:]
        while not said.endswith(b"\n"):
            said += peer.recv(4096)
        heard = {"version": version, "source": source, "to": to, "port": port, "said": said.decode()}
        peer.sendall(json.dumps({"node": self.name, **heard}).encode())


class Proxy:
    """A running proxy: its ports, its process, and what clients see of it."""

    def __init__(self, name, program, ports):
        self.name, self.process, self.ports = name, program, ports

    def connect(self, name=HOST):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        tcp = socket.create_connection(("127.0.0.1", self.ports[443]), 5, (CLIENT, 0))
        return context.wrap_socket(tcp, server_hostname=name)

    def ask(self, target="/", host=HOST, cookie=None, extra=()):
        """Sends a request over a connection of its own. Returns the connection and the answer."""
        heads = [f"Host: {host}", *extra] + ([f"Cookie: PUSHGATE={cookie}"] if cookie else [])
        tls = self.connect(host)
        head = "\r\n".join([f"GET {target} HTTP/1.1", *heads, "", ""])
        tls.sendall(head.encode())
        answer = http.client.HTTPResponse(tls)
        answer.begin()
        return tls, answer

    def get(self, host=HOST, cookie=None):
        """Returns status, what the node saw, and the cookie (value, attributes) or None."""
        tls, answer = self.ask("/", host, cookie)
        with tls:
            body = answer.read()
        seen = json.loads(body) if answer.status == 200 else {"node": None, "heads": {}}
        return answer.status, seen, parse_cookie(answer)


def parse_cookie(answer):
    fields = answer.headers.get_all("Set-Cookie") or []
    if not fields:
        return None
    pair, *attributes = fields[0].split(";")
    return pair.partition("=")[2], sorted(a.strip().lower() for a in attributes)


def observe(proxy):
    """Returns what clients and nodes get through the proxy, but for what may differ."""
    seen = {}
    for name in (HOST, PINNED, UNKNOWN):
        with proxy.connect(name) as tls:
            seen[f"certificate for {name}"] = hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()[:16]

    status, got, cookie = proxy.get()
    forwarded = [got["heads"].get(h) for h in ("host", "x-forwarded-for", "x-forwarded-proto")]
    seen["first answer"] = (status, forwarded, cookie and cookie[1])
    again = [proxy.get(cookie=cookie[0]) for _ in range(SAME)]
    # With `maxlife` HAProxy sends the cookie again once its date, in units of 4 s, has changed: `ls1|SEEN|FIRST`.
    renewed = [c if c and c[0].split("|")[0] != cookie[0].split("|")[0] else None for _, _, c in again]
    seen["answers with the cookie"] = [(s, n["node"] == got["node"], c) for (s, n, _), c in zip(again, renewed)]

    seen["nodes of clients without cookie"] = sorted(nodes_of_streams(proxy))

    pinned = [proxy.get(host=PINNED) for _ in range(SAME)]
    seen["pinned host"] = [(s, n["node"], c) for s, n, c in pinned]
    status, got, _ = proxy.get(host=UNKNOWN)
    seen["unknown host"] = (status, got["heads"].get("host"))

    seen["WebSocket"] = websocket(proxy, cookie[0], again[0][1]["node"])
    tls, answer = proxy.ask("/stream", cookie=cookie[0])
    with tls:
        seen["stream"] = (answer.status, answer.read(5))

    with socket.create_connection(("127.0.0.1", proxy.ports[9090]), 5, (CLIENT, 0)) as tcp:
        tcp.sendall(b"hello\n")
        heard = json.loads(tcp.recv(4096))
    heard["port"] = heard["port"] == proxy.ports[9090]
    heard["node"] = heard["node"] in ("ls1", "ls2")
    seen["layer 4"] = heard
    return seen


def websocket(proxy, cookie, node):
    key = base64.b64encode(b"0123456789abcdef").decode()
    heads = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
    tls, answer = proxy.ask("/ws", cookie=cookie, extra=heads)
    frame = b"\x81\x85\0\0\0\0hello"
    with tls:
        tls.sendall(frame)
        got = b""
        while len(got) < len(frame):
            got += answer.fp.read1(64) if answer.fp else tls.recv(64)
    accept = answer.headers["Sec-WebSocket-Accept"]
    return answer.status, accept, answer.headers["X-Node"] == node, got == frame


def after_failure(proxy, fail):
    """Lets the node of a stuck client with a stream fail. Returns how its stream ends, and what it gets then."""
    _, got, cookie = proxy.get()
    tls, answer = proxy.ask("/stream", cookie=cookie[0])
    answer.read(5)
    fail(got["node"])
    tls.settimeout(DEADLINE_SECONDS)
    try:
        end = "whole" if answer.read() == b"" else "more"
    except TimeoutError:
        end = "open"
    except (OSError, http.client.HTTPException):
        end = "cut"
    tls.close()
    # HAProxy ends streams before it stops choosing the node, so a client that comes back at once may get a 503.
    for _ in range(20):
        status, after, new = proxy.get(cookie=cookie[0])
        if status == 200:
            break
        time.sleep(0.1)
    return end, status, after["node"] not in (None, got["node"]), new and new[1]


def nodes_of_streams(proxy):
    """Returns the nodes of streams that are open at the same time, so that the fullest node does not get them all."""
    streams = [proxy.ask("/stream") for _ in range(MAX_STREAMS)]
    for tls, _ in streams:
        tls.close()
    return {answer.headers["X-Node"] for _, answer in streams}


@contextlib.contextmanager
def pair(kind, folder, certificates, nodes):
    """Starts the proxy `kind` and the edge beside it. Yields both."""
    running = []
    try:
        for name, file in (("pushgate", "pushgate.yaml"), (kind, f"{kind}.{'cfg' if kind == 'haproxy' else 'conf'}")):
            ports = {443: free_port(), 9090: free_port(), 9900: free_port()}
            text = (FILES / kind / file).read_text()
            changes = {
                "200.0.0.10:443": f"127.0.0.1:{ports[443]}",
                "200.0.0.10:9090": f"127.0.0.1:{ports[9090]}",
                "127.0.0.1:9900": f"127.0.0.1:{ports[9900]}",
                # Few descriptors may be allowed here.
                "maxconn 50000": "maxconn 200",
                "worker_connections 20000": "worker_connections 200",
                "include /etc/nginx/modules-enabled/*.conf;": f"load_module {STREAM_MODULE};",
            }
            for n, node in enumerate(nodes, 1):
                for port, real in zip((8080, 8081), node.ports):
                    there = f"127.0.0.1:{real}"
                    changes[f"10.0.0.{n}:{port}"] = there
                    changes[f"10\\.0\\.0\\.{n}:{port}"] = there
            for old, new in changes.items():
                text = text.replace(old, new)
            home = folder / f"{kind}-{name}"
            shutil.copytree(certificates, home)
            (home / file).write_text(text)
            command = {
                "pushgate": [PROGRAM, "run", "-c", home / file],
                "haproxy": ["haproxy", "-db", "-f", file],
                "nginx": ["nginx", "-p", home, "-c", home / file, "-g", "daemon off; pid nginx.pid; error_log stderr;"],
            }[name]
            if name == "nginx":
                text = text.replace("http {", "http { access_log off; client_body_temp_path t1; proxy_temp_path t2; "
                                    "fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5;")
                (home / file).write_text(text)
            log = (home / "log").open("wb")
            process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, env={**os.environ, "PATH": PATH})
            proxy = Proxy(name, process, ports)
            running.append(proxy)
            try:
                wait(f"{name} serves", lambda p=proxy: p.get()[0] == 200 and p.get(host=PINNED)[0] == 200)
            except TimeoutError:
                print((home / "log").read_text(errors="replace"), file=sys.stderr)
                raise
        yield running
    finally:
        for proxy in running:
            proxy.process.terminate()
        for proxy in running:
            try:
                proxy.process.wait(2)
            except subprocess.TimeoutExpired:
                proxy.process.kill()
                proxy.process.wait()


def make_certificates(folder):
    """Makes push.pem (with its key), push.key and the same of push1, all signed by themselves."""
    folder.mkdir()
    for name in ("push", "push1"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
            + ["-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}.mycompany.com"]
            + ["-addext", f"subjectAltName=DNS:{name}.mycompany.com"],
            cwd=folder, check=True, capture_output=True,
        )
        with (folder / f"{name}.pem").open("a") as chain:
            chain.write((folder / f"{name}.key").read_text())


def compare(kind, what, of):
    (_, edge), (_, other) = of
    for fact, value in edge.items():
        if value != other[fact]:
            fault(f"{kind}: {what}: {fact}: pushgate {value}, {kind} {other[fact]}")


def check_pair(kind, folder, certificates):
    nodes = [Node("ls1"), Node("ls2")]
    with pair(kind, folder, certificates, nodes) as running:
        compare(kind, "healthy", [(p.name, observe(p)) for p in running])

        # nginx makes no checks, so its node ends. HAProxy and the edge find one that answers its check badly.
        def fail(name):
            node = nodes[int(name[-1]) - 1]
            node.stop() if kind == "nginx" else setattr(node, "is_well", False)
            failed.append(node)

        ends, failed = [], []
        for proxy in running:
            ends.append((proxy.name, {"a stream, and the client's next request": after_failure(proxy, fail)}))
            node = failed.pop()
            node.is_well = True
            if kind == "nginx":
                node.start()
            wait("both nodes are back", lambda p=proxy: len(nodes_of_streams(p)) == 2)
        compare(kind, "after a failure", ends)
        for name, seen in ends:
            for fact, value in seen.items():
                if value[:3] != ("cut", 200, True):
                    fault(f"{kind}: {name} after a failure: {fact}: {value}")
    for node in nodes:
        with contextlib.suppress(OSError):
            node.stop()
    print(f"migration: {kind} was compared with pushgate")


def check_files(certificates):
    """`pushgate check` accepts the edge's file of each pair, without a warning."""
    for file in sorted(FILES.glob("*/pushgate.yaml")):
        shutil.copy(file, certificates / "pushgate.yaml")
        done = subprocess.run(
            [PROGRAM, "check", "-c", certificates / "pushgate.yaml"], capture_output=True, text=True, check=False
        )
        said = done.stdout + done.stderr
        # The certificates are signed by themselves.
        warnings = [w for w in re.findall(r".*warning: .*", said) if "chain" not in w]
        if done.returncode != 0 or warnings:
            fault(f"{file.relative_to(ROOT)}: {said}")
        (certificates / "pushgate.yaml").unlink()


def main():
    lacks = [p for p in ("haproxy", "nginx", "openssl") if not shutil.which(p, path=PATH)]
    if not STREAM_MODULE.exists():
        lacks.append("nginx")
    if not PROGRAM.exists():
        lacks.append(str(PROGRAM))
    for missing in sorted(set(lacks)):
        print(f"migration: no {missing}", file=sys.stderr)
    if "openssl" in lacks or not PROGRAM.exists():
        return 77
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        certificates = folder / "certificates"
        make_certificates(certificates)
        check_files(certificates)
        for kind in ("haproxy", "nginx"):
            if kind not in lacks:
                try:
                    check_pair(kind, folder, certificates)
                except TimeoutError as e:
                    fault(f"{kind}: too late: {e}")
    return 1 if faults else 77 if lacks else 0


if __name__ == "__main__":
    sys.exit(main())
