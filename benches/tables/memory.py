"""Connections on which nothing passes: the proxy's memory for each."""
from . import BOTH, Column, Table, number


def columns(o):
    return [Column(f"{wire}, {word}", ["silent", "--wire", wire, "--count", o.silent], tls)
            for wire in ("ws", "chunked") for word, tls in BOTH] + [
        Column(f"held poll, {word}", ["silent", "--held", "--count", o.silent], tls) for word, tls in BOTH] + [
        Column("HTTP/2, TLS", ["silent", "--h2", "--wire", "chunked", "--count", o.silent], True, {"h2": True})]


def text(r, _direct):
    return number((r.median("bytes_each") or 0) / 1024, 1)


TABLES = [
    Table("silent", 40, "{silent:,} silent WebSockets, streams silent after their first message, and polls not answered yet: KiB of the proxy's memory (PSS) each",
          columns, text, ratio="bytes_each"),
]
