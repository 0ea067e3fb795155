"""Text that is not even YAML, or too much of it; and pydantic's errors put at their places."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from orchestrator.errors import FileProblemsError
from orchestrator.yamlfile import load_yaml_model, parse_yaml, read_yaml


class Inner(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["one", "two"] = "one"
    count: Annotated[int, Field(ge=1)] = 1
    words: tuple[str, ...] = ()


class Outer(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid")

    named: dict[str, Inner] = Field(default_factory=dict)
    listed: list[Inner] = Field(default_factory=list)
    either: Inner | int = 0
    maybe: Inner | None = None

    @model_validator(mode="after")
    def _context_is_passed_on(self, info: ValidationInfo) -> Outer:
        if info.context:
            raise ValueError(f"context {info.context}; none")
        return self


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    """Every fault of a text, with the folder cut off."""
    path = tmp_path / "s.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FileProblemsError) as caught:
        load_yaml_model(path, Outer)
    assert caught.value.exit_code == 2
    return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]


def unreadable(text: str | bytes, expected: str) -> tuple[str | bytes, str]:
    """A whole file and its fault."""
    return text, f"s.yaml:{expected}"


UNREADABLE = [
    unreadable(
        "",
        "1:1: the file is empty; write keys and values, as in `version: 1`",
    ),
    unreadable(
        "# nothing\n",
        "1:1: the file is empty; write keys and values, as in `version: 1`",
    ),
    unreadable(
        "- a\n- b\n",
        "1:1: the top level is a list; write keys, as in `version: 1`",
    ),
    unreadable(
        "just text",
        "1:1: the top level is a single value; write keys, as in `version: 1`",
    ),
    unreadable(
        "a:\n\t- b\n",
        "2:1: not valid YAML: a tab cannot indent or begin a value; use spaces",
    ),
    unreadable(
        "a: [1, 2\n",
        "2:1: not valid YAML: a '[' or '{' is not closed, or a ',' is missing; close it, or add the ','",
    ),
    unreadable(
        "a: 'x\n",
        "2:1: not valid YAML: a quote is not closed; close it",
    ),
    unreadable(
        "a: @b",
        "1:4: not valid YAML: a value cannot begin with this character; put the value in quotes",
    ),
    unreadable(
        "a: b: c",
        "1:5: not valid YAML: a second ': ' in one line, or a wrong indentation; quote or indent",
    ),
    unreadable(
        "a: !!python/name:os.system x",
        "1:4: tag 'tag:yaml.org,2002:python/name:os.system' is not allowed; remove it; quotes make a text",
    ),
    unreadable(
        "a: &x [*x]",
        "1:8: alias *x refers to nothing that is complete before it; write &x before an earlier value",
    ),
    unreadable(
        "a: 1\n---\nb: 1\n",
        "2:1: a second document begins here; put one document into one file",
    ),
    unreadable(
        "<<: {a: 1}",
        "1:1: merge key '<<' is not supported; write the keys out",
    ),
    unreadable(
        "{{ name }}: 1",
        "1:1: a key is not a plain name; write `name: value`; quote a {template}",
    ),
    unreadable(
        "a: 1\nb: \x00",
        "2:4: character '\\x00' is not allowed in YAML; remove it",
    ),
    unreadable(
        "a: " + "9" * 5000,
        "1:4: the number is too long; write it shorter, or in quotes if it is a text",
    ),
    unreadable(
        "a: " + "[" * 40,
        "1:35: nested deeper than 32 levels; make it flatter",
    ),
    unreadable(
        b"a: 1\nb: \xc3\xa4\xff",
        "2:5: byte 0xff is not UTF-8; save it as UTF-8",
    ),
    unreadable(
        b"#" * ((1 << 20) + 1),
        "1:1: the file is larger than 1 MiB; such a file takes a few KiB; is this the right one?",
    ),
]


@pytest.mark.parametrize(("text", "expected"), UNREADABLE)
def test_unreadable_text_is_one_clear_fault(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert faults(tmp_path, text) == [expected]


def test_aliases_cannot_grow_without_bound(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    assert faults(tmp_path, "\n".join(lines)) == [
        "s.yaml:5:15: the file has more than 20000 values; make it smaller"
    ]


@pytest.mark.parametrize("name", ["missing.yaml", ".", "x\0y", "x" * 300])
def test_what_is_no_file_is_a_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileProblemsError):
        load_yaml_model(tmp_path / name, Outer)


def test_a_good_file_becomes_its_model(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("named:\n  a: {count: 0x10, words: [on, '7']}\nmaybe:\nlisted: [{kind: two}]\n")
    outer = load_yaml_model(path, Outer)
    assert outer.named == {"a": Inner(count=16, words=("on", "7"))}
    assert outer.maybe is None
    assert outer.listed == [Inner(kind="two")]


def test_scalars_follow_the_core_schema_of_yaml_1_2() -> None:
    plain = "[yes, on, 'true', true, False, 010, 0o10, 0x1F, -3, +4, 1e3, .5, 1., 6.10"
    plain += ", 1_0, 2024-01-01, .inf, ~, ]"
    file = parse_yaml(f"%YAML 1.1\n---\na: {plain}\nb:\n1: x\n~: y\n", "f")
    assert file.data == {
        "a": [
            *("yes", "on", "true", True, False, 10, 8, 31, -3, 4, 1000.0, 0.5, 1.0, 6.1),
            *("1_0", "2024-01-01", ".inf", None),
        ],
        "b": None,
        "1": "x",
        "~": "y",
    }


def test_every_fault_is_told_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
named:
  a: {knd: one, count: 0}
  b: [1]
  a: {}
listed:
  - kind: tow
  - words: text
  - words: [1.50]
either: {count: x}
maybe: 3
"""
    assert faults(tmp_path, text) == [
        "s.yaml:2:7: unknown key 'knd' in named.a; did you mean 'kind'?",
        "s.yaml:2:24: named.a.count is 0; it should be greater than or equal to 1",
        "s.yaml:3:6: named.b is a list; it should be a mapping with keys of: kind, count, words",
        "s.yaml:4:3: key 'a' appears twice; remove one; the first is at 2:3",
        "s.yaml:6:11: listed[0].kind is 'tow'; it should be 'one' or 'two'; did you mean 'two'?",
        "s.yaml:7:12: listed[1].words is 'text'; it should be a list",
        's.yaml:8:13: listed[2].words[0] is 1.5; write it in quotes: "1.50"',
        "s.yaml:9:9: either is a mapping; it should be a valid integer",
        "s.yaml:9:17: either.count is 'x'; it should be a valid integer",
        "s.yaml:10:8: maybe is 3; it should be a mapping with keys of: kind, count, words",
    ]


def test_repeated_keys_alone_are_faults(tmp_path: Path) -> None:
    assert faults(tmp_path, "maybe:\nmaybe:\nmaybe:\n") == [
        "s.yaml:2:1: key 'maybe' appears twice; remove one; the first is at 1:1",
        "s.yaml:3:1: key 'maybe' appears twice; remove one; the first is at 1:1",
    ]


def test_the_context_reaches_the_validators(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("either: 1\n")
    assert load_yaml_model(path, Outer).either == 1
    with pytest.raises(FileProblemsError, match=r"1:1: the file: context \{'x': 1\}; none"):
        load_yaml_model(path, Outer, context={"x": 1})


def test_a_byte_order_mark_and_windows_lines_do_no_harm(tmp_path: Path) -> None:
    assert faults(tmp_path, b"\xef\xbb\xbfeither: 1\r\nmaybe: 3\r\n") == [
        "s.yaml:2:8: maybe is 3; it should be a mapping with keys of: kind, count, words"
    ]


def test_messages_never_carry_what_a_terminal_would_obey(tmp_path: Path) -> None:
    text = '"\\e[31m": 1\nnamed: {"\\e]0;x": 1, "\\n": {"\\a": 2}}\nlisted: !%1b x\n'
    (fault,) = faults(tmp_path, text)  # a tag ends the reading
    assert fault.isprintable()
    text = text[: text.index("listed")]
    found = faults(tmp_path, text)
    assert len(found) == 3
    assert all(fault.isprintable() for fault in found)


def test_the_text_is_kept_as_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("a: 1 # why\n")
    assert read_yaml(path).text == "a: 1 # why\n"
