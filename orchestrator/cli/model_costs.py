"""`model overcommit` and `model calibrate`: how many guests fit, and what the costs behind the answer are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.calibrate import CODECS, calibrate
from orchestrator.cli.output import err, out, print_json
from orchestrator.units import format_size

if TYPE_CHECKING:
    from orchestrator.model.cost import CostTable
    from orchestrator.model.overcommit import Answer

_FORMAT = 1


@click.command("overcommit")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--costs", "costs_file", type=click.Path(path_type=Path), help="Measured by `model calibrate`.")
@click.option(
    "--html", type=click.Path(path_type=Path), help="Where the page goes; else beside FILE's name here."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document, and write a page only if asked."
)
def overcommit_command(*, file: Path, costs_file: Path | None, html: Path | None, as_json: bool) -> None:
    """Say how many guests fit a host, who is killed, and what reclaim adds.

    FILE names a host, classes of guests, policies and actions; docs/overcommit.md has every key.
    Every figure is modelled, with its range.
    """
    from orchestrator.model.overcommit import answers
    from orchestrator.report.overcommit import sentences, write_page
    from orchestrator.scenario.overcommit import load_overcommit

    asked = load_overcommit(file)
    costs = costs_of(costs_file)
    choices = list(asked.choices)
    found: list[Answer] = []
    for number, choice in enumerate(choices, 1):
        err.print(f"[dim]{number} of {len(choices)}: {escape(', '.join(choice))}[/]")
        found += answers(asked.question, [choice], costs, seeds=asked.seeds)
    page = html or (None if as_json else Path(f"{file.stem}.html"))
    if page is not None:
        write_page(page, asked, found, costs)
    if as_json:
        print_json(_as_json(found, costs))
        return
    for sentence in sentences(found):
        out.print(escape(sentence))
    out.print(_table(found), soft_wrap=False)
    out.print("modelled; medians of the seeds, in brackets the range over seeds and costs")
    out.print(f"page: {escape(str(page))}")


def _table(found: list[Answer]) -> Table:
    from orchestrator.analysis.text import seconds
    from orchestrator.report.overcommit import counted, name_of, ranged

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("policy, action", no_wrap=True)
    for heading in ("guests that fit", "OOM kills", "tables", "added, p99"):
        table.add_column(heading)
    for one in found:
        tables = format_size(one.table_bytes_peak.typical)
        table.add_row(
            name_of(one), counted(one.fit), counted(one.killed), tables, ranged(one.added.p99, seconds)
        )
    return table


def _as_json(found: list[Answer], costs: CostTable) -> dict[str, Any]:
    keys = ("policy", "action", "fit", "killed", "table_bytes_peak", "tables_kept_least", "added")
    return {
        "format": _FORMAT,
        "origin": "modelled",
        "answers": [{key: value for key, value in asdict(one).items() if key in keys} for one in found],
        "costs": [asdict(cost) for cost in costs.costs.values()],
    }


def costs_of(path: Path | None) -> CostTable:
    """The shipped costs, with those of the file in the place of what was not measured."""
    from orchestrator.model.cost import CostTable
    from orchestrator.store.costs_file import read_costs

    shipped = CostTable.shipped()
    return shipped.with_measured(read_costs(path).as_costs()) if path else shipped


@click.command("calibrate")
@click.option(
    "--snapshot",
    "snapshots",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A snapshot of a real guest, whose page tables are compressed; may be given several times.",
)
@click.option(
    "--disk", type=click.Path(path_type=Path), help="A folder of the disk that would be swapped to."
)
@click.option("--codec", type=click.Choice(CODECS), default=CODECS[0], show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where the file goes; else it is printed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the file, too.")
def calibrate_command(
    *, snapshots: tuple[Path, ...], disk: Path | None, codec: str, output: Path | None, as_json: bool
) -> None:
    """Measure the costs that this machine can, for `--costs` of the other verbs.

    \b
    orchestrator model calibrate --snapshot SNAPSHOT.npz --disk /var/tmp -o costs.json
    orchestrator model overcommit scenarios/overcommit/sparse.yaml --costs costs.json
    """
    from orchestrator.store.costs_file import write_costs
    from orchestrator.store.snapshot_file import read_snapshot

    read = [read_snapshot(path) for path in snapshots]
    found = calibrate(read, disk, codec=codec, progress=lambda text: err.print(f"[dim]{escape(text)}[/]"))
    if output:
        write_costs(output, found)
    if as_json or not output:
        print_json(found.model_dump())
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("cost", "typical", "5 %", "95 %", "samples"):
        table.add_column(heading)
    for name, one in found.costs.items():
        values = (f"{value:.3g}" for value in (one.typical, one.low, one.high))
        table.add_row(f"{name} [{one.unit}]".replace("[", r"\["), *values, f"{one.samples:,}")
    for name, why in found.missing.items():
        table.add_row(name, f"[dim]not measured: {escape(why)}[/]")
    out.print(table, soft_wrap=False)
    out.print(f"written: {escape(str(output))}")
