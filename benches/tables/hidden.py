"""A client that stops reading: how many bytes more than without a proxy its node can still write, and how
soon the node can write again when the client reads on."""
from . import BOTH, Column, Table, number

# HAProxy reserves descriptors for all connections that it may have.
LAYER4 = {"mode": "tcp", "stick": "", "connections": 1_000}


def columns(_o, word="hidden", *more):
    found = [Column(f"{wire}, {name}", [word, "--wire", wire, *more], tls, direct=f"{wire}, plain")
             for wire in ("ws", "chunked", "length") for name, tls in BOTH]
    return found + [Column("layer 4, plain", [word, "--wire", "length", *more], False, LAYER4)]


def resumes(o):
    return columns(o, "resume", "--count", 4 if o.quick else 16)


def text(r, direct):
    above = r.median("written_bytes") - (direct.median("written_bytes") or 0)
    stalled = all(f["stalled"] for f in r.figures)
    return number(above / 1024) + ("" if stalled else " and on")


def soon(r, _direct):
    return f"{r.text('resume_ms', 1)} / {r.text('resume_max_ms', 1)}"


TABLES = [
    Table("hidden", 60, "Stopped reader: KiB the node could write more than directly", columns, text, direct=True),
    Table("resume", 61, "Stopped reader: ms until the node can write again after it reads on, median / longest", resumes, soon, direct=True),
]
