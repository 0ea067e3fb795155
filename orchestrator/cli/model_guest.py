"""`model guest`: the page tables of a synthetic guest, and what each policy would free of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from orchestrator.cli.model_input import keep_compiled
from orchestrator.cli.model_replay import pattern_of
from orchestrator.cli.options import json_option
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.units import PAGE_BYTES, format_size

if TYPE_CHECKING:
    from orchestrator.model.guest_tables import GuestTables
    from orchestrator.model.policies import PolicyEffect


@click.command("guest")
@click.argument("pattern")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the pattern.")
@click.option(
    "--pick", type=click.IntRange(min=0), metavar="TABLES", help="How many tables each policy may pick."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@json_option
def guest_command(
    *, pattern: str, settings: tuple[str, ...], pick: int | None, seed: int, as_json: bool
) -> None:
    """Write out the page tables of a guest, and say what each policy would free of them.

    PATTERN is one of `orchestrator model trace`. Every figure is modelled.

    \b
    orchestrator model guest sparse --set span=50GiB
    """
    import numpy as np

    from orchestrator.model.guest_tables import build_tables
    from orchestrator.model.policies import OverSnapshot

    keep_compiled()
    with err.status("writing out tables"):  # 26 million tables take some ten seconds
        guest = build_tables(pattern_of(pattern, settings).guest_mappings(np.random.default_rng(seed)))
        effects = [policy.apply(guest, seed=seed, budget_tables=pick) for policy in OverSnapshot.every()]
    if as_json:
        print_json(_as_json(pattern, guest, effects))
        return
    levels = guest.level_counts().tolist()
    counted = ", ".join(f"{count:,} of level {level}" for level, count in enumerate(levels) if count)
    out.print(f"{escape(pattern)}: {format_size(guest.table_bytes)} of page tables: {counted}")
    table = plain_table()
    table.add_column("modelled", no_wrap=True)
    for title in ("freed", "moved"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in effects:
        table.add_row(one.policy, format_size(one.bytes_freed), format_size(one.tables_to_move * PAGE_BYTES))
    print_table(table)


def _as_json(pattern: str, guest: GuestTables, effects: list[PolicyEffect]) -> dict[str, Any]:
    return {
        "pattern": pattern,
        "table_bytes": guest.table_bytes,
        "tables_of_level": guest.level_counts().tolist(),
        "modelled": [
            {
                "policy": one.policy,
                "tables_freed": one.tables_freed,
                "bytes_freed": one.bytes_freed,
                "tables_to_move": one.tables_to_move,
            }
            for one in effects
        ],
    }
