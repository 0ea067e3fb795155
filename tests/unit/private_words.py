"""Words that the glossary has replaced, and where a source file has one still."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# In any name.
_IN_NAMES: Final = re.compile(
    r"(?:^|_)(?:foretold|foretells?|confusions?|told|nobody|let_go|saw|stayed|judgements?)(?:_|$)",
    re.IGNORECASE,
)
# As the name of a field or of a key, where it says nothing by itself; a local variable may have it.
_AS_FIELD: Final = re.compile(
    r"^(?:said|alone|held|named|moved|apart|within|answer|verdict)$"
    r"|^(?:blocks|held)_(?:held|together|following|no_room|blocks)$|_within$"
)
_IN_PROSE: Final = re.compile(
    r"\b(?:foretold|foretells?|(?<!`)nobody(?!`)|lets? go|told apart|g[ia]ves? back|given back)\b",
    re.IGNORECASE,
)
# A key in JSON: of all names, these are what scripts see.
_AS_KEY: Final = re.compile(
    r"^(?:foretold\w*|confusion|told|said|alone|frees|held|named|moved|let_go|made|apart|stayed|verdict|word|words)$"
    r"|_(?:held|named|stayed|together|following|no_room)$"
)


def in_source(text: str) -> Iterator[str]:
    """Each name, field, key and sentence of a module of Python with such a word: `line: what`."""
    for node in ast.walk(ast.parse(text)):
        line = getattr(node, "lineno", 0)
        yield from (f"{line}: {name}" for name in _names(node) if _IN_NAMES.search(name))
        yield from (f"{line}: {name}" for line, name in _fields(node) if _AS_FIELD.search(name))
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _IN_PROSE.search(line):
            yield f"{number}: {found[0]}"


def in_prose(text: str) -> Iterator[str]:
    """The same of any other text."""
    for number, line in enumerate(text.splitlines(), start=1):
        if found := _IN_PROSE.search(line):
            yield f"{number}: {found[0]}"


def is_private_key(path: str) -> bool:
    """Whether the last key of a path in a JSON document is such a word."""
    return bool(_AS_KEY.search(path.rpartition(".")[2].removesuffix("[]")))


def _names(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name):
            return [name]
        case ast.keyword(arg=str(name)):
            return [name]
    return []


def _fields(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.ClassDef(body=body):
            for one in body:
                if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                    yield one.lineno, one.target.id
        case ast.Dict(keys=keys):
            for key in keys:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    yield key.lineno, key.value


def sources(root: Path) -> list[Path]:
    """What a reader of the package reads: modules, templates, scenarios, workloads, pages."""
    folders = ("orchestrator", "scenarios", "workloads", "playbooks", "guests", "docs")
    kinds = {".py", ".j2", ".yaml", ".c", ".h", ".md"}
    found = (path for folder in folders for path in (root / folder).rglob("*") if path.suffix in kinds)
    return sorted([*found, root / "README.md"])
