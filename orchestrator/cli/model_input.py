"""What `model replay` and `model compare` read, and the options that they share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from orchestrator.cli.options import Choice, json_option, results_option
from orchestrator.cli.output import out
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError
from orchestrator.suggestion import suggest
from orchestrator.units import PAGE_BYTES, format_size, parse_size

if TYPE_CHECKING:
    from orchestrator.model.snapshot_trace import SnapshotPair
    from orchestrator.model.trace import Trace
    from orchestrator.store import Run, TrialFolder

ACTIONS = ("drop", "migrate", "compress", "swap")
READINGS = (
    "possible",
    "certain",
)  # model.snapshot_trace.TouchBound, which is not needed for --help


def keep_compiled() -> None:
    """Compiled code is kept in the cache: without, each command compiles a second or two for each policy."""
    from orchestrator.guest.cache import cache_dir
    from orchestrator.store.machine_code import keep_code

    keep_code(cache_dir() / "compiled")


def named_values(settings: tuple[str, ...], example: str) -> dict[str, str]:
    """`--set` of a command, each NAME=VALUE. Raises BadInputError for what is none."""
    pairs = [text.partition("=") for text in settings]
    if wrong := next(
        (text for text, (_, equals, _) in zip(settings, pairs, strict=True) if not equals), None
    ):
        raise BadInputError(f"--set {wrong}: write NAME=VALUE, as in {example}")
    return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Asked:
    """TARGET and the options that say what is read of it."""

    target: str
    results: Path
    trial: str | None
    touches: str | None


@dataclass(frozen=True)
class Touches:
    """A trace; and of a run, its pairs of snapshots by the label of the second of each."""

    trace: Trace
    pairs: tuple[tuple[str, SnapshotPair], ...] = ()
    idle: tuple[int, ...] = ()  # tables by for how many snapshots they were not touched for certain

    def about(self, budget: int) -> dict[str, Any]:
        """For --json."""
        found: dict[str, Any] = {
            "trace": self.trace.name,
            "tables": self.trace.tables_used,
            "events": len(self.trace),
            "assumption": self.trace.assumption,
            "budget_bytes": budget,
        }
        if self.pairs:
            found["snapshot_pairs"] = [{"snapshot": label, **asdict(pair)} for label, pair in self.pairs]
            found["idle_for_snapshots_at_most"] = list(self.idle)
        return found

    def say(self, budget: int) -> None:
        """The same for people."""
        used = self.trace.tables_used
        out.print(
            f"{escape(self.trace.name)}: {len(self.trace):,} events of {used:,} last-level tables "
            f"({format_size(used * PAGE_BYTES)}); {format_size(budget)} for them"
        )
        if self.pairs:
            table = plain_table()
            table.add_column("until snapshot")
            for title in ("tables", "allocated", "touched: at least", "at most", "unmapped"):
                table.add_column(title, justify="right")
            for label, pair in self.pairs:
                table.add_row(escape(label), *(f"{value:,}" for value in asdict(pair).values()))
            print_table(table)
        if self.trace.assumption:
            out.print(f"[dim]{escape(self.trace.assumption)}[/]")


def _size(_ctx: click.Context, _parameter: click.Parameter, text: str) -> int:
    size = _parsed(text)
    if size < PAGE_BYTES:
        raise click.BadParameter(f"{text} is less than one table (4KiB)")
    return size


def _sum(_ctx: click.Context, _parameter: click.Parameter, texts: tuple[str, ...]) -> int | None:
    """Room on all nodes: which of them a table goes to makes no difference to what is counted."""
    return sum(map(_parsed, texts)) if texts else None


def _parsed(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def shared_options(command: Any) -> Any:  # click's decorators are as untyped
    """Options of every replay."""
    for option in (
        json_option,
        results_option,
        click.option("--trial", metavar="TRIAL", help="Which trial of a run; else the first."),
        click.option(
            "--touches",
            type=Choice(READINGS),
            help="Of a run: whether an accessed bit that was set before is a touch; else `possible`.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option(
            "--other-node",
            metavar="SIZE",
            callback=_sum,
            multiple=True,
            help="Room on another node for tables that are migrated; once for each node; else without bound.",
        ),
        click.option(
            "--costs",
            "costs_file",
            type=click.Path(path_type=Path),
            help="Costs file of `model calibrate`; else the shipped costs.",
        ),
        click.option(
            "--budget", metavar="SIZE", callback=_size, required=True, help="Memory for last-level tables."
        ),
    ):
        command = option(command)
    return command


def read_touches(asked: Asked) -> Touches:
    """The trace in a file, or what the snapshots of a trial tell."""
    from orchestrator.store.trace_file import read_trace

    path = Path(asked.target)
    if not (path.is_file() or path.suffix == ".npz"):
        return _of_snapshots(trial_of(asked), asked.touches)
    for option, value in (("--trial", asked.trial), ("--touches", asked.touches)):
        if value is not None:
            raise BadInputError(f"{option} {value}: {path} is a trace, and no run", hint="name a run")
    return Touches(read_trace(path))


def no_such_trial(run: Run, wanted: str | None) -> BadInputError:
    """That a run has no such trial, or none whose files were kept; and which ones it has."""
    if not run.trials:
        return BadInputError(
            f"{run.id}: only the tables of its trials were kept, and no snapshot",
            hint=f"orchestrator show {run.directory}   says what the tables have",
        )
    return BadInputError(
        f"{run.id} has no trial {wanted or ''}".rstrip(),
        hint=suggest(wanted or "", [one.id for one in run.trials]),
    )


def trial_of(asked: Asked) -> TrialFolder:
    """The trial that is asked for, else the first of the run."""
    from orchestrator.store import find_run

    run = find_run(asked.target, asked.results)
    trial = next((one for one in run.trials if asked.trial in {None, one.id}), None)
    if trial is None:
        raise no_such_trial(run, asked.trial)
    return trial


def snapshots_of(trial: TrialFolder) -> tuple[str, list[tuple[str, Path]]]:
    """Whose they are, and label and file of each snapshot, in the order of taking.

    Of its guest; where only the nested host was read on which the guest ran, of that: never of both, whose
    frames have nothing to do with each other.
    """
    from orchestrator.records.events import SnapshotTaken, of_kind

    by_owner: dict[str, list[tuple[str, Path]]] = {"guest": [], "host": []}
    for event in of_kind(trial.events, SnapshotTaken):
        path = trial.snapshot_path(event)
        if path is not None:
            by_owner[event.of].append((event.label, path))
    owner = "guest" if by_owner["guest"] else "host"
    if not by_owner[owner]:
        raise BadInputError(
            f"trial {trial.id} took no snapshot", hint="add a `snapshot` step to its scenario"
        )
    return owner, by_owner[owner]


def _of_snapshots(trial: TrialFolder, touches: str | None) -> Touches:
    import numpy as np

    from orchestrator.model.snapshot_trace import TouchBound, read_series
    from orchestrator.model.tables import decode_tables
    from orchestrator.store.snapshot_file import read_snapshot

    owner, found = snapshots_of(trial)
    tables = [decode_tables(read_snapshot(path)) for _, path in found]
    series = read_series(f"{trial.id}, {owner}", tables, TouchBound(touches or TouchBound.POSSIBLE))
    pairs = tuple((label, pair) for (label, _), pair in zip(found, series.pairs, strict=True))
    return Touches(series.trace, pairs, tuple(np.bincount(series.idle, minlength=len(found)).tolist()))
