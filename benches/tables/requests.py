"""Ordinary requests on kept connections: what a request costs that is no stream."""
from . import BOTH, Column, Table


def columns(o):
    return [Column(word, ["requests", "--count", 64, "--seconds", o.seconds], tls) for word, tls in BOTH]


def text(r, _direct):
    # The load side was the limit where the proxy did not fill its core.
    idle = (r.median("proxy_busy") or 1) < 0.95
    return f"{r.text('per_second')}{'*' if idle else ''} / {r.text('cpu_us_per_1000')}"


TABLES = [
    Table("requests", 10, "Requests of 1 KiB, 64 kept connections: requests/s / CPU µs per 1,000 "
          "(`*`: the proxy did not fill its core, the load was the limit)", columns, text, ratio="cpu_us_per_1000"),
]
