#!/usr/bin/env python3
"""Attacks the edge from one hostile address, and from one hostile /64, and measures what others feel.

In: PUSHGATE_BIN and LOAD_BIN (default: target/release), SECONDS of each attack (default: 6), DESCRIPTORS of the edge
(default: 20000, at most the hard limit), ATTACKS (default: all; names with commas between them), ROUNDS (default: 1; each
measures quiet and all attacks, and the table has the medians), KEYS (more keys of each listener, with `; ` between
them). Needs root and iproute2: all of it runs in a network namespace of its own, where
every address of 2001:db8::/32 is local. The attacker, the node that holds its streams, and this program have the last
core for themselves; the edge, its other nodes and the other clients have the first. These have machines of their own in
production, so here they have a higher priority: what they wait for is the edge, and not the core. Out: a table in Markdown, one row for each attack. CPU is the edge's, of one
core.

Others (`load others`): new clients, one after the other, each with an address in a /64 of its own, a full TLS
handshake and one request; 20 live streams with a message every 10 ms; 60 clients that have a node before the attack in
the tables of `sticky_param` and `sticky_ip`, and ask for it afterwards. `refused`: new clients that were not served
within 5 s. `lost`: live streams, then assignments of either table.

`memory` and `memory without limit`: the edge has a cgroup of MEMORY MiB (default: 48), with its default `memory.limit` and
with none, and the attacker fills it with idle TLS connections. Needs a cgroup of version 1.

The load program is the nodes and the others. An earlier version of this bench had both in Python. They took half of
the core that they share with the edge, and Python's garbage collector and its accepting of 4,096 connections at a time
held up answers of the nodes by up to half a second, which counted as the edge's. Later the streams of the attacker were
held by the nodes of the others, whose messages waited for a hundred connections to be accepted.
"""

import functools
import json
import os
import random
import re
import resource
import select
import socket
import ssl
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

BIN = os.path.abspath(os.environ.get("PUSHGATE_BIN", "target/release/pushgate"))
SECONDS = float(os.environ.get("SECONDS", "6"))
DESCRIPTORS = int(os.environ.get("DESCRIPTORS", "20000"))
LOAD = os.path.abspath(os.environ.get("LOAD_BIN", "target/release/load"))
EDGE, NODES, ADMIN, HOLDS = "2001:db8:1::1", [17900, 17902], 17901, 17903
TLS, BY_QUERY, BY_ADDRESS = 443, 80, 81
HOSTILE = "2001:db8:bad:bad::"
KEYS = os.environ.get("KEYS", "tcp: {}")
MEMORY = int(os.environ.get("MEMORY", "48"))
# The tables have less room than the attacks have values and addresses.
CONF = f"""
admin: {{ bind: 127.0.0.1:{ADMIN} }}
nodes:
  n1: {{ address: 127.0.0.1:{NODES[0]} }}
  n2: {{ address: 127.0.0.1:{NODES[1]} }}
  holds: {{ address: 127.0.0.1:{HOLDS} }}
pools: {{ p: {{ nodes: [n1, n2], balance: round_robin, health: {{ tcp: {{}} }} }} }}
certificates: {{ c: {{ chain: c.pem, key: c.key }} }}
listeners:
  - name: tls
    bind: ["[{EDGE}]:{TLS}"]
    mode: http
    to: p
    tls: {{ certificates: [c] }}
    {KEYS.replace("; ", chr(10) + "    ")}
    plugins: [{{ path_route: {{ paths: {{ /held: holds }} }} }}]
  - name: query
    bind: ["[{EDGE}]:{BY_QUERY}"]
    mode: http
    to: p
    {KEYS.replace("; ", chr(10) + "    ")}
    plugins: [{{ sticky_param: {{ from: [{{ query: u }}], capacity: 2000 }} }}]
  - name: address
    bind: ["[{EDGE}]:{BY_ADDRESS}"]
    mode: http
    to: p
    {KEYS.replace("; ", chr(10) + "    ")}
    plugins: [{{ sticky_ip: {{ ipv6_prefix: 128, capacity: 2000 }} }}]
"""


def pin(core):
    os.sched_setaffinity(0, {core})


@functools.cache
def cores():
    known = sorted(os.sched_getaffinity(0))
    return known[0], known[-1]


def hostile(prefix):
    return f"{HOSTILE}{random.randrange(1, 1 << 16):x}:{random.randrange(1 << 16):x}" if prefix else f"{HOSTILE}1"


# The attacker.


@functools.cache
def context():
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE
    return plain


def hello():
    """Returns a ClientHello, to be sent again and again."""
    out = ssl.MemoryBIO()
    with_name = context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.test")
    try:
        with_name.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def connect(prefix, port):
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.setblocking(False)
    sock.bind((hostile(prefix), 0))
    sock.connect_ex((EDGE, port))
    return sock


def flood(prefix, port, sends, most, waits):
    """Holds `most` connections that have sent `sends`. One that ends, or is answered if `waits`, makes room for another."""
    poll, open_now = select.epoll(), {}
    events = select.EPOLLRDHUP | (select.EPOLLIN if waits else 0)
    while True:
        for _ in range(64):
            if len(open_now) >= most:
                break
            try:
                sock = connect(prefix, port)
            except OSError:
                break
            open_now[sock.fileno()] = sock
            poll.register(sock, events | (select.EPOLLOUT if sends else 0))
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


def made_up(prefix):
    """Asks with a new value each time, on 64 connections, 50 requests at a time on each."""
    poll, open_now, n = select.epoll(), {}, 0
    for _ in range(64):
        sock = connect(prefix, BY_QUERY)
        open_now[sock.fileno()] = [sock, 0]
        poll.register(sock, select.EPOLLOUT)
    while True:
        for fd, _ in poll.poll():
            entry = open_now[fd]
            if entry[1] > 0:
                got = entry[0].recv(65536)
                entry[1] = entry[1] - got.count(b"HTTP/1.1 ") if got else 0
            if entry[1] <= 0:
                requests = b"".join(b"GET /who?u=x%d HTTP/1.1\r\nHost: a.test\r\n\r\n" % i for i in range(n, n + 50))
                n, entry[1] = n + 50, 50
                entry[0].send(requests)
                poll.modify(fd, select.EPOLLIN)


def idle(prefix):
    """Fills the memory of the edge with TLS connections that ask for nothing."""
    held = []
    while True:
        try:
            sock = socket.create_connection((EDGE, TLS), source_address=(hostile(prefix), 0), timeout=2)
            held.append(context().wrap_socket(sock, server_hostname="a.test"))
        except OSError:
            time.sleep(0.001)


def hold():
    """Accepts what the edge brings to the node that never answers, until the edge ends it."""
    listening = socket.create_server(("127.0.0.1", HOLDS), backlog=4096)
    poll, held = select.epoll(), {}
    poll.register(listening, select.EPOLLIN)
    while True:
        for fd, what in poll.poll():
            if fd == listening.fileno():
                sock = listening.accept()[0]
                held[sock.fileno()] = sock
                poll.register(sock, select.EPOLLRDHUP)
            elif what & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                poll.unregister(fd)
                held.pop(fd).close()


def literal(name, value):
    return bytes([name, len(value)]) + value.encode()


def streams(prefix):
    """Opens streams to a node that never answers, on connections of HTTP/2, and tries again where they are refused."""
    secure = context.__wrapped__()
    secure.set_alpn_protocols(["h2"])
    block = b"\x82\x87" + literal(0x04, "/held") + literal(0x01, "a.test")
    held = []
    while True:
        try:
            sock = socket.create_connection((EDGE, TLS), source_address=(hostile(prefix), 0), timeout=2)
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


ONE_REQUEST = b"GET /who HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
ATTACKS = {
    "connections": lambda prefix: flood(prefix, TLS, b"", 19_000, False),
    "handshakes": lambda prefix: flood(prefix, TLS, hello(), 1_000, True),
    "http2 streams": streams,
    "made-up values": made_up,
    "addresses": lambda prefix: flood(prefix, BY_ADDRESS, ONE_REQUEST, 64, True),
    "memory": idle,
    "memory without limit": idle,
}


# The measurement.


def start(*args, core, **more):
    return subprocess.Popen([*map(str, args)], preexec_fn=lambda: pin(core), text=True, **more)


class Group:
    """A cgroup of MEMORY MiB, of this program."""

    def __init__(self):
        self.folder = f"/sys/fs/cgroup/memory/attack-{os.getpid()}"
        os.mkdir(self.folder)
        self.set("memory.limit_in_bytes", MEMORY << 20)

    def set(self, name, value):
        with open(f"{self.folder}/{name}", "w") as file:
            file.write(str(value))

    def peak(self):
        with open(f"{self.folder}/memory.max_usage_in_bytes") as file:
            return int(file.read()) >> 20

    def end(self):
        os.rmdir(self.folder)


def start_edge(folder, core, group):
    def limited():
        if group:
            group.set("cgroup.procs", os.getpid())
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
    """Counts the local ports in use towards the nodes."""
    nodes = {f"{port:04X}" for port in [*NODES, HOLDS]}
    with open("/proc/net/tcp") as table:
        lines = [line.split() for line in table]
    return sum(line[2][-4:] in nodes and line[3] == "01" for line in lines[1:])


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as stat:
        words = stat.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def write_conf(folder, memory):
    with open(f"{folder}/edge.yaml", "w") as conf:
        conf.write(CONF + memory)


def measure(folder, name, prefix):
    first, last = cores()
    group = Group() if (name or "").startswith("memory") else None
    write_conf(folder, "memory: { limit: 1TiB }\n" if name == "memory without limit" else "")
    nodes = ",".join(f"127.0.0.1:{port}" for port in NODES)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    first_in_line = ["nice", "-n", "-15", LOAD]
    rest = start(*first_in_line, "others", "--node", nodes, "--to", f"[{EDGE}]:{TLS}", "--seconds", int(SECONDS), core=first, **pipes)
    holder = start(sys.executable, __file__, "hold", core=last)
    edge = attacker = None
    try:
        edge = start_edge(folder, first, group)
        rest.stdin.write("up\n")
        rest.stdin.flush()
        if rest.stdout.readline() != "ready\n":
            raise SystemExit("the others find no edge")
        if name:
            attacker = start(sys.executable, __file__, "attack", name, int(prefix), core=last)
            time.sleep(1.5)
        rest.stdin.write("begun\n")
        rest.stdin.flush()
        used, begun = cpu_seconds(edge.pid), time.monotonic()
        while time.monotonic() < begun + SECONDS - 0.5:
            if edge.poll() is not None:
                print(f"| {name} | the kernel ended the edge {time.monotonic() - begun + 1.5:.1f} s after the attack began |")
                return
            time.sleep(0.05)
        used = (cpu_seconds(edge.pid) - used) / (SECONDS - 0.5) * 100
        open_now = len(os.listdir(f"/proc/{edge.pid}/fd"))
        with open(f"/proc/{edge.pid}/status") as status:
            memory = int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) // 1024
        local = ports()
        felt = json.loads(rest.stdout.readline())
    finally:
        for process in [attacker, holder, rest, edge]:
            if process:
                process.kill()
                process.wait()
        peak = group and group.peak()
        if group:
            group.end()
    times = [(felt[what][at] or 0) / 1e3 for what in ["connect", "answer", "message"] for at in ["p50_us", "p99_us"]]
    lost = felt["lost_streams"], felt["lost_by_query"] + felt["lost_by_address"]
    return [open_now, local, peak or memory, used, *times, felt["served"], felt["refused"], *lost]


def show(name, prefix, rounds):
    """Prints the medians of the rounds; of refused and lost the sums."""
    if not rounds:
        return
    *middle, refused, streams, assignments = zip(*rounds)
    descriptors, local, memory, used, *times, served = map(statistics.median, middle)
    who = "" if not name else ", one /64" if prefix else ", one address"
    cells = [f"{name or 'quiet'}{who}", f"{descriptors:,.0f}", f"{local:,.0f}", f"{memory:.0f}", f"{used:.0f}"]
    cells += [f"{p50:.2f} / {p99:.2f}" for p50, p99 in zip(times[::2], times[1::2])]
    cells += [f"{served:.0f}", sum(refused), f"{sum(streams)} / {sum(assignments)}"]
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def main():
    if os.environ.get("ATTACK_INSIDE") != "1":
        os.environ["ATTACK_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    pin(cores()[1])
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
        titles = ["attack", "descriptors", "ports", "MiB", "CPU %"]
        titles += [f"{what} p50 / p99, ms" for what in ["connect", "request", "message"]]
        titles += ["served", "refused", "lost"]
        print("|", " | ".join(titles), "|\n" + "|---" * len(titles) + "|", flush=True)
        asked = os.environ.get("ATTACKS", ",".join(ATTACKS)).split(",")
        # One address has one entry in the table of `sticky_ip`.
        rows = [(name, prefix) for name in asked for prefix in [False, True] if prefix or name != "addresses"]
        rows.insert(0, (None, False))
        rounds = [[measure(folder, *row) for row in rows] for _ in range(int(os.environ.get("ROUNDS", "1")))]
        for row, of_row in zip(rows, zip(*rounds)):
            show(*row, [one for one in of_row if one])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["attack", name, prefix]:
            ATTACKS[name](bool(int(prefix)))
        case ["hold"]:
            hold()
        case _:
            main()
