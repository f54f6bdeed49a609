"""Makes the configuration and command line of each proxy for a profile, and finds its version.

In: a Profile. Out: files in a folder, and an argument list. render.py does this for Pushgate; the peers
have templates in peers/. A peer that is not installed is left out.
"""
import dataclasses
import os
import shutil
import string
import subprocess

import render

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(os.path.dirname(HERE), "target", "release")
# Pingora with nothing added. To build it:
# cargo build --release --manifest-path benches/Cargo.toml --target-dir target --example pingora
PINGORA = os.path.join(RELEASE, "examples", "pingora")
PUSHGATE = os.path.abspath(os.environ.get("PUSHGATE_BIN", os.path.join(RELEASE, "pushgate")))
ALL = ("pushgate", "haproxy", "nginx", "envoy", "direct")


@dataclasses.dataclass
class Profile:
    """The setup of a proxy for a measurement. The default is HTTP, two nodes, cookie stickiness and no health
    checks, because the nodes live only as long as the measurement."""
    nodes: list         # (name, address, port)
    cert_dir: str       # host0.crt, host0.key, both.pem
    mode: str = "http"  # or "tcp": peers/<proxy>-tcp.*
    stick: str = "cookie"
    n_certs: int = 1
    rsa_dir: str = ""
    health: bool = False
    tuned: bool = False
    proxy_protocol: bool = False
    max_hidden: str = ""    # Pushgate's, if not the default
    passed: str = ""        # TLS for this name is passed through, at layer 4
    h2: bool = False        # clients may speak HTTP/2 over TLS
    splice: bool = False    # HAProxy's splice-auto
    connections: int = 10_000
    threads: int = 1
    table_size: int = 1_000_000


def binary(proxy):
    """Returns the path of a proxy's program, or None. Also looks into sbin, which many PATHs lack."""
    if proxy == "pushgate":
        return PUSHGATE
    if proxy == "pingora":
        return PINGORA if os.path.exists(PINGORA) else None
    named = os.environ.get(f"{proxy.upper()}_BIN")
    return named or shutil.which(proxy, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def version(proxy):
    """Returns name and version, `haproxy 2.6.12`."""
    if proxy == "pingora":
        return "pingora 0.9.1 with nothing added"
    flag = "-v" if proxy in ("haproxy", "nginx") else "--version"
    r = subprocess.run([binary(proxy), flag], capture_output=True, text=True, check=False)
    words = (r.stdout + r.stderr).replace("/", " ").replace("version:", " ").split()
    return f"{proxy} " + next((w for w in words if w[0].isdigit() and "." in w), "?")


def template(proxy, profile):
    """Returns the path of a peer's template; None if the peer cannot serve the profile."""
    if proxy == "pingora":
        return PINGORA if profile.mode == "http" and not profile.h2 else None
    ending = {"haproxy": "cfg", "nginx": "conf", "envoy": "yaml"}[proxy]
    path = os.path.join(HERE, "peers", f"{proxy}{'' if profile.mode == 'http' else '-' + profile.mode}.{ending}")
    return path if os.path.exists(path) else None


def modules():
    """Returns the folder of nginx's modules, as `nginx -V` names it."""
    told = subprocess.run([binary("nginx") or "true", "-V"], capture_output=True, text=True, check=False).stderr
    paths = [w.partition("=")[2] for w in told.split() if w.startswith("--modules-path=")]
    return paths[0] if paths else "/usr/lib/nginx/modules"


def header(proxy, profile):
    """Returns the words that make a peer send a PROXY protocol header."""
    words = {"haproxy": "send-proxy-v2", "nginx": "proxy_protocol on;"}
    return words.get(proxy, "") if profile.proxy_protocol else ""


def command(proxy, profile, folder, ports):
    """Writes the proxy's files into `folder`; returns the command line. `ports`: host, plain, tls, admin."""
    if proxy == "pushgate":
        render.ADDR, render.PORT, render.TLS_PORT, render.ADMIN_PORT = (ports[k] for k in ("host", "plain", "tls", "admin"))
        for name, text in render.render(profile, folder).items():
            write(os.path.join(folder, name), text)
        return render.command(PUSHGATE, profile, folder)
    named = {f"node{i + 1}": f"{ip}:{port}" for i, (_, ip, port) in enumerate(profile.nodes)}
    named |= {f"node{i + 1}_ip": ip for i, (_, ip, _) in enumerate(profile.nodes)}
    more = {"node_port": profile.nodes[0][2], "certificates": profile.cert_dir, "folder": folder, "modules": modules(),
            "header": header(proxy, profile), "splice": "option splice-auto" if profile.splice else "",
            "connections": profile.connections,
            **({"alpn": "h2,http/1.1", "http2": " http2", "codec": "AUTO"} if profile.h2 else {"alpn": "http/1.1", "http2": "", "codec": "HTTP1"})}
    if proxy == "pingora":
        at = [f"{ports['host']}:{ports[k]}" for k in ("plain", "tls")]
        files = [os.path.join(profile.cert_dir, f"host0.{end}") for end in ("crt", "key")]
        return [PINGORA, *at, *files, *(f"{ip}:{port}" for _, ip, port in profile.nodes)]
    source = template(proxy, profile)
    with open(source, encoding="utf-8") as f:
        text = string.Template(f.read()).substitute(ports, **named, **more)
    path = os.path.join(folder, os.path.basename(source))
    write(path, text)
    return [binary(proxy)] + {
        "haproxy": ["-f", path, "-db"],
        "nginx": ["-p", folder, "-c", path, "-e", folder + "/error.log"],
        "envoy": ["-c", path, "--concurrency", "1", "-l", "error", "--disable-hot-restart"],
    }[proxy]


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
