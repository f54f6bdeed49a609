"""Ordinary requests: the cost of one on a kept connection, and on a connection of its own."""
from . import BOTH, Column, Table


def columns(o):
    args = ["requests", "--count", 64, "--seconds", o.seconds]
    short = [Column(word, args, tls) for word, tls in BOTH]
    long = [Column(f"browser head, {word}", [*args, "--browser"], tls) for word, tls in BOTH]
    return short + long + [Column("HTTP/2, TLS", [*args, "--h2"], True, {"h2": True})]


def connections(o):
    return [Column(word, ["connections", "--count", o.connections], tls) for word, tls in BOTH]


def text(r, _direct):
    # If the proxy did not fill its core, the load program was the limit.
    idle = (r.median("proxy_busy") or 1) < 0.95
    return f"{r.text('per_second')}{'*' if idle else ''} / {r.text('cpu_us_per_1000')}"


TABLES = [
    Table("requests", 10, "Requests of 1 KiB, 64 kept connections: requests/s / CPU µs per 1,000 "
          "(`*`: the proxy did not fill its core, the load was the limit)", columns, text, ratio="cpu_us_per_1000"),
    Table("connections", 11, "Layer 7, {connections:,} connections of one request of 1 KiB: CPU µs each", connections,
          lambda r, _: r.text("cpu_us_each"), ratio="cpu_us_each"),
]
