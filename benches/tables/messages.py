"""Streams and WebSockets with periodic messages: CPU of a message, and its latency."""
from . import BOTH, Column, Table


def latency(o):
    return [Column(f"{wire}, {word}", ["messages", "--wire", wire, "--count", 4, "--every", 3, "--seconds", o.seconds], tls)
            for wire in ("chunked", "length") for word, tls in BOTH]


def messages(o):
    return [Column(f"{wire}, {word}", ["messages", "--wire", wire, "--count", o.streams, "--every", 250, "--seconds", o.seconds], tls)
            for wire in ("ws", "chunked") for word, tls in BOTH] + [
        Column(name, ["messages", "--h2", "--wire", wire, "--count", o.streams, "--every", 250, "--seconds", o.seconds], True, {"h2": True})
        for name, wire in (("HTTP/2, TLS", "chunked"), ("ws over HTTP/2, TLS", "ws"))]


def times(r, _direct):
    return f"{r.text('p50_us')} / {r.text('p99_us')}"


def costs(r, _direct):
    lost = (r.median("reordered") or 0) + (r.median("ended") or 0)
    return f"{r.text('cpu_us_per_1000')} / {r.text('p99_us')}" + (" (lost or reordered!)" if lost else "")


TABLES = [
    Table("latency", 20, "Chunks of 100 B every 3 ms, 4 streams: p50 / p99 µs from the node's write to the client's read",
          latency, times, ratio="p99_us", direct=True),
    Table("messages", 50, "Messages of 100 B, {streams:,} connections, one each 250 ms: CPU µs per 1,000 / p99 µs",
          messages, costs, ratio="cpu_us_per_1000", direct=True),
]
