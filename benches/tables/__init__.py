"""Defines tables and columns. Each file in this folder adds the tables in its `TABLES` to the run.

A table has a row for each proxy and a column for each measurement. A measurement is one run of the load
program, which prints one line of JSON ("figures").
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
    # Scenario and options of the load program; run.py adds --node, --to, --tls and --pid. With
    # --remote the nodes are a process of their own.
    args: list
    tls: bool = False
    # Fields of proxies.Profile that differ from the default, e.g. {"mode": "tcp"}.
    profile: dict = dataclasses.field(default_factory=dict)
    # The column that has this load without a proxy, if this column itself has none (TLS).
    direct: str = ""


@dataclasses.dataclass
class Table:
    """A table: columns that are shown together."""
    word: str           # names it on the command line
    order: int          # among the tables of a run
    title: str          # may name options, as in "{silent:,} WebSockets"
    columns: typing.Callable[[typing.Any], list]            # options -> columns
    text: typing.Callable[["Rounds", "Rounds"], str]        # figures, those without a proxy -> a cell
    # The figure whose ratio to the other proxies is shown; less is better.
    ratio: str = ""
    rounds: bool = True     # measured in each round, not once
    direct: bool = False    # measured without a proxy as well
    # More rows of a proxy, such as "haproxy, splice-auto", each with its fields of proxies.Profile.
    rows: dict = dataclasses.field(default_factory=dict)

    def of(self, some):
        """Returns the rows of the proxies `some`, in their order."""
        return [row for p in some for row in [p, *(r for r in self.rows if proxy_of(r) == p)]]


def proxy_of(row):
    """Returns the proxy of a row."""
    return row.split(",")[0]


class Rounds:
    """The figures of one cell, for each round."""

    def __init__(self, figures):
        self.figures = figures

    def __bool__(self):
        return bool(self.figures)

    def error(self):
        """Returns the first error, or None."""
        return next((f["error"] for f in self.figures if "error" in f), None)

    def median(self, key):
        values = [f[key] for f in self.figures if f.get(key) is not None]
        return statistics.median(values) if values else None

    def text(self, key, digits=0):
        return number(self.median(key), digits)

    def ratios(self, other, key):
        """Returns this divided by `other`, for each round that has both."""
        pairs = [(a.get(key), b.get(key)) for a, b in zip(self.figures, other.figures)]
        return [a / b for a, b in pairs if a is not None and b]


def number(value, digits=0):
    """Formats a number for people."""
    return "–" if value is None else f"{value:,.{digits}f}"


def every():
    """Returns all tables, in their order."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        found += importlib.import_module(f"{__name__}.{module.name}").TABLES
    return sorted(found, key=lambda t: t.order)
