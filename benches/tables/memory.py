"""The proxy's memory for each connection: for silent ones, and for bulk."""
from . import BOTH, Column, Table, number


def columns(o):
    return [Column(f"{wire}, {word}", ["silent", "--wire", wire, "--count", o.silent], tls)
            for wire in ("ws", "chunked") for word, tls in BOTH] + [
        Column(f"held poll, {word}", ["silent", "--held", "--count", o.silent], tls) for word, tls in BOTH] + [
        Column(f"kept, {word}", ["silent", "--kept", "--count", o.silent], tls) for word, tls in BOTH] + [
        Column(name, ["silent", "--h2", "--wire", "chunked", "--count", o.silent, "--streams", streams], True, {"h2": True})
        for name, streams in (("HTTP/2, TLS", 1), ("100 streams each of HTTP/2, TLS", 100))]


def bulk(o):
    return [Column("plain", ["bulk_memory", "--count", o.bulk_streams, "--seconds", o.seconds])]


def text(r, _direct):
    return number((r.median("bytes_each") or 0) / 1024, 1)


def flowing(r, _direct):
    most = (r.median("bytes_each_most") or 0) / 1024
    return f"{text(r, None)} / {number(most, 1)} / {r.text('mib_per_second')}"


TABLES = [
    Table("silent", 40, "{silent:,} silent WebSockets, streams silent after their first message, polls not answered yet, and kept connections after an answer: KiB of the proxy's memory (PSS) each",
          columns, text, ratio="bytes_each"),
    Table("bulk_memory", 41, "{bulk_streams:,} HTTP streams of bulk at once: KiB of the proxy's memory (PSS) each, median / most of the window / MiB a second in all",
          bulk, flowing, ratio="bytes_each"),
]
