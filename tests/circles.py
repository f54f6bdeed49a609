#!/usr/bin/env python3
"""Counts circles of files and arrows that climb, in src/ and plugins/.

An arrow goes from a file to a file whose item it names in a `use` (`crate::`, `super::`, `self::`; a facade's
`pub use` is followed to the file that has the item). Tests, fuzz targets and `pub use` make no arrows.
A circle is a set of files that reach each other by arrows. An arrow climbs if it goes to a module that src/lib.rs
lists before its own; every module may use `config`. Prints both, and exits with 1 if there is one.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def without_tests(text):
    """The text up to its module of tests, without items that only tests have."""
    text = re.split(r"\n#\[cfg\(test\)\]\nmod tests\b", text)[0]
    return re.sub(r"#\[cfg\(test\)\]\n[^\n]*use [^;]*;", "", text)


def paths(tree):
    """The paths of a `use`, its braces undone."""
    tree = tree.strip()
    if "{" not in tree:
        return [tree.split(" as ")[0].strip()] if tree else []
    head, rest = tree.split("{", 1)
    body, parts, depth, part = rest.rsplit("}", 1)[0], [], 0, ""
    for c in body:
        depth += (c == "{") - (c == "}")
        if c == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += c
    return [head + p for one in parts + [part] for p in paths(one)]


class Crate:
    """The files of one crate, by the path of their module."""

    def __init__(self, folder):
        self.files, self.uses, self.exports = {}, {}, {}
        for file in folder.rglob("*.rs"):
            names = file.relative_to(folder).with_suffix("").parts
            if {"tests", "target", "fuzz"} & set(names) or names[-1].endswith("_tests") or names[-1] in ("fixtures", "testing", "fuzz", "fuzzing"):
                continue
            module = () if names in (("lib",), ("main",)) else names
            text = without_tests(file.read_text(encoding="utf-8"))
            self.files.setdefault(module, file.relative_to(ROOT))
            found = re.findall(r"^\s*(pub(?:\([^)]*\))? )?use ((?:crate|super|self)\b[^;]*);", text, re.M)
            self.uses[module] = [p for public, tree in found if not public for p in paths(tree)]
            self.exports[module] = [p for public, tree in found if public for p in paths(tree)]

    def absolute(self, module, path):
        parts = path.replace("\n", "").split("::")
        at = list(module)
        while parts and parts[0] in ("crate", "self", "super"):
            step = parts.pop(0)
            at = [] if step == "crate" else at[:-1] if step == "super" else at
        return (*at, *(p.strip() for p in parts))

    def file_of(self, path, seen=()):
        """The module that has the item at `path`."""
        for length in range(len(path), -1, -1):
            module = path[:length]
            if module not in self.files:
                continue
            if length < len(path) and module not in seen:
                for export in self.exports[module]:
                    target = self.absolute(module, export)
                    if target[-1] in (path[length], "*"):
                        return self.file_of(target[:-1] + path[length:], (*seen, module))
            return module
        return None

    def arrows(self):
        found = {}
        for module, uses in self.uses.items():
            targets = {self.file_of(self.absolute(module, use)) for use in uses}
            found[module] = {t for t in targets if t not in (None, module, ())}
        return found


def circles(arrows):
    """Sets of more than one file that reach each other (Tarjan's strongly connected components)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in arrows[v]:
            if w not in index:
                visit(w)
            if w in stack:
                low[v] = min(low[v], low[w])
        if low[v] == index[v]:
            at = stack.index(v)
            found.append(stack[at:])
            del stack[at:]

    for v in arrows:
        if v not in index:
            visit(v)
    return [c for c in found if len(c) > 1]


def main():
    sys.setrecursionlimit(10_000)
    round_, climbing = [], []
    for folder in ("src", "plugins"):
        crate = Crate(ROOT / folder)
        arrows = crate.arrows()
        round_ += [sorted(str(crate.files[m]) for m in c) for c in circles(arrows)]
        lib = (ROOT / folder / "lib.rs").read_text(encoding="utf-8")
        order = re.findall(r"^(?:pub )?mod (\w+);", lib, re.M)
        if folder == "src":
            for module, targets in arrows.items():
                for target in targets - {t for t in targets if t[0] == "config"}:
                    if module and module[0] in order and target[0] in order and order.index(target[0]) < order.index(module[0]):
                        climbing.append(f"{crate.files[module]} -> {crate.files[target]}")
    for circle in round_:
        print("circle:", ", ".join(circle))
    for arrow in sorted(climbing):
        print("climbs:", arrow)
    print(f"{len(round_)} circles, {len(climbing)} arrows that climb")
    return 1 if round_ or climbing else 0


sys.exit(main())
