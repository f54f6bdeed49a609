"""Runs a bench on its own small site: nodes in processes of their own, and one edge in front of them.

In: PUSHGATE_BIN (default: target/release/pushgate), the configuration, the number of flows. Out: the bench is run while
the site is up; afterwards all its processes are ended.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

# All flows come from one address, so its limits are lifted. Keys of a listener.
ONE_CLIENT = """\
    max_connections_per_client: 100000
    max_flows_per_client: 100000
    connection_rate_per_client: off
    request_rate_per_client: off
"""


def allow_descriptors(flows):
    """Raises the limit of this process and its children: the edge needs two descriptors for each flow."""
    # Root may raise the hard limit.
    need = max(2 * flows + 200, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, need))
    except (ValueError, PermissionError):
        sys.exit(f"raise the limit of open files to {need}, or lower FLOWS")


def await_port(port):
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit("the edge did not start within 20 s")


def run(conf, edge, nodes, flows, measure):
    """Calls `measure` with the number of an edge's process while it serves port `edge` with `conf`. `nodes`: functions that serve as a node for ever."""
    binary = os.environ.get("PUSHGATE_BIN", "target/release/pushgate")
    allow_descriptors(flows)
    children = []
    try:
        for node in nodes:
            pid = os.fork()
            if pid == 0:
                node()
            children.append(pid)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(conf)
            file.flush()
            process = subprocess.Popen([binary, "run", "-c", file.name], stderr=subprocess.DEVNULL)
            children.append(process.pid)
            await_port(edge)
            measure(process.pid)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
