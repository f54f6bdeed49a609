"""Prints the tables of a run as markdown: medians of the rounds, ratios with least and greatest.

In: the figures of every measurement. Out: text for a terminal and for benches/README.md.
"""
import datetime
import os
import platform
import statistics

import proxies
from tables import Rounds


def machine(o):
    """Returns one line with date, machine, versions and load."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    cpu = names[0] if names else platform.machine()
    placed = "placed by the kernel" if o.unpinned else "proxy and load on a core each"
    versions = ", ".join(proxies.version(p) for p in o.proxies if p != "direct")
    return (f"{datetime.date.today()}, {cpu}, {os.cpu_count()} cores, Linux {platform.release()}; {versions}; {placed}; "
            f"load average {o.load_before:.1f} before, {os.getloadavg()[0]:.1f} after; medians of {o.rounds} rounds of {o.seconds} s.")


def print_all(found, o):
    """Prints all tables. `found`: {(table, column, proxy): [figures of each round]}."""
    print(machine(o) + "\n")
    for table in o.tables:
        print_table(table, found, o)


def print_table(table, found, o):
    columns = table.columns(o)
    at = lambda column, proxy: Rounds(found.get((table.word, column, proxy), []))
    print(f"**{table.title.format(**vars(o))}**\n")
    print("| | " + " | ".join(c.name for c in columns) + " |\n|---|" + "---|" * len(columns))
    for proxy in table.of(o.proxies):
        if any(at(c.name, proxy) for c in columns) and not (proxy == "direct" and table.word == "hidden"):
            print(f"| {proxy} | " + " | ".join(cell(table, at(c.name, proxy), at(c.direct or c.name, "direct")) for c in columns) + " |")
    first = o.proxies[0]
    for peer in o.proxies[1:]:
        ratios = [ratio(at(c.name, first), at(c.name, peer), table.ratio) for c in columns]
        if table.ratio and peer != "direct" and any(r != "–" for r in ratios):
            print(f"| *{first} / {peer}* | " + " | ".join(ratios) + " |")
    print(flush=True)


def cell(table, rounds, direct):
    if not rounds:
        return "–"
    if rounds.error():
        return "failed: " + rounds.error().splitlines()[-1][:60]
    return table.text(rounds, direct)


def ratio(ours, theirs, key):
    """Returns median, least and greatest of the rounds' ratios: `0.93 [0.88, 1.02]`."""
    each = ours.ratios(theirs, key)
    if not each:
        return "–"
    middle = f"{statistics.median(each):.2f}"
    return middle if len(each) == 1 else f"{middle} [{min(each):.2f}, {max(each):.2f}]"
