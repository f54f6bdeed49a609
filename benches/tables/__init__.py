"""What a table is. Each file of this folder that has `TABLES` adds to the run, by its own existence.

A table is a row for each proxy and a column for each measurement; a measurement is one run of the load
program, which answers with one line of JSON ("figures").
"""
import dataclasses
import importlib
import pkgutil
import statistics
import typing

BOTH = (("plain", False), ("TLS", True))


@dataclasses.dataclass
class Column:
    """One measurement."""
    name: str
    # Scenario of the load program and its options; --node, --to, --tls and --pid are added. With
    # --remote the nodes are a process of their own.
    args: list
    tls: bool = False
    # Fields of proxies.Profile in which the proxies are set up in another way, e.g. {"mode": "tcp"}.
    profile: dict = dataclasses.field(default_factory=dict)
    # The column of the same load without a proxy, where this one has none itself (TLS).
    direct: str = ""


@dataclasses.dataclass
class Table:
    """Columns that are shown together."""
    word: str           # names it on the command line
    order: int          # among the tables of a run
    title: str          # may name options, as in "{silent:,} WebSockets"
    columns: typing.Callable[[typing.Any], list]            # options -> columns
    text: typing.Callable[["Rounds", "Rounds"], str]        # figures, those without a proxy -> a cell
    # The figure of which the ratio to the other proxies is shown; less is better.
    ratio: str = ""
    rounds: bool = True     # measured in each round, not once
    direct: bool = False    # measured without a proxy as well
    # More rows of a proxy, "haproxy, splice-auto", with fields of proxies.Profile of their own.
    rows: dict = dataclasses.field(default_factory=dict)

    def of(self, some):
        """The rows of `some` proxies, in their order."""
        return [row for p in some for row in [p, *(r for r in self.rows if proxy_of(r) == p)]]


def proxy_of(row):
    """The proxy of a row."""
    return row.split(",")[0]


class Rounds:
    """The figures of one cell, one for each round."""

    def __init__(self, figures):
        self.figures = figures

    def __bool__(self):
        return bool(self.figures)

    def error(self):
        """The first error, or None."""
        return next((f["error"] for f in self.figures if "error" in f), None)

    def median(self, key):
        values = [f[key] for f in self.figures if f.get(key) is not None]
        return statistics.median(values) if values else None

    def text(self, key, digits=0):
        return number(self.median(key), digits)

    def ratios(self, other, key):
        """This by `other`, for each round that has both."""
        pairs = [(a.get(key), b.get(key)) for a, b in zip(self.figures, other.figures)]
        return [a / b for a, b in pairs if a is not None and b]


def number(value, digits=0):
    """A number for people."""
    return "–" if value is None else f"{value:,.{digits}f}"


def every():
    """All tables, in their order."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        found += importlib.import_module(f"{__name__}.{module.name}").TABLES
    return sorted(found, key=lambda t: t.order)
