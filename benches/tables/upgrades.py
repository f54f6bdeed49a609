"""Thousands of WebSocket upgrades: are messages after the 101 lost?"""
from . import BOTH, Column, Table


def columns(o):
    return [Column(f"{first} first, {word}", ["upgrades", "--count", o.upgrades, *flags], tls)
            for first, flags in (("server", []), ("client", ["--client-first"])) for word, tls in BOTH]


def text(r, _direct):
    # Sums of all rounds, because a median would hide a loss.
    lost, reordered = (sum(f.get(key, 0) for f in r.figures) for key in ("lost", "reordered"))
    return f"{lost} / {reordered} / {r.text('cpu_us_each')}"


TABLES = [
    Table("upgrades", 30, "{upgrades:,} WebSocket upgrades, 3 messages each: lost / reordered in all rounds / CPU µs per upgrade",
          columns, text, ratio="cpu_us_each"),
]
