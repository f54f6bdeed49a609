"""A client that stops reading: how much its node could still write, above a connection without a proxy."""
from . import BOTH, Column, Table, number


def columns(_o):
    return [Column(f"{wire}, {word}", ["hidden", "--wire", wire], tls, direct=f"{wire}, plain")
            for wire in ("ws", "chunked", "length") for word, tls in BOTH]


def text(r, direct):
    above = r.median("written_bytes") - (direct.median("written_bytes") or 0)
    stalled = all(f["stalled"] for f in r.figures)
    return number(above / 1024) + ("" if stalled else " and on")


TABLES = [
    Table("hidden", 60, "Stopped reader: KiB the node could write more than directly", columns, text, direct=True),
]
