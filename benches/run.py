#!/usr/bin/env python3
"""Measures Pushgate, HAProxy, nginx and Envoy in one run and prints the tables of benches/README.md.

In: PUSHGATE_BIN and LOAD_BIN (default: target/release), haproxy and nginx from the PATH, ENVOY_BIN. Out:
markdown on standard output, progress on standard error, and with --json every figure of every run. All
traffic is on loopback. Each proxy has one worker thread, on a core of its own if there are two.
tables/ defines the measurements, with a file for each group; proxies.py starts the proxies.
"""
import argparse
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import proxies
import report
import tables
from tables import Rounds, proxy_of

LOAD = os.path.abspath(os.environ.get("LOAD_BIN", os.path.join(proxies.RELEASE, "load")))
HOST = "127.0.0.1"
# A measurement that takes longer has hung.
DEADLINE_S = 180


class Bench:
    """The folder, ports and cores of a run."""

    def __init__(self, options):
        self.options = options
        self.dir = tempfile.mkdtemp(prefix="pushgate-bench-")
        *ports, node = (free_port() for _ in range(4))
        self.ports = dict(zip(("plain", "tls", "admin"), ports), host=HOST)
        self.nodes = [("n1", "127.0.1.1", node), ("n2", "127.0.1.2", node)]
        subprocess.run([LOAD, "certificate", self.dir], check=True)
        rsa_certificate(os.path.join(self.dir, "rsa"))
        # nginx's worker may run as another user, who must be able to read the folder. It holds no secret.
        os.chmod(self.dir, 0o755)
        cores = sorted(os.sched_getaffinity(0))
        self.load_cores, self.proxy_cores = ({cores[0]}, {cores[1]}) if len(cores) > 1 else (set(cores), set(cores))

    def spawn(self, argv, cores, **more):
        """Starts a program on `cores`, with the most descriptors allowed."""
        def before():
            if not self.options.unpinned:
                os.sched_setaffinity(0, cores)
            if self.options.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.options.nice)
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return subprocess.Popen([str(a) for a in argv], cwd=self.dir, preexec_fn=before, stdin=subprocess.DEVNULL, **more)

    def profile(self, row, table, column):
        """Returns the setup of a row's proxy for a column."""
        setup = {**column.profile, **table.rows.get(row, {})}
        return proxies.Profile(nodes=self.nodes, **{**setup, "cert_dir": os.path.join(self.dir, setup.get("cert_dir", ""))})

    def can(self, row, table, column):
        """Returns whether the proxy of the row can do this measurement."""
        proxy = proxy_of(row)
        if proxy == "direct":
            return table.direct and not column.tls
        return proxy == "pushgate" or proxies.template(proxy, self.profile(row, table, column)) is not None

    def measure(self, row, table, column):
        """Starts the proxy, does one measurement and returns its figures; {"error": …} if it failed."""
        proxy = proxy_of(row)
        with open(os.path.join(self.dir, f"{proxy}.log"), "a", encoding="utf-8") as log:
            running = load = remote = None
            try:
                nodes = ",".join(f"{ip}:{port}" for _, ip, port in self.nodes)
                if "--remote" in column.args:
                    remote = self.spawn([LOAD, "node", "--node", nodes], self.load_cores, stdout=log, stderr=log)
                    for _, ip, port in self.nodes:
                        wait_port(port, remote, ip)
                to, more = "{1}:{2}".format(*self.nodes[0]), []
                if proxy != "direct":
                    profile = self.profile(row, table, column)
                    running = self.spawn(proxies.command(proxy, profile, self.dir, self.ports), self.proxy_cores, stdout=log, stderr=log)
                    port = self.ports["tls" if column.tls else "plain"]
                    wait_port(port, running)
                    to, more = f"{HOST}:{port}", ["--pid", running.pid] + (["--tls"] if column.tls else [])
                load = self.spawn([LOAD, *column.args, "--node", nodes, "--to", to, *more], self.load_cores,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
                out, err = load.communicate(timeout=DEADLINE_S)
                return json.loads(out) if load.returncode == 0 else {"error": err.strip()[-300:] or "the load program failed"}
            except subprocess.TimeoutExpired:
                return {"error": f"took over {DEADLINE_S} s"}
            except (RuntimeError, OSError) as e:
                return {"error": str(e)}
            finally:
                for process in (load, remote, running):
                    end(process)


def end(process):
    """Ends a program we started. SIGTERM comes first, because after SIGKILL nginx's workers would live on."""
    if process is None or process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def rsa_certificate(folder):
    """Writes the files of `load certificate` with an RSA key of 2048 bits, which `load` cannot make."""
    os.mkdir(folder)
    cert, key = (os.path.join(folder, f"host0.{end}") for end in ("crt", "key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "30",
                    "-subj", "/CN=bench.test", "-addext", "subjectAltName=DNS:bench.test"], check=True, capture_output=True)
    with open(os.path.join(folder, "both.pem"), "wb") as both:
        for path in (cert, key):
            with open(path, "rb") as f:
                both.write(f.read())


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def wait_port(port, running, host=HOST):
    """Waits until a program listens on `host`:`port`, by the kernel's table. A test connection at layer 4
    would go on to a node that has not started yet, and the proxy would take that node for dead."""
    place = f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{int(port):04X}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running.poll() is None:
        with open("/proc/net/tcp", encoding="ascii") as table:
            # Columns: number, local address, remote address, state; 0A is LISTEN.
            if any(line.split()[1::2][:2] == [place, "0A"] for line in table):
                time.sleep(0.3)
                return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on {host}:{port}; see the log of the program (--keep)")


def run(o, found):
    """Does all measurements and fills `found`: {(table, column, proxy): [figures of each round]}."""
    bench = Bench(o)
    try:
        for number in range(o.rounds):
            # Each round has another order, so that no proxy always comes first.
            turn = number % len(o.proxies)
            order = o.proxies[turn:] + o.proxies[:turn]
            for table in o.tables:
                for column in table.columns(o) if table.rounds or number == 0 else []:
                    for row in table.of(order):
                        if not bench.can(row, table, column):
                            continue
                        figures = bench.measure(row, table, column)
                        found.setdefault((table.word, column.name, row), []).append(figures)
                        print(f"round {number + 1}: {table.word}, {column.name}, {row}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    finally:
        if o.keep:
            print(f"logs and configurations: {bench.dir}", file=sys.stderr)
        else:
            shutil.rmtree(bench.dir, ignore_errors=True)


def options():
    every = tables.every()
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--proxies", default=",".join(proxies.ALL), help="ratios are of the first to the others (%(default)s)")
    p.add_argument("--tables", default=",".join(t.word for t in every), help="default: %(default)s")
    p.add_argument("--rounds", type=int, default=5, help="rounds, each with the proxies in another order (%(default)s)")
    p.add_argument("--seconds", type=int, default=3, help="length of the measured window (%(default)s)")
    p.add_argument("--silent", type=int, default=4_000, help="silent connections (%(default)s)")
    p.add_argument("--streams", type=int, default=1_000, help="connections with messages (%(default)s)")
    p.add_argument("--upgrades", type=int, default=4_000, help="WebSocket upgrades (%(default)s)")
    p.add_argument("--connections", type=int, default=5_000, help="short connections, at either layer (%(default)s)")
    p.add_argument("--bulk-streams", type=int, default=5_000, help="bulk streams of bulk_memory, two descriptors each (%(default)s)")
    p.add_argument("--nice", type=int, default=0, help="priority of proxies and load; below 0, as root, puts them before other work on the machine")
    p.add_argument("--unpinned", action="store_true", help="let the kernel place proxy and load; pinned, each hop wakes another core")
    p.add_argument("--quick", action="store_true", help="one round of one second, a tenth of the connections")
    p.add_argument("--json", metavar="FILE", help="write every figure to FILE")
    p.add_argument("--keep", action="store_true", help="keep the folder of logs and configurations")
    o = p.parse_args()
    if o.quick:
        small = {"rounds": 1, "seconds": 1, "upgrades": 400, "silent": 400, "streams": 100, "connections": 500, "bulk_streams": 500}
        vars(o).update({k: v for k, v in small.items() if getattr(o, k) == p.get_default(k)})
    words = o.tables.split(",")
    if unknown := set(words) - {t.word for t in every}:
        p.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(t.word for t in every)}")
    o.tables = [t for t in every if t.word in words]
    o.proxies = o.proxies.split(",")
    for proxy in [x for x in o.proxies if x not in ("pushgate", "direct") and not proxies.binary(x)]:
        print(f"{proxy} is not installed: left out", file=sys.stderr)
        o.proxies.remove(proxy)
    for path, how in ((proxies.PUSHGATE, "cargo build --release"), (LOAD, "make bench")):
        if not os.path.exists(path):
            sys.exit(f"{path} is missing; run: {how}")
    o.load_before = os.getloadavg()[0]
    return o


def stop(*_):
    """Handles SIGTERM, for example of a deadline: the tables so far are still printed."""
    raise KeyboardInterrupt


def main():
    o, found = options(), {}
    signal.signal(signal.SIGTERM, stop)
    try:
        run(o, found)
    except KeyboardInterrupt:
        print("ended early; the tables have the measurements so far", file=sys.stderr)
    if o.json:
        figures = [{"table": t, "column": c, "row": p, "rounds": r} for (t, c, p), r in found.items()]
        proxies.write(o.json, json.dumps({"machine": report.machine(o), "figures": figures}, indent=1))
    report.print_all(found, o)
    if any(Rounds(rounds).error() for rounds in found.values()):
        sys.exit("a measurement failed")


if __name__ == "__main__":
    main()
