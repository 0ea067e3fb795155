"""YAML that people write, checked against a pydantic model, with line and column of every fault.

The input is not trusted: its size, depth and the growth of its aliases are bounded, tags are
refused, and what goes wrong is always a `FileProblemsError` that lists every fault found.

Scalars follow the core schema of YAML 1.2 (10.3.2): `on` and `yes` are text. Keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from ruamel.yaml.reader import ReaderError

from orchestrator.errors import FileProblemsError, Problem
from orchestrator.yaml_messages import Location, dotted, explain, printable

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 20_000  # with every alias written out
MAX_NUMBER_CHARACTERS = 40

Scalar: TypeAlias = str | int | float | bool | None
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands (1-based). `text` is how a scalar was written."""

    line: int
    column: int
    content: Scalar | tuple[Node, ...] | dict[str, Entry]
    text: str = ""
    size: int = 1  # nodes in it, with every alias written out

    def plain(self) -> object:
        """The value as dicts, lists and scalars."""
        if isinstance(self.content, tuple):
            return [node.plain() for node in self.content]
        if isinstance(self.content, dict):
            return {key: entry.node.plain() for key, entry in self.content.items()}
        return self.content

    @property
    def entries(self) -> dict[str, Entry]:
        """The keys of a mapping; none of anything else."""
        return self.content if isinstance(self.content, dict) else {}

    def child(self, part: str | int) -> Node | None:
        """The value under a key, or the item at an index."""
        if isinstance(self.content, dict) and part in self.content:
            return self.content[str(part)].node
        if isinstance(self.content, tuple) and isinstance(part, int) and part < len(self.content):
            return self.content[part]
        return None


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's place and its value."""

    line: int
    column: int
    node: Node


@dataclass(frozen=True)
class YamlFile:
    """A file that is well-formed; what it means is not yet checked.

    `repeated` are the keys that appear twice: whoever reads `data` reports them with the rest.
    """

    name: str
    root: Node
    text: str = ""
    repeated: tuple[Problem, ...] = ()

    @property
    def data(self) -> object:
        """The whole file as dicts, lists and scalars."""
        return self.root.plain()

    def node(self, path: Location) -> Node | None:
        """The value at a path of keys and indices, None where there is none."""
        node: Node | None = self.root
        for part in path:
            node = node.child(part) if node else None
        return node

    def __contains__(self, path: Location) -> bool:
        return self.node(path) is not None

    def problem(self, path: Location, wrong: str, right: str = "", *, key: bool = False) -> Problem:
        """A fault at the value of `path`, or at its key.

        Where the path leads nowhere, it is at the innermost value that there is on the way.
        """
        place: Node | Entry = self.root
        node = self.root
        for i, part in enumerate(path):
            child = node.child(part)
            if child is None:
                break
            last = i == len(path) - 1
            place = node.content[str(part)] if key and last and isinstance(node.content, dict) else child
            node = child
        return Problem(self.name, place.line, place.column, wrong, right)

    def problems(self, error: ValidationError, model: type[BaseModel], at: Location = ()) -> list[Problem]:
        """Every fault that pydantic found when it validated the part at path `at` as a `model`."""
        return [
            self.problem(fault.path, fault.wrong, fault.right, key=fault.at_key)
            for fault in explain(error, model, self.__contains__, self._text, at)
        ]

    def _text(self, path: Location) -> str:
        node = self.node(path)
        return node.text if node else ""


def raise_problems(problems: list[Problem]) -> None:
    """Raise FileProblemsError with the problems in the order of the file; nothing if none.

    What stands at one place and is put right in one way is one problem, however often it was found.
    """
    if problems:
        ordered = sorted(problems, key=lambda p: (p.file, p.line, p.column, p.wrong))
        once = {(p.file, p.line, p.column, p.right or p.wrong): p for p in reversed(ordered)}
        raise FileProblemsError(list(reversed(once.values())))


def load_yaml_model(path: Path, model: type[M], *, context: Mapping[str, Any] | None = None) -> M:
    """Read a YAML file into a pydantic model. Raises FileProblemsError with every fault.

    `context` is pydantic's validation context.
    """
    file = read_yaml(path)
    problems = list(file.repeated)
    try:
        loaded = model.model_validate(file.data, context=dict(context) if context else None)
    except ValidationError as error:
        raise_problems(problems + file.problems(error, model))
        raise
    raise_problems(problems)
    return loaded


def read_yaml(path: Path) -> YamlFile:
    """Read a file whose top level is a mapping. Raises FileProblemsError."""
    name = str(path)

    def fail(wrong: str, right: str, line: int = 1, column: int = 1) -> FileProblemsError:
        return FileProblemsError([Problem(name, line, column, wrong, right)])

    try:
        if not path.exists():
            raise fail("there is no such file", "check the path")
        if not path.is_file():
            raise fail("it is not a regular file", "give the path of a YAML file")
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise fail(f"it cannot be read: {error}", "give the path of a readable YAML file") from None
    if len(raw) > MAX_FILE_BYTES:
        raise fail("the file is larger than 1 MiB", "such a file takes a few KiB; is this the right one?")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8-sig", "replace")) + 1
        raise fail(f"byte {raw[error.start]:#04x} is not UTF-8", "save it as UTF-8", line, column) from None
    return parse_yaml(text, name)


def parse_yaml(text: str, name: str) -> YamlFile:
    """Parse text whose top level is a mapping; `name` is how the problems call it."""
    builder = _Builder(text, name)
    root = builder.document()
    return YamlFile(name, root, text, tuple(builder.problems))


class _Builder:
    """Makes nodes of the parser's events. Repeated keys are collected; all other faults end it."""

    def __init__(self, text: str, name: str) -> None:
        self.problems: list[Problem] = []
        self._text = text
        self._name = name
        self._events = self._guarded(YAML(typ="safe", pure=True).parse(text))
        self._anchors: dict[str, Node] = {}
        self._nodes = 0

    def document(self) -> Node:
        """The only document of the file, a mapping."""
        root: Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent) and root is not None:
                raise self._fault(event, "a second document begins here", "put one document into one file")
            if isinstance(event, NodeEvent):
                root = self._node(event, 1)
            if isinstance(event, StreamEndEvent):
                break
        if root is None or root.content is None:
            empty = Problem(
                self._name, 1, 1, "the file is empty", "write keys and values, as in `version: 1`"
            )
            raise FileProblemsError([*self.problems, empty])
        if not isinstance(root.content, dict):
            kind = "a list" if isinstance(root.content, tuple) else "a single value"
            problem = Problem(
                self._name,
                root.line,
                root.column,
                f"the top level is {kind}",
                "write keys, as in `version: 1`",
            )
            raise FileProblemsError([*self.problems, problem])
        return root

    def _guarded(self, events: Iterator[Event]) -> Iterator[Event]:
        try:
            yield from events
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            wrong, right = _syntax_words(error.problem or "", error.context or "")
            raise FileProblemsError(
                [*self.problems, Problem(self._name, line, column, wrong, right)]
            ) from None
        except ReaderError as error:
            before = self._text[: error.position]
            line, column = before.count("\n") + 1, error.position - before.rfind("\n")
            wrong = f"character {self._text[error.position]!a} is not allowed in YAML"
            problem = Problem(self._name, line, column, wrong, "remove it")
            raise FileProblemsError([*self.problems, problem]) from None
        except (YAMLError, ValueError) as error:  # such as an impossible %YAML directive
            problem = Problem(self._name, 1, 1, f"not valid YAML: {error}", "check the file's first lines")
            raise FileProblemsError([*self.problems, problem]) from None

    def _fault(self, event: Event, wrong: str, right: str) -> FileProblemsError:
        return FileProblemsError([*self.problems, Problem(self._name, *_place(event), wrong, right)])

    def _node(self, event: Event, depth: int) -> Node:
        if isinstance(event, AliasEvent):
            node = self._anchors.get(event.anchor)
            if node is None:
                wrong = f"alias *{event.anchor} refers to nothing that is complete before it"
                raise self._fault(event, wrong, f"write &{event.anchor} before an earlier value")
        else:
            if not isinstance(event, MappingStartEvent | SequenceStartEvent | ScalarEvent):
                raise self._fault(event, f"unexpected {type(event).__name__}", "check the indentation")
            if event.tag is not None:
                raise self._fault(
                    event, f"tag {str(event.tag)!r} is not allowed", "remove it; quotes make a text"
                )
            if depth > MAX_DEPTH:
                raise self._fault(event, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
            node = self._fresh(event, depth)
            if event.anchor is not None:
                self._anchors[event.anchor] = node
        self._nodes += node.size if isinstance(event, AliasEvent) else 1
        if self._nodes > MAX_NODES or node.size > MAX_NODES:
            raise self._fault(event, f"the file has more than {MAX_NODES} values", "make it smaller")
        return node

    def _fresh(self, event: MappingStartEvent | SequenceStartEvent | ScalarEvent, depth: int) -> Node:
        line, column = _place(event)
        if isinstance(event, MappingStartEvent):
            entries = self._entries(depth)
            return Node(line, column, entries, size=1 + sum(entry.node.size for entry in entries.values()))
        if isinstance(event, SequenceStartEvent):
            items = []
            while not isinstance(item := next(self._events), SequenceEndEvent):
                items.append(self._node(item, depth + 1))
            return Node(line, column, tuple(items), size=1 + sum(item.size for item in items))
        plain = event.implicit[0] and event.style is None
        if plain and _NUMBER.fullmatch(event.value) and len(event.value) > MAX_NUMBER_CHARACTERS:
            raise self._fault(
                event, "the number is too long", "write it shorter, or in quotes if it is a text"
            )
        return Node(line, column, _scalar(event.value) if plain else event.value, event.value)

    def _entries(self, depth: int) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        while not isinstance(key := next(self._events), MappingEndEvent):
            if not isinstance(key, ScalarEvent):
                raise self._fault(key, "a key is not a plain name", "write `name: value`; quote a {template}")
            line, column = _place(key)
            self._node(key, depth + 1)  # counts it, refuses a tag
            if key.value == "<<" and key.style is None:
                raise self._fault(key, "merge key '<<' is not supported", "write the keys out")
            node = self._node(next(self._events), depth + 1)
            if node.content is None and not node.text:  # the parser puts it at whatever comes next
                node = replace(node, line=line, column=column)
            if key.value in entries:
                first = entries[key.value]
                wrong = f"key {key.value!r} appears twice"
                right = f"remove one; the first is at {first.line}:{first.column}"
                self.problems.append(Problem(self._name, line, column, wrong, right))
            else:
                entries[key.value] = Entry(line, column, node)
        return entries


def _place(event: Event) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-FxoeE+.-]*")
_INT = re.compile(r"[-+]?[0-9]+")
_RADIX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {"": None, "~": None}
_WORDS |= dict.fromkeys(("null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)


def _scalar(text: str) -> Scalar:
    """What a plain scalar means in the core schema; infinities and NaN stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _RADIX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


# Part of the parser's words -> (what to say, what would be right).
_SYNTAX = (
    (r"found character '\t'", "a tab cannot indent or begin a value", "use spaces"),
    ("that cannot start any token", "a value cannot begin with this character", "put the value in quotes"),
    (
        "mapping values are not allowed",
        "a second ': ' in one line, or a wrong indentation",
        "quote or indent",
    ),
    ("could not find expected ':'", "a key has no ':' after it", "write `key: value`"),
    ("found unexpected end of stream", "a quote is not closed", "close it"),
    ("expected <block end>", "this does not fit what stands above it", "check the indentation"),
    ("expected ',' or", "a '[' or '{' is not closed, or a ',' is missing", "close it, or add the ','"),
)


def _syntax_words(problem: str, context: str) -> tuple[str, str]:
    for part, wrong, right in _SYNTAX:
        if part in problem:
            return f"not valid YAML: {wrong}", right
    words = ": ".join(part for part in (context, problem) if part)
    return f"not valid YAML: {words}", "check quotes and indentation here and in the line above"


__all__ = [
    "Entry",
    "Location",
    "Node",
    "YamlFile",
    "dotted",
    "load_yaml_model",
    "parse_yaml",
    "printable",
    "raise_problems",
    "read_yaml",
]
