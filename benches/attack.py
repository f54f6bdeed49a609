#!/usr/bin/env python3
"""Attacks the edge from one hostile address, and from one hostile /64, and measures what others feel.

In: PUSHGATE_BIN (default: target/release/pushgate), SECONDS of each attack (default: 6), DESCRIPTORS of the edge
(default: 20000, at most the hard limit). Needs root and iproute2: all of it runs in a network namespace of its
own, where every address of 2001:db8::/32 is local. The attacker has the last core for itself; the edge, its node
and the other clients have the first. Out: a table in Markdown, one row for each attack.

Others: new clients, one after the other, each with an address in a /64 of its own, a full TLS handshake and one
request; and 20 live streams with a message every 10 ms. `refused`: new clients that were not served within 5 s.
"""

import asyncio
import functools
import os
import random
import re
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

BIN = os.path.abspath(os.environ.get("PUSHGATE_BIN", "target/release/pushgate"))
SECONDS = float(os.environ.get("SECONDS", "6"))
DESCRIPTORS = int(os.environ.get("DESCRIPTORS", "20000"))
EDGE, NODE, ADMIN = ("2001:db8:1::1", 443), ("127.0.0.1", 17900), 17901
HOSTILE = "2001:db8:bad:bad::"
STREAMS = 20
CONF = f"""
admin: {{ bind: 127.0.0.1:{ADMIN} }}
nodes: {{ n1: {{ address: 127.0.0.1:{NODE[1]} }} }}
pools: {{ p: {{ nodes: [n1], health: {{ tcp: {{}} }} }} }}
certificates: {{ c: {{ chain: c.pem, key: c.key }} }}
listeners:
  - {{ name: tls, bind: ["[{EDGE[0]}]:443"], mode: http, to: p, tls: {{ certificates: [c] }} }}
"""


def pin(core):
    os.sched_setaffinity(0, {core})


def cores():
    known = sorted(os.sched_getaffinity(0))
    return known[0], known[-1]


def hostile(prefix):
    return f"{HOSTILE}{random.randrange(1, 1 << 16):x}:{random.randrange(1 << 16):x}" if prefix else f"{HOSTILE}1"


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


# The node: `/hello` answers, `/stream` sends the time every 10 ms, `/slow` never answers.


async def serve(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" /slow" in head:
                await reader.read()
                return
            if b" /stream" not in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"13\r\n%019d\r\n" % time.monotonic_ns())
                await asyncio.sleep(0.01)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def node():
    server = await asyncio.start_server(serve, *NODE, backlog=4096)
    await server.serve_forever()


# The others.


@functools.cache
def context():
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    return plain


async def dial(source):
    return await asyncio.open_connection(*EDGE, ssl=context(), local_addr=(source, 0))


def request(path):
    return f"GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode()


async def stream(n, ages, over):
    reader, writer = await dial(f"2001:db8:2:{n}::1")
    writer.write(request("/stream"))
    await reader.readuntil(b"\r\n\r\n")
    while not over.is_set():
        await reader.readline()
        sent = int((await reader.readline()).strip())
        ages.append((time.monotonic_ns() - sent) / 1e6)
    writer.close()


async def newcomers(connects, requests, refused, over):
    n = 0
    while not over.is_set():
        n += 1
        begun = time.monotonic()
        try:
            async with asyncio.timeout(5):
                reader, writer = await dial(f"2001:db8:3:{n % 60000:x}::1")
                connects.append((time.monotonic() - begun) * 1e3)
                begun = time.monotonic()
                writer.write(request("/hello"))
                head = await reader.readuntil(b"\r\n\r\n")
                (requests if b" 200 " in head.split(b"\r\n")[0] else refused).append((time.monotonic() - begun) * 1e3)
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            refused.append(5e3)
        await asyncio.sleep(0.005)


async def others(seconds):
    over, ages, connects, requests, refused = asyncio.Event(), [], [], [], []
    # They are there before the attack.
    live = [asyncio.create_task(stream(n, ages, over)) for n in range(STREAMS)]
    await asyncio.sleep(1)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ages.clear()
    new = asyncio.create_task(newcomers(connects, requests, refused, over))
    await asyncio.sleep(seconds)
    over.set()
    lost = sum(task.done() for task in live)
    await asyncio.wait([new, *live], timeout=6)
    numbers = [percentile(connects, 0.5), percentile(connects, 0.99), percentile(requests, 0.5), percentile(requests, 0.99), percentile(ages, 0.5), percentile(ages, 0.99)]
    print(*[f"{n:.2f}" for n in numbers], len(connects), len(refused), lost, flush=True)


# The attacker.


def hello():
    """Returns a ClientHello, to be sent again and again."""
    out = ssl.MemoryBIO()
    with_name = context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.test")
    try:
        with_name.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def connect(prefix):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.setblocking(False)
    sock.bind((hostile(prefix), 0))
    sock.connect_ex(EDGE)
    return sock


def flood(prefix, sends, most, waits):
    """Holds `most` connections that have sent `sends`. One that ends, or is answered if `waits`, makes room for another."""
    import select

    poll, open_now = select.epoll(), {}
    events = select.EPOLLRDHUP | (select.EPOLLIN if waits else 0)
    count = 0
    while True:
        for _ in range(64):
            if len(open_now) >= most:
                break
            try:
                sock = connect(prefix)
            except OSError:
                break
            open_now[sock.fileno()] = sock
            poll.register(sock, events | (select.EPOLLOUT if sends else 0))
            count += 1
        for fd, what in poll.poll(0 if len(open_now) < most else 0.05, 512):
            sock = open_now[fd]
            if what & ~select.EPOLLOUT:
                poll.unregister(fd)
                open_now.pop(fd).close()
            elif sends:
                try:
                    sock.send(sends)
                    poll.modify(fd, events)
                except OSError:
                    pass


def literal(name, value):
    return bytes([name, len(value)]) + value.encode()


def streams(prefix):
    """Opens streams to a node that never answers, on connections of HTTP/2, and tries again where they are refused."""
    secure = context.__wrapped__()
    secure.set_alpn_protocols(["h2"])
    block = b"\x82\x87" + literal(0x04, "/slow") + literal(0x01, "a.test")
    held = []
    while True:
        try:
            sock = socket.create_connection(EDGE, source_address=(hostile(prefix), 0), timeout=2)
            sock = secure.wrap_socket(sock, server_hostname="a.test")
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            frames = b"".join(
                struct.pack(">I", len(block))[1:] + b"\x01\x05" + struct.pack(">I", 2 * n + 1) + block for n in range(100)
            )
            sock.sendall(frames)
            held.append(sock)
            if len(held) > 1000:
                held.pop(random.randrange(len(held))).close()
        except OSError:
            time.sleep(0.001)


ATTACKS = {
    "connections": lambda prefix: flood(prefix, b"", 19_000, False),
    "handshakes": lambda prefix: flood(prefix, hello(), 1_000, True),
    "http2 streams": streams,
}


# The measurement.


def me(*args, core, **more):
    return subprocess.Popen([sys.executable, __file__, *map(str, args)], preexec_fn=lambda: pin(core), text=True, **more)


def start_edge(folder, core):
    def limited():
        pin(core)
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))

    log = open(f"{folder}/log", "w")
    edge = subprocess.Popen([BIN, "run", "-c", f"{folder}/edge.yaml"], preexec_fn=limited, stdout=log, stderr=log)
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for _ in range(200):
        try:
            if ask.open(f"http://127.0.0.1:{ADMIN}/readyz").status == 200:
                return edge
        except OSError:
            time.sleep(0.05)
    edge.kill()
    with open(f"{folder}/log") as text:
        raise SystemExit(f"the edge does not start:\n{text.read()}")


def ports():
    """Counts the local ports in use towards the node."""
    with open("/proc/net/tcp") as table:
        return sum(line.split()[2].endswith(f":{NODE[1]:04X}") and line.split()[3] == "01" for line in table)


def measure(folder, name, prefix):
    first, last = cores()
    edge = start_edge(folder, first)
    rest = me("others", SECONDS, core=first, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    attacker = None
    try:
        rest.stdout.readline()
        if name:
            attacker = me("attack", name, int(prefix), core=last)
            time.sleep(1.5)
        rest.stdin.write("\n")
        rest.stdin.flush()
        time.sleep(SECONDS - 0.5)
        used = len(os.listdir(f"/proc/{edge.pid}/fd"))
        with open(f"/proc/{edge.pid}/status") as status:
            memory = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) // 1024
        local = ports()
        numbers = rest.stdout.readline().split()
    finally:
        for process in [attacker, rest, edge]:
            if process:
                process.kill()
                process.wait()
    c50, c99, r50, r99, m50, m99, served, refused, lost = numbers
    who = "" if not name else ", one /64" if prefix else ", one address"
    print(f"| {name or 'quiet'}{who} | {used:,} | {local:,} | {memory} | {c50} / {c99} | {r50} / {r99} | {m50} / {m99} | {served} | {refused} | {lost} |", flush=True)


def main():
    if os.environ.get("ATTACK_INSIDE") != "1":
        os.environ["ATTACK_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    for words in ["link set lo up", "-6 route add local 2001:db8::/32 dev lo"]:
        subprocess.run(["ip", *words.split()], check=True)
    with open("/proc/sys/net/ipv6/ip_nonlocal_bind", "w") as setting:
        setting.write("1")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        subject = ["-subj", "/CN=a.test", "-addext", "subjectAltName=DNS:a.test"]
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        out = ["-keyout", f"{folder}/c.key", "-out", f"{folder}/c.pem"]
        subprocess.run(["openssl", "req", "-x509", *key, *subject, *out], check=True, stderr=subprocess.DEVNULL)
        with open(f"{folder}/edge.yaml", "w") as conf:
            conf.write(CONF)
        backend = me("node", core=cores()[0])
        try:
            print("| attack | descriptors | ports | MiB | connect p50 / p99, ms | request p50 / p99, ms | message p50 / p99, ms | served | refused | streams lost |")
            print("|---|---|---|---|---|---|---|---|---|---|")
            measure(folder, None, False)
            for name in ATTACKS:
                for prefix in [False, True]:
                    measure(folder, name, prefix)
        finally:
            backend.kill()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["node"]:
            asyncio.run(node())
        case ["others", seconds]:
            asyncio.run(others(float(seconds)))
        case ["attack", name, prefix]:
            ATTACKS[name](bool(int(prefix)))
        case _:
            main()
