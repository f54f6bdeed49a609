#!/usr/bin/env python3
"""Runs a container image as a runtime does, by the words of the image itself; tests/package.sh calls it.

The root is mounted read-only, the configuration on /etc/pushgate. The process has the image's user, no capability,
and a network of its own. A runtime such as crun needs more of the machine than a test may expect.

Usage: unshare --mount --net --pid --fork --mount-proc tests/container.py ROOT, with the image's configuration as
JSON on standard input (`buildah inspect`). Exit code: 0 it serves.
"""

import ctypes
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

CONFIGURATION = """\
admin: { bind: 127.0.0.1:9900 }
nodes: { node: { address: 127.0.0.1:8081 } }
pools: { push: { nodes: [node], health: { tcp: {} } } }
listeners: [{ name: push, bind: [127.0.0.1:8080], mode: http, to: push }]
"""
PR_SET_NO_NEW_PRIVS = 38
DEADLINE_SECONDS = 30


class Node(http.server.BaseHTTPRequestHandler):
    """A push server."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"node\n")

    def log_message(self, *_):
        pass


def mount(*args):
    subprocess.run(["mount", *map(str, args)], check=True)


def prepare(root, folder):
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "pushgate.yaml").write_text(CONFIGURATION)
    folder.chmod(0o755)
    mount("--bind", root, root)
    for name in ("proc", "dev"):
        (root / name).mkdir(exist_ok=True)
        mount("--rbind", f"/{name}", root / name)
    mount("--bind", folder, root / "etc/pushgate")
    mount("-o", "remount,bind,ro", root / "etc/pushgate")
    mount("-o", "remount,bind,ro", root)
    try:
        (root / "run/pushgate/new").touch()
    except OSError:
        return
    sys.exit("the root can be written")


def run(image, root, arguments):
    """Starts a process of the image and returns it."""
    user, group = map(int, image["User"].split(":"))
    libc = ctypes.CDLL(None)

    def enter():
        os.chroot(root)
        os.chdir(image["WorkingDir"])
        os.setgroups([])
        os.setgid(group)
        # Drops all capabilities too.
        os.setuid(user)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)

    environment = dict(word.split("=", 1) for word in image["Env"])
    return subprocess.Popen(arguments, preexec_fn=enter, env=environment)


def main():
    image = json.load(sys.stdin)["Docker"]["config"]
    root = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        prepare(root, pathlib.Path(folder))
        node = http.server.ThreadingHTTPServer(("127.0.0.1", 8081), Node)
        threading.Thread(target=node.serve_forever, daemon=True).start()

        def healthcheck(*more):
            kind, *command = image["Healthcheck"]["Test"]
            assert kind == "CMD", kind
            return run(image, root, [*command, *more]).wait(timeout=20)

        assert healthcheck() == 1, "healthcheck fails while nothing runs"
        edge = run(image, root, [*image["Entrypoint"], *image["Cmd"]])
        try:
            end = time.monotonic() + DEADLINE_SECONDS
            while healthcheck("--ready") != 0:
                assert time.monotonic() < end and edge.poll() is None, "the edge is not ready"
                time.sleep(0.2)
            assert healthcheck() == 0
            with urllib.request.urlopen("http://127.0.0.1:8080/", timeout=5) as answer:
                assert answer.read() == b"node\n"
            status = pathlib.Path(f"/proc/{edge.pid}/status").read_text()
            assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status, status
            edge.send_signal(getattr(signal, image["StopSignal"]))
            assert edge.wait(timeout=20) == 0, "the stop signal drains the edge"
        finally:
            edge.kill()


main()
