#!/usr/bin/env python3
"""Measures what thousands of certificates cost, and whether a thousand reloads make handshakes fail.

In: PUSHGATE_BIN and LOAD_BIN (default: target/release). Out: lines of figures on standard output:
start-up time, memory and handshakes with 1 and with --certificates certificates. Then failures and memory
during --reloads reloads, each of a changed certificate, while clients do handshakes without pause. All
traffic is on loopback.
"""
import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

RELEASE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target", "release")
PUSHGATE = os.path.abspath(os.environ.get("PUSHGATE_BIN", os.path.join(RELEASE, "pushgate")))
LOAD = os.path.abspath(os.environ.get("LOAD_BIN", os.path.join(RELEASE, "load")))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Edge:
    """A running edge with `count` certificates from `folder`."""

    def __init__(self, folder, count):
        self.tls, self.admin, self.node = free_port(), free_port(), free_port()
        names = [f"host{i}" for i in range(count)]
        whole = {
            "admin": {"bind": f"127.0.0.1:{self.admin}"},
            "nodes": {"n1": {"address": f"127.0.0.1:{self.node}"}},
            # Chain and key are in one file, which can be replaced in one step.
            "certificates": {n: {"chain": f"{folder}/{n}.pem", "key": f"{folder}/{n}.pem"} for n in names},
            "listeners": [{"name": "tls", "bind": [f"127.0.0.1:{self.tls}"], "mode": "http", "to": "n1",
                           "connection_rate_per_client": "off", "tls": {"certificates": names}}],
        }
        path = os.path.join(folder, "edge.yaml")
        with open(path, "w", encoding="utf-8") as f:
            json.dump(whole, f)
        begun = time.monotonic()
        self.process = subprocess.Popen([PUSHGATE, "run", "-c", path], stdout=subprocess.DEVNULL,
                                        stderr=open(os.path.join(folder, "edge.log"), "a", encoding="utf-8"))
        while self.process.poll() is None:
            try:
                if self.ask("GET", "/readyz") == 200:
                    break
            except OSError:
                time.sleep(0.01)
        self.start_s = time.monotonic() - begun

    def ask(self, method, path):
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status

    def load(self, hosts, *more):
        """Starts clients that do handshakes without pause, each for the next of `hosts` names."""
        argv = [LOAD, "handshakes", "--tls", "--count", "8", "--hosts", hosts, *more, "--node",
                f"127.0.0.1:{self.node}", "--to", f"127.0.0.1:{self.tls}", "--pid", self.process.pid]
        return subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def pss_kib(self):
        with open(f"/proc/{self.process.pid}/smaps_rollup", encoding="utf-8") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("Pss:"))

    def cpu_s(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.kill()
        self.process.wait()


def figures(load, within=600):
    out, _ = load.communicate(timeout=within)
    if load.returncode:
        sys.exit("the load program failed")
    return json.loads(out)


def many(folder, o):
    base = None
    for count in (1, o.certificates):
        edge = Edge(folder, count)
        pss = edge.pss_kib()
        cpu = edge.cpu_s()
        base = base or pss
        each = f", {(pss - base) / (count - 1):.1f} KiB each" if count > 1 else ""
        print(f"{count} certificates: ready after {edge.start_s:.2f} s, of which {cpu:.2f} s of CPU, with {pss / 1024:.1f} MiB{each}")
        # First all names in turn, which warms the context of each; then one name among all.
        for hosts in dict.fromkeys((count, 1)):
            shaken = figures(edge.load(hosts, "--seconds", o.seconds))
            print(f"  {hosts} names in turn: {shaken['per_cpu_second']:.0f} full handshakes per CPU-second, {shaken['failed']} failed", flush=True)
        edge.end()


def reloads(folder, other, o):
    edge = Edge(folder, 10)
    load = edge.load(10, "--until-eof")
    memory, begun = [], time.monotonic()
    for i in range(o.reloads):
        name = f"host{i % 10}.pem"
        # Takes in turn the certificates of two folders, which differ for the same name.
        fresh = os.path.join(folder, "fresh")
        shutil.copy(os.path.join((other, folder + "/first")[i // 10 % 2], name), fresh)
        os.replace(fresh, os.path.join(folder, name))
        if edge.ask("POST", "/api/reload") != 200:
            sys.exit("a reload failed")
        if i % max(1, o.reloads // 10) == 0 or i + 1 == o.reloads:
            memory.append(edge.pss_kib())
    took = time.monotonic() - begun
    shaken = figures(load)
    print(f"{o.reloads} reloads of a changed certificate in {took:.1f} s, beside {shaken['handshakes']} full handshakes: failed "
          f"{shaken['failed']}; memory in MiB " + ", ".join(f"{m / 1024:.1f}" for m in memory))
    edge.end()
    return shaken["failed"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--certificates", type=int, default=5_000, help="default: %(default)s")
    p.add_argument("--reloads", type=int, default=1_000, help="default: %(default)s")
    p.add_argument("--seconds", type=int, default=5, help="of handshakes measured (%(default)s)")
    o = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="pushgate-certificates-") as folder:
        other = os.path.join(folder, "other")
        os.mkdir(other)
        subprocess.run([LOAD, "certificate", folder, str(max(o.certificates, 10))], check=True)
        subprocess.run([LOAD, "certificate", other, "10"], check=True)
        os.mkdir(folder + "/first")
        for i in range(10):
            shutil.copy(f"{folder}/host{i}.pem", f"{folder}/first/host{i}.pem")
        if o.certificates:
            many(folder, o)
        if o.reloads and reloads(folder, other, o):
            sys.exit("handshakes failed")


if __name__ == "__main__":
    main()
