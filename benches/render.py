"""Makes Pushgate's configuration for the profile of a bench.

In: a profile: any object with the fields mode, nodes, stick, cert_dir, n_certs, rsa_dir, health, tuned,
proxy_protocol, threads, table_size, and optionally max_hidden, passed, h2. Out: files, a command line, a
reload. benches/run.py uses it. Another benchmark that knows proxies by such adaptors can use it too.
"""
import json
import os
import signal

try:  # Inside another benchmark, its own constants and its own exception apply.
    from adaptors.base import ADDR, ADMIN_PORT, PORT, RSA_PORT, TLS_PORT, Unsupported
except ImportError:
    ADDR, PORT, TLS_PORT, RSA_PORT, ADMIN_PORT = "127.0.0.1", 21000, 21001, 21002, 22000

    class Unsupported(Exception):
        """Pushgate cannot do what the profile asks for."""


FILE = "pushgate.yaml"


def check(profile):
    """Raises Unsupported if Pushgate cannot serve the profile."""
    if profile.mode == "tcp" and profile.stick == "cookie":
        raise Unsupported("no cookies at layer 4")


def env(_profile):
    """Returns the environment variables that the edge needs in addition to the caller's."""
    return {}


def _certificates(profile):
    """Returns name -> files, for the ECDSA folder (one for each host name) and the RSA folder."""
    def pair(folder, host):
        return {"chain": f"{folder}/{host}.crt", "key": f"{folder}/{host}.key"}

    found = {}
    if profile.cert_dir:
        found |= {f"host{i}": pair(profile.cert_dir, f"host{i}") for i in range(profile.n_certs)}
    if profile.rsa_dir:
        found["rsa"] = pair(profile.rsa_dir, "host0")
    return found


def _plugins(profile):
    """Returns the plugins of a typical push site: stickiness, then forwarded."""
    stick = {
        "cookie": [{"sticky_cookie": {"name": "SRV", "max_age": "8h"}}],
        "source": [{"sticky_ip": {"mode": "table", "max_age": "8h", "capacity": profile.table_size}}],
    }.get(profile.stick, [])
    header = [{"proxy_protocol": {"version": 2}}] if profile.proxy_protocol else []
    return stick + header + ([{"forwarded": {}}] if profile.mode == "http" else [])


def _listeners(profile, certificates):
    common = {"mode": profile.mode, "to": "push", "plugins": _plugins(profile)}
    hidden = getattr(profile, "max_hidden", "") or ("4KiB" if profile.tuned else "")
    if hidden:
        common["max_hidden"] = hidden
    common["max_connections_per_client"] = common["max_flows_per_client"] = 1_000_000

    def listener(name, port, served=()):
        h2 = getattr(profile, "h2", False)
        also = {"h2_websocket": True} if h2 else {}
        tls = {"tls": {"certificates": list(served), "h2": h2, **also}} if served else {}
        return {"name": name, "bind": [f"{ADDR}:{port}"], **common, **tls}

    made = [listener("plain", PORT)]
    passed = getattr(profile, "passed", "")
    if passed:
        by_name = {"sni_route": {"names": {passed: "push"}}}
        return made + [{**listener("passed", TLS_PORT), "plugins": [by_name, *common["plugins"]]}]
    by_sni = [name for name in certificates if name != "rsa"]
    if by_sni:
        made.append(listener("tls", TLS_PORT, by_sni))
    if "rsa" in certificates:
        made.append(listener("rsa", RSA_PORT, ["rsa"]))
    return made


def render(profile, _folder):
    """Returns {file name: text}. The text is JSON, which is also YAML."""
    certificates = {} if getattr(profile, "passed", "") else _certificates(profile)
    pool = {"nodes": [name for name, _, _ in profile.nodes], "balance": "round_robin"}
    if profile.health:
        probe = {"tcp": {}} if profile.mode == "tcp" else {"http": {"path": "/health"}}
        pool["health"] = {**probe, "interval": "1s", "timeout": "1s", "rise": 2, "fall": 2}
    whole = {
        "admin": {"bind": f"{ADDR}:{ADMIN_PORT}"},
        "threads": profile.threads,
        # All clients of a bench have one address.
        "client_share": "100%",
        "nodes": {name: {"address": f"{ip}:{port}"} for name, ip, port in profile.nodes},
        "pools": {"push": pool},
        "listeners": _listeners(profile, certificates),
    }
    if certificates:
        whole["certificates"] = certificates
    return {FILE: json.dumps(whole, indent=1) + "\n"}


def command(binary, _profile, folder):
    """Returns the command line; the configuration is in `folder`."""
    return [binary, "run", "-c", os.path.join(folder, FILE)]


def reload(adaptor, _profile):
    """Makes the running edge reload its file."""
    adaptor.proc.send_signal(signal.SIGHUP)
