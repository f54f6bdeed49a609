#!/usr/bin/env python3
"""Rebalances 10,000 live WebSockets at 200 a second: they are on two nodes, and a third returns empty.

In: PUSHGATE_BIN (default: target/release/pushgate), FLOWS (default: 10000). Out: figures on standard
output: moves compared with the fewest possible, closes in the busiest second, evenness, time. Also the
latency of other requests through the same edge, one each 5 ms, before and during the rebalance. Clients
return their cookie and reconnect at once. All traffic is on loopback.
"""

import functools
import http.client
import json
import os
import selectors
import socket
import threading
import time

import small_site

FLOWS = int(os.environ.get("FLOWS", "10000"))
RATE, TOLERANCE = 200, 0.05
NODES, EDGE, ADMIN = [17811, 17812, 17813], 17814, 17815
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: push\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nX-Node: %d\r\n\r\n"
)

CONF = f"""
client_share: 100%
admin: {{ bind: 127.0.0.1:{ADMIN} }}
nodes:
{"".join(f"  n{i}: {{ address: 127.0.0.1:{port} }}" + chr(10) for i, port in enumerate(NODES))}
pools:
  push: {{ nodes: [n0, n1, n2] }}
listeners:
  - name: push
    bind: [127.0.0.1:{EDGE}]
    mode: http
    to: push
{small_site.ONE_CLIENT}    plugins: [{{ sticky_cookie: {{}} }}]
"""


def node(number):
    """Serves as a node: WebSockets that stay silent, and 204 for every other request."""
    sel = selectors.DefaultSelector()
    listening = socket.create_server(("127.0.0.1", NODES[number]), backlog=4096)
    listening.setblocking(False)
    sel.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in sel.select():
            sock = key.fileobj
            if sock is listening:
                client = listening.accept()[0]
                client.setblocking(False)
                sel.register(client, selectors.EVENT_READ)
                continue
            try:
                asked = sock.recv(8192)
            except OSError:
                asked = b""
            if not asked:
                sel.unregister(sock)
                sock.close()
            elif b"pgrade: websocket" in asked:
                sock.send(SWITCH % number)
            else:
                sock.send(b"HTTP/1.1 204 No Content\r\n\r\n")


def admin(method, path):
    asked = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=10)
    asked.request(method, path)
    return json.loads(asked.getresponse().read() or b"null")


class Crowd:
    """Clients with a WebSocket and a cookie each. A client whose connection ends reconnects at once."""

    def __init__(self):
        self.sel = selectors.DefaultSelector()
        self.at, self.cookie, self.closes = {}, {}, []

    def connect(self, client):
        sock = socket.create_connection(("127.0.0.1", EDGE))
        cookie = self.cookie.get(client)
        sock.sendall(UPGRADE + (b"Cookie: " + cookie + b"\r\n" if cookie else b"") + b"\r\n")
        sock.setblocking(False)
        self.sel.register(sock, selectors.EVENT_READ, client)

    def poll(self, seconds):
        for key, _ in self.sel.select(seconds):
            client, sock = key.data, key.fileobj
            try:
                said = sock.recv(8192)
            except OSError:
                said = b""
            if said.startswith(b"HTTP/1.1 101"):
                head = said.split(b"\r\n")
                self.at[client] = int(next(l for l in head if l.lower().startswith(b"x-node")).split()[1])
                for line in head:
                    if line.lower().startswith(b"set-cookie: "):
                        self.cookie[client] = line[12:].split(b";")[0]
            elif not said:
                self.closes.append((time.monotonic(), self.at.pop(client, None)))
                self.sel.unregister(sock)
                sock.close()
                self.connect(client)

    def counts(self):
        nodes = list(self.at.values())
        return [nodes.count(i) for i in range(len(NODES))]


class Probe(threading.Thread):
    """Sends a request each 5 ms from a process of its own, so that the crowd's work does not delay it."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.figures = seconds, ""

    def run(self):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            sock = socket.create_connection(("127.0.0.1", EDGE))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            took, end = [], time.monotonic() + self.seconds
            while time.monotonic() < end:
                start = time.monotonic()
                sock.sendall(b"GET /ping HTTP/1.1\r\nHost: push\r\n\r\n")
                sock.recv(4096)
                took.append((time.monotonic() - start) * 1e3)
                time.sleep(max(0, 0.005 - (time.monotonic() - start)))
            took.sort()
            at = lambda share: took[min(len(took) - 1, int(share * len(took)))]
            os.write(write, f"p50 {at(.5):.2f} ms, p99 {at(.99):.2f} ms, most {took[-1]:.2f} ms".encode())
            os._exit(0)
        os.close(write)
        self.figures = os.read(read, 4096).decode()
        os.waitpid(pid, 0)


def measure(_):
    crowd = Crowd()
    admin("POST", "/api/nodes/n2/drain")
    for client in range(FLOWS):
        crowd.connect(client)
        crowd.poll(0)
    while len(crowd.at) < FLOWS:
        crowd.poll(0.1)
    print(f"before: {crowd.counts()}", flush=True)
    quiet = Probe(5)
    quiet.start()
    while quiet.is_alive():
        crowd.poll(0.05)
    admin("POST", "/api/nodes/n2/up")
    fewest = admin("POST", f"/api/pools/push/rebalance?to_even&tolerance={TOLERANCE * 100}%25&dry_run")["left"]
    busy = Probe(fewest / RATE)
    start = time.monotonic()
    admin("POST", f"/api/pools/push/rebalance?to_even&rate={RATE}/s&tolerance={TOLERANCE * 100}%25&close")
    busy.start()
    state, looked = "running", 0.0
    while state in ("running", "settling") or len(crowd.at) < FLOWS or busy.is_alive():
        crowd.poll(0.05)
        if time.monotonic() > looked + 0.2:
            looked = time.monotonic()
            progress = admin("GET", "/api/pools/push/rebalance")
            if state in ("running", "settling") and progress["state"] not in ("running", "settling"):
                took = time.monotonic() - start
            state = progress["state"]
    counts = crowd.counts()
    times = [at for at, _ in crowd.closes]
    busiest = max((sum(1 for t in times if at <= t < at + 1) for at in times[::10]), default=0)
    print(f"after {took:.1f} s ({state}): {counts}, max/mean {max(counts) * len(NODES) / sum(counts):.4f}")
    print(f"moves: {len(times)}, fewest {fewest} (+{100 * (len(times) / fewest - 1):.2f} %); "
          f"of the third node: {sum(1 for _, n in crowd.closes if n == 2)}")
    print(f"busiest second: {busiest} closes (rate {RATE})")
    print(f"other requests before: {quiet.figures}\nother requests during it: {busy.figures}")


def main():
    small_site.run(CONF, EDGE, [functools.partial(node, number) for number in range(len(NODES))], FLOWS, measure)


if __name__ == "__main__":
    main()
