#!/usr/bin/env python3
"""How long 500 clients of a node live after it is marked Down.

In: PUSHGATE_BIN (default: target/release/pushgate). Out: one line of figures on standard output: from
the order `down` leaving this process to each client's end of stream. A node process sends 100 B each
100 ms on every chunked stream. All traffic is on loopback.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

FLOWS = 500
NODE, SPARE, EDGE, ADMIN = 17801, 17802, 17803, 17804
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNK = b"64\r\n" + b"x" * 100 + b"\r\n"


def node(port):
    """Answers every request with an endless stream."""
    sel = selectors.DefaultSelector()
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    listening.setblocking(False)
    sel.register(listening, selectors.EVENT_READ)
    streams, due = set(), time.monotonic()
    while True:
        for key, _ in sel.select(max(0, due - time.monotonic())):
            if key.fileobj is listening:
                client = listening.accept()[0]
                client.setblocking(False)
                sel.register(client, selectors.EVENT_READ)
                continue
            try:
                asked = key.fileobj.recv(4096)
            except OSError:
                asked = b""
            if asked:
                key.fileobj.send(HEAD + CHUNK)
                streams.add(key.fileobj)
            else:
                sel.unregister(key.fileobj)
                streams.discard(key.fileobj)
                key.fileobj.close()
        if time.monotonic() >= due:
            due += 0.1
            for stream in streams:
                try:
                    stream.send(CHUNK)
                except OSError:
                    pass


CONF = f"""
admin: {{ bind: 127.0.0.1:{ADMIN} }}
nodes:
  dies: {{ address: 127.0.0.1:{NODE} }}
  spare: {{ address: 127.0.0.1:{SPARE}, weight: 0 }}
pools:
  push: {{ nodes: [dies, spare] }}
listeners:
  - {{ name: push, bind: [127.0.0.1:{EDGE}], mode: http, to: push }}
"""


def order(line):
    admin = socket.create_connection(("127.0.0.1", ADMIN))
    admin.sendall(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
    return admin


def wait_ready():
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            return order("GET /readyz").close()
        except OSError:
            time.sleep(0.05)
    sys.exit("the edge does not start")


def measure():
    """Milliseconds from the order to each client's end."""
    sel = selectors.DefaultSelector()
    clients = []
    for n in range(FLOWS):
        client = socket.create_connection(("127.0.0.1", EDGE))
        client.sendall(b"GET / HTTP/1.1\r\nHost: push\r\n\r\n")
        client.recv(4096)
        clients.append(client)
    for client in clients:
        client.setblocking(False)
        sel.register(client, selectors.EVENT_READ)
    time.sleep(1)
    start = time.monotonic()
    order("POST /api/nodes/dies/down")
    ends = []
    while len(ends) < FLOWS and time.monotonic() < start + 10:
        for key, _ in sel.select(0.1):
            try:
                data = key.fileobj.recv(65536)
            except OSError:
                data = b""
            if not data:
                ends.append((time.monotonic() - start) * 1e3)
                sel.unregister(key.fileobj)
    return sorted(ends)


def main():
    binary = os.environ.get("PUSHGATE_BIN", "target/release/pushgate")
    started = []
    try:
        pid = os.fork()
        if pid == 0:
            node(NODE)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as conf:
            conf.write(CONF)
            conf.flush()
            started.append(subprocess.Popen([binary, "run", "-c", conf.name], stderr=subprocess.DEVNULL))
            wait_ready()
            ends = measure()
        at = lambda share: ends[min(len(ends) - 1, int(share * len(ends)))]
        print(f"{len(ends)} of {FLOWS} flows ended: median {at(.5):.1f} ms, p99 {at(.99):.1f} ms, last {ends[-1]:.1f} ms")
    finally:
        os.kill(pid, signal.SIGKILL)
        for process in started:
            process.kill()


if __name__ == "__main__":
    main()
