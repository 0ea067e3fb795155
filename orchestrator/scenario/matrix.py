"""`matrix`: arms that are every combination of what the axes offer, written into the file as plain arms.

What follows then sees nothing but arms, and each value still knows where it was written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from pydantic import ValidationError

from orchestrator.errors import Problem
from orchestrator.scenario.model import MatrixFile
from orchestrator.suggestion import suggest
from orchestrator.yamlfile import Entry, Location, Node, YamlFile

_AXES: Location = ("matrix", "axes")
_EXCLUDE: Location = ("matrix", "exclude")


def expanded(file: YamlFile) -> tuple[YamlFile, list[Problem]]:
    """The file with the arms of its matrix before those that it names itself, and what is wrong with it."""
    if ("matrix",) not in file:
        return file, []
    entries = {key: entry for key, entry in file.root.entries.items() if key != "matrix"}
    try:
        MatrixFile.model_validate(file.data)
    except ValidationError as error:
        return _with(file, entries), file.problems(error, MatrixFile)
    arms = dict(_combinations(file))
    problems = _exclude(file, arms)
    own = entries.get("arms")
    for name, entry in (own.node.entries if own else {}).items():
        if name in arms:
            wrong = f"the matrix has an arm {name!r}, too"
            problems.append(file.problem(("arms", name), wrong, "give it another name", key=True))
        arms[name] = entry
    at = own or file.root.entries["matrix"]
    entries["arms"] = replace(at, node=replace(at.node, content=arms))
    return _with(file, entries), problems


def merged(base: Node, over: Node) -> Node:
    """`over` written over `base`: mappings key by key, everything else as a whole."""
    if not (isinstance(base.content, dict) and isinstance(over.content, dict)):
        return over
    entries = dict(base.content)
    for key, entry in over.content.items():
        below = entries.get(key)
        entries[key] = replace(entry, node=merged(below.node, entry.node)) if below else entry
    return replace(base, content=entries)


def _combinations(file: YamlFile) -> Iterator[tuple[str, Entry]]:
    """An arm for each combination, named by the names of what it combines, the first axis slowest."""
    axes = file.node(_AXES)
    choices = [axis.node.entries.items() for axis in (axes.entries if axes else {}).values()]
    for chosen in product(*choices):
        (_, entry), *others = chosen
        node = entry.node
        for _, other in others:
            node = merged(node, other.node) if other.node.content is not None else node
        yield "-".join(name for name, _ in chosen), replace(entry, node=node)


def _exclude(file: YamlFile, arms: dict[str, Entry]) -> list[Problem]:
    problems = []
    left_out = file.node(_EXCLUDE)
    for index, name in enumerate(left_out.plain() if left_out else ()):  # type: ignore[arg-type, var-annotated]  # a list of names, as MatrixFile has checked
        if arms.pop(name, None) is None:
            at = (*_EXCLUDE, index)
            problems.append(file.problem(at, f"the matrix has no arm {name!r}", suggest(name, list(arms))))
    return problems


def _with(file: YamlFile, entries: dict[str, Entry]) -> YamlFile:
    return replace(file, root=replace(file.root, content=entries))
