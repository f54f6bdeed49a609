"""Layer 4: bulk, short connections and silent ones, compared with HAProxy's TCP mode and nginx stream.

Plain connections go to the default pool. TLS is passed through by the name in its ClientHello, which every
proxy reads. `PROXY`: each upstream connection begins with a PROXY protocol header, version 2; nginx
knows version 1 only.
"""
import resource

from . import Column, Table, number

COLUMNS = [("plain", False, False), ("plain, PROXY", False, True), ("passed through", True, False), ("passed through, PROXY", True, True)]
# Descriptors that a proxy needs besides two sockets for each connection.
SPARE_DESCRIPTORS = 300
# Extra rows with settings for bulk. HAProxy reserves descriptors for as many pipes as a quarter of its
# connections.
ROWS = {"pushgate, max_hidden: 1MiB": {"max_hidden": "1MiB"}, "haproxy, splice-auto": {"splice": True, "connections": 1_000}}


def most():
    """Returns how many silent connections the descriptors allow, at two sockets each; 10,000 at most."""
    return min(10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_DESCRIPTORS) // 2)


def column(name, args, passed, proxy):
    setup = {"mode": "tcp", "stick": "", "proxy_protocol": proxy, "passed": "bench.test", "connections": most() + 30}
    return Column(name, args, passed, setup)


def bulk(o):
    args = ["bulk", "--count", 4, "--seconds", o.seconds]
    return [column(name, args, passed, proxy) for name, passed, proxy in COLUMNS] + [column("plain, to the node", [*args, "--up"], False, False)]


def connections(o):
    return [column(name, ["connections", "--count", o.connections], passed, proxy) for name, passed, proxy in COLUMNS]


def silent(o):
    count = 400 if o.quick else most()
    return [column(name, ["silent", "--count", count, "--remote"], passed, proxy) for name, passed, proxy in COLUMNS if not proxy]


def kib(r, _direct):
    each = r.median("bytes_each")
    return number(None if each is None else each / 1024, 1)


TABLES = [
    Table("bulk4", 80, "Layer 4, 4 streams of bulk: CPU ms per GiB / MiB a second", bulk,
          lambda r, _: f"{r.text('cpu_ms_per_gib')} / {r.text('mib_per_second')}", ratio="cpu_ms_per_gib", rows=ROWS),
    Table("connections4", 81, "Layer 4, {connections:,} connections of one request of 1 KiB: CPU µs each", connections,
          lambda r, _: r.text("cpu_us_each"), ratio="cpu_us_each"),
    Table("silent4", 82, "Layer 4, 10,000 silent connections (or as many as descriptors allow): KiB of the proxy's memory (PSS) each",
          silent, kib, ratio="bytes_each", rounds=False),
]
