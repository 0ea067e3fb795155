"""What every verb prints with: one console for results, one for progress and errors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestrator.errors import FileProblemsError, OrchestratorError, Problem
from orchestrator.printable import clean, printable
from orchestrator.store.layout import Status

# rich honours NO_COLOR and a pipe by itself; results go to stdout, everything else to stderr.
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

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


def print_json(value: Any) -> None:  # any JSON-able value
    """Machine-readable result: one JSON document on stdout."""
    out.out(json.dumps(value, indent=2, default=str), highlight=False)


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
        err.print(f"[bold]next:[/] {escape(error.hint)}")


def _print_problems(problems: list[Problem]) -> None:
    # Editors look for file:line:column at the beginning of a line; and `:x:` in it is no emoji.
    for problem in problems:
        err.print(printable(str(problem)), markup=False, emoji=False)
    err.print(f"[bold red]{len(problems)} {'problem' if len(problems) == 1 else 'problems'}[/]")
