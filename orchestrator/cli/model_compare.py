"""`model compare`: policies side by side, what they free and what each action adds to a touch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.complete import complete_runs_or_files
from orchestrator.cli.model_costs import costs_of
from orchestrator.cli.model_input import (
    ACTIONS,
    Asked,
    keep_compiled,
    read_touches,
    shared_options,
    snapshots_of,
    trial_of,
)
from orchestrator.cli.options import Choice
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError
from orchestrator.units import PAGE_BYTES, format_size

if TYPE_CHECKING:
    from orchestrator.model.cost import CostRange, CostTable
    from orchestrator.model.counts import ReplayCounts
    from orchestrator.summary import PolicyResult

Found = Mapping[tuple[str, str], "ReplayCounts"]  # by policy and action


@click.command("compare")
@click.argument("target", metavar="TRACE|RUN", shell_complete=complete_runs_or_files)
@click.option(
    "--action",
    "actions",
    type=Choice(ACTIONS),
    multiple=True,
    help="What becomes of a table in use that is evicted; may be given several times; else each of them.",
)
@click.option(
    "--blocks", is_flag=True, help="Of a run: also what policies over one snapshot free, in blocks."
)
@click.option(
    "--pick",
    type=click.IntRange(min=0),
    metavar="TABLES",
    help="With --blocks: how many tables each policy may pick; else without bound.",
)
@shared_options
def compare_command(
    *,
    target: str,
    actions: tuple[str, ...],
    blocks: bool,
    pick: int | None,
    costs_file: Path | None,
    budget: int,
    seed: int,
    other_node: int | None,
    trial: str | None,
    touches: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Replay one trace under every policy, side by side; fewest misses first.

    What reclaim adds to a touch, on average, goes from the lowest of its costs to the highest.
    """
    from orchestrator.model.policies import OverTrace
    from orchestrator.model.replay import EvictionAction, replay

    costs = costs_of(costs_file)
    asked = Asked(target, results, trial, touches)
    read = read_touches(asked)
    if blocks and not read.pairs:
        raise BadInputError(f"--blocks: {target} is a trace, which has no blocks", hint="name a run")
    if pick is not None and not blocks:
        raise BadInputError(f"--pick {pick}: it bounds what --blocks says", hint="add --blocks")
    actions = tuple(dict.fromkeys(actions or ACTIONS))
    keep_compiled()
    found: dict[tuple[str, str], ReplayCounts] = {}
    with err.status("compiling and replaying") as status:  # a second or two for each policy, once
        for policy in OverTrace.every():
            name = policy.name
            status.update(f"replaying {name}")
            for action in actions:
                # A policy that evicts none has the same result with every action.
                same = found.get((name, actions[0])) if not policy.evicts_in_use else None
                found[name, action] = same or replay(
                    read.trace,
                    name,
                    budget,
                    action=EvictionAction(action),
                    seed=seed,
                    other_nodes_bytes=other_node,
                )
    ours = sorted(
        OverTrace.names(),
        key=lambda name: (found[name, actions[0]].over_budget, found[name, actions[0]].misses, name),
    )
    of_snapshots = [*_over_snapshots(asked, seed, pick)] if blocks else []
    if as_json:
        modelled = [_row(name, action, found[name, action], costs) for name in ours for action in actions]
        document = {**read.about(budget), "modelled": modelled}
        if blocks:
            document["modelled_of_snapshots"] = [
                {**asdict(one), "reclaim_seconds": asdict(_takes(one, costs))} for one in of_snapshots
            ]
        print_json(document)
        return
    read.say(budget)
    print_table(_counted(ours, actions[0], found))
    out.print()
    print_table(_added(ours, actions, found, costs))
    if blocks:
        out.print()
        print_table(_in_blocks(of_snapshots, costs))


def _row(name: str, action: str, counts: ReplayCounts, costs: CostTable) -> dict[str, Any]:
    """One policy with one action, for --json."""
    return {
        "policy": name,
        "action": action,
        **counts.as_dict(),
        "freed_bytes": counts.freed * PAGE_BYTES,
        "evicted_bytes": counts.evicted * PAGE_BYTES,
        "peak_bytes": counts.peak_tables * PAGE_BYTES,
        "added_seconds": asdict(costs.added(counts)),
    }


def _counted(ours: list[str], action: str, found: Found) -> Table:
    """What happened, where tables that are evicted become what `action` says."""
    table = plain_table()
    table.add_column(f"modelled, {action}", no_wrap=True)
    for title in ("misses", "refaults", "freed", "evicted", "peak", "above"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in ours:
        counts = found[name, action]
        sizes = (counts.freed, counts.evicted, counts.peak_tables)
        table.add_row(
            name,
            _number(counts.misses),
            _number(counts.refaults),
            *(format_size(tables * PAGE_BYTES) for tables in sizes),
            _number(counts.over_budget),
        )
    return table


def _added(ours: list[str], actions: tuple[str, ...], found: Found, costs: CostTable) -> Table:
    table = plain_table()
    table.add_column("added per touch, µs", no_wrap=True)
    for action in actions:
        table.add_column(action, justify="right", no_wrap=True)
    for name in ours:
        means = (costs.added(found[name, action]).mean for action in actions)
        table.add_row(name, *(_range(mean, 1e6) for mean in means))
    return table


def _in_blocks(results: list[PolicyResult], costs: CostTable) -> Table:
    table = plain_table()
    table.add_column("modelled, at snapshot", no_wrap=True)
    for title in ("freed", "moved", "blocks", "with migration", "takes, ms"):
        table.add_column(title, justify="right", no_wrap=True)
    label = None
    for one in results:
        if one.snapshot != label:
            label = one.snapshot
            table.add_row(f"[bold]{escape(label)}[/]")
        blocks = (one.blocks_freed, one.blocks_freed_if_moved)
        table.add_row(
            f"  {one.policy}",
            format_size(one.bytes_freed),
            format_size(one.tables_to_move * PAGE_BYTES),
            *("-" if value is None else f"{value:,}" for value in blocks),
            _range(_takes(one, costs), 1e3),
        )
    return table


def _over_snapshots(asked: Asked, seed: int, pick: int | None) -> Iterator[PolicyResult]:
    """What policies over one snapshot do to each of those that are replayed."""
    from orchestrator.model.blocks import map_memory
    from orchestrator.model.policies import StateView
    from orchestrator.store.snapshot_file import read_snapshot
    from orchestrator.summary.snapshots import counterfactuals

    for _, path in snapshots_of(trial_of(asked))[1]:
        state = StateView.of(read_snapshot(path))
        yield from counterfactuals(state, map_memory(state.snapshot, classes=state.frames), seed, pick)


def _takes(one: PolicyResult, costs: CostTable) -> CostRange:
    return costs.reclaiming(one.tables_freed, one.tables_to_move)


def _range(value: CostRange, scale: float) -> str:
    """Two digits that count; costs are not known to more."""
    low, high = (f"{float(f'{end * scale:.2g}'):,.10g}" for end in (value.low, value.high))
    if value.high * scale < 0.001:
        return "<0.001" if value.high else "0"
    return f"{low} to {high}"


def _number(value: int) -> str:
    """To the last digit as long as eighty columns hold it; --json always has them all."""
    return f"{value:,}" if value < 10_000_000 else f"{value / 1e6:,.2f} M"
