"""TLS: handshakes, live messages during a storm of handshakes, bulk."""
from . import BOTH, Column, Table

KEYS = (("P-256", {}), ("RSA-2048", {"cert_dir": "rsa"}))


def handshakes(o):
    args = ["handshakes", "--count", 16, "--seconds", o.seconds]
    full = [Column(f"full, {word}", args, True, setup) for word, setup in KEYS]
    return full + [Column("resumed, P-256", [*args, "--resume"], True)]


def storm(o):
    args = ["messages", "--wire", "ws", "--count", 20, "--every", 10, "--seconds", o.seconds]
    quiet = [Column("quiet", args, True)]
    return quiet + [Column(f"storm, {word}", [*args, "--storm", 32], True, setup) for word, setup in KEYS]


def bulk(o):
    return [Column(word, ["bulk", "--count", 4, "--seconds", o.seconds], tls) for word, tls in BOTH]


def shaken(r, _direct):
    share, failed = r.median("resumed_share"), r.median("failed") or 0
    full = "" if share in (0, 1, None) else f" ({share:.1%} resumed)"
    return f"{r.text('per_cpu_second')}{full}" + (f" ({failed} failed!)" if failed else "")


def late(r, _direct):
    beside = r.median("handshakes_per_second")
    return f"{r.text('p50_us')} / {r.text('p99_us')}" + (f" / {beside:,.0f}" if beside is not None else "")


TABLES = [
    Table("handshakes", 60, "TLS 1.3 handshakes, 16 clients at once: handshakes per CPU-second of the proxy", handshakes, shaken, ratio="cpu_us_each"),
    Table("storm", 61, "Messages of 100 B over TLS, 20 WebSockets, one each 10 ms, while 32 clients shake hands without pause: "
          "p50 / p99 µs / handshakes a second", storm, late, ratio="p99_us"),
    Table("bulk", 62, "4 HTTP streams of bulk: CPU ms per GiB / MiB a second", bulk,
          lambda r, _: f"{r.text('cpu_ms_per_gib')} / {r.text('mib_per_second')}", ratio="cpu_ms_per_gib"),
]
