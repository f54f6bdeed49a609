#!/usr/bin/env python3
"""Checks conf/grafana and conf/prometheus against the metrics that the program has.

1. Each metric, label and word in a query is in docs/metrics.md, which a Rust test holds to the program.
2. Each metric of that page is on the dashboard or in a rule, and each alert has a unit test.
3. promtool accepts the rules and the dashboard's queries, and the rules pass tests/alerts.yaml.
4. The metrics of a running edge are of the kind, and have the labels, that the page says.

Usage: tests/dashboards.py. Exit code: 0 passed, 1 failed, 77 a part could not be checked here (no promtool, or
no built program; PUSHGATE names another one).
"""

import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
DASHBOARD = ROOT / "conf/grafana/pushgate.json"
RULES = [ROOT / "conf/prometheus/recording.yaml", ROOT / "conf/prometheus/alerts.yaml"]
PAGE = (ROOT / "docs/metrics.md").read_text()
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = pathlib.Path(os.environ.get("PUSHGATE", TARGET / "debug/pushgate"))

# Labels that Prometheus adds.
ADDED = {"instance", "job", "le"}
# Longest wait for the edge to start, and for its counters to move.
DEADLINE_SECONDS = 30

faults = []


def fault(text):
    faults.append(text)
    print(f"dashboards: {text}", file=sys.stderr)


def documented():
    """Returns name -> (kind, labels) of every metric on the page."""
    row = re.compile(r"^\| `(pushgate_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.M)
    return {
        name: (kind, set(re.findall(r"`(\w+)`", labels)), "Deprecated" in meaning)
        for name, kind, labels, meaning in row.findall(PAGE)
    }


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def dashboard_queries(dashboard):
    """Returns (where, query) of every panel, variable and annotation."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            yield f"panel {panel['title']!r}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']!r}", variable["definition"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']!r}", annotation["expr"]


def rule_queries():
    """Returns (name, query) of every rule. The files are read by line, so that no YAML library is needed."""
    for path in RULES:
        for rule in re.split(r"\n +- (?=alert:|record:)", path.read_text())[1:]:
            name = re.match(r"\w+: (\S+)", rule)[1]
            block = re.search(r"\n( +)expr: \|\n((?:\1 +.*\n)+)", rule)
            yield name, block[2] if block else re.search(r"expr: (.+)", rule)[1]


def check_query(where, query, metrics, records):
    """Checks every metric with its matchers, and every label of `by` and `on`. Returns the metrics' names."""
    used, labels = set(), set()

    def check_words(label, words):
        for word in words.split("|"):
            if "$" not in word and label not in ADDED and f"`{word}`" not in PAGE:
                fault(f"{where}: docs/metrics.md has no word `{word}` for {label}")

    for name, matchers in re.findall(r"\b(pushgate_\w+|[\w]+:pushgate_[\w:]+)(\{[^}]*\})?", query):
        plain = re.sub(r"_(bucket|sum|count)$", "", name)
        found = re.findall(r'(\w+)(?:=~|!=|!~|=)"([^"]*)"', matchers)
        for label, words in found:
            check_words(label, words)
        if ":" in name:
            if name not in records:
                fault(f"{where}: no rule records {name}")
            continue
        if plain not in metrics or (plain != name and metrics[plain][0] != "histogram"):
            fault(f"{where}: docs/metrics.md has no {name}")
            continue
        used.add(plain)
        labels |= metrics[plain][1]
        for label, _ in found:
            if label not in metrics[plain][1] | ADDED:
                fault(f"{where}: {plain} has no label {label}")
    for listed in re.findall(r"\b(?:by|on|without)\s*\(([^)]*)\)", query):
        for label in re.split(r",\s*", listed):
            if used and label not in labels | ADDED:
                fault(f"{where}: no metric of the query has a label {label}")
    return used


def check_names(metrics, dashboard):
    records = {name for name, _ in rule_queries() if ":" in name}
    shown = set()
    for where, query in [*dashboard_queries(dashboard), *rule_queries()]:
        shown |= check_query(where, query, metrics, records)
    for name, (_, _, deprecated) in metrics.items():
        if name not in shown and not deprecated:
            fault(f"{name} is neither on the dashboard nor in a rule")
        if name in shown and deprecated:
            fault(f"{name} is deprecated, but in use")
    tests = (ROOT / "tests/alerts.yaml").read_text()
    for name, _ in rule_queries():
        if ":" not in name and not re.search(rf"alertname: {name}\n(?=\s+exp_alerts)", tests):
            fault(f"tests/alerts.yaml never sees {name} fire")


def check_layout(dashboard):
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(set(ids)) != len(ids):
        fault("two panels have one id")
    taken = {}
    for panel in dashboard["panels"]:
        box = panel["gridPos"]
        if box["x"] + box["w"] > 24:
            fault(f"panel {panel['title']!r} is wider than the page")
        for x in range(box["x"], box["x"] + box["w"]):
            for y in range(box["y"], box["y"] + box["h"]):
                if taken.setdefault((x, y), panel["title"]) != panel["title"]:
                    fault(f"panels {panel['title']!r} and {taken[x, y]!r} overlap")
                    return
    for panel in panels(dashboard):
        if not panel.get("description"):
            fault(f"panel {panel['title']!r} has no description")


def check_by_promtool(dashboard):
    """Returns whether promtool is there."""
    promtool = shutil.which("promtool")
    if not promtool:
        print("dashboards: no promtool; queries and rules were not run", file=sys.stderr)
        return False

    def run(*args):
        done = subprocess.run([promtool, *args], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            fault(f"promtool {args[0]} {args[1]}: {done.stdout}{done.stderr}")

    run("check", "rules", *map(str, RULES))
    run("test", "rules", str(ROOT / "tests/alerts.yaml"))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as rules:
        plain = [
            # JSON is YAML. Grafana fills in the intervals and the variables.
            {"record": "x:x:x", "expr": query.replace("$__rate_interval", "1m"), "labels": {"n": str(n)}}
            for n, (where, query) in enumerate(dashboard_queries(dashboard))
            if "variable" not in where
        ]
        json.dump({"groups": [{"name": "dashboard", "rules": plain}]}, rules)
        rules.flush()
        run("check", "rules", rules.name)
    return True


class Node(http.server.BaseHTTPRequestHandler):
    """A push server that answers every request."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fetch(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.read().decode()


def scraped(until):
    """Runs an edge with a good and a dead node, sends it requests, and returns /metrics once `until` is in it."""
    node = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Node)
    threading.Thread(target=node.serve_forever, daemon=True).start()
    edge, admin, dead = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = pathlib.Path(folder) / "edge.yaml"
        conf.write_text(
            f"admin: {{ bind: 127.0.0.1:{admin} }}\n"
            f"nodes: {{ good: {{ address: 127.0.0.1:{node.server_port} }}, dead: {{ address: 127.0.0.1:{dead} }} }}\n"
            "pools: { push: { nodes: [good, dead], health: { tcp: {} } } }\n"
            f"listeners: [{{ name: push, bind: [127.0.0.1:{edge}], mode: http, to: push,\n"
            "  plugins: [path_route: { paths: { /dead: dead } }] }]\n"
        )
        program = subprocess.Popen([PROGRAM, "run", "-c", conf], stderr=subprocess.DEVNULL)
        try:
            end = time.monotonic() + DEADLINE_SECONDS
            while time.monotonic() < end and program.poll() is None:
                try:
                    fetch(f"http://127.0.0.1:{edge}/")
                    fetch(f"http://127.0.0.1:{edge}/dead")
                    text = fetch(f"http://127.0.0.1:{admin}/metrics")
                    if all(re.search(series, text) for series in until):
                        return text
                except OSError:
                    pass
                time.sleep(0.1)
            return None
        finally:
            program.kill()
            program.wait()
            node.shutdown()


def check_running(metrics):
    """Returns whether the program is there."""
    if not PROGRAM.exists():
        print(f"dashboards: no {PROGRAM}; no running edge was asked", file=sys.stderr)
        return False
    text = scraped([r'flows_total\{.*"done"', r'flows_total\{.*"no_node"', r'state\{.*"down"\} 1'])
    if text is None:
        fault(f"{PROGRAM} does not serve, or counts no flows")
        return True
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.M))
    for name, kind in kinds.items():
        if name.startswith("pushgate_") and (name not in metrics or metrics[name][0] != kind):
            fault(f"/metrics has the {kind} {name}, docs/metrics.md has not")
    for name, labels in re.findall(r"^(pushgate_\w+?)(?:\{(.*)\})? \S+$", text, re.M):
        plain = name if name in metrics else re.sub(r"_(bucket|sum|count)$", "", name)
        found = set(re.findall(r'(\w+)="', labels)) - {"le"}
        if plain in metrics and found != metrics[plain][1]:
            fault(f"/metrics has {name} with the labels {sorted(found)}, docs/metrics.md has others")
    print(f"dashboards: a running edge has {len(kinds)} of {len(metrics)} metrics so far")
    return True


def main():
    metrics = documented()
    dashboard = json.loads(DASHBOARD.read_text())
    check_names(metrics, dashboard)
    check_layout(dashboard)
    complete = [check_by_promtool(dashboard), check_running(metrics)]
    return 1 if faults else 0 if all(complete) else 77


if __name__ == "__main__":
    sys.exit(main())
