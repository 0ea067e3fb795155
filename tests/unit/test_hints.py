"""What to type next: every command that the program proposes exists, with these options and arguments."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from orchestrator.cli.main import VERBS, cli
from orchestrator.doctor.debian import FIX  # installs something, and does not send on

PACKAGE = Path(__file__).parents[2] / "orchestrator"
# Where a command begins in a sentence: at its start, in backquotes, after `:` or the gap before words.
_COMMAND = re.compile(
    r"(?:^|`|: |   |, or: )orchestrator ([a-z].*?)(?=`|   |$|\n|\.$|, or: |; )", re.MULTILINE
)

_NO_COMMANDS = {"orchestrator guest"}  # what an ssh key is called


def strings(tree: ast.AST) -> Iterator[str]:
    """Every text of a module; what is filled in stands there as X."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else "X"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value


def commands() -> list[tuple[str, str]]:
    """File and command of each that is proposed anywhere in the package."""
    found = [
        (str(path.relative_to(PACKAGE)), match[1].strip())
        for path in sorted(PACKAGE.rglob("*.py"))
        for text in strings(ast.parse(path.read_text()))
        for match in _COMMAND.finditer(text)
        if text not in _NO_COMMANDS
    ]
    return sorted(set(found))


COMMANDS = commands()


def parsed(command: str) -> None:
    """Raise click's error for a command that is not understood, or lacks what it must have."""
    words = [word for word in shlex.split(command) if not word.startswith(">")]  # a shell's redirections
    found: click.Command = cli
    context = click.Context(cli)
    while isinstance(found, click.Group) and words:
        name = words.pop(0)
        below = found.get_command(context, name)
        if below is None:
            raise click.NoSuchCommand(name, ctx=context)
        found, context = below, click.Context(below, parent=context, info_name=name)
    if isinstance(found, click.Group):
        return
    dashes = words.index("--") if "--" in words else len(words)  # behind them is a command for a guest
    given, left, _ = found.make_parser(context).parse_args(words[:dashes])
    assert not left, f"too many arguments: {left}"
    if words:  # a verb alone is named rather than proposed, as in: made by `orchestrator baseline`
        lacking = [param.name for param in found.params if param.required and not _is_given(given, param)]
        assert not lacking


def _is_given(given: Mapping[str, object], param: click.Parameter) -> bool:
    value = given.get(param.name or "")
    values = value if isinstance(value, tuple) else (value,)
    return any(isinstance(one, str) for one in values)


def test_there_are_many() -> None:
    assert len(COMMANDS) > 30
    assert {command.split()[0] for _, command in COMMANDS} > {"clean", "doctor", "image", "list", "run"}


@pytest.mark.parametrize(("file", "command"), COMMANDS)
def test_the_command_exists(file: str, command: str) -> None:
    assert command.split(maxsplit=1)[0] in VERBS, file
    parsed(command)


@pytest.mark.parametrize(
    "command", ["lists", "list --nothing", "image lst", "show a b", "baseline RUN", "model trace --no"]
)
def test_a_command_that_leads_nowhere_would_be_found(command: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        parsed(command)


def test_doctor_sends_nobody_to_doctor() -> None:
    hints = [
        text
        for path in (PACKAGE / "doctor").glob("*.py")
        for text in strings(ast.parse(path.read_text()))
        if text.startswith("orchestrator doctor") and text not in {"orchestrator doctor", FIX}
    ]
    assert hints == []
