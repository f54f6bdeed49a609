#!/usr/bin/env python3
"""Measures what a store for the site costs: first flows, later flows, CPU, memory, and whether edges agree.

In: PUSHGATE_BIN (default: target/release/pushgate), CLAIMS_BIN (`cargo build --release --manifest-path
benches/Cargo.toml --example claims`), CLIENTS (default: 5000), PACES of claims.rs; redis-server and redis-benchmark of
the PATH. With the argument `instructions` it only counts those of a request, which needs valgrind. Out: figures on
standard output. Two edges share a store, a third has none; all stick clients by address to two nodes. Each client has
an address of its own in 127.0.0.0/8. All traffic is on loopback.
"""

import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time

BIN = os.environ.get("PUSHGATE_BIN", "target/release/pushgate")
CLIENTS = int(os.environ.get("CLIENTS", "5000"))
CLAIMS_BIN = os.environ.get("CLAIMS_BIN", "benches/target/release/examples/claims")
PACES = [int(pace) for pace in os.environ.get("PACES", "10000,25000,50000").split(",")]
STORE, NODES, EDGES = 17930, [17931, 17932], {"a": 17933, "b": 17934, "alone": 17935}
REQUEST = b"GET / HTTP/1.1\r\nHost: push\r\n\r\n"
REQUESTS, BLOCKS = 5000, 8
CONF = """
threads: 1
client_share: 100%
{state}
nodes: {{ n1: {{ address: 127.0.0.1:17931 }}, n2: {{ address: 127.0.0.1:17932 }} }}
pools: {{ push: {{ nodes: [n1, n2], health: {{ tcp: {{}} }} }} }}
listeners:
  - name: push
    bind: [127.0.0.1:{port}]
    mode: http
    to: push
    max_connections_per_client: 100000
    max_flows_per_client: 100000
    connection_rate_per_client: off
    request_rate_per_client: off
    plugins: [{{ sticky_ip: {{}} }}]
"""


def node(name, port):
    """Answers each request with its name, for ever."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + name
    sel = selectors.DefaultSelector()
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    sel.register(listening, selectors.EVENT_READ)
    while True:
        for key, _ in sel.select():
            if key.fileobj is listening:
                client = listening.accept()[0]
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sel.register(client, selectors.EVENT_READ)
                continue
            try:
                asked = key.fileobj.recv(8192)
            except OSError:
                asked = b""
            if asked:
                key.fileobj.send(answer)
            else:
                sel.unregister(key.fileobj)
                key.fileobj.close()


def connect(edge, client):
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.bind((f"127.{100 + (client >> 16)}.{client >> 8 & 255}.{client & 255}", 0))
    sock.connect(("127.0.0.1", EDGES[edge]))
    return sock


def read(sock):
    """Returns the name of the node."""
    got = b""
    while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < 2:
        piece = sock.recv(4096)
        if not piece:
            sys.exit(f"the edge closed: {got[:80]}")
        got += piece
    return got[-2:].decode()


def flow(edge, client):
    """Returns how long the answer of a client's request took, in ms."""
    with connect(edge, client) as sock:
        begun = time.monotonic()
        sock.sendall(REQUEST)
        read(sock)
        return (time.monotonic() - begun) * 1e3


def told(took):
    took = sorted(took)
    at = lambda share: took[min(len(took) - 1, int(share * len(took)))]
    return f"p50 {at(.5):.3f} ms, p99 {at(.99):.3f} ms, most {took[-1]:.2f} ms"


def latency():
    took = {what: [] for what in ["alone", "first", "told", "later"]}
    # One of each after the other, so that the machine's moods meet all.
    for client in range(CLIENTS):
        took["alone"].append(flow("alone", client))
        took["first"].append(flow("a", client))
        took["told"].append(flow("b", client))
        took["later"].append(flow("a", client))
    print(f"first flow at an edge alone: {told(took['alone'])}")
    print(f"first flow, which claims: {told(took['first'])}")
    print(f"first flow at the other edge, which is told: {told(took['told'])}")
    print(f"later flow: {told(took['later'])}", flush=True)


def agree():
    """Two first flows of each client at once, one at each edge."""
    differ, begun = 0, time.monotonic()
    for client in range(CLIENTS, 2 * CLIENTS):
        socks = [connect(edge, client) for edge in ["a", "b"]]
        for sock in socks:
            sock.sendall(REQUEST)
        differ += len({read(sock) for sock in socks}) > 1
        for sock in socks:
            sock.close()
    rate = CLIENTS / (time.monotonic() - begun)
    print(f"two first flows at once: {differ} of {CLIENTS} clients differ, at {rate:.0f} clients a second", flush=True)


def cpu(pid):
    """Returns the CPU time of a process, in s."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def requests(pids):
    """CPU of requests of a client that the edge knows, in blocks that take turns."""
    used = {"alone": [], "a": []}
    socks = {edge: connect(edge, 1) for edge in used}
    for block in range(BLOCKS + 1):
        for edge, sock in socks.items():
            before = cpu(pids[edge])
            for _ in range(REQUESTS):
                sock.sendall(REQUEST)
                read(sock)
            # The first block warms up.
            if block:
                used[edge].append((cpu(pids[edge]) - before) / REQUESTS * 1e6)
    medians = {edge: sorted(all)[len(all) // 2] for edge, all in used.items()}
    ratio = sorted(a / b for a, b in zip(used["a"], used["alone"]))
    print(
        f"CPU of a request: alone {medians['alone']:.2f} us, with a store {medians['a']:.2f} us, ratio "
        f"{ratio[len(ratio) // 2]:.3f} [{ratio[0]:.3f}, {ratio[-1]:.3f}]",
        flush=True,
    )


def claims(store_pid):
    """First flows at two edges at once, as many a second as each of PACES, without sockets of clients (claims.rs)."""
    for pace in PACES:
        ask_store("flushall")
        at = int(time.time() * 1000) + 2000
        run = [CLAIMS_BIN, f"redis://127.0.0.1:{STORE}", str(at), str(pace), str(pace * 4)]
        before = cpu(store_pid)
        edges = [subprocess.Popen(run, stdout=subprocess.PIPE, text=True) for _ in "ab"]
        lines = [[line.split() for line in edge.communicate()[0].splitlines()] for edge in edges]
        if any(edge.returncode for edge in edges):
            print(f"{2 * pace} claims a second: an edge gave up")
            continue
        both = [(a[0], a[1], int(a[2]), int(a[3]), b[0], b[1], int(b[2]), int(b[3])) for a, b in zip(*lines)]
        apart = sum(b[0] != b[4] for b in both)
        wanted = sum(b[1] != b[5] for b in both)
        meet = sum(max(b[2], b[6]) < min(b[3], b[7]) for b in both)
        took = max(max(b[3], b[7]) for b in both) / 1e6
        waits = [(b[3] - b[2]) / 1000 for b in both] + [(b[7] - b[6]) / 1000 for b in both]
        print(
            f"{2 * pace} claims a second asked for, {2 * len(both) / took:.0f} done: {apart} of {len(both)} clients "
            f"differ; {wanted} were chosen differently, {meet} were asked about by both edges at once; {told(waits)}; "
            f"the store used {(cpu(store_pid) - before) / took:.2f} cores",
            flush=True,
        )


def instructions(edge, folder):
    """Instructions of a request of a client that the edge knows, without the kernel's: callgrind, twice, because it
    also counts the start."""
    counts = []
    for requests in [200, 4200]:
        out = f"{folder}/{edge}.{requests}"
        grind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"]
        with open(f"{folder}/grind.log", "w", encoding="utf-8") as log:
            ground = subprocess.Popen([*grind, BIN, "run", "-c", f"{folder}/{edge}.yaml"], stdout=log, stderr=log)
        begun = time.monotonic()
        while True:
            try:
                sock = connect(edge, 1)
                break
            except ConnectionRefusedError:
                time.sleep(0.2)
        for _ in range(requests):
            sock.sendall(REQUEST)
            read(sock)
        # Both last as long, because what an edge does each second is counted too.
        time.sleep(max(0, 40 + begun - time.monotonic()))
        ground.terminate()
        ground.wait()
        with open(out, encoding="utf-8") as file:
            counts.append(int(re.search(r"^(?:totals|summary): (\d+)", file.read(), re.M)[1]))
    return (counts[1] - counts[0]) / 4000


def ask_store(*words):
    return subprocess.run(["redis-cli", "-p", str(STORE), *words], capture_output=True, text=True, check=True).stdout


def used_memory():
    return int(re.search(r"used_memory:(\d+)", ask_store("info", "memory"))[1])


def store_alone():
    """What the store takes from one client program: keys as the edges have them."""
    ask_store("flushall")
    before = used_memory()
    key = "pushgate:a:00000000000000000000__rand_int__"
    command = ["set", key, "ls1 1796124361000", "NX", "GET", "PX", "3600000"]
    run = ["redis-benchmark", "-p", str(STORE), "-q", "-n", "400000", "-r", "1000000000", "-P", "32", "-c", "8", *command]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.replace("\r", "\n").strip().splitlines()[-1]
    keys = int(ask_store("dbsize"))
    print(f"the store: {said.partition(': ')[2]}")
    print(f"memory of the store: {(used_memory() - before) / keys:.0f} B an entry ({keys} entries)")


def main():
    children, pids = [], {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            store = ["redis-server", "--port", str(STORE), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
            children.append(subprocess.Popen(store, stdout=subprocess.DEVNULL).pid)
            for name, port in zip([b"n1", b"n2"], NODES):
                pid = os.fork()
                if pid == 0:
                    node(name, port)
                children.append(pid)
            for edge, port in EDGES.items():
                shared = f"state: {{ name: {edge}, redis: {{ url: 'redis://127.0.0.1:{STORE}' }} }}"
                with open(f"{folder}/{edge}.yaml", "w") as file:
                    file.write(CONF.format(port=port, state="" if edge == "alone" else shared))
            if sys.argv[1:] == ["instructions"]:
                counts = {edge: instructions(edge, folder) for edge in ["alone", "a"]}
                ratio = counts["a"] / counts["alone"]
                print(f"instructions of a request: alone {counts['alone']:.0f}, with a store {counts['a']:.0f}, ratio {ratio:.4f}")
                return
            for edge in EDGES:
                log = open(f"{folder}/{edge}.log", "w")
                run = [BIN, "run", "-c", f"{folder}/{edge}.yaml"]
                pids[edge] = subprocess.Popen(run, stdout=log, stderr=log).pid
                children.append(pids[edge])
            time.sleep(3)
            latency()
            agree()
            requests(pids)
            claims(children[0])
            store_alone()
        finally:
            for pid in children:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
