"""`model rebuild`: second-level tables that policies free, and those that faults make again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.options import json_option
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError
from orchestrator.units import ENTRIES_PER_TABLE, format_size, parse_duration

if TYPE_CHECKING:
    from orchestrator.model.rebuild import Rebuild


def _duration(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def _durations(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> tuple[float | None, ...]:
    return tuple(sorted({_duration(ctx, parameter, text) or 0.0 for text in texts}))


@click.command("rebuild")
@click.argument("file", metavar="TRACE", type=click.Path(path_type=Path))
@click.option(
    "--lasts", required=True, metavar="DURATION", callback=_duration, help="What the trace stands for."
)
@click.option(
    "--at", metavar="DURATION", callback=_duration, help="When the policies act; else at half of it."
)
@click.option(
    "--after",
    metavar="DURATION",
    multiple=True,
    default=("5s", "30s", "120s"),
    show_default=True,
    callback=_durations,
    help="How long after that to count again; may be given several times.",
)
@click.option(
    "--present",
    type=click.IntRange(1, ENTRIES_PER_TABLE),
    default=ENTRIES_PER_TABLE,
    show_default=True,
    help="Pages there of each range of 2 MiB in use, for `collapse`: a trace does not say.",
)
@json_option
def rebuild_command(
    *, file: Path, lasts: float, at: float | None, after: tuple[float, ...], present: int, as_json: bool
) -> None:
    """Free second-level tables by every policy over a tree, on one state; count what faults make again.

    TRACE is a file that `orchestrator model trace` wrote, its events taken to be evenly apart in time. Its
    tables are KVM's: no one is freed but by the policy. A run's snapshots do not say when memory was touched
    between them; `show --json` has the bounds that each one gives, as tables_rebuilt_at_most.

    \b
    orchestrator model trace boot_then_idle -o idle.npz --set size=64GiB
    orchestrator model rebuild idle.npz --lasts 10min
    """
    from orchestrator.model.rebuild import rebuild
    from orchestrator.store.trace_file import read_trace

    if lasts <= 0:
        raise BadInputError("--lasts: the trace takes no time", hint="for example --lasts 10min")
    at = lasts / 2 if at is None else at
    if at + after[-1] > lasts:
        raise BadInputError(
            f"{after[-1]:g} s after {at:g} s is behind the trace's end at {lasts:g} s",
            hint="let it last longer, or ask earlier: --lasts, --at, --after",
        )
    trace = read_trace(file)

    def event(seconds: float) -> int:
        # Event i is at i * lasts / events; the tolerance is for what division leaves.
        return min(len(trace), math.ceil(seconds * len(trace) / lasts - 1e-6))

    with err.status("reading touches"):
        found = rebuild(trace, event(at), [event(at + seconds) for seconds in after], present)
    if as_json:
        about = {"trace": trace.name, "events": len(trace), "assumption": trace.assumption}
        assumed = {"lasts_seconds": lasts, "at_seconds": at, "pages_present": present}
        print_json({**about, **assumed, "tables": found.tables, "modelled": _rows(found, after)})
        return
    out.print(
        f"{escape(trace.name)}: {len(trace):,} events in {lasts:g} s, evenly apart; after {at:g} s there are "
        f"{found.tables:,} tables of all levels, {present} pages of each range in use"
    )
    if trace.assumption:
        out.print(f"[dim]{escape(trace.assumption)}[/]")
    print_table(_table(found, after))
    new = ", ".join(
        f"{count:,} by {seconds:g} s" for count, seconds in zip(found.first_touched, after, strict=True)
    )
    out.print(f"modelled; with any policy come those of memory touched for the first time: {new}")


def _rows(found: Rebuild, after: tuple[float, ...]) -> list[dict[str, Any]]:
    return [
        {
            "policy": one.policy,
            "after_seconds": seconds,
            "freed_at_once": one.freed_at_once,
            "freed": freed,
            "rebuilt": rebuilt,
            "left": left,
            "first_touched": first_touched,
            "huge_pages": one.huge_pages,
            "bytes_taken_at_most": one.bytes_taken,
        }
        for one in found.policies
        for seconds, freed, rebuilt, left, first_touched in zip(
            after, one.freed, one.rebuilt, one.left, found.first_touched, strict=True
        )
    ]


def _table(found: Rebuild, after: tuple[float, ...]) -> Table:
    table = plain_table()
    table.add_column("modelled", no_wrap=True)
    for title in (
        "at once",
        *(f"again, {seconds:g} s" for seconds in after),
        f"left, {after[-1]:g} s",
        "huge pages",
        "takes",
    ):
        table.add_column(title, justify="right")
    for one in found.policies:
        counts = (one.freed_at_once, *one.rebuilt, one.left[-1], one.huge_pages)
        table.add_row(one.policy, *(f"{count:,}" for count in counts), format_size(one.bytes_taken))
    return table
