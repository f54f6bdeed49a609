#!/usr/bin/env python3
"""Lets alerts fire by breaking what they are for: a running edge, a real Prometheus, the rules of conf/prometheus.

The rules keep their queries; only `for` becomes zero, because nobody wants to wait 10 minutes. Everything listens
on loopback. tests/alerts.yaml has the other alerts, and the waiting times. Run by `make alerts-test`, some minutes.

Usage: tests/alerts.py. PUSHGATE names another program than that of `make build`. Exit code: 0 all fired.
"""

import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from dashboards import Node, free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = os.environ.get("PUSHGATE", ROOT / "target/release/pushgate")
# Longest wait for an alert. Rates need two scrapes, which take place each second.
DEADLINE_SECONDS = 60
# Alerts that fire from the start: the certificate ends tomorrow, and one of the nodes does not listen.
FROM_THE_START = {"PushgateCertificateEnds", "PushgateCertificateEndsSoon", "PushgateNodeDown"}


def prometheus_files(folder, admin):
    """Writes the rules without their `for`, and a configuration that scrapes each second."""
    names = []
    for name in ["recording.yaml", "alerts.yaml"]:
        rules = (ROOT / "conf/prometheus" / name).read_text()
        rules = re.sub(r"\bfor: \w+", "for: 0s", rules).replace("interval: 30s", "interval: 1s")
        (folder / name).write_text(rules)
        names.append(str(folder / name))
    # JSON is YAML.
    (folder / "prometheus.yaml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": names,
                "scrape_configs": [
                    {"job_name": "pushgate", "static_configs": [{"targets": [f"127.0.0.1:{admin}"]}]}
                ],
            }
        )
    )


def certificate(folder):
    """Writes a certificate that ends tomorrow."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=push"
    more = ["-addext", "subjectAltName=DNS:push.example", "-keyout", folder / "push.key", "-out", folder / "push.pem"]
    subprocess.run([*command.split(), *more], check=True, capture_output=True)


class Prometheus:
    """A running Prometheus."""

    def __init__(self, folder):
        self.url = f"http://127.0.0.1:{free_port()}/api/v1"
        address = urllib.parse.urlsplit(self.url).netloc
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address={address}"],
            stderr=subprocess.DEVNULL,
        )

    def ask(self, path):
        with urllib.request.urlopen(self.url + path, timeout=5) as answer:
            return json.load(answer)["data"]

    def firing(self):
        try:
            alerts = self.ask("/alerts")["alerts"]
        except OSError:
            return set()
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def await_alert(self, name, act=lambda: None):
        """Does `act` again and again until the alert fires."""
        end = time.monotonic() + DEADLINE_SECONDS
        while name not in self.firing():
            assert time.monotonic() < end, f"{name} does not fire"
            act()
            time.sleep(0.2)
        print(f"alerts: ok: {name} fires", flush=True)

    def run_dashboard(self):
        """Runs each query of the dashboard."""
        dashboard = json.loads((ROOT / "conf/grafana/pushgate.json").read_text())
        count = 0
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                query = target["expr"].replace("$__rate_interval", "10s")
                query = re.sub(r"\$(instance|listener|node)\b", ".*", query)
                self.ask("/query?" + urllib.parse.urlencode({"query": query}))
                count += 1
        print(f"alerts: ok: Prometheus runs {count} queries of the dashboard")


class SlowNode(Node):
    """Answers at once, but `/hold` not before the test is over."""

    def do_GET(self):
        if self.path == "/hold":
            time.sleep(300)
        super().do_GET()


def get(port, path="/"):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5).close()
    except (urllib.error.URLError, OSError):
        pass  # A 503 is what some of them are for.


def no_hello(port):
    """Opens a connection to a TLS port and sends no legal handshake."""
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"\x16\x03\x01\x00\x05hello")


def break_things(edge, prometheus, conf, plain, secure):
    good = conf.read_text()
    for name in sorted(FROM_THE_START):
        prometheus.await_alert(name, lambda: get(plain))
    early = prometheus.firing() - FROM_THE_START
    assert not early, f"{early} fire although nothing has been broken yet"
    prometheus.await_alert("PushgateNoNode", lambda: get(plain, "/dead"))
    prometheus.await_alert("PushgateFlowsFail", lambda: get(plain, "/dead"))
    conf.write_text(good + "wrong: 1\n")
    edge.send_signal(signal.SIGHUP)
    prometheus.await_alert("PushgateReloadFailed")
    conf.write_text(good)
    edge.send_signal(signal.SIGHUP)
    (conf.parent / "push.pem").write_text("no certificate\n")
    prometheus.await_alert("PushgateCertificatesReloadFailed")
    prometheus.await_alert("PushgateHandshakesFail", lambda: no_hello(secure))
    held = []

    def hold():
        """Holds live flows of several clients: idle connections would make room, and one client may not hold all."""
        if len(held) < 500:
            source = (f"127.0.0.{2 + len(held) % 8}", 0)
            client = socket.create_connection(("127.0.0.1", plain), timeout=5, source_address=source)
            client.sendall(b"GET /hold HTTP/1.1\r\nHost: push\r\n\r\n")
            held.append(client)

    prometheus.await_alert("PushgateFull", hold)
    for client in held:
        client.close()
    prometheus.run_dashboard()
    edge.kill()
    prometheus.await_alert("PushgateGone")


def main():
    node = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SlowNode)
    threading.Thread(target=node.serve_forever, daemon=True).start()
    admin, plain, secure, dead = free_port(), free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = pathlib.Path(name)
        certificate(folder)
        prometheus_files(folder, admin)
        conf = folder / "edge.yaml"
        conf.write_text(f"""\
admin: {{ bind: 127.0.0.1:{admin} }}
max_connections: 40
nodes: {{ good: {{ address: 127.0.0.1:{node.server_port} }}, dead: {{ address: 127.0.0.1:{dead} }} }}
pools: {{ push: {{ nodes: [good, dead], health: {{ tcp: {{}} }} }} }}
certificates: {{ push: {{ chain: push.pem, key: push.key }} }}
listeners:
  - name: plain
    bind: [127.0.0.1:{plain}]
    mode: http
    to: push
    plugins: [path_route: {{ paths: {{ /dead: dead }} }}]
  - {{ name: tls, bind: [127.0.0.1:{secure}], mode: http, to: push, tls: {{ certificates: [push] }} }}
""")
        edge = subprocess.Popen([PROGRAM, "run", "-c", conf], stderr=subprocess.DEVNULL)
        prometheus = Prometheus(folder)
        try:
            break_things(edge, prometheus, conf, plain, secure)
        finally:
            for process in [edge, prometheus.process]:
                process.kill()
                process.wait()


try:
    main()
except AssertionError as e:
    sys.exit(f"alerts: FAILED: {e}")
