#!/usr/bin/env python3
"""Sends requests from a million addresses to `sticky_ip`. Its memory must stay bounded, and connected clients
must keep their node (FAULTS D46).

In: PUSHGATE_BIN (default: target/release/pushgate), ADDRESSES (default: 1000000), CAPACITY of the table
(default: 100000); nginx as the node. Out: figures on standard output: time, memory of the edge before and
after each quarter, and how many of 500 addresses with a live flow lost their node. A trusted sender gives
the addresses in X-Forwarded-For, one request for each. All traffic is on loopback.
"""

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ADDRESSES = int(os.environ.get("ADDRESSES", "1000000"))
CAPACITY = int(os.environ.get("CAPACITY", "100000"))
LIVE, CONNECTIONS, BATCH = 500, 32, 50
NODES, EDGE, ADMIN, SILENT = [17821, 17822], 17823, 17824, 17825

NGINX = """
daemon off; worker_processes 1; pid {dir}/pid; error_log /dev/null;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s; client_body_timeout 1h;
{servers}
}}
"""
SERVER = """  server {{ listen 127.0.0.1:{port};
    location /hold {{ proxy_pass http://127.0.0.1:{silent}; proxy_read_timeout 1h; }}
    location / {{ add_header X-Node {port}; return 204; }} }}
"""
CONF = f"""
admin: {{ bind: 127.0.0.1:{ADMIN} }}
nodes:
  n0: {{ address: 127.0.0.1:{NODES[0]} }}
  n1: {{ address: 127.0.0.1:{NODES[1]} }}
pools:
  push: {{ nodes: [n0, n1], balance: round_robin }}
listeners:
  - name: push
    bind: [127.0.0.1:{EDGE}]
    mode: http
    to: push
    plugins: [{{ sticky_ip: {{ from: x_forwarded_for, trust: [127.0.0.0/8], capacity: {CAPACITY} }} }}]
"""


def address(n):
    return f"2001:db8:{n >> 16:x}:{n & 0xffff:x}::1"


def request(n, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: push\r\nX-Forwarded-For: {address(n)}\r\n\r\n".encode()


def connect():
    return socket.create_connection(("127.0.0.1", EDGE))


def ask(n):
    with connect() as sock:
        sock.sendall(request(n))
        head = sock.recv(4096).decode()
    return head.split("X-Node: ")[1].split("\r\n")[0]


def flood(first, last):
    """Sends one request for each address, with BATCH in flight on each connection."""
    sel, left, missing = selectors.DefaultSelector(), iter(range(first, last)), 0
    def send(sock):
        batch = [request(n) for _, n in zip(range(BATCH), left)]
        if batch:
            sock.sendall(b"".join(batch))
        return len(batch)
    state = {}
    for _ in range(CONNECTIONS):
        sock = connect()
        state[sock] = send(sock)
        sel.register(sock, selectors.EVENT_READ)
    while any(state.values()):
        for key, _ in sel.select():
            sock = key.fileobj
            data = sock.recv(1 << 20)
            if not data:
                sys.exit("the edge closed a connection")
            state[sock] -= data.count(b"HTTP/1.1 204")
            if state[sock] <= 0:
                state[sock] += send(sock)


def memory(pid):
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024


def measure(pid):
    holders, stuck = [], {}
    for n in range(LIVE):
        stuck[n] = ask(n)
        sock = connect()
        sock.sendall(request(n, "/hold"))
        holders.append(sock)
    time.sleep(1)
    print(f"{LIVE} addresses with live flows; the edge has {memory(pid):.0f} MiB", flush=True)
    start, figures = time.monotonic(), []
    for part in range(4):
        flood(LIVE + part * ADDRESSES // 4, LIVE + (part + 1) * ADDRESSES // 4)
        figures.append(memory(pid))
    took = time.monotonic() - start
    print(f"{ADDRESSES} further addresses in {took:.1f} s, capacity {CAPACITY}: "
          f"{', '.join(f'{f:.0f}' for f in figures)} MiB after each quarter")
    lost = sum(1 for n in range(LIVE) if any(ask(n) != stuck[n] for _ in range(2)))
    print(f"addresses with a live flow that lost their node: {lost} of {LIVE}")


def main():
    binary = os.environ.get("PUSHGATE_BIN", "target/release/pushgate")
    if not shutil.which("nginx"):
        sys.exit("nginx is not installed; it serves as the node")
    started = []
    # The kernel accepts connections into the backlog and no program answers them, so their flows stay live.
    silent = socket.create_server(("127.0.0.1", SILENT), backlog=2 * LIVE)
    with tempfile.TemporaryDirectory() as folder, silent:
        try:
            servers = "".join(SERVER.format(port=port, silent=SILENT) for port in NODES)
            with open(f"{folder}/nginx.conf", "w") as conf:
                conf.write(NGINX.format(dir=folder, servers=servers))
            with open(f"{folder}/edge.yaml", "w") as conf:
                conf.write(CONF)
            quiet = {"stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(["nginx", "-c", f"{folder}/nginx.conf", "-p", folder], **quiet))
            started.append(subprocess.Popen([binary, "run", "-c", f"{folder}/edge.yaml"], **quiet))
            end = time.monotonic() + 20
            while True:
                try:
                    connect().close()
                    break
                except OSError:
                    if time.monotonic() > end:
                        sys.exit("the edge did not start within 20 s")
                    time.sleep(0.05)
            measure(started[1].pid)
        finally:
            for process in started:
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
                process.kill()


if __name__ == "__main__":
    main()
