#!/usr/bin/env python3
"""Reads every page of /api/flows again and again, while messages of live streams pass the same edge.

In: PUSHGATE_BIN (default: target/release/pushgate), FLOWS (default: 20000). Out: figures on standard output:
the time of a page and of all pages; the delay of messages before and meanwhile. The flows are WebSockets,
silent but for one, over which a message goes to the node and back each 2 ms. All traffic is on loopback.
"""

import functools
import http.client
import json
import os
import selectors
import socket
import sys
import time

import small_site

FLOWS = int(os.environ.get("FLOWS", "20000"))
SECONDS, EACH, PAGE = 10, 0.002, 1000
NODES, EDGE, ADMIN = [17821, 17822], 17824, 17825
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: push\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
# A masked text frame of 4 bytes.
FRAME = b"\x81\x84\x00\x00\x00\x00ping"

CONF = f"""
threads: 1
client_share: 100%
admin: {{ bind: 127.0.0.1:{ADMIN} }}
nodes:
{"".join(f"  n{i}: {{ address: 127.0.0.1:{port} }}" + chr(10) for i, port in enumerate(NODES))}
pools:
  push: {{ nodes: [n0, n1] }}
listeners:
  - name: push
    bind: [127.0.0.1:{EDGE}]
    mode: http
    to: push
{small_site.ONE_CLIENT}"""


def node(port):
    """Serves as a node whose WebSockets send back what they get."""
    sel = selectors.DefaultSelector()
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    listening.setblocking(False)
    sel.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in sel.select():
            sock = key.fileobj
            if sock is listening:
                client = listening.accept()[0]
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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
                sock.send(SWITCH)
            else:
                # A server does not mask: the frame goes back without its mask of zeros.
                sock.send(b"\x81\x04ping" * (len(asked) // len(FRAME)))


def open_flow():
    sock = socket.create_connection(("127.0.0.1", EDGE))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(4096)
    if not head.startswith(b"HTTP/1.1 101"):
        sys.exit(f"no WebSocket: {head[:80]}")
    return sock


def delays(sock, seconds):
    """Sends a message each 2 ms and returns how long each took to come back, in ms, sorted."""
    took, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        sock.sendall(FRAME)
        back = b""
        while len(back) < 6:
            back += sock.recv(64)
        took.append((time.monotonic() - start) * 1e3)
        time.sleep(max(0, EACH - (time.monotonic() - start)))
    return sorted(took)


def told(took):
    at = lambda share: took[min(len(took) - 1, int(share * len(took)))]
    over = sum(1 for one in took if one > 5)
    return (
        f"p50 {at(.5):.2f} ms, p99 {at(.99):.2f} ms, p99.9 {at(.999):.2f} ms, most {took[-1]:.2f} ms, "
        f"{over} of {len(took)} over 5 ms"
    )


def pages(until):
    """Reads all pages until that time. Returns the times of pages and of whole readings, in ms."""
    ask = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=10)
    each, whole = [], []
    while time.monotonic() < until:
        begun, after, seen = time.monotonic(), 0, 0
        while after is not None:
            start = time.monotonic()
            ask.request("GET", f"/api/flows?limit={PAGE}&after={after}")
            answer = json.loads(ask.getresponse().read())
            each.append((time.monotonic() - start) * 1e3)
            after, seen = answer["next"], seen + len(answer["flows"])
        if seen < FLOWS:
            sys.exit(f"{seen} of {FLOWS} flows shown")
        whole.append((time.monotonic() - begun) * 1e3)
    return sorted(each), sorted(whole)


def beside(work):
    """Runs `work` in a process of its own, so that it delays no message. Returns how to get its result."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        # Below the edge, the nodes and the messages, also under `chrt`: what it does with a page is not the edge's.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.nice(19)
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)

    def result():
        with os.fdopen(read, "rb") as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        return json.loads(text)

    return result


def measure():
    silent = [open_flow() for _ in range(FLOWS - 1)]
    live = open_flow()
    delays(live, 1)
    print(f"{FLOWS} flows; messages before: {told(delays(live, SECONDS))}", flush=True)
    reading = beside(lambda: pages(time.monotonic() + SECONDS))
    took = delays(live, SECONDS)
    each, whole = reading()
    print(f"messages meanwhile: {told(took)}")
    print(f"pages of {PAGE}: {len(each)}, median {each[len(each) // 2]:.1f} ms, most {each[-1]:.1f} ms")
    print(f"all flows: {len(whole)} times, median {whole[len(whole) // 2]:.0f} ms")
    del silent


def main():
    small_site.run(CONF, EDGE, [functools.partial(node, port) for port in NODES], FLOWS, measure)


if __name__ == "__main__":
    main()
