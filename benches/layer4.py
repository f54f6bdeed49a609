"""The layer-4 tables of run.py: bulk, short connections and silent ones, beside HAProxy and nginx stream.

In: run.py's options, its Cell and addresses. Out: cells, a peer's configuration, a table's text. Plain
connections go by the default; TLS is passed through by the name in its ClientHello, which every proxy
reads. `PROXY`: each upstream connection begins with a PROXY protocol header, version 2; nginx knows
version 1 only.
"""
import os
import resource
import string

HERE = os.path.dirname(os.path.abspath(__file__))

TABLES = {
    "bulk4": "Layer 4, {bulk} streams of bulk: CPU ms per GiB / MiB a second",
    "connections4": "Layer 4, {connections:,} connections of one request of 1 KiB: CPU µs each",
    "silent4": "Layer 4, {silent4:,} silent connections: KiB of the proxy's memory (PSS) each",
}
# Rows of the bulk table besides the proxies as they are: what each can do when bulk is asked for.
ROWS = {"pushgate": ["pushgate", "pushgate, max_hidden: 1MiB"], "haproxy": ["haproxy", "haproxy, splice-auto"]}
COLUMNS = [("plain", False, False), ("plain, PROXY", False, True), ("passed through", True, False), ("passed through, PROXY", True, True)]
# What a proxy has open besides two sockets a connection.
SPARE_DESCRIPTORS = 160


def sizes(o):
    """Adds the tables' sizes to the options: as many silent connections as a process may hold, 10,000 at most."""
    o.bulk, o.connections = 4, 5_000
    o.silent4 = min(10_000, most_connections())
    if o.quick:
        o.connections, o.silent4 = 500, 400


def most_connections():
    """Connections a proxy may hold, with a socket to the client and one to the node each."""
    return (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_DESCRIPTORS) // 2


def cells(o, cell):
    """Every measurement, in the order of the tables."""
    out = []
    for column, passed, proxy in COLUMNS:
        setup = ("passed" if passed else "plain", proxy)
        out.append(cell("bulk4", column, ["bulk", "--count", o.bulk, "--seconds", o.seconds], passed, True, setup, ROWS))
        out.append(cell("connections4", column, ["connections", "--count", o.connections], passed, True, setup))
        if not proxy:
            out.append(cell("silent4", column, ["silent", "--count", o.silent4, "--remote"], passed, False, setup))
    out.append(cell("bulk4", "plain, to the node", ["bulk", "--up", "--count", o.bulk, "--seconds", o.seconds], False, True, ("plain", False), ROWS))
    return sorted(out, key=lambda c: list(TABLES).index(c.table))


def profile(row, setup):
    """Fields of run.py's Profile for one row of one setup."""
    _, proxy = setup
    hidden = row.partition("max_hidden: ")[2]
    return {"mode": "tcp", "stick": "", "proxy_protocol": proxy, "max_hidden": hidden, "passed": "bench.test"}


def peer(row, setup, places):
    """(file name, text) of HAProxy's or nginx's configuration."""
    _, proxy = setup
    # HAProxy reserves descriptors for as many pipes as a quarter of its connections.
    connections = 1_000 if "splice" in row else min(10_000, most_connections()) + 30
    if row.startswith("haproxy"):
        file, more = "haproxy-tcp.cfg", {"splice": "option splice-auto" if "splice" in row else "", "header": "send-proxy-v2" if proxy else ""}
    else:
        file, more = "nginx-stream.conf", {"header": "proxy_protocol on;" if proxy else ""}
    with open(os.path.join(HERE, "peers", file), encoding="utf-8") as f:
        return file, string.Template(f.read()).substitute(places, connections=connections, **more)


def text(table, m):
    """A cell of one of the tables; `m` gives the median of a figure."""
    if table == "bulk4":
        return f"{m('cpu_ms_per_gib')} / {m('mib_per_second')}"
    if table == "connections4":
        return m("cpu_us_each")
    return m("bytes_each", 1, 1024)
