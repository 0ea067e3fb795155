"""Options that several verbs have: each is declared here, once."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from orchestrator.cli.complete import complete_arms_of_scenario
from orchestrator.errors import BadInputError
from orchestrator.suggestion import nearest
from orchestrator.units import parse_duration

Command = TypeVar("Command", bound=Callable[..., Any])


class Choice(click.Choice[str]):
    """One of some words; the message for a mistyped one suggests the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        near = nearest(str(value), [str(choice) for choice in self.choices])
        message = super().get_invalid_choice_message(value, ctx)
        return f"{message} Did you mean {near!r}?" if near else message


class Renamed(click.Option):
    """An option whose last names are those of an older version: accepted, and left out of `--help`."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        shown = copy(self)
        shown.opts = self.opts[:1]
        return super(Renamed, shown).get_help_record(ctx)


LEAST_INTERVAL_SECONDS: Final = 1


def results_option(command: Command) -> Command:
    """`--results`: where run folders are, and where new ones are made."""
    return click.option(
        "--results",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help="Folder of run folders.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`; what it prints is listed in docs/json.md."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


def watch_option(command: Command) -> Command:
    """`--watch`: again and again, every so many seconds; None for once."""
    return click.option(
        "--watch", "every", metavar="TIME", callback=_interval, help="Again and again, as `30s`."
    )(command)


def guests_dir_option(command: Command) -> Command:
    """`--guests-dir`."""
    return click.option(
        "--guests-dir",
        type=click.Path(path_type=Path),
        help="Folder of guest definitions, else `guests` beside or above the scenario, else the shipped one.",
    )(command)


def connect_option(command: Command) -> Command:
    """`--connect`."""
    return click.option(
        "--connect",
        metavar="URI",
        help="libvirt connection URI, such as qemu:///system or qemu+ssh://root@HOST/system, or `lab`. "
        "Default: libvirt's embedded driver, in this process.",
    )(command)


def fleet_option(command: Command) -> Command:
    """`--fleet` of verbs that can have a fleet do it."""
    return click.option(
        "--fleet",
        "fleet_file",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Have the hosts of a fleet do the trials: its fleet.toml.",
    )(command)


def fleet_file_option(command: Command) -> Command:
    """`--fleet` of verbs that are a fleet's own."""
    return click.option(
        "--fleet",
        "fleet_file",
        metavar="FILE",
        type=click.Path(dir_okay=False, path_type=Path),
        default=Path("fleet.toml"),
        show_default=True,
        help="The fleet's configuration, beside its certificates.",
    )(command)


def force_option(command: Command) -> Command:
    """`--force` of verbs that write a file: see `may_write`."""
    return click.option("--force", is_flag=True, help="Replace a file of another kind.")(command)


def may_write(path: Path, ours: Callable[[Path], bool], what: str, *, force: bool) -> None:
    """Refuse, before the work, to write over a file that is not what `what` says: raises BadInputError.

    A file of the same kind (`ours`) is replaced, as `baseline -o` does; any other only with `force`.
    """
    if path.is_dir():
        raise BadInputError(f"{path} is a folder", hint="give the name of a file in it")
    if path.exists() and not force and not ours(path):
        raise BadInputError(
            f"{path} exists and is not {what}", hint="give another name, or --force to replace it"
        )


def duration_of(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    """An option's value in seconds, as a callback of click."""
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _interval(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    seconds = duration_of(ctx, parameter, text)
    if seconds is not None and seconds < LEAST_INTERVAL_SECONDS:
        raise click.BadParameter(f"less than {LEAST_INTERVAL_SECONDS}s would disturb what it looks at")
    return seconds


def arms_option(command: Command) -> Command:
    """`--arm`: some of a scenario's arms; none given are all."""
    return click.option(
        "--arm",
        "arms",
        metavar="NAME",
        multiple=True,
        shell_complete=complete_arms_of_scenario,
        help="Only this arm of the scenario; repeatable.",
    )(command)
