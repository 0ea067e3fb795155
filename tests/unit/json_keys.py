"""Keys of `--json` documents that have classes, and older names of keys, as docs/json.md has them: written
from these classes, and from what prints the older names.

`python tests/unit/json_keys.py` writes the tables again.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from orchestrator.export.document import RunDocument
from orchestrator.export.live_document import LiveDocument
from orchestrator.export.older_keys import OLDER_KEYS, REMOVED_IN

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"
OLDER_BEGIN, OLDER_END = "<!-- older keys -->\n", "<!-- end older keys -->"
DOCUMENTS: dict[str, type[BaseModel]] = {"show": RunDocument, "blame live": LiveDocument}
END = "<!-- end keys -->"

_WORDS = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): "null", Any: "any"}


def documented(kind: type[Any] = RunDocument, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(path, type, meaning) of every key, in the order of the document."""
    for name, annotation, text in _fields(kind):
        inner, many = _inner(annotation)
        path = f"{prefix}{name}{'[]' * many}"
        about = " ".join(text.split())
        if about == "" and _nested(inner):
            about = " ".join((inner.__doc__ or "").split("\n\n", maxsplit=1)[0].split())
        yield path, _words(annotation), about
        if _nested(inner):
            yield from documented(inner, f"{path}.")


def _fields(kind: type[Any]) -> Iterator[tuple[str, Any, str]]:
    hints = typing.get_type_hints(kind)
    if issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            yield name, hints[name], field.description or ""
    else:
        for name in kind.__dataclass_fields__:
            yield name, hints[name], ""


def _inner(annotation: Any) -> tuple[Any, bool]:
    """What a list is of, or what may be null; and whether it is a list."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple:
        return parts[0], True
    if origin in {types.UnionType, typing.Union}:
        (first, *_) = (part for part in parts if part is not type(None))
        return first, False
    return annotation, False


def _nested(inner: Any) -> bool:
    return isinstance(inner, type) and (issubclass(inner, BaseModel) or is_dataclass(inner))


def _words(annotation: Any) -> str:
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is tuple:
        return f"list of {_words(parts[0])}"
    if origin in {types.UnionType, typing.Union}:
        return " or ".join(_words(part) for part in parts)
    if origin is typing.Literal:
        return "text"
    return "object"


def table(kind: type[BaseModel]) -> str:
    """A table, in Markdown."""
    rows = (f"| `{path}` | {words} | {about} |" for path, words, about in documented(kind))
    return "\n".join(("| key | type | what it is |", "|---|---|---|", *rows)) + "\n"


def older_table() -> str:
    """The table of keys that have an older name, in Markdown."""
    verbs: dict[tuple[str, str], list[str]] = {}
    values: dict[tuple[str, str], str] = {}
    for verb, keys in OLDER_KEYS.items():
        for path, older in keys.items():
            row = f"{path.rpartition('.')[0]}.{older.name}".lstrip("."), path
            verbs.setdefault(row, []).append(f"`{verb}`")
            words = ", ".join(f"`{old}` for `{new}`" for new, old in older.values.items())
            values[row] = f"; values {words}" if words else ""
    rows = (
        f"| {', '.join(of)} | `{old}` "
        f"| deprecated alias of `{new}`, removed in `{REMOVED_IN}`{values[old, new]} |"
        for (old, new), of in verbs.items()
    )
    return "\n".join(("| `--json` of | older key | what it is |", "|---|---|---|", *rows)) + "\n"


def rendered(page: str) -> str:
    """The page with its tables as they should be."""
    for verb, kind in DOCUMENTS.items():
        begin = f"<!-- keys of {verb} --json -->\n"
        head, found, rest = page.partition(begin)
        assert found, f"docs/json.md has no place for the keys of {verb}"
        page = f"{head}{begin}{table(kind)}{END}{rest.partition(END)[2]}"
    head, _, rest = page.partition(OLDER_BEGIN)
    return f"{head}{OLDER_BEGIN}{older_table()}{OLDER_END}{rest.partition(OLDER_END)[2]}"


def undocumented(kind: type[BaseModel], printed: Mapping[str, Any]) -> set[str]:
    """Paths of a printed document that the table lacks; below mappings of names nothing is a key."""
    known = {path: words for path, words, _ in documented(kind)}
    free = tuple(
        f"{path}."
        for path, words in known.items()
        if words == "object" and not any(one.startswith(f"{path}.") for one in known)
    )
    return {path for path in paths(printed) if not path.startswith(free)} - set(known)


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """The paths of a printed document, as in the table; below mappings of names nothing is a key."""
    for key, one in value.items():
        many = isinstance(one, list)
        yield f"{prefix}{key}{'[]' * many}"
        for item in one if many else [one]:
            if isinstance(item, Mapping):
                yield from paths(item, f"{prefix}{key}{'[]' * many}.")


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
