#!/usr/bin/env python3
"""What a node's end is to its clients and to those of others, Pushgate beside HAProxy in one run.

evict: a node whose process is stopped is marked Down by an order; when do its clients see their end, and
how old are the messages of another node's clients meanwhile? storm: one of three nodes is killed; how soon
are its clients at home again, and how fast are the others given them, with and without `admit_rate`?

In: PUSHGATE_BIN and LOAD_BIN (default: target/release), haproxy of the PATH. Out: markdown on standard
output. All traffic is on loopback; each proxy has one thread on a core of its own where there are two.
"""

import argparse
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(os.path.dirname(HERE), "target", "release")
PUSHGATE = os.environ.get("PUSHGATE_BIN", os.path.join(RELEASE, "pushgate"))
LOAD = os.environ.get("LOAD_BIN", os.path.join(RELEASE, "load"))
HAPROXY = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
HOST = "127.0.0.1"
CORES = sorted(os.sched_getaffinity(0))


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def spawn(argv, core, **more):
    def before():
        os.sched_setaffinity(0, {CORES[core % len(CORES)]})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return subprocess.Popen([str(a) for a in argv], preexec_fn=before, stdin=subprocess.DEVNULL, **more)


def wait_port(port):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket() as s:
            if s.connect_ex((HOST, port)) == 0:
                time.sleep(0.5)
                return
        time.sleep(0.05)
    sys.exit(f"nobody listens on {port}")


def pushgate(folder, ports, pools, admin, keys):
    """Writes a configuration with a listener on each port, for the pool of that place; returns the command line."""
    nodes = sorted({n for pool in pools for n in pool})
    text = f"admin: {{ bind: {HOST}:{admin} }}\nthreads: 1\nnodes:\n"
    text += "".join(f"  n{n.rsplit(':', 1)[0].replace('.', '-')}: {{ address: '{n}' }}\n" for n in nodes)
    name = lambda n: "n" + n.rsplit(":", 1)[0].replace(".", "-")
    text += "pools:\n" + "".join(f"  p{i}: {{ nodes: [{', '.join(map(name, pool))}], {keys} }}\n" for i, pool in enumerate(pools))
    text += "listeners:\n" + "".join(f"  - {{ name: l{i}, bind: ['{HOST}:{port}'], mode: http, to: p{i} }}\n" for i, port in enumerate(ports))
    path = os.path.join(folder, "pushgate.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return [PUSHGATE, "run", "-c", path], name


def haproxy(folder, ports, pools, admin):
    """The same for HAProxy."""
    text = f"global\n  nbthread 1\n  maxconn 9900\n  stats socket ipv4@{HOST}:{admin} level admin\n"
    text += ("defaults\n  mode http\n  timeout connect 1s\n  timeout client 24h\n  timeout server 24h\n  timeout tunnel 24h\n"
             "  option http-no-delay\n  option redispatch\n  retries 2\n")
    for i, (port, pool) in enumerate(zip(ports, pools)):
        text += f"listen l{i}\n  bind {HOST}:{port}\n  balance leastconn\n"
        text += "".join(f"  server n{n.rsplit(':', 1)[0].replace('.', '-')} {n} check inter 1s fall 2 rise 2 on-marked-down shutdown-sessions\n" for n in pool)
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return [HAPROXY, "-f", path, "-db"]


class Run:
    """A folder, a proxy and the nodes that are processes of their own."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="pushgate-failover-")
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.kill()
            process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def node(self, address):
        process = spawn([LOAD, "node", "--node", address], 0)
        self.started.append(process)
        return process

    def proxy(self, argv, ports):
        with open(os.path.join(self.folder, "log"), "w", encoding="utf-8") as log:
            self.started.append(spawn(argv, 1, stdout=log, stderr=log))
        for port in ports:
            wait_port(port)

    def load(self, args):
        done = subprocess.run(
            ["taskset", "-c", str(CORES[0]), LOAD, *map(str, args)], capture_output=True, text=True, timeout=170, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2))
        if done.returncode:
            sys.exit(f"load: {done.stderr.strip()[-400:]}")
        return json.loads(done.stdout)


def evict(which, count):
    with Run() as run:
        dying, stays = f"127.0.1.1:{free_port()}", f"127.0.1.2:{free_port()}"
        ports, admin = [free_port(), free_port()], free_port()
        dead = run.node(dying)
        # The other node is in the load program: it shares the clock of its clients.
        if which == "pushgate":
            argv, name = pushgate(run.folder, ports, [[dying], [stays]], admin, "on_down: evict")
            order = f"POST /api/nodes/{name(dying)}/down HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
        else:
            argv = haproxy(run.folder, ports, [[dying], [stays]], admin)
            order = f"disable server l0/n{dying.rsplit(':', 1)[0].replace('.', '-')}\n"
        run.proxy(argv, ports)
        load = ["evict", "--count", count, "--node", stays, "--to", f"{HOST}:{ports[0]}", "--others", f"{HOST}:{ports[1]}",
                "--order-to", f"{HOST}:{admin}", "--order", order]
        # Stopped before the order: a dead node takes no part in its clients' ends.
        return run.load([*load, "--kill", dead.pid])


def storm(which, count, keys):
    with Run() as run:
        port = free_port()
        nodes = [f"127.0.1.{i}:{port}" for i in (1, 2, 3)]
        ports, admin = [free_port()], free_port()
        dead = run.node(nodes[0])
        argv = pushgate(run.folder, ports, [nodes], admin, keys)[0] if which == "pushgate" else haproxy(run.folder, ports, [nodes], admin)
        started = ["storm", "--count", count, "--node", ",".join(nodes[1:]), "--to", f"{HOST}:{ports[0]}", "--kill", dead.pid]
        run.proxy(argv, ports)
        return run.load(started)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["evict", "storm"])
    p.add_argument("--count", type=int, default=9000, help="clients; each takes two of the proxy's descriptors (%(default)s)")
    p.add_argument("--rate", default="500/s", help="admit_rate of the shaped storm (%(default)s)")
    o = p.parse_args()
    proxies = ["pushgate"] + (["haproxy"] if HAPROXY else [])
    if o.what == "evict":
        print(f"{o.count:,} silent WebSockets of a stopped node marked Down by an order, 50 streams of another, a message each 10 ms\n")
        print("| | ends: first / p50 / p99 / last ms | others before: p50 / p99 / worst ms | others meanwhile: p50 / p99 / worst ms |\n|---|---|---|---|")
        for which in proxies:
            f = evict(which, o.count)
            ages = lambda k: " / ".join(f"{v / 1000:.1f}" for v in (f[k]["p50_us"], f[k]["p99_us"], f[k + "_max_us"]))
            ends = " / ".join(f"{f[k]:.0f}" for k in ("first_ms", "p50_ms", "p99_ms", "last_ms"))
            print(f"| {which} | {ends} ({f['ended']:,} ended) | {ages('others_before')} | {ages('others_meanwhile')} |", flush=True)
        return
    print(f"{o.count:,} WebSockets on three nodes, one killed; its clients come back within 0.5 s, refused ones as told\n")
    print("| | at home again: p50 / p99 / last s | refused on the way | others disturbed | most new flows in a second, each survivor |\n|---|---|---|---|---|")
    runs = [("pushgate", "no limit", "health: { tcp: {} }"), ("pushgate", f"admit_rate {o.rate}", f"health: {{ tcp: {{}} }}, admit_rate: {o.rate}")]
    runs += [("haproxy", "no limit", "")] if HAPROXY else []
    for which, how, keys in runs:
        f = storm(which, o.count, keys)
        times = " / ".join(f"{f[k] / 1000:.2f}" for k in ("p50_ms", "p99_ms", "last_ms"))
        most = ", ".join(f"{n:,}" for n in f["most_per_second"].values())
        print(f"| {which}, {how} | {times} ({f['home']:,} of {f['of_the_dead_node']:,}) | {f['refused']:,} | {f['disturbed']} | {most} |", flush=True)


if __name__ == "__main__":
    main()
