"""`model replay` and `model trace`: what one policy does to touches of page tables, and touches made up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from orchestrator.cli.complete import complete_runs_or_files, complete_trace_policies
from orchestrator.cli.model_costs import costs_of
from orchestrator.cli.model_input import (
    ACTIONS,
    Asked,
    keep_compiled,
    named_values,
    read_touches,
    shared_options,
)
from orchestrator.cli.options import Choice, force_option, json_option, may_write
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError

if TYPE_CHECKING:
    from orchestrator.model.patterns import Pattern


@click.command("replay")
@click.argument("target", metavar="TRACE|RUN", shell_complete=complete_runs_or_files)
@click.option(
    "--policy",
    required=True,
    shell_complete=complete_trace_policies,
    help="See `orchestrator model policies`, those that answer over a trace.",
)
@click.option(
    "--freeze-touches",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Events for which an evicted table stays frozen.",
)
@click.option(
    "--action",
    type=Choice(ACTIONS),
    default="drop",
    show_default=True,
    help="What becomes of a table in use that is evicted.",
)
@shared_options
def replay_command(
    *,
    target: str,
    policy: str,
    freeze_touches: int,
    costs_file: Path | None,
    budget: int,
    action: str,
    seed: int,
    other_node: int | None,
    trial: str | None,
    touches: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Replay touches of page tables under one policy and a budget.

    \b
    TRACE  a file that `orchestrator model trace` wrote
    RUN    a run: the snapshots of a trial, one after the other, tell which tables were touched in between

    \b
    orchestrator model trace redis_churn -o churn.npz --set span=64GiB --set resident=8GiB
    orchestrator model replay churn.npz --policy lru --budget 16MiB
    """
    from orchestrator.model.replay import EvictionAction, replay

    keep_compiled()
    costs = costs_of(costs_file)
    read = read_touches(Asked(target, results, trial, touches))
    counts = replay(
        read.trace,
        policy,
        budget,
        action=EvictionAction(action),
        seed=seed,
        freeze_touches=freeze_touches,
        other_nodes_bytes=other_node,
    )
    added = costs.added(counts)
    if as_json:
        modelled = {**counts.as_dict(), "added_seconds": asdict(added)}
        print_json({**read.about(budget), "action": action, "policy": policy, "modelled": modelled})
        return
    read.say(budget)
    out.print(f"policy {policy}; evicted tables: {action}")
    table = plain_table(show_header=False)
    table.add_column("modelled")
    table.add_column("", justify="right")
    for name, value in asdict(counts).items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    print_table(table)
    low, typical, high = (seconds * 1e6 for seconds in added.mean)
    out.print(
        f"modelled, added a touch: {typical:.3g} µs on average ({low:.3g} to {high:.3g}), by "
        f"{f'the costs of {escape(str(costs_file))}' if costs_file else 'shipped costs'}"
    )


@click.command("trace")
@click.argument("pattern", required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the pattern.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@force_option
@json_option
def trace_command(
    *,
    pattern: str | None,
    output: Path | None,
    settings: tuple[str, ...],
    seed: int,
    force: bool,
    as_json: bool,
) -> None:
    """Generate the touches of a synthetic guest and write them to a file; without PATTERN, list the patterns.

    A trace that is there is replaced, any other file is not.
    """
    from inspect import getdoc

    from orchestrator.model.patterns import PATTERNS
    from orchestrator.store.trace_file import is_trace

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
    if output is None:
        raise BadInputError("say where to: -o FILE")
    may_write(output, is_trace, "a trace", force=force)
    _write_trace(pattern, output, settings, seed, as_json=as_json)


def _write_trace(pattern: str, output: Path, settings: tuple[str, ...], seed: int, *, as_json: bool) -> None:
    import numpy as np

    from orchestrator.store.trace_file import write_trace

    chosen = pattern_of(pattern, settings)
    with err.status("generating the trace"):  # 26 million tables take some twenty seconds
        trace = chosen.trace(np.random.default_rng(seed))
        write_trace(output, trace)
    if as_json:
        print_json({"file": str(output), "tables": trace.tables, "events": len(trace)})
    else:
        out.print(f"{escape(str(output))}: {len(trace):,} events of {trace.tables:,} tables")


def pattern_of(name: str, settings: tuple[str, ...]) -> Pattern:
    """The pattern of that name with `settings`, each NAME=VALUE. Raises BadInputError for what is none."""
    from orchestrator.model.patterns import pattern_named

    return pattern_named(name, named_values(settings, "size=6GiB"))


def _defaults(fields: Any) -> dict[str, Any]:  # pydantic's fields
    return {name: field.default for name, field in fields.items()}
