"""Puts pydantic's errors into words: what is wrong, what would be right, and which key is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.older_names import OlderNames
from orchestrator.suggestion import nearest, suggest

Location: TypeAlias = tuple[str | int, ...]

_SHOWN_CHARACTERS = 60
_SHOULD = re.compile(r"(Input|String|List|Tuple|Set|Dictionary|Value|Number) should ")


@dataclass(frozen=True)
class YamlProblem:
    """What is wrong with the value at a path, or with the key itself (`at_key`)."""

    path: Location
    wrong: str
    right: str
    at_key: bool = False


def dotted(path: Location) -> str:
    """A path as people write it: `steps[2].plug.to`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{printable(part)}" for part in path)
    return text.removeprefix(".") or "the file"


def printable(key: str) -> str:
    """A key as it is, or quoted where it has characters that a terminal would obey."""
    return key if key.isprintable() else repr(key)


def shown(value: object) -> str:
    """A value as it is quoted in a message: short, on one line."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "empty"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."


def explain(
    error: ValidationError,
    model: type[BaseModel],
    exists: Callable[[Location], bool],
    text_at: Callable[[Location], str],
    at: Location = (),
) -> list[YamlProblem]:
    """The faults of a value that stands at path `at` and was validated as a `model`.

    `exists` says whether the file has a value at a path, `text_at` how a scalar there was written.
    Faults of several branches of one union become one.
    """
    faults: dict[tuple[Location, str], YamlProblem] = {}
    for details in error.errors(include_url=False):
        path = at
        for part in details["loc"]:  # without what pydantic adds for the branch of a union
            written = next((one for one in (part, *_older(model, part)) if exists((*path, one))), None)
            if written is not None:
                path = (*path, written)
        fault = _fault(details, model, path, text_at)
        key = (fault.path, fault.wrong)
        before = faults.get(key)
        if before is not None and fault.right not in before.right:
            fault = replace(fault, right=f"{before.right} or {fault.right.removeprefix('it should be ')}")
        faults[key] = fault
    return list(faults.values())


def _older(model: type[BaseModel], part: str | int) -> Iterator[str]:
    """The names that a field of a model had, which a file may still have."""
    if issubclass(model, OlderNames):
        yield from (older for older, field in model.older_names.items() if field == part)


def _fault(
    details: ErrorDetails, model: type[BaseModel], path: Location, text_at: Callable[[Location], str]
) -> YamlProblem:
    kind, loc, value = details["type"], details["loc"], details["input"]
    if kind == "missing":
        return YamlProblem(path, f"{dotted(path)} has no key {loc[-1]!r}", f"add `{loc[-1]}: ...`")
    if kind == "extra_forbidden":
        key = str(loc[-1])
        wrong = f"unknown key {key!r} in {dotted(path[:-1])}"
        return YamlProblem(path, wrong, suggest(key, _keys_at(model, loc[:-1])), at_key=True)
    is_key = bool(loc) and loc[-1] == "[key]"
    if kind in ("value_error", "assertion_error"):
        reason = str(details.get("ctx", {}).get("error", details["msg"]))
        wrong, _, right = reason.partition("; ")
        return YamlProblem(path, f"{dotted(path)}: {wrong}", right, at_key=is_key)
    if is_key:
        wrong = f"{dotted(path[:-1])}: bad name {str(value)!r}"
        return YamlProblem(path, wrong, _should(details["msg"]), at_key=True)
    return YamlProblem(path, f"{dotted(path)} is {shown(value)}", _right(details, model, path, text_at))


def _right(
    details: ErrorDetails, model: type[BaseModel], path: Location, text_at: Callable[[Location], str]
) -> str:
    kind, value = details["type"], details["input"]
    if kind == "string_type" and isinstance(value, int | float):
        return f'write it in quotes: "{text_at(path) or value}"'
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        known = _keys_at(model, details["loc"])
        return "it should be a mapping" + (f" with keys of: {', '.join(known)}" if known else "")
    if kind in ("list_type", "tuple_type"):
        return "it should be a list"
    if kind in ("literal_error", "enum"):
        expected = str(details.get("ctx", {}).get("expected", ""))
        near = nearest(str(value), re.findall(r"'([^']*)'", expected))
        return f"it should be {expected}" + (f"; did you mean {near!r}?" if near else "")
    return _should(details["msg"])


def _should(message: str) -> str:
    return _SHOULD.sub("it should ", re.split(", unable to|, got| after validation", message, maxsplit=1)[0])


def _keys_at(model: type[BaseModel], loc: Location) -> list[str]:
    """The keys that a mapping at `loc` of a `model` may have; none where they are free."""
    candidates: list[Any] = [model]
    for part in loc:
        below = [inner for candidate in candidates for inner in _below(candidate, part)]
        candidates = below or candidates  # the part names a branch of a union
    found: dict[str, None] = {}
    for candidate in candidates:
        for inner in _unwrapped(candidate):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                found |= dict.fromkeys(field.alias or name for name, field in inner.model_fields.items())
    return list(found)


def _below(annotation: object, part: str | int) -> Iterator[object]:
    for inner in _unwrapped(annotation):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            for name, field in inner.model_fields.items():
                if part == (field.alias or name):
                    yield field.annotation
        elif isinstance(part, int):
            yield from (arg for arg in get_args(inner) if arg is not Ellipsis)
        else:
            yield from get_args(inner)[1:]  # the values of a mapping


def _unwrapped(annotation: object) -> Iterator[object]:
    if get_origin(annotation) is Annotated:
        yield from _unwrapped(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _unwrapped(branch)
    else:
        yield annotation
