"""What every verb prints with: one console for results, one for progress and errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape

from orchestrator.errors import FileProblemsError, OrchestratorError, Problem
from orchestrator.printable import clean, printable
from orchestrator.store.layout import Status

# Of the document that `--json` of each verb prints: one more when a key goes or changes its meaning. `schema`
# prints a JSON schema, which names its format itself. docs/json.md lists them.
FORMATS: Final = {
    "audit": 1,
    "baseline": 1,
    "blame": 2,  # 1 called its format `1`
    "blame live": 1,
    "claims": 1,
    "claims run": 1,
    "clean": 1,
    "compare": 1,
    "doctor": 1,
    "fleet init": 1,
    "fleet status": 1,
    "gather": 1,
    "image build": 1,
    "image list": 1,
    "image remove": 1,
    "init": 1,
    "lab status": 1,
    "lab up": 1,
    "list": 1,
    "model calibrate": 1,
    "model compare": 1,
    "model guest": 1,
    "model overcommit": 2,  # 1 called its format `1`
    "model policies": 1,
    "model rebuild": 1,
    "model replay": 1,
    "model sweep": 1,
    "model tlb": 1,
    "model trace": 1,
    "plan": 2,  # 1 called its format `1`, as plan.json does
    "reclaim": 1,
    "report": 1,
    "resume": 1,
    "run": 1,
    "show": 1,
    "trial": 1,
    "validate": 1,
}

_COLOURS = {
    Status.COMPLETED: "green",
    Status.RUNNING: "cyan",
    Status.FAILED: "red",
    Status.KILLED: "red",
    Status.INTERRUPTED: "yellow",
    Status.UNKNOWN: "yellow",
}


def coloured(status: Status) -> str:
    """As rich has it."""
    return f"[{_COLOURS[status]}]{status.value}[/]"


def clean_text(text: object, limit: int = 80) -> str:
    """For a terminal: on one line, and printable."""
    return clean(text, limit)


class _Console(Console):
    """Prose is wrapped between words on a terminal, and not at all in a pipe, where a line is a line."""

    @property
    def soft_wrap(self) -> bool:
        return not self.is_terminal

    @soft_wrap.setter
    def soft_wrap(self, value: bool) -> None:
        """rich sets it once, before it knows of a terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As rich does. An error names standard output: the kernel's does not."""
        with _named(self):
            super().print(*objects, **options)


# rich honours NO_COLOR by itself; results go to stdout, everything else to stderr.
out = _Console(highlight=False)
err = _Console(stderr=True, highlight=False)


def print_json(document: Mapping[str, Any], verb: str = "") -> None:  # whatever JSON has
    """Machine-readable result: one JSON document on stdout, which names its format by the verb that runs, or
    that is given."""
    from orchestrator.export.older_keys import with_older_keys

    verb = verb or _verb()
    named = {"format": format_name(verb)}
    print_text(json.dumps(named | with_older_keys(verb, document) | named, indent=2))


def print_text(text: str) -> None:
    """Text for programs, as it is: rich would look at each of its lines."""
    with _named(out):
        out.file.write(f"{text}\n")
    flush_output()


def flush_output() -> None:
    """Have standard output take what was printed. Raises OSError, which names it."""
    with _named(out):
        out.file.flush()


@contextmanager
def _named(console: Console) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        error.filename = error.filename or ("standard error" if console.stderr else "standard output")
        raise


def format_name(verb: str) -> str:
    """`orchestrator.model.compare/1`."""
    return f"orchestrator.{verb.replace(' ', '.')}/{FORMATS[verb]}"


def _verb() -> str:
    """`model compare`, in the words of the command line."""
    names: list[str] = []
    context = click.get_current_context()
    while context.parent is not None:
        names.insert(0, context.command.name or "")
        context = context.parent
    return " ".join(names)


def print_next(words: str, console: Console = out) -> None:
    """What to type next; on one line however narrow the terminal, so that it can be copied."""
    console.print(f"[bold]next:[/] {escape(printable(words))}", soft_wrap=True)


def print_warnings(warnings: Iterable[str]) -> None:
    """What does not keep anything from going on."""
    for warning in warnings:
        err.print(f"[yellow]warning:[/] {escape(printable(warning))}")


def print_error(error: OrchestratorError) -> None:
    """What failed, where, the console's tail, and what to type next."""
    if isinstance(error, FileProblemsError):
        _print_problems(error.problems)
    else:
        err.print(f"[bold red]error:[/] {escape(printable(error.brief))}")
    if error.details:
        err.print(escape(printable(error.details)))
    if error.console_tail:
        err.print("[dim]--- end of the guest's console ---[/]")
        err.print(escape(printable(error.console_tail)))
        err.print("[dim]----------------------------------[/]")
    if error.hint:
        print_next(error.hint, err)


def _print_problems(problems: list[Problem]) -> None:
    # Editors look for file:line:column at the beginning of a line; and `:x:` in it is no emoji.
    for problem in problems:
        err.print(printable(str(problem)), markup=False, emoji=False)
    err.print(f"[bold red]{len(problems)} {'problem' if len(problems) == 1 else 'problems'}[/]")
