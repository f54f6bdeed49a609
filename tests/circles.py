#!/usr/bin/env python3
"""Lists circles between source files, and uses that go against the order of `src/lib.rs`.

Run from anywhere: `python3 tests/circles.py`. Exits with 1 if there is one. Prints what makes each arrow.

What is read: the files of `src/` and `plugins/`, without `main.rs`, without files and blocks under
`#[cfg(test)]` or `#[cfg(fuzzing)]`, without comments and strings.

What is an arrow, from file A to file B: A names an item of B by a path that begins with `crate::`,
`super::`, `self::` or one of A's own child modules, in a `use` or anywhere else. The arrow leads to the
file that defines the item: a name that a module only passes on (`use`, `pub use`) leads through it. So:
- `mod x;` alone is no arrow, and neither is a `pub use x::Item` whose name A does not use otherwise;
- a parent that uses an item of its child is an arrow, and a child that uses an item which its parent
  itself defines is the one back: together they are a circle.
Not seen: methods called on values of another file's type, `impl` blocks for such types, and modules that
a macro declares (the plugins in `plugins/lib.rs`).

(1) A circle is a set of files of which each reaches every other by arrows (a strongly connected
    component of two or more files).
(2) An arrow climbs if it leads from one module of `src/lib.rs` to one that is listed before it. `config`
    is open to every module, and may itself use only modules from which no arrows lead back to it.
"""

import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def strip(text):
    """The code of a file: no comments, no strings, no blocks for tests."""
    pattern = re.compile(
        r"//[^\n]*|/\*.*?\*/|r(#*)\".*?\"\1|b?\"(?:\\.|[^\"\\])*\"|b?'(?:\\.[^']*|[^\\'])'", re.S
    )
    text = pattern.sub(lambda m: '""' if m[0][0] in 'rb"' else " ", text)
    while True:
        found = re.search(r"#\[cfg\((?:test|fuzzing)\)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([^)]*\))? )?(mod \w+ )?", text)
        if not found:
            return text
        end = found.end()
        semicolon, brace = text.find(";", end), text.find("{", end)
        if brace < 0 or 0 <= semicolon < brace:
            end = semicolon + 1
        else:
            depth, end = 1, brace + 1
            while depth and end < len(text):
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
        text = text[: found.start()] + text[end:]


def expand(tree):
    """The paths of a `use` tree, each with the name it brings: `a::{b, c as d}`."""
    tree = tree.strip()
    brace = tree.find("{")
    if brace < 0:
        path, _, alias = (part.strip() for part in tree.partition(" as "))
        steps = [s.strip() for s in path.split("::")]
        return [(steps, alias or steps[-1])]
    head = [s for s in (s.strip() for s in tree[:brace].split("::")) if s]
    depth, start, parts = 0, brace + 1, []
    for i, c in enumerate(tree[brace:], brace):
        depth += {"{": 1, "}": -1}.get(c, 0)
        if (c == "," and depth == 1) or depth == 0:
            parts.append(tree[start:i])
            start = i + 1
        if depth == 0:
            break
    found = [entry for part in parts if part.strip() for entry in expand(part)]
    return [
        (head, head[-1] if name == "self" else name) if steps == ["self"] else (head + steps, name)
        for steps, name in found
    ]


class File:
    """A module: its own path, its children, what it passes on and what it names."""

    def __init__(self, crate, name, module, text):
        self.crate, self.name, self.module = crate, name, module
        self.children = set(re.findall(r"\bmod (\w+);", text))
        self.passes, self.uses = {}, []
        body = text
        for found in re.finditer(r"\b(pub(?:\([^)]*\))? )?use ([^;]+);", text):
            for steps, name in expand(" ".join(found[2].split())):
                self.uses.append((steps, name, bool(found[1])))
            body = body.replace(found[0], ";")
        self.body = re.sub(r"\bin (?:crate|super)(?:::\w+)*\s*\)", ")", body)
        self.globs = []
        for steps, name, _ in self.uses:
            if name == "*":
                self.globs.append(steps[:-1])
            else:
                self.passes[name] = steps


def read():
    """All files by crate and module path."""
    files = {}
    for crate, root in (("pushgate", "src"), ("plugins", "plugins")):
        texts = {}
        for folder, _, names in os.walk(os.path.join(ROOT, root)):
            for name in names:
                path = os.path.join(folder, name)
                if name.endswith(".rs") and name != "main.rs":
                    inside = os.path.relpath(path, os.path.join(ROOT, root))[:-3]
                    module = () if inside == "lib" else tuple(inside.split(os.sep))
                    with open(path, encoding="utf-8") as text:
                        texts[module] = (os.path.relpath(path, ROOT), text.read())
        tests = {
            module + (child,)
            for module, (_, text) in texts.items()
            for child in re.findall(r"#\[cfg\((?:test|fuzzing)\)\]\s*(?:pub(?:\([^)]*\))? )?mod (\w+);", text)
        }
        for module, (name, text) in texts.items():
            if not any(module[: len(test)] == test for test in tests):
                files[crate, module] = File(crate, name, module, strip(text))
    return files


def resolve(files, file, steps, seen=()):
    """The file that defines what `steps` names in `file`; `None`: something of another crate."""
    if (file.name, tuple(steps)) in seen:
        return None
    seen += ((file.name, tuple(steps)),)
    module, rest = file.module, list(steps)
    if rest[0] == "crate":
        module, rest = (), rest[1:]
    elif rest[0] == "pushgate_plugins" and file.crate == "pushgate":
        return resolve(files, files["plugins", ()], ["crate"] + rest[1:], seen)
    elif rest[0] in ("self", "super"):
        while rest and rest[0] in ("self", "super"):
            module = module[:-1] if rest[0] == "super" else module
            rest = rest[1:]
    elif rest[0] not in file.children:
        return None
    while rest and (file.crate, module + (rest[0],)) in files:
        module, rest = module + (rest[0],), rest[1:]
    target = files.get((file.crate, module))
    if target is None or not rest or rest[0] == "*":
        return target
    if rest[0] in target.passes:
        through = resolve(files, target, target.passes[rest[0]] + rest[1:], seen)
        return through or target
    for glob in target.globs:
        through = resolve(files, target, glob, seen)
        if through and through is not target and re.search(rf"\b{rest[0]}\b", through.body):
            return through
    return target


def arrows(files):
    """All arrows: from file, to file, and the paths that make it."""
    found = {}
    for file in files.values():
        named = []
        for steps, name, public in file.uses:
            if not public or re.search(rf"\b{re.escape(name)}\b", file.body):
                named.append(steps)
        heads = "|".join(sorted({"crate", "super", "self"} | file.children))
        for path in re.findall(rf"(?<![\w:])(?:{heads})(?:::\w+)+", file.body):
            named.append(path.split("::"))
        for steps in named:
            target = resolve(files, file, steps)
            if target and target is not file:
                found.setdefault((file.name, target.name), set()).add("::".join(steps))
    return found


def components(found):
    """Strongly connected components of two or more files (Tarjan), largest first."""
    below = {}
    for start, end in found:
        below.setdefault(start, set()).add(end)
    index, low, stack, result = {}, {}, [], []

    def visit(file):
        index[file] = low[file] = len(index)
        stack.append(file)
        for other in sorted(below.get(file, ())):
            if other not in index:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], index[other])
        if low[file] == index[file]:
            part = set(stack[stack.index(file):])
            del stack[stack.index(file):]
            if len(part) > 1:
                result.append(part)

    sys.setrecursionlimit(10_000)
    for file in sorted(below):
        if file not in index:
            visit(file)
    return sorted(result, key=lambda part: (-len(part), min(part)))


def climbs(files, found):
    """Arrows between modules of `src/lib.rs` against its order."""
    with open(os.path.join(ROOT, "src/lib.rs"), encoding="utf-8") as text:
        order = re.findall(r"\bmod (\w+);", strip(text.read()))
    place = {module: i for i, module in enumerate(order)}
    top = {f.name: f.module[0] for f in files.values() if f.crate == "pushgate" and f.module}
    between = {}
    for start, end in sorted(found):
        a, b = top.get(start), top.get(end)
        if a and b and a != b:
            between.setdefault((a, b), []).append((start, end))
    users = {"config"}
    while more := {a for a, b in between if b in users} - users:
        users |= more
    return {
        (a, b): list_
        for (a, b), list_ in between.items()
        if (b in users if a == "config" else b != "config" and place[b] < place[a])
    }


def main():
    files = read()
    found = arrows(files)
    circles, upward = components(found), climbs(files, found)
    print(f"{len(circles)} circles in {len(files)} files, {sum(map(len, upward.values()))} arrows that climb")
    for part in circles:
        print(f"  circle: {' '.join(sorted(part))}")
        for (start, end), paths in sorted(found.items()):
            if start in part and end in part:
                print(f"    {start} -> {end}: {', '.join(sorted(paths))}")
    for (lower, upper), list_ in sorted(upward.items()):
        print(f"  climbs: {lower} -> {upper}")
        for start, end in list_:
            print(f"    {start} -> {end}: {', '.join(sorted(found[start, end]))}")
    sys.exit(1 if circles or upward else 0)


if __name__ == "__main__":
    main()
