#!/usr/bin/env python3
"""Runs the pair of conf/pair with the real keepalived, in network namespaces that it makes itself.

Two edges, two push servers and clients of both VIPs and both options (cookie, address) share a bridge. Each client
holds a stream. The test kills an edge, stops it (SIGSTOP), pulls its cable, lets it drain, and lets each VIP return.
Every client must find its own node again. A planned change and a return must not break a stream.

Usage: tests/pair.py [--haproxy]. With `--haproxy` a pair of HAProxy with peers runs under the same keepalived
afterwards, for its times only. Exit code: 0 passed, 1 failed, 77 it cannot run here (not root, no keepalived, no nft,
no built program; PUSHGATE and KEEPALIVED name other ones), or PUSHGATE_TEST_NETNS is `skip`.
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time

# No folder of compiled modules in the tree.
sys.dont_write_bytecode = True
from pair_machines import EDGES, FILES, KEEPALIVED, NODES, PATH, PROGRAM, VIPS, Edge, Network

# Port of each option in conf/pair/pushgate.yaml.
OPTIONS = {"cookie": 80, "address": 8080}
# Clients of each VIP and option. All have addresses of their own.
CLIENTS = 20
# For the times beside HAProxy. Otherwise the test may run beside others, on a machine without a core to spare.
EXACT = "--haproxy" in sys.argv
# A node sends a line as often; a client that misses it for so long reconnects, as push clients do.
TICK_SECONDS, STALLED_SECONDS = 0.25, 1.0 if EXACT else 4.0
RETRY_SECONDS = 0.1
DEADLINE_SECONDS = 20

HAPROXY = """\
global
    stats timeout 1s
defaults
    mode http
    timeout connect 1s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
peers pair
    peer edge1 10.0.0.11:10000
    peer edge2 10.0.0.12:10000
listen health
    bind 0.0.0.0:9901
    monitor-uri /livez
listen cookie
    bind 0.0.0.0:80
    option httpchk GET /lightstreamer/healthcheck
    cookie NODE insert indirect nocache
    server ls1 10.0.0.1:80 cookie ls1 check inter 1s
    server ls2 10.0.0.2:80 cookie ls2 check inter 1s
listen address
    bind 0.0.0.0:8080
    option httpchk GET /lightstreamer/healthcheck
    stick-table type ip size 100k expire 1h peers pair
    stick on src
    server ls1 10.0.0.1:80 check inter 1s
    server ls2 10.0.0.2:80 check inter 1s
"""
# In place of `pair`: HAProxy has no state `draining`, because its listeners are closed then.
HAPROXY_CHECK = """\
#!/bin/sh
case "$1" in lives) curl -sf -m 0.9 -o /dev/null http://127.0.0.1:9901/livez ;; esac
"""

faults = []


def fault(text):
    faults.append(text)
    print(f"pair: FAILED: {text}", file=sys.stderr)


async def wait(what, until):
    """Waits until a condition holds. Returns the time when it did."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        if until():
            return time.monotonic()
        await asyncio.sleep(0.05)
    raise TimeoutError(what)


def listens(address):
    with contextlib.suppress(OSError), socket.create_connection((address, 9901), timeout=1):
        return True


class Node:
    """A push server: a stream of lines, the first of which is its name."""

    def __init__(self, name, address):
        self.name = name
        self.listener = socket.create_server((address, 80), backlog=512)

    async def serve(self):
        await asyncio.start_server(self.client, sock=self.listener)

    async def client(self, reader, writer):
        # Cancelled at the end of the test.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"/healthcheck" in head.split(b"\r\n", 1)[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK\n")
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n")
                while True:
                    writer.write(self.name.encode() + b"\n")
                    await writer.drain()
                    await asyncio.sleep(TICK_SECONDS)
        writer.close()


class Client:
    """Holds one stream through a VIP, and opens another when it breaks or stalls."""

    def __init__(self, number, vip, option):
        self.source, self.vip, self.option = f"198.51.100.{number}", vip, option
        self.cookie = self.node = None
        # When the stream began; None without one.
        self.since = None
        # Streams that broke, and streams that began at another node than the first.
        self.breaks = self.wrong = 0
        self.task = None
        self.again()

    async def live(self):
        # Not only by being cancelled: `wait_for` loses that if its work is done at the same moment.
        while self.task is asyncio.current_task():
            with contextlib.suppress(OSError, asyncio.TimeoutError, asyncio.IncompleteReadError):
                await self.stream()
            if self.task is not asyncio.current_task():
                return
            if self.since:
                self.breaks += 1
                self.since = None
            else:
                await asyncio.sleep(RETRY_SECONDS)

    def again(self):
        """Leaves, and comes back as a new flow."""
        self.leave()
        self.task = asyncio.create_task(self.live())

    def leave(self):
        if self.task:
            self.task.cancel()
        self.task = self.since = None

    async def stream(self):
        connected = asyncio.open_connection(self.vip, OPTIONS[self.option], local_addr=(self.source, 0))
        reader, writer = await asyncio.wait_for(connected, STALLED_SECONDS)
        try:
            cookie = f"Cookie: {self.cookie}\r\n" if self.cookie else ""
            writer.write(f"GET /stream HTTP/1.1\r\nHost: push.mycompany.com\r\n{cookie}\r\n".encode())
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), STALLED_SECONDS)
            if not head.startswith(b"HTTP/1.1 200"):
                return
            for line in head.decode().split("\r\n"):
                if self.option == "cookie" and line.lower().startswith("set-cookie: "):
                    self.cookie = line[12:].split(";")[0]
            self.began(await self.line(reader))
            while True:
                await self.line(reader)
        finally:
            writer.transport.abort()

    async def line(self, reader):
        """Reads until a line that names a node; the rest is framing."""
        while True:
            line = await asyncio.wait_for(reader.readuntil(b"\n"), STALLED_SECONDS)
            if line.strip().decode() in NODES:
                return line.strip().decode()

    def began(self, node):
        self.wrong += bool(self.node) and node != self.node
        self.node = node
        self.since = time.monotonic()


class Trial:
    """A pair with its clients, and what is done to it."""

    def __init__(self, kind, network, edges):
        self.kind, self.network, self.edges = kind, network, edges
        self.clients = []

    def home(self):
        return all(self.network.has(edge.name, vip) for edge, vip in zip(self.edges, VIPS))

    async def begin(self):
        for edge in self.edges:
            edge.start()
        # First, because a VIP that begins at the wrong edge would move in the middle of a trial.
        for address in EDGES.values():
            await wait(f"{self.kind}: {address} listens", lambda: listens(address))
        for edge in self.edges:
            edge.start_keepalived()
        await wait(f"{self.kind}: each VIP at its edge", self.home)
        places = [(vip, option) for vip in VIPS for option in OPTIONS for _ in range(CLIENTS)]
        self.clients = [Client(2 + n, *place) for n, place in enumerate(places)]
        await self.streams("start")
        used = {c.node for c in self.clients}
        if used != set(NODES):
            fault(f"{self.kind}: the clients use {used}")

    async def streams(self, what):
        return await wait(f"{self.kind}: {what}: a stream of each client", lambda: all(c.since for c in self.clients))

    def broken(self):
        return sum(client.breaks for client in self.clients)

    async def lost(self, what, break_it):
        """Breaks the first edge. Prints the time until the last of its clients has a stream again."""
        ours = [c for c in self.clients if c.vip == VIPS[0]]
        others = [c for c in self.clients if c.vip == VIPS[1]]
        seen = sum(c.breaks for c in others)
        start = time.monotonic()
        break_it()
        await wait(f"{self.kind}: {what}: the VIP moves", lambda: self.network.has("edge2", VIPS[0]))
        moved = time.monotonic()
        again = lambda: all(c.since and c.since > start for c in ours)
        await wait(f"{self.kind}: {what}: a stream of each client", again)
        last = max(c.since for c in ours)
        self.report(what, f"VIP after {moved - start:.1f} s, last client after {last - start:.1f} s")
        if sum(c.breaks for c in others) != seen:
            fault(f"{self.kind}: {what}: streams of the other VIP broke")

    def report(self, what, text):
        wrong = sum(client.wrong for client in self.clients)
        print(f"pair: {self.kind}: {what}: {text}; {wrong} streams at the wrong node", flush=True)
        if wrong and self.kind == "pushgate":
            fault(f"{what}: {wrong} streams at the wrong node")
        for client in self.clients:
            client.wrong = 0

    async def returns(self, what, mend):
        """Mends the first edge. Its VIP must return, and no stream may break. Then its clients return as new flows."""
        seen, start = self.broken(), time.monotonic()
        mend()
        await wait(f"{self.kind}: {what}: the VIP returns", self.home)
        at = time.monotonic()
        await self.unbroken(what, seen, f"VIP back after {at - start:.1f} s")
        for client in self.clients:
            client.again()
        await self.streams(what)

    async def unbroken(self, what, seen, text):
        # A stream that was cut is noticed within a tick: its next packet is answered by a reset.
        await asyncio.sleep(6 * TICK_SECONDS)
        self.report(what, f"{text}, {self.broken() - seen} streams broken")
        if self.broken() != seen and self.kind == "pushgate":
            fault(f"{what}: {self.broken() - seen} streams broke")

    async def drains(self):
        """Lets the first edge drain. Its streams go on there, and new clients are served by the other."""
        seen, start = self.broken(), time.monotonic()
        edge = self.edges[0]
        edge.proxy.send_signal(signal.SIGTERM if self.kind == "pushgate" else signal.SIGUSR1)
        await wait(f"{self.kind}: drain: the VIP moves", lambda: self.network.has("edge2", VIPS[0]))
        moved = time.monotonic()
        await self.unbroken("planned change", seen, f"VIP after {moved - start:.1f} s")
        if self.kind == "pushgate":
            await self.drained(edge, seen)
        else:
            edge.proxy.kill()
            edge.proxy.wait()

    async def drained(self, edge, seen):
        if edge.proxy.poll() is not None:
            fault("planned change: the edge did not wait for its streams")
        # Each option has a client at the first VIP that leaves and comes back.
        for client in self.clients[: 2 * CLIENTS : CLIENTS]:
            client.again()
        await self.streams("planned change")
        # The second signal ends the drain.
        start = time.monotonic()
        edge.proxy.send_signal(signal.SIGTERM)
        await wait("planned change: the edge ends", lambda: edge.proxy.poll() is not None)
        await wait("end of the drain: its streams break", lambda: self.broken() >= seen + 2 * CLIENTS - 2)
        last = await self.streams("end of the drain")
        self.report("end of the drain", f"last client after {last - start:.1f} s")

    async def all(self):
        first = self.edges[0]
        await self.begin()
        if self.kind == "haproxy":
            await asyncio.sleep(3)
        await self.lost("killed", first.proxy.kill)
        first.proxy.wait()
        await self.returns("killed, then started", first.start)
        await self.lost("stopped", lambda: first.proxy.send_signal(signal.SIGSTOP))
        await self.returns("stopped, then continued", lambda: first.proxy.send_signal(signal.SIGCONT))
        await self.lost("cable pulled", lambda: self.network.cable("edge1", "down"))
        await self.returns("cable pulled, then plugged in", lambda: self.network.cable("edge1", "up"))
        await self.drains()
        await self.returns("drained, then started", first.start)
        for client in self.clients:
            client.leave()


def pushgate(edge):
    (edge.folder / "cookie.keys").write_text("00112233445566778899aabbccddeeff\n")
    conf = (FILES / "pushgate.yaml").read_text().replace("/run/pushgate/", f"{edge.folder}/")
    # The push servers are this process, which may be slow to answer.
    conf = conf.replace("healthcheck } }", "healthcheck }, timeout: 5s, fall: 10 }")
    (edge.folder / "pushgate.yaml").write_text(conf)
    return [PROGRAM, "run", "-c", edge.folder / "pushgate.yaml"]


def haproxy(edge):
    (edge.folder / "haproxy.cfg").write_text(HAPROXY)
    return [shutil.which("haproxy", path=PATH), "-db", "-L", edge.name, "-f", edge.folder / "haproxy.cfg"]


async def trial(kind, command, check):
    network = Network()
    # Not in /tmp: keepalived runs no script below a folder that everybody may write.
    folder = pathlib.Path(tempfile.mkdtemp(prefix="pushgate-pair-", dir="/run"))
    edges = []
    try:
        network.make()
        maker = threading.Thread(target=nodes_in, args=(network, nodes := []))
        maker.start()
        maker.join()
        for node in nodes:
            await node.serve()
        network.enter("clients")
        # Shorter than in conf/pair, so that the test is. HAProxy needs the time to learn the table from its peer.
        rise = 5 if kind == "haproxy" else 2
        edges = [Edge(network, name, folder, command, check, rise) for name in EDGES]
        await Trial(kind, network, edges).all()
    except Exception:
        for log in sorted(folder.glob("*/*.log")):
            print(f"== {log}\n{log.read_text()[-4000:]}", file=sys.stderr)
        raise
    finally:
        for edge in edges:
            edge.end()
        network.remove()
        shutil.rmtree(folder)


def nodes_in(network, nodes):
    network.enter("nodes")
    nodes.extend(Node(*node) for node in NODES.items())


def main():
    if os.environ.get("PUSHGATE_TEST_NETNS") == "skip":
        print("pair: skipped by PUSHGATE_TEST_NETNS=skip: this test needs network namespaces")
        sys.exit(77)
    missing = [word for word, there in {
        "root": os.geteuid() == 0,
        "keepalived": KEEPALIVED,
        "nft": shutil.which("nft", path=PATH),
        str(PROGRAM): pathlib.Path(PROGRAM).exists(),
    }.items() if not there]
    if missing:
        print(f"pair: not run, because this is missing: {', '.join(missing)}; see tests/setup.sh")
        sys.exit(77)
    # As Ctrl-C, so that everything is removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        asyncio.run(trial("pushgate", pushgate, (FILES / "pair").read_text()))
        if EXACT:
            asyncio.run(trial("haproxy", haproxy, HAPROXY_CHECK))
    except TimeoutError as e:
        fault(f"waited in vain: {e}")
    sys.exit(1 if faults else 0)


main()
