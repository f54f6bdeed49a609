#!/usr/bin/env python3
"""Checks docs/errors.md against the program.

1. Each end reason is in the page's table, and no other word.
2. Each status that the source makes for a client or at the admin endpoint is in its table.
3. Each line of the service log on the page is in the source.
4. Each example of `check` on the page is what the program says of a file below, and each file has an example.

Usage: tests/errors.py. Exit code: 0 passed, 1 failed, 77 the examples could not be checked here (no built program;
PUSHGATE names another one, or no openssl).
"""

import http
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/errors.md").read_text()
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = pathlib.Path(os.environ.get("PUSHGATE", TARGET / "debug/pushgate"))

# Where answers to clients are made, and those of the admin endpoint.
CLIENT_SOURCES = ["src/proxy", "src/listener", "src/route.rs", "plugins"]
ADMIN_SOURCES = ["src/control/admin.rs", "src/control/admin"]
# Statuses that only pass through: upgrades, interim answers, and the interim or framing rules of nodes' answers.
NOT_OURS = {100, 101, 200, 204, 304, 426}
# Words of the page that stand for what the program fills in.
FILLED_IN = "NAME|FILE|ADDRESS|PROGRAM|SOURCE|CAUSE|STATUS|DATE|WHY|N|5s"
# Names that http.HTTPStatus of an older Python spells otherwise.
NAMES = {"PAYLOAD_TOO_LARGE": 413, "URI_TOO_LONG": 414, "UNPROCESSABLE_ENTITY": 422, "RANGE_NOT_SATISFIABLE": 416}

# Files with an error or a warning, by what is wrong.
NODE = "nodes: { ls1: { address: 10.0.0.1:80 } }\n"
BASE = NODE + "pools: { push: { nodes: [ls1] } }\n"


def listener(keys="mode: http, to: push", bind="0.0.0.0:80", name="push"):
    return f"{{ name: {name}, bind: [{bind}], {keys} }}"


def listeners(*all_of_them):
    return f"listeners: [{', '.join(all_of_them)}]\n"


def plugin(text, mode="http", bind="0.0.0.0:80"):
    return listeners(listener(f"mode: {mode}, to: push, plugins: [{text}]", bind))


ONE = listeners(listener())
TLS = "mode: http, to: push, tls: { certificates: [p] }"
FILES = [
    "nodes:\n\tls1: x\n",
    "",
    "nodes: [a\n",
    BASE + ONE + "---\na: 1\n",
    "nodes: !x { ls1: { address: 10.0.0.1:80 } }\n",
    BASE + "nodes: { x: { address: 10.0.0.1:80 } }\n" + ONE,
    BASE + "drain_deadlin: 1h\n" + ONE,
    BASE + listeners(listener("to: push")),
    BASE + "drain_deadline: 60\n" + ONE,
    BASE + listeners(listener("mode: http, to: push, max_hidden: 1KiB")),
    BASE + listeners(listener("mode: https, to: push")),
    BASE + listeners(listener("mode: http, to: pusch")),
    BASE + plugin("sticky_cookie: {}", "tcp"),
    BASE + plugin("sticky_cookie: { same_site: none }"),
    BASE + plugin("sticky_cookie: { secure: true }"),
    BASE + plugin("vip_route: { vips: { 10.0.0.9: ls1 } }", bind="10.0.0.5:80"),
    NODE + "pools: { push: { nodes: [ls1], health: { tcp: {} } } }\n" + plugin("proxy_protocol: {}", "tcp"),
    BASE + "certificates: { p: { chain: nope.pem, key: push.key } }\n" + listeners(listener(TLS, "0.0.0.0:443")),
    BASE + "certificates: { p: { chain: push.pem, key: other.key } }\n" + listeners(listener(TLS, "0.0.0.0:443")),
    BASE + "certificates: { p: { chain: push.pem, key: push.key } }\n"
    + listeners(listener(TLS + ", plugins: [host_route: { hosts: { push1.mycompany.com: ls1 } }]", "0.0.0.0:443")),
    BASE + listeners(listener(name="a"), listener(name="b")),
    BASE + listeners(listener(name="a"), listener(name="a", bind="0.0.0.0:81")),
    BASE + "admin: { bind: 10.0.0.5:9900 }\n" + ONE,
    "nodes: { push: { address: 10.0.0.1:80 } }\npools: { push: { nodes: [push] } }\n" + ONE,
    NODE + listeners(listener("mode: http")),
    NODE + "pools: { push: { nodes: [ls1], health: { interval: 1s } } }\n" + ONE,
    NODE + "pools: { push: { nodes: [ls1], max_flows: 10, max_flows_hard: 5 } }\n" + ONE,
    BASE + "upgrade_socket: open/u.sock\n" + ONE,
    BASE + "log: { access: { file: nope/a.log } }\n" + ONE,
    BASE + "user: nobodyx\n" + ONE,
    'nodes: { "ls 1": { address: 10.0.0.1:80 } }\n' + listeners(listener('mode: http, to: "ls 1"')),
    "nodes: { ls1: { address: 10.0.0.1 } }\n" + listeners(listener("mode: http, to: ls1")),
    NODE + "pools: { push: { nodes: [ls1, ls9] } }\n" + ONE,
    None,
]

faults = []


def fault(text):
    faults.append(text)
    print(f"errors: {text}", file=sys.stderr)


def section(title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    if not found:
        fault(f"docs/errors.md has no section {title!r}")
    return found[1] if found else ""


def first_cells(title):
    """Returns the first cell of each row of a section's tables, without the heads."""
    rows = re.findall(r"^\| (.*?) \|", section(title), re.M)
    return [cell for cell in rows if cell not in ("status", "reason", "line", "message", "warning", "code")]


def sources(places):
    """Returns the text of Rust files without their tests and comments, and with joined strings."""
    for place in places:
        path = ROOT / place
        for file in sorted(path.rglob("*.rs")) if path.is_dir() else [path]:
            if "tests" in file.relative_to(ROOT).parts or file.name in ("tests.rs", "fuzz.rs", "testing.rs"):
                continue
            text = re.split(r"#\[cfg\((?:any\()?test\b.*\)\]\s*(?:pub(?:\(\w+\))? )?mod \w+ \{", file.read_text())[0]
            text = re.sub(r"^\s*//.*$", "", text, flags=re.M)
            yield re.sub(r"\\\n\s*", "", text)


def check_reasons():
    text = (ROOT / "src/observe/end_reason.rs").read_text()
    made = set(re.findall(r'EndReason::\w+ => "(\w+)"', text))
    told = set(re.findall(r"`(\w+)`", " ".join(first_cells("End reasons"))))
    if not made:
        fault("src/observe/end_reason.rs has no words; this check must follow it")
    for word in sorted(made ^ told):
        fault(f"the end reason `{word}` is only in {'the source' if word in made else 'docs/errors.md'}")
    statuses = section("Statuses that the edge sends")
    for word in set(re.findall(r"^\| [\d, to]+ \| (.*?) \|", statuses, re.M)):
        for one in re.findall(r"`(\w+)`", word):
            if one not in made:
                fault(f"docs/errors.md has a status with the reason `{one}`, which the source has not")


def statuses(text):
    """Returns the statuses that a source file makes."""
    for name in re.findall(r"StatusCode::([A-Z_]+)\b", text):
        if name in NAMES:
            yield NAMES[name]
        elif hasattr(http.HTTPStatus, name):
            yield getattr(http.HTTPStatus, name).value
    patterns = (
        r'\((\d{3}), "[A-Z]',
        r"EndReason::\w+, (\d{3})\)",
        r"HTTPStatus\((\d{3})\)",
        r"\bwhy, (\d{3})\)",
        r"HTTP/1\.1 (\d{3}) ",
    )
    for pattern in patterns:
        yield from map(int, re.findall(pattern, text))


def check_statuses():
    for title, places in (
        ("Statuses that the edge sends", CLIENT_SOURCES),
        ("Statuses of the admin endpoint", ADMIN_SOURCES),
    ):
        told = set()
        for cell in first_cells(title):
            # `400 to 599` is what a file may choose.
            told |= set() if " to " in cell else set(map(int, re.findall(r"\d{3}", cell)))
        made = {status for text in sources(places) for status in statuses(text)} - NOT_OURS
        if len(made) < 5:
            fault(f"{places} make only {made}; this check must follow them")
        for status in sorted(made - told):
            fault(f"docs/errors.md, {title!r}, lacks {status}")
        # The numbers of redirects are a range in the source.
        for status in sorted(told - made - NOT_OURS - {301, 302, 303, 307, 308}):
            fault(f"docs/errors.md, {title!r}, has {status}, which the source does not make")


def check_lines():
    code = "\n".join(sources(["src", "plugins"]))
    for line in first_cells("Lines of the service log"):
        parts = re.split(rf"\b(?:{FILLED_IN})\b", line.strip("`"))
        for part in (p.strip(" :;,()") for p in parts):
            if len(part) >= 8 and part not in code and not all(w in code for w in part.split(" to connect ")):
                fault(f"no line of the source says {part!r}, of docs/errors.md: {line}")


def pattern(example):
    """Returns the regular expression of an example, whose `…` stands for any text."""
    return re.compile(".*?".join(map(re.escape, example.strip("`").split("…"))))


def check_examples():
    examples = first_cells("Errors of the file") + first_cells("Warnings of the file")
    unseen = dict.fromkeys(examples)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in ("push", "other"):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
                + ["-days", "90", "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", f"/CN={name}.mycompany.com"]
                + ["-addext", f"subjectAltName=DNS:{name}.mycompany.com"],
                cwd=folder, check=True, capture_output=True,
            )
        (folder / "open").mkdir()
        (folder / "open").chmod(0o777)
        for text in FILES:
            file = folder / "edge.yaml"
            file.unlink(missing_ok=True)
            if text is not None:
                file.write_text(text)
            done = subprocess.run([PROGRAM, "check", "-c", file], capture_output=True, text=True, check=False)
            said = (done.stdout + done.stderr).replace(f"{file}:", "")
            hits = [e for e in examples if any(pattern(e).match(line.strip()) for line in said.splitlines())]
            if not hits:
                fault(f"docs/errors.md has no example of: {said.strip()}")
            if done.returncode != (0 if "warning: " in said else 1):
                fault(f"`check` exits {done.returncode}: {said.strip()}")
            for hit in hits:
                unseen.pop(hit, None)
    for example in unseen:
        fault(f"`check` says nowhere: {example}")


def main():
    check_reasons()
    check_statuses()
    check_lines()
    complete = PROGRAM.exists() and shutil.which("openssl") is not None
    if complete:
        check_examples()
    else:
        print(f"errors: no {PROGRAM} or no openssl; the examples were not checked", file=sys.stderr)
    return 1 if faults else 0 if complete else 77


if __name__ == "__main__":
    sys.exit(main())
