#!/usr/bin/env python3
"""Measures what reloads, half of them faulty, do to live streams and to memory.

In: PUSHGATE_BIN and LOAD_BIN (default: target/release). Out: lines of figures on standard output: the age of
messages of --streams streams without reloads and during them, and the memory after each tenth. Each reload
reads --certificates certificates; every second one is refused, for a fault of the file, a certificate that is
missing or an address in use. All traffic is on loopback.
"""
import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error

from certificates import LOAD, Edge, figures


class Reloads:
    """The reloads of an edge, in turn good and faulty."""

    def __init__(self, edge, folder):
        self.edge, self.folder, self.done, self.took = edge, folder, 0, []
        self.path = os.path.join(folder, "edge.yaml")
        with open(self.path, encoding="utf-8") as f:
            self.good = json.load(f)
        self.taken = socket.create_server(("127.0.0.1", 0))

    def faulty(self, n):
        whole = json.loads(json.dumps(self.good))
        if n % 3 == 0:
            whole["no_such_key"] = 1
        elif n % 3 == 1:
            whole["certificates"]["host0"]["chain"] = f"{self.folder}/missing.pem"
        else:
            whole["listeners"][0]["bind"].append("127.0.0.1:%d" % self.taken.getsockname()[1])
        return whole

    def once(self):
        n, is_good = divmod(self.done, 2)
        with open(self.path, "w", encoding="utf-8") as f:
            json.dump(self.good if is_good else self.faulty(n), f)
        begun = time.monotonic()
        try:
            status = self.edge.ask("POST", "/api/reload")
        except urllib.error.HTTPError as e:
            status = e.code
        self.took.append(time.monotonic() - begun)
        if status != (200 if is_good else 422):
            sys.exit(f"reload {self.done} was answered with {status}")
        self.done += 1


def streams(edge, o, seconds):
    argv = [LOAD, "messages", "--tls", "--count", o.streams, "--every", o.every, "--seconds", seconds, "--node",
            f"127.0.0.1:{edge.node}", "--to", f"127.0.0.1:{edge.tls}", "--pid", edge.process.pid]
    return subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--certificates", type=int, default=5_000, help="default: %(default)s")
    p.add_argument("--streams", type=int, default=5_000, help="default: %(default)s")
    p.add_argument("--reloads", type=int, default=1_000, help="at most (%(default)s)")
    p.add_argument("--every", type=int, default=1_000, help="ms between the messages of a stream (%(default)s)")
    p.add_argument("--seconds", type=int, default=1_800, help="of reloads at most (%(default)s)")
    o = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="pushgate-reloads-") as folder:
        subprocess.run([LOAD, "certificate", folder, str(o.certificates)], check=True)
        edge = Edge(folder, o.certificates)
        try:
            print(f"quiet: {figures(streams(edge, o, 20))}", flush=True)
            reloads, load, memory = Reloads(edge, folder), streams(edge, o, o.seconds), []
            while load.poll() is None and reloads.done < o.reloads:
                reloads.once()
                if reloads.done % max(1, o.reloads // 10) == 0:
                    memory.append(edge.pss_kib())
                    print(f"  after {reloads.done} reloads: {memory[-1] / 1024:.1f} MiB", flush=True)
            during = figures(load, o.seconds + 60)
            took = sorted(reloads.took)
            print(f"{reloads.done} reloads, {took[len(took) // 2]:.2f} s each in the median, {took[-1]:.2f} s at most: {during}")
        finally:
            edge.end()


if __name__ == "__main__":
    main()
