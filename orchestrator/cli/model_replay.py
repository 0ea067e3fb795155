"""`model replay`, `model compare` and `model trace`: what policies do to touches of page tables."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.model_costs import costs_of
from orchestrator.cli.output import err, out, print_json
from orchestrator.errors import BadInputError
from orchestrator.units import PAGE_BYTES, format_size, parse_size

if TYPE_CHECKING:
    from orchestrator.model.counts import ReplayCounts
    from orchestrator.model.trace import Trace

_ACTIONS = ("drop", "migrate", "compress", "swap")
_COLUMNS = {
    "misses": "misses",
    "refaults": "refaults",
    "freed": "freed",
    "evicted": "taken",
    "peak_tables": "peak",
    "over_budget": "above",
}


def _size(_ctx: click.Context, _parameter: click.Parameter, text: str) -> int:
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if size < PAGE_BYTES:
        raise click.BadParameter(f"{text} holds no table: 4KiB or more would")
    return size


def _replay_options(command: Any) -> Any:  # click's decorators are as untyped
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.option(
            "--results",
            type=click.Path(path_type=Path),
            default=Path("results"),
            show_default=True,
            help="Folder of run folders.",
        ),
        click.option("--trial", "trial_id", metavar="TRIAL", help="Which trial of a run; else the first."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option(
            "--action",
            type=click.Choice(_ACTIONS),
            default="drop",
            show_default=True,
            help="What becomes of a table in use that is taken.",
        ),
        click.option(
            "--costs",
            "costs_file",
            type=click.Path(path_type=Path),
            help="Measured by `model calibrate`; else shipped ones.",
        ),
        click.option(
            "--budget", metavar="SIZE", callback=_size, required=True, help="Memory for last-level tables."
        ),
    ):
        command = option(command)
    return command


@click.command("replay")
@click.argument("target", metavar="TRACE|RUN")
@click.option("--policy", required=True, help="See `orchestrator model policies`, those over a trace.")
@click.option(
    "--freeze-touches",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="For how many events a table that is taken stays frozen.",
)
@_replay_options
def replay_command(
    *,
    target: str,
    policy: str,
    freeze_touches: int,
    costs_file: Path | None,
    budget: int,
    action: str,
    seed: int,
    trial_id: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Replay touches of page tables under one policy and a budget.

    \b
    TRACE  a file that `orchestrator model trace` wrote
    RUN    a run: its snapshots tell which tables were touched, and let go

    \b
    orchestrator model trace redis_churn -o churn.npz --set span=64GiB --set resident=8GiB
    orchestrator model replay churn.npz --policy lru --budget 16MiB
    """
    from orchestrator.model.replay import Action, replay

    costs = costs_of(costs_file)
    trace = _trace(target, results, trial_id)
    counts = replay(trace, policy, budget, action=Action(action), seed=seed, freeze_touches=freeze_touches)
    added = costs.added(counts)
    if as_json:
        modelled = {**counts.as_dict(), "added_seconds": asdict(added)}
        print_json({**_about(trace, budget, action), "policy": policy, "modelled": modelled})
        return
    _say_trace(trace, budget, action)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("modelled")
    table.add_column("", justify="right")
    for name, value in asdict(counts).items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    out.print(table, soft_wrap=False)
    low, typical, high = (seconds * 1e6 for seconds in added.mean)
    out.print(
        f"modelled, added a touch: {typical:.3g} us on average ({low:.3g} to {high:.3g}), by "
        f"{f'the costs of {escape(str(costs_file))}' if costs_file else 'shipped costs'}"
    )


@click.command("compare")
@click.argument("target", metavar="TRACE|RUN")
@_replay_options
def compare_command(
    *,
    target: str,
    costs_file: Path | None,
    budget: int,
    action: str,
    seed: int,
    trial_id: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Replay one trace under every policy, side by side; fewest misses first.

    `added` is what reclaim adds to a touch, on average: from its lowest cost to its highest.
    """
    from orchestrator.model.replacement import REPLACEMENTS
    from orchestrator.model.replay import Action, replay

    costs = costs_of(costs_file)
    trace = _trace(target, results, trial_id)
    found: dict[str, ReplayCounts] = {}
    with err.status("compiling and replaying") as status:  # a second or two for each policy
        for name in REPLACEMENTS.names():
            status.update(f"replaying {name}")
            found[name] = replay(trace, name, budget, action=Action(action), seed=seed)
    rows = sorted(found.items(), key=lambda item: (item[1].over_budget, item[1].misses, item[0]))
    if as_json:
        modelled = [
            {"policy": name, **counts.as_dict(), "added_seconds": asdict(costs.added(counts))}
            for name, counts in rows
        ]
        print_json({**_about(trace, budget, action), "modelled": modelled})
        return
    _say_trace(trace, budget, action)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("modelled", no_wrap=True)
    for title in (*_COLUMNS.values(), "added, us"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, counts in rows:
        values, added = counts.as_dict(), costs.added(counts).mean
        range_us = f"{added.low * 1e6:.2g} to {added.high * 1e6:.2g}"
        table.add_row(name, *(_number(values[column]) for column in _COLUMNS), range_us)
    out.print(table, soft_wrap=False)


@click.command("trace")
@click.argument("pattern", required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the pattern.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def trace_command(
    *, pattern: str | None, output: Path | None, settings: tuple[str, ...], seed: int, as_json: bool
) -> None:
    """Make up the touches of a guest and write them to a file; without PATTERN, list the patterns."""
    from inspect import getdoc

    from orchestrator.model.patterns import PATTERNS

    if pattern is None:
        rows = [(name, (getdoc(one) or "").split("\n", 1)[0], one.model_fields) for name, one in PATTERNS]
        if as_json:
            shown = [{"name": n, "what": w, "parameters": _defaults(f)} for n, w, f in rows]
            print_json({"patterns": shown})
            return
        for name, what, fields in rows:
            out.print(f"[bold]{name}[/]  {escape(what)}")
            out.print(f"  [dim]{escape(' '.join(f'{k}={v}' for k, v in _defaults(fields).items()))}[/]")
        return
    _write_trace(pattern, output, settings, seed, as_json=as_json)


def _write_trace(
    pattern: str, output: Path | None, settings: tuple[str, ...], seed: int, *, as_json: bool
) -> None:
    import numpy as np

    from orchestrator.model.patterns import pattern_named
    from orchestrator.store.trace_file import write_trace

    if output is None:
        raise BadInputError("say where to: -o FILE")
    pairs = [text.partition("=") for text in settings]
    if wrong := next(
        (text for text, (_, equals, _) in zip(settings, pairs, strict=True) if not equals), None
    ):
        raise BadInputError(f"--set {wrong}: write NAME=VALUE, as in size=6GiB")
    with err.status("making up touches"):  # 26 million tables take some twenty seconds
        trace = pattern_named(pattern, {name: value for name, _, value in pairs}).trace(
            np.random.default_rng(seed)
        )
        write_trace(output, trace)
    if as_json:
        print_json({"file": str(output), "tables": trace.tables, "events": len(trace)})
    else:
        out.print(f"{escape(str(output))}: {len(trace):,} events of {trace.tables:,} tables")


def _number(value: int) -> str:
    """To the last digit as long as eighty columns hold it; --json always has them all."""
    return f"{value:,}" if value < 10_000_000 else f"{value / 1e6:,.2f} M"


def _defaults(fields: Any) -> dict[str, Any]:  # pydantic's fields
    return {name: field.default for name, field in fields.items()}


def _trace(target: str, results: Path, trial_id: str | None) -> Trace:
    from orchestrator.model.observed import trace_of_snapshots
    from orchestrator.model.tables import decode_tables
    from orchestrator.store import find_run
    from orchestrator.store.snapshot_file import read_snapshot
    from orchestrator.store.trace_file import read_trace

    path = Path(target)
    if path.is_file() or path.suffix == ".npz":
        return read_trace(path)
    run = find_run(target, results)
    trial = next((one for one in run.trials if trial_id in {None, one.id}), None)
    if trial is None:
        there = ", ".join(one.id for one in run.trials) or "none; only its summaries were kept"
        raise BadInputError(f"{run.id} has no trial {trial_id or ''}".rstrip(), hint=f"there are: {there}")
    paths = [trial.snapshot_path(event) for event in trial.events if event.name == "snapshot"]
    tables = [decode_tables(read_snapshot(path)) for path in paths if path is not None]
    if not tables:
        raise BadInputError(
            f"trial {trial.id} took no snapshot", hint="add a `snapshot` step to its scenario"
        )
    return trace_of_snapshots(trial.id, tables)


def _about(trace: Trace, budget: int, action: str) -> dict[str, Any]:
    return {
        "trace": trace.name,
        "tables": trace.tables,
        "events": len(trace),
        "assumption": trace.assumption,
        "budget_bytes": budget,
        "action": action,
    }


def _say_trace(trace: Trace, budget: int, action: str) -> None:
    size = format_size(trace.tables * PAGE_BYTES)
    out.print(
        f"{escape(trace.name)}: {len(trace):,} events of {trace.tables:,} last-level tables ({size}); "
        f"{format_size(budget)} for them; who is taken: {action}"
    )
    if trace.assumption:
        out.print(f"[dim]{escape(trace.assumption)}[/]")
