"""The machines of tests/pair.py: a network of namespaces, and an edge with its keepalived in one of them."""

import contextlib
import ctypes
import os
import pathlib
import shutil
import signal
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ROOT / "conf/pair"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAM = os.environ.get("PUSHGATE", TARGET / "debug/pushgate")
PATH = f"{os.environ['PATH']}:{pathlib.Path.home()}/.cargo/bin:/usr/sbin:/sbin"
KEEPALIVED = os.environ.get("KEEPALIVED") or shutil.which("keepalived", path=PATH)

VIPS = ["200.0.0.10", "200.0.0.11"]
EDGES = {"edge1": "10.0.0.11", "edge2": "10.0.0.12"}
NODES = {"ls1": "10.0.0.1", "ls2": "10.0.0.2"}
GATEWAY = "10.0.0.254"
CLONE_NEWNET = 0x40000000


def run(*words):
    return subprocess.run([*map(str, words)], check=True, capture_output=True, text=True).stdout


class Network:
    """A bridge with a namespace for each edge, for the push servers and for the clients."""

    def __init__(self):
        self.lan = f"pair{os.getpid()}"
        self.hosts = {name: f"{self.lan}-{name}" for name in [*EDGES, "nodes", "clients"]}

    def make(self):
        run("ip", "netns", "add", self.lan)
        run("ip", "-n", self.lan, "link", "add", "lan", "type", "bridge")
        run("ip", "-n", self.lan, "link", "set", "lan", "up")
        addresses = {name: [f"{address}/24"] for name, address in EDGES.items()}
        addresses["nodes"] = [f"{address}/24" for address in NODES.values()]
        addresses["clients"] = [f"{GATEWAY}/24", "200.0.0.254/24"]
        for name, host in self.hosts.items():
            run("ip", "netns", "add", host)
            run("ip", "-n", self.lan, "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", host)
            run("ip", "-n", self.lan, "link", "set", name, "master", "lan", "up")
            run("ip", "-n", host, "link", "set", "lo", "up")
            for address in addresses[name]:
                run("ip", "-n", host, "address", "add", address, "dev", "eth0")
            run("ip", "-n", host, "link", "set", "eth0", "up")
            if name != "clients":
                run("ip", "-n", host, "route", "add", "default", "via", GATEWAY)
        # The whole network is local, so that a client can bind any of its addresses.
        run("ip", "-n", self.hosts["clients"], "address", "add", "198.51.100.1/24", "dev", "lo")
        for name in EDGES:
            run("ip", "netns", "exec", self.hosts[name], "sysctl", "-q", "-p", FILES / "60-pushgate-pair.conf")

    def remove(self):
        for host in [*self.hosts.values(), self.lan]:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)

    def cable(self, name, state):
        """Plugs the cable of a host in (`up`), or pulls it (`down`)."""
        run("ip", "-n", self.lan, "link", "set", name, state)

    def enter(self, name):
        """Moves this thread into a host: its new sockets are there."""
        with open(f"/run/netns/{self.hosts[name]}") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def has(self, name, vip):
        return bool(run("ip", "-n", self.hosts[name], "-4", "address", "show", "dev", "eth0", "to", f"{vip}/32"))


class Edge:
    """A machine of the pair: its proxy and its keepalived. `rise` is how often the proxy must answer to be back."""

    def __init__(self, network, name, folder, command, check, rise):
        self.network, self.name, self.command = network, name, command
        self.folder = folder / name
        self.folder.mkdir()
        (self.folder / "pair").write_text(check)
        (self.folder / "pair").chmod(0o755)
        conf = (FILES / "keepalived.conf").read_text().replace("/usr/local/lib/pushgate/pair", str(self.folder / "pair"))
        conf = conf.replace("rise 5", f"rise {rise}")
        (self.folder / "keepalived.conf").write_text(conf)
        self.proxy = self.keepalived = None

    def spawn(self, log, *words):
        environment = {**os.environ, "PATH": PATH, "PUSHGATE": str(PROGRAM)}
        with open(self.folder / log, "ab") as file:
            words = ["ip", "netns", "exec", self.network.hosts[self.name], *map(str, words)]
            return subprocess.Popen(words, stdout=file, stderr=file, cwd=self.folder, env=environment)

    def start(self):
        self.proxy = self.spawn("proxy.log", *self.command(self))

    def start_keepalived(self):
        files = [word for kind in "prc" for word in (f"-{kind}", self.folder / f"keepalived-{kind}.pid")]
        options = ["--dont-fork", "--log-console", "--vrrp", "--config-id", self.name]
        self.keepalived = self.spawn("keepalived.log", KEEPALIVED, *options, *files, "-f", self.folder / "keepalived.conf")

    def end(self):
        for process in (self.keepalived, self.proxy):
            if process and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate() if process is self.keepalived else process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=5)
                process.kill()
