"""docs/man/orchestrator.1, which a wheel installs: written from the command line's own help.

`python tests/unit/man_page.py` writes it again. (click-man 0.6 sees no verb that is imported when called,
cuts what each does at 45 characters, leaves out the exit codes, and lets click's marks and troff's through.)
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from inspect import cleandoc
from pathlib import Path

import click

from orchestrator.cli.main import cli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "man" / "orchestrator.1"
_ENVIRONMENT = {
    "ORCHESTRATOR_CACHE": "Folder of images, saved states, keys and compiled programs, else "
    "/var/cache/orchestrator for root and $XDG_CACHE_HOME/orchestrator or ~/.cache/orchestrator for others.",
    "NO_COLOR": "Set to anything: no colours.",
}


def man_page() -> str:
    """The page as troff takes it, with the macros of man(7)."""
    return "\n".join([*_lines(), ""])


def _lines() -> Iterator[str]:
    top = click.Context(cli, info_name="orchestrator")
    yield f'.TH ORCHESTRATOR 1 "" "orchestrator {metadata.version("orchestrator")}" "User Commands"'
    yield from (".SH NAME", f"orchestrator \\- {_text(metadata.metadata('orchestrator')['Summary'])}")
    yield from (".SH SYNOPSIS", ".B orchestrator", r"\fIVERB\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]")
    yield from (".SH DESCRIPTION", *_help(cli), *_options(top))
    yield from (".TP", r"\fB\-h, \-\-help\fR", "Show a help text and exit. Each verb has it, too.")
    yield ".SH VERBS"
    yield from _verbs(cli, top)
    yield ".SH ENVIRONMENT"
    for name, what in _ENVIRONMENT.items():
        yield from (".TP", f"\\fB{name}\\fR", _text(what))
    codes = (cli.epilog or "").removeprefix("Exit codes: ")
    yield ".SH EXIT STATUS"
    for code in codes.rstrip(".").split("; "):
        number, _, meaning = code.partition(" ")
        yield from (".TP", f"\\fB{number}\\fR", _text(meaning))


def _verbs(group: click.Group, parent: click.Context) -> Iterator[str]:
    for name in group.list_commands(parent):
        verb = group.get_command(parent, name)
        assert verb is not None
        if verb.hidden:
            continue
        here = click.Context(verb, info_name=name, parent=parent)
        yield f".SS {_text(' '.join([here.command_path, *verb.collect_usage_pieces(here)]))}"
        yield from (*_help(verb), *_options(here))
        if isinstance(verb, click.Group):
            yield from _verbs(verb, here)


def _help(verb: click.Command) -> Iterator[str]:
    """Paragraphs; those that click does not wrap (\\b) as they stand."""
    for paragraph in cleandoc(verb.help or "").split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        verbatim = lines[0] == "\b"
        yield ".PP"
        yield from [".nf", *map(_text, lines[1:]), ".fi"] if verbatim else map(_text, lines)


def _options(here: click.Context) -> Iterator[str]:
    for option in here.command.params:
        record = option.get_help_record(here) if isinstance(option, click.Option) else None
        if record is not None:
            yield from (".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1]))


def _text(text: str) -> str:
    """So that no character of it is one of troff's."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(man_page(), encoding="utf-8")
