#!/usr/bin/env python3
"""Measures what the end of a node does to its clients and to others, for Pushgate and HAProxy in one run.

evict: a node's process is stopped, and an order marks the node Down. When do its clients see the end of
their connections, and how old are the messages of another node's clients meanwhile? Beside it the kernel's
floor: a bare loop of the system calls on one core.
detect: how soon is a node Down whose process is frozen, whose port refuses, or whose cable drops all packets?
storm: one of three nodes is killed. How soon are its clients connected again, and how fast do the other
nodes get them, with and without `admit_rate`?

In: PUSHGATE_BIN and LOAD_BIN (default: target/release), haproxy from the PATH. Out: markdown on standard
output. All traffic is on loopback. Each proxy has one thread, on a core of its own if there are two.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import socket
import statistics
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
        os.sched_setaffinity(0, CORES if core is None else {CORES[core % len(CORES)]})
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
    sys.exit(f"no program listens on port {port} after 20 s")


def pushgate(folder, ports, pools, admin, keys, threads=1):
    """Writes a configuration with one listener on each port, for the pool at the same index. Returns the
    command line, and a function from an address to the node's name."""
    nodes = sorted({n for pool in pools for n in pool})
    text = f"admin: {{ bind: {HOST}:{admin} }}\nclient_share: 100%\nthreads: {threads}\nnodes:\n"
    text += "".join(f"  n{n.rsplit(':', 1)[0].replace('.', '-')}: {{ address: '{n}' }}\n" for n in nodes)
    name = lambda n: "n" + n.rsplit(":", 1)[0].replace(".", "-")
    text += "pools:\n" + "".join(f"  p{i}: {{ nodes: [{', '.join(map(name, pool))}], {keys} }}\n" for i, pool in enumerate(pools))
    text += "listeners:\n" + "".join(f"  - {{ name: l{i}, bind: ['{HOST}:{port}'], mode: http, to: p{i}, connection_rate_per_client: off }}\n" for i, port in enumerate(ports))
    path = os.path.join(folder, "pushgate.yaml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return [PUSHGATE, "run", "-c", path], name


def haproxy(folder, ports, pools, admin, check="inter 1s fall 2 rise 2", more="", threads=1):
    """Writes the same configuration for HAProxy; returns the command line."""
    text = f"global\n  nbthread {threads}\n  maxconn 9900\n  stats socket ipv4@{HOST}:{admin} level admin\n"
    text += ("defaults\n  mode http\n  timeout connect 1s\n  timeout client 24h\n  timeout server 24h\n  timeout tunnel 24h\n"
             "  option http-no-delay\n  option redispatch\n  retries 2\n" + more)
    for i, (port, pool) in enumerate(zip(ports, pools)):
        text += f"listen l{i}\n  bind {HOST}:{port}\n  balance leastconn\n"
        text += "".join(f"  server n{n.rsplit(':', 1)[0].replace('.', '-')} {n} check {check} on-marked-down shutdown-sessions\n" for n in pool)
    path = os.path.join(folder, "haproxy.cfg")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return [HAPROXY, "-f", path, "-db"]


class Run:
    """The folder of a run, and the processes it started: the proxy and some nodes."""

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

    def proxy(self, argv, ports, core=1):
        with open(os.path.join(self.folder, "log"), "w", encoding="utf-8") as log:
            self.started.append(spawn(argv, core, stdout=log, stderr=log))
        for port in ports:
            wait_port(port)

    def load(self, args, cores=CORES[:1]):
        done = subprocess.run(
            ["taskset", "-c", ",".join(map(str, cores)), LOAD, *map(str, args)], capture_output=True, text=True, timeout=170, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2))
        if done.returncode:
            sys.exit(f"load: {done.stderr.strip()[-400:]}")
        return json.loads(done.stdout)


def evict(which, count, threads=1, past=False):
    """Runs `load evict`. `past`: the other node's clients bypass the proxy, so that their delays show what
    the load program itself causes."""
    with Run() as run:
        dying, stays = f"127.0.1.1:{free_port()}", f"127.0.1.2:{free_port()}"
        ports, admin = [free_port(), free_port()], free_port()
        dead = run.node(dying)
        # The load program serves the other node, so that node and clients share one clock.
        if which == "pushgate":
            argv, name = pushgate(run.folder, ports, [[dying], [stays]], admin, "on_down: evict", threads)
            order = f"POST /api/nodes/{name(dying)}/down HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n"
        else:
            argv = haproxy(run.folder, ports, [[dying], [stays]], admin, threads=threads)
            order = f"disable server l0/n{dying.rsplit(':', 1)[0].replace('.', '-')}\n"
        run.proxy(argv, ports, 1 if threads == 1 else None)
        load = ["evict", "--count", count, "--node", stays, "--to", f"{HOST}:{ports[0]}", "--others", stays if past else f"{HOST}:{ports[1]}",
                "--order-to", f"{HOST}:{admin}", "--order", order]
        # The node is stopped before the order, because a dead node does nothing for its clients' ends.
        return run.load([*load, "--kill", dead.pid, "--pid", run.started[-1].pid])


def floor(count, wire):
    """Runs `load floor` on all cores: it binds its loop to the last core and its watcher to the first."""
    with Run() as run:
        return run.load(["floor", "--count", count, "--node", f"{HOST}:0", "--wire", wire], CORES)


class Away:
    """A node in a network namespace, behind a virtual cable that can drop every packet. Needs root."""

    def __init__(self, run):
        self.name, self.here, self.there = f"fo{os.getpid()}", "198.19.255.1", "198.19.255.2"
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        self.ip("addr", "add", f"{self.here}/30", "dev", self.name)
        self.ip("link", "set", self.name, "up")
        for args in (["addr", "add", f"{self.there}/30", "dev", "eth0"], ["link", "set", "eth0", "up"]):
            self.ip("-n", self.name, *args)
        run.started.append(spawn(["ip", "netns", "exec", self.name, LOAD, "node", "--node", f"{self.there}:80"], 0))
        self.address = f"{self.there}:80"

    @staticmethod
    def ip(*args):
        subprocess.run(["ip", *args], check=True, capture_output=True)

    def swallow(self):
        """Drops all packets: sends them to a link address that no machine has."""
        self.ip("neigh", "replace", self.there, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", self.name)

    def deliver(self):
        self.ip("neigh", "del", self.there, "dev", self.name)

    def close(self):
        for args in (["link", "del", self.name], ["netns", "del", self.name]):
            subprocess.run(["ip", *args], check=False, capture_output=True)


def ask(admin, text):
    """Returns the answer of an admin endpoint, which closes the connection after it."""
    with socket.create_connection((HOST, admin), 5) as s:
        s.sendall(text.encode())
        return b"".join(iter(lambda: s.recv(65536), b"")).decode()


def states(which, admin):
    """Returns whether each node is Up, by the node's name."""
    if which == "pushgate":
        answer = ask(admin, f"GET /api/nodes HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")
        nodes = json.loads(answer[answer.index("["):answer.rindex("]") + 1])
        return {n["name"]: n["state"] == "up" for n in nodes}
    rows = [line.split() for line in ask(admin, "show servers state\n").splitlines()]
    # Field 5 is the state; 2 means running.
    return {r[3]: r[5] == "2" for r in rows if len(r) > 6 and r[0].isdigit()}


def until(which, admin, wanted, seconds=20):
    """Waits until each node has its wanted state; returns when each had it, to 5 ms."""
    seen, end = {}, time.monotonic() + seconds
    while len(seen) < len(wanted) and time.monotonic() < end:
        now = states(which, admin)
        for node, up in wanted.items():
            if now.get(node) == up:
                seen.setdefault(node, time.monotonic())
        time.sleep(0.005)
    if len(seen) < len(wanted):
        sys.exit(f"{which}: waited for {wanted}, saw {now}")
    return seen


def detect(which, rounds, fast):
    """Returns the seconds from each fault to Down, one value for each of `rounds`."""
    with Run() as run:
        frozen, refused = f"127.0.1.1:{free_port()}", f"127.0.1.2:{free_port()}"
        away = Away(run)
        try:
            ports, admin = [free_port()], free_port()
            stopped, killed = run.node(frozen), run.node(refused)
            nodes = [frozen, refused, away.address]
            if which == "pushgate":
                health = f"health: {{ http: {{ path: /kib }}, interval: 1s, fast_interval: {fast}, timeout: 1s, fall: 2, rise: 1, hold_down: 0s }}"
                argv, _ = pushgate(run.folder, ports, [nodes], admin, health)
            else:
                argv = haproxy(run.folder, ports, [nodes], admin, f"inter 1s fastinter {fast} fall 2 rise 1",
                               "  option httpchk GET /kib\n  timeout check 1s\n")
            run.proxy(argv, ports)
            names = ["n" + n.rsplit(":", 1)[0].replace(".", "-") for n in nodes]
            took = {"frozen": [], "refuses": [], "drops all": []}
            for turn in range(rounds):
                until(which, admin, dict.fromkeys(names, True))
                # Each round begins the faults at another moment of the checks' interval.
                time.sleep(1 + turn / rounds)
                stopped.send_signal(signal.SIGSTOP)
                killed.kill()
                killed.wait()
                away.swallow()
                start = time.monotonic()
                seen = until(which, admin, dict.fromkeys(names, False))
                for fault, name in zip(took, names):
                    took[fault].append(seen[name] - start)
                stopped.send_signal(signal.SIGCONT)
                run.started.remove(killed)
                killed = run.node(refused)
                away.deliver()
            return took
        finally:
            away.close()


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


def print_evict(o, proxies):
    print(f"{o.count:,} silent WebSockets of a stopped node marked Down by an order, 50 streams of another, a message each 10 ms\n")
    print("| | ends: first / p50 / p99 / last ms | CPU until the last, ms | others before: p50 / p99 / worst ms | others meanwhile: p50 / p99 / worst ms |\n|---|---|---|---|---|")
    ends = lambda f: " / ".join(f"{f[k]:.0f}" for k in ("first_ms", "p50_ms", "p99_ms", "last_ms")) + f" ({f['ended']:,} ended)"
    runs = [(which, which, threads, False) for threads in (1, 2)[:len(CORES)] for which in proxies]
    runs += [("pushgate, the others direct", "pushgate", 1, True)]
    for row, which, threads, past in runs:
        f = evict(which, o.count, threads, past)
        ages = lambda k: " / ".join(f"{v / 1000:.1f}" for v in (f[k]["p50_us"], f[k]["p99_us"], f[k + "_max_us"]))
        row += "" if threads == 1 else f", {threads} threads (*)"
        print(f"| {row} | {ends(f)} | {f['cpu_ms']:.0f} | {ages('others_before')} | {ages('others_meanwhile')} |", flush=True)
    for words, wire in (("close frame and FIN", "ws"), ("FIN", "chunked")):
        f = floor(o.count, wire)
        print(f"| the kernel alone, one core: {words} | {ends(f)} | {f['cpu_ms']:.0f} | | |", flush=True)
    print("\n(*) One of the threads shares its core with the clients and the nodes.")


def print_detect(o, proxies):
    print(f"From a fault to Down, in {o.rounds} rounds: interval 1 s, fall 2, timeout 1 s; by the rule at most 3 s\n")
    print("| | frozen: median / worst s | refuses | drops all |\n|---|---|---|---|")
    for fast in ("1s", "250ms"):
        for which in proxies:
            took = detect(which, o.rounds, fast)
            cells = " | ".join(f"{statistics.median(t):.2f} / {max(t):.2f}" for t in took.values())
            print(f"| {which}, {fast} after the first bad check | {cells} |", flush=True)


def print_storm(o, proxies):
    print(f"{o.count:,} WebSockets on three nodes, one killed; its clients come back within 0.5 s, refused ones after Retry-After\n")
    print("| | connected again: p50 / p99 / last s | refusals | others cut | most new flows in a second, each survivor |\n|---|---|---|---|---|")
    runs = [("pushgate", "no limit", "health: { tcp: {} }"), ("pushgate", f"admit_rate {o.rate}", f"health: {{ tcp: {{}} }}, admit_rate: {o.rate}")]
    runs += [("haproxy", "no limit", "")] if "haproxy" in proxies else []
    for which, how, keys in runs:
        f = storm(which, o.count, keys)
        times = " / ".join(f"{f[k] / 1000:.2f}" for k in ("p50_ms", "p99_ms", "last_ms"))
        most = ", ".join(f"{n:,}" for n in f["most_per_second"].values())
        print(f"| {which}, {how} | {times} ({f['home']:,} of {f['of_the_dead_node']:,}) | {f['refused']:,} | {f['disturbed']} | {most} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {"evict": print_evict, "detect": print_detect, "storm": print_storm}
    p.add_argument("what", choices=tables)
    p.add_argument("--count", type=int, default=9000, help="clients; each takes two of the proxy's descriptors (%(default)s)")
    p.add_argument("--rate", default="500/s", help="admit_rate of the shaped storm (%(default)s)")
    p.add_argument("--rounds", type=int, default=8, help="rounds of detect, 6 s each, four times (%(default)s)")
    o = p.parse_args()
    tables[o.what](o, ["pushgate"] + (["haproxy"] if HAPROXY else []))


if __name__ == "__main__":
    main()
