#!/usr/bin/env python3
"""Measures Pushgate beside HAProxy and nginx in one run and prints the tables of benches/README.md.

In: PUSHGATE_BIN and LOAD_BIN (default: target/release), haproxy and nginx of the PATH. Out: markdown
on standard output, progress on standard error, with --json every figure of every run. All traffic is
on loopback; each proxy has one worker thread, on a core of its own where there are two.
"""
import argparse
import dataclasses
import datetime
import json
import os
import platform
import resource
import shutil
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time

import layer4
import render

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(os.path.dirname(HERE), "target", "release")
PUSHGATE = os.environ.get("PUSHGATE_BIN", os.path.join(RELEASE, "pushgate"))
LOAD = os.environ.get("LOAD_BIN", os.path.join(RELEASE, "load"))
HOST = "127.0.0.1"
# One measurement that takes longer has hung.
DEADLINE_S = 180


@dataclasses.dataclass
class Profile:
    """What render.py reads; two nodes, cookie stickiness, no checks (nodes live only as long as a measurement)."""
    nodes: list
    cert_dir: str
    mode: str = "http"
    stick: str = "cookie"
    n_certs: int = 1
    rsa_dir: str = ""
    health: bool = False
    tuned: bool = False
    proxy_protocol: bool = False
    max_hidden: str = ""
    passed: str = ""      # TLS for this name is passed through
    threads: int = 1
    table_size: int = 1_000_000


@dataclasses.dataclass
class Cell:
    """One measurement: a table's column."""
    table: str
    column: str
    args: list
    tls: bool
    timed: bool = False   # repeated in each round; the others once
    layer4: tuple = ()    # set: at layer 4, this setup of layer4.py
    rows: dict = dataclasses.field(default_factory=dict)   # a proxy's rows, where it has several

    def of(self, proxies):
        """The rows of `proxies`, in their order."""
        return [row for p in proxies for row in self.rows.get(p, [p])]


def cells(o):
    """Every measurement of a run, in the order of the tables."""
    out = []
    both = (("plain", False), ("TLS", True))
    for word, tls in both:
        out.append(Cell("requests", word, ["requests", "--count", 64, "--seconds", o.seconds], tls, True))
    for wire in ("chunked", "length"):
        for word, tls in both:
            out.append(Cell("latency", f"{wire}, {word}", ["messages", "--wire", wire, "--count", 4, "--every", 3, "--seconds", o.seconds], tls, True))
    for first, flags in (("server", []), ("client", ["--client-first"])):
        for word, tls in both:
            out.append(Cell("upgrades", f"{first} first, {word}", ["upgrades", "--count", o.upgrades, *flags], tls))
    for word, tls in both:
        out.append(Cell("silent", word, ["silent", "--count", o.silent], tls))
    for wire in ("ws", "chunked"):
        for word, tls in both:
            out.append(Cell("messages", f"{wire}, {word}", ["messages", "--wire", wire, "--count", o.streams, "--every", 250, "--seconds", o.seconds], tls, True))
    for wire in ("ws", "chunked", "length"):
        for word, tls in both:
            out.append(Cell("hidden", f"{wire}, {word}", ["hidden", "--wire", wire], tls))
    out += layer4.cells(o, Cell)
    return [c for c in out if c.table in o.tables]


class Bench:
    """The folder, ports and cores of a run."""

    def __init__(self, options):
        self.options = options
        self.dir = tempfile.mkdtemp(prefix="pushgate-bench-")
        self.plain, self.tls, self.admin, node = (free_port() for _ in range(4))
        render.PORT, render.TLS_PORT, render.ADMIN_PORT = self.plain, self.tls, self.admin
        self.nodes = [f"127.0.1.1:{node}", f"127.0.1.2:{node}"]
        subprocess.run([LOAD, "certificate", self.dir], check=True)
        for old, new in (("cert.pem", "host0.crt"), ("key.pem", "host0.key")):
            shutil.copy(os.path.join(self.dir, old), os.path.join(self.dir, new))
        # nginx reads the key as root, but its worker need not be: the folder holds nothing secret.
        os.chmod(self.dir, 0o755)
        cores = sorted(os.sched_getaffinity(0))
        self.load_cores, self.proxy_cores = ({cores[0]}, {cores[1]}) if len(cores) > 1 else (set(cores), set(cores))

    def spawn(self, argv, cores, **more):
        """Starts a program on `cores` with as many descriptors as allowed."""
        def before():
            if not self.options.unpinned:
                os.sched_setaffinity(0, cores)
            if self.options.nice:
                os.setpriority(os.PRIO_PROCESS, 0, self.options.nice)
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return subprocess.Popen([str(a) for a in argv], cwd=self.dir, preexec_fn=before, stdin=subprocess.DEVNULL, **more)

    def command(self, row, cell):
        """Writes the configuration of a row's proxy; returns its command line."""
        proxy = row.split(",")[0]
        if proxy == "pushgate":
            nodes = [(f"n{i + 1}", *a.rsplit(":", 1)) for i, a in enumerate(self.nodes)]
            more = layer4.profile(row, cell.layer4) if cell.layer4 else {}
            profile = Profile(nodes=nodes, cert_dir=self.dir, **more)
            for name, text in render.render(profile, self.dir).items():
                write(os.path.join(self.dir, name), text)
            return render.command(PUSHGATE, profile, self.dir)
        places = dict(host=HOST, plain=self.plain, tls=self.tls, certificates=self.dir, folder=self.dir,
                      node1=self.nodes[0], node2=self.nodes[1], modules=nginx_modules())
        file = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[proxy]
        if cell.layer4:
            file, text = layer4.peer(row, cell.layer4, places)
        else:
            with open(os.path.join(HERE, "peers", file), encoding="utf-8") as f:
                text = string.Template(f.read()).substitute(places)
        write(os.path.join(self.dir, file), text)
        path = os.path.join(self.dir, file)
        return [binary(proxy), "-f", path, "-db"] if proxy == "haproxy" else [binary(proxy), "-p", self.dir, "-c", path, "-e", self.dir + "/error.log"]

    def measure(self, row, cell):
        """The figures of one measurement, with the proxy started for it alone; {"error": …} if it failed."""
        proxy = row.split(",")[0]
        log = open(os.path.join(self.dir, f"{proxy}.log"), "a", encoding="utf-8")
        running = None if proxy == "direct" else self.spawn(self.command(row, cell), self.proxy_cores, stdout=log, stderr=log)
        load = nodes = None
        try:
            if "--remote" in cell.args:
                nodes = self.spawn([LOAD, "node", "--node", ",".join(self.nodes)], self.load_cores, stdout=log, stderr=log)
                for node in self.nodes:
                    wait_port(node.split(":")[1], nodes, node.split(":")[0])
            to, more = self.nodes[0], []
            if running:
                to = f"{HOST}:{self.tls if cell.tls else self.plain}"
                wait_port(self.tls if cell.tls else self.plain, running)
                more = ["--pid", running.pid] + (["--tls"] if cell.tls else [])
            load = self.spawn([LOAD, *cell.args, "--node", ",".join(self.nodes), "--to", to, *more], self.load_cores, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            try:
                out, err = load.communicate(timeout=DEADLINE_S)
            except subprocess.TimeoutExpired:
                return {"error": f"took over {DEADLINE_S} s"}
            return json.loads(out) if load.returncode == 0 else {"error": err.strip()[-300:]}
        except RuntimeError as e:
            return {"error": str(e)}
        finally:
            for program in (load, nodes):
                if program and program.poll() is None:
                    program.kill()
                    program.wait()
            if running:
                running.terminate() if proxy == "nginx" else running.kill()
                running.wait()
            log.close()


def binary(proxy):
    """A peer's program; sbin is not on everybody's PATH."""
    return shutil.which(proxy, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def nginx_modules():
    """Where nginx's modules are: its own word for it."""
    told = subprocess.run([binary("nginx") or "true", "-V"], capture_output=True, text=True, check=False).stderr
    paths = [w.partition("=")[2] for w in told.split() if w.startswith("--modules-path=")]
    return paths[0] if paths else "/usr/lib/nginx/modules"


def wait_port(port, running, host=HOST):
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running.poll() is None:
        with socket.socket() as s:
            if s.connect_ex((host, int(port))) == 0:
                time.sleep(0.3)
                return
        time.sleep(0.02)
    raise RuntimeError("did not start: see its log")


def run(options):
    """{(table, column, proxy): [figures of each round]}"""
    bench, found = Bench(options), {}
    for number in range(options.rounds):
        order = options.proxies[number % len(options.proxies):] + options.proxies[:number % len(options.proxies)]
        for cell in cells(options):
            for proxy in cell.of(order):
                if (number and not cell.timed) or (proxy == "direct" and (cell.tls or cell.layer4 or cell.table in ("upgrades", "silent"))):
                    continue
                figures = bench.measure(proxy, cell)
                found.setdefault((cell.table, cell.column, proxy), []).append(figures)
                print(f"round {number + 1}: {cell.table}, {cell.column}, {proxy}: {json.dumps(figures)}", file=sys.stderr, flush=True)
    if options.keep:
        print(f"logs and configurations: {bench.dir}", file=sys.stderr)
    else:
        shutil.rmtree(bench.dir, ignore_errors=True)
    return found


def median(rounds, key):
    values = [r[key] for r in rounds if r.get(key) is not None]
    return statistics.median(values) if values else None


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def text(table, rounds, direct):
    """A table's cell."""
    if not rounds:
        return "–"
    bad = [r["error"] for r in rounds if "error" in r]
    if bad:
        return "failed: " + bad[0].splitlines()[-1][:60]
    m = lambda key, digits=0, by=1: number(None if median(rounds, key) is None else median(rounds, key) / by, digits)
    if table in layer4.TABLES:
        return layer4.text(table, m)
    if table == "requests":
        # The load side was the limit where the proxy did not fill its core.
        idle = (median(rounds, "proxy_busy") or 1) < 0.95
        return f"{m('per_second')}{'*' if idle else ''} / {m('cpu_us_per_1000')}"
    if table == "latency":
        return f"{m('p50_us')} / {m('p99_us')}"
    if table == "upgrades":
        return f"{m('lost')} / {m('reordered')} / {m('cpu_us_each')}"
    if table == "silent":
        return number((median(rounds, "bytes_each") or 0) / 1024, 1)
    if table == "messages":
        return f"{m('cpu_us_per_1000')}"
    above = median(rounds, "written_bytes") - (median(direct, "written_bytes") if direct else 0)
    return number(above / 1024) + ("" if rounds[0]["stalled"] else " and on")


TABLES = {
    "requests": "Requests of 1 KiB, 64 kept connections: requests/s / CPU µs per 1,000",
    "latency": "Chunks of 100 B every 3 ms, 4 streams: p50 / p99 µs from the node's write to the client's read",
    "upgrades": "{upgrades:,} WebSocket upgrades, 3 messages each: lost / reordered / CPU µs per upgrade",
    "silent": "{silent:,} silent WebSockets: KiB of the proxy's memory (PSS) each",
    "messages": "Messages of 100 B, {streams:,} connections, one each 250 ms: CPU µs per 1,000",
    "hidden": "Stopped reader: KiB the node could write more than directly",
    **layer4.TABLES,
}


def report(found, o):
    """Prints the tables."""
    print(f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, Linux {platform.release()}; "
          + ", ".join(versions(o.proxies)) + f"; load average at the end {os.getloadavg()[0]:.1f}; median of {o.rounds} rounds where timed.\n")
    for table in o.tables:
        own = [c for c in cells(o) if c.table == table]
        columns = list(dict.fromkeys(c.column for c in own))
        print(f"**{TABLES[table].format(**vars(o))}**\n")
        print("| | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
        for proxy in own[0].of(o.proxies):
            if not any(key[0] == table and key[2] == proxy for key in found):
                continue
            if table == "hidden" and proxy == "direct":
                continue
            row = []
            for column in columns:
                plain = column.replace("TLS", "plain")
                row.append(text(table, found.get((table, column, proxy)), found.get((table, plain, "direct"))))
            print(f"| {proxy} | " + " | ".join(row) + " |")
        print()
    if "requests" in o.tables:
        print("`*`: the proxy did not fill its core, the load side was the limit.")


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        found = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    return found[0] if found else platform.machine()


def versions(proxies):
    argv = {"pushgate": [PUSHGATE, "--version"], "haproxy": [binary("haproxy"), "-v"], "nginx": [binary("nginx"), "-v"]}
    for proxy in proxies:
        if proxy in argv:
            r = subprocess.run(argv[proxy], capture_output=True, text=True, check=False)
            words = (r.stdout + r.stderr).replace("/", " ").split()
            yield f"{proxy} " + next((w for w in words if w[0].isdigit()), "?")


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--proxies", default="pushgate,haproxy,nginx,direct", help="default: %(default)s")
    p.add_argument("--tables", default=",".join(TABLES), help="default: %(default)s")
    p.add_argument("--rounds", type=int, default=3, help="of the timed tables, the proxies in another order each (%(default)s)")
    p.add_argument("--seconds", type=int, default=3, help="measured window (%(default)s)")
    p.add_argument("--nice", type=int, default=0, help="priority of proxies and load; below 0, as root, puts them before other work on the machine")
    p.add_argument("--unpinned", action="store_true", help="let the kernel place proxy and load; apart, each hop wakes another core")
    p.add_argument("--quick", action="store_true", help="one round of one second, a tenth of the connections")
    p.add_argument("--json", metavar="FILE", help="write every figure there")
    p.add_argument("--keep", action="store_true", help="keep the folder of logs and configurations")
    o = p.parse_args()
    o.upgrades, o.silent, o.streams = 20_000, 4_000, 1_000
    if o.quick:
        o.rounds, o.seconds, o.upgrades, o.silent, o.streams = 1, 1, 2_000, 400, 100
    layer4.sizes(o)
    o.tables = [t for t in TABLES if t in o.tables.split(",")]
    o.proxies = o.proxies.split(",")
    for proxy in [x for x in o.proxies if x in ("haproxy", "nginx") and not binary(x)]:
        print(f"{proxy} is not installed: left out", file=sys.stderr)
        o.proxies.remove(proxy)
    for path, how in ((PUSHGATE, "cargo build --release"), (LOAD, "make bench")):
        if not os.path.exists(path):
            sys.exit(f"{path} is missing: {how}")
    return o


def main():
    o = options()
    found = run(o)
    if o.json:
        write(o.json, json.dumps([{"table": t, "column": c, "proxy": p, "rounds": r} for (t, c, p), r in found.items()], indent=1))
    report(found, o)
    if any("error" in r for rounds in found.values() for r in rounds):
        sys.exit("a measurement failed")


if __name__ == "__main__":
    main()
