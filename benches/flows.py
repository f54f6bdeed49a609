#!/usr/bin/env python3
"""Reads every page of /api/flows again and again, while messages of live streams pass the same edge.

In: PUSHGATE_BIN (default: target/release/pushgate), FLOWS (default: 20000). Out: figures on standard output:
the time of a page and of all pages; the delay of messages before and meanwhile. The flows are requests over HTTP/2
that wait for their answer, each with one descriptor of the edge, and one WebSocket, over which a message goes to the
node and back each 2 ms. The edge's admin endpoint and the reader of pages have the last core; all else has the others,
so that what is measured is the edge and not how the kernel shares a core. The edge keeps some descriptors for itself, so with a limit of 20,000 there can be some 18,000
flows. All traffic is on loopback.
"""

import functools
import http.client
import json
import os
import re
import selectors
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

import small_site

FLOWS = int(os.environ.get("FLOWS", "20000"))
SECONDS, EACH, PAGE = 10, 0.002, 1000
NODES, EDGE, ADMIN, TLS = [17821, 17822], 17824, 17825, 17826
CORES = sorted(os.sched_getaffinity(0))
# The edge's default.
STREAMS = 100
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
certificates: {{ push: {{ chain: FOLDER/push.pem, key: FOLDER/push.key }} }}
listeners:
  - name: push
    bind: [127.0.0.1:{EDGE}]
    mode: http
    to: push
{small_site.ONE_CLIENT}
  - name: tls
    bind: [127.0.0.1:{TLS}]
    mode: http
    to: push
    tls: {{ certificates: [push] }}
{small_site.ONE_CLIENT}"""


def node(port):
    """Serves as a node whose WebSockets send back what they get."""
    os.sched_setaffinity(0, CORES[:-1] or CORES)
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
            elif not asked.startswith(b"GET"):
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


def open_streams(count):
    """Sends `count` requests over one connection of HTTP/2 (RFC 9113). Nobody answers them."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    sock = context.wrap_socket(socket.create_connection(("127.0.0.1", TLS)), server_hostname="push")
    # :method GET, :scheme https, :path /, :authority push.
    block = b"\x82\x87\x84\x41\x04push"
    head = struct.pack(">I", len(block))[1:] + b"\x01\x05"
    frames = b"".join(head + struct.pack(">I", 2 * n + 1) + block for n in range(count))
    sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + frames)
    return sock


def shown():
    """Returns how many flows the edge has."""
    ask = http.client.HTTPConnection("127.0.0.1", ADMIN, timeout=10)
    ask.request("GET", "/api/nodes")
    return sum(node["flows"] for node in json.loads(ask.getresponse().read()))


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
            answer = ask.getresponse().read()
            each.append((time.monotonic() - start) * 1e3)
            # Not parsed: that takes a core for longer than the edge needed, and the kernel takes it back after 4 ms only.
            seen += answer.count(b'"waited_seconds"')
            following = re.search(rb'"next":\s*(\d+)', answer)
            after = following and int(following[1])
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
        os.sched_setaffinity(0, CORES[-1:])
        os.write(write, json.dumps(work()).encode())
        os._exit(0)
    os.close(write)

    def result():
        with os.fdopen(read, "rb") as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        return json.loads(text)

    return result


def pin(edge):
    """Gives the edge's threads but the one of the admin endpoint, and this process, all cores but the last."""
    for thread in os.listdir(f"/proc/{edge}/task"):
        with open(f"/proc/{edge}/task/{thread}/comm") as comm:
            is_admin = comm.read().strip() == "edge"
        os.sched_setaffinity(int(thread), CORES[-1:] if is_admin else CORES[:-1] or CORES)
    os.sched_setaffinity(0, CORES[:-1] or CORES)


def measure(edge):
    pin(edge)
    live = open_flow()
    silent = [open_streams(min(STREAMS, FLOWS - 1 - at)) for at in range(0, FLOWS - 1, STREAMS)]
    end = time.monotonic() + 60
    while shown() < FLOWS:
        if time.monotonic() > end:
            sys.exit(f"{shown()} of {FLOWS} flows")
        time.sleep(0.1)
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
    with tempfile.TemporaryDirectory() as folder:
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=push"]
        out = ["-keyout", f"{folder}/push.key", "-out", f"{folder}/push.pem"]
        subprocess.run(["openssl", "req", "-x509", *key, *out], check=True, stderr=subprocess.DEVNULL)
        nodes = [functools.partial(node, port) for port in NODES]
        small_site.run(CONF.replace("FOLDER", folder), EDGE, nodes, FLOWS // 2, measure)


if __name__ == "__main__":
    main()
