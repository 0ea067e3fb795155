"""`model overcommit` and `model calibrate`: how many guests fit, and what the costs behind the answer are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.complete import ScenarioPath
from orchestrator.cli.model_input import keep_compiled
from orchestrator.cli.options import Choice, force_option, json_option, may_write, results_option
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, InfrastructureError
from orchestrator.units import format_size

if TYPE_CHECKING:
    from orchestrator.model.cost import CostTable
    from orchestrator.model.overcommit import OvercommitResult
    from orchestrator.scenario.overcommit import OvercommitText
    from orchestrator.store.costs_file import CostsFile, Counted

CODECS = ("lz4_raw", "zstd")  # orchestrator.calibrate.CODECS, which is not needed for --help


@click.command("overcommit")
@click.argument("file", type=ScenarioPath("overcommit"))
@click.option(
    "--costs",
    "costs_file",
    type=click.Path(path_type=Path),
    help="Costs file of `model calibrate`; else the shipped costs.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes. Default: FILE's name with .html, in the current folder.",
)
@force_option
@json_option
def overcommit_command(
    *, file: Path, costs_file: Path | None, html: Path | None, force: bool, as_json: bool
) -> None:
    """Say how many guests fit a host, which the OOM killer ends, and what reclaim adds to a touch.

    FILE names a host, classes of guests, policies and actions; docs/overcommit.md has every key.
    Every figure is modelled, with its range. A page of an earlier call is replaced, any other file is not.
    With --json, a page is written only where --html says.
    """
    from orchestrator.model.overcommit import answers
    from orchestrator.report.overcommit import is_page, sentences, write_page

    asked = _read(file)
    costs = costs_of(costs_file)
    page = html or (None if as_json else Path(f"{file.stem}.html"))
    if page is not None:
        may_write(page, is_page, "a page of `model overcommit`", force=force)
    keep_compiled()
    choices = list(asked.choices)
    found: list[OvercommitResult] = []
    for number, choice in enumerate(choices, 1):
        err.print(f"[dim]{number} of {len(choices)}: {escape(', '.join(choice))}[/]")
        found += answers(asked.question, [choice], costs, seeds=asked.seeds)
    # The answer first: it took minutes, and a page that cannot be written shall not lose it.
    if as_json:
        print_json(_as_json(found, costs))
    else:
        for sentence in sentences(found):
            out.print(escape(sentence))
        print_table(_table(found))
        out.print("modelled; medians of the seeds, in brackets the range over seeds and costs")
    if page is None:
        return
    try:
        write_page(page, asked, found, costs)
    except OSError as error:
        raise InfrastructureError(
            f"the page {page} cannot be written: {error.strerror}", hint="say where else: --html FILE"
        ) from error
    if not as_json:
        out.print(f"page: {escape(str(page))}", soft_wrap=True)


def _read(file: Path) -> OvercommitText:
    from orchestrator.scenario.kind import is_scenario, is_sweep
    from orchestrator.scenario.overcommit import load_overcommit
    from orchestrator.yamlfile import read_yaml

    if is_sweep(read_yaml(file)):
        raise BadInputError(f"{file} is a grid of questions", hint=f"orchestrator model sweep {file}")
    if is_scenario(read_yaml(file)):
        raise BadInputError(f"{file} is a scenario, for real guests", hint=f"orchestrator run {file}")
    return load_overcommit(file)


def _table(found: list[OvercommitResult]) -> Table:
    from orchestrator.analysis.text import seconds
    from orchestrator.report.overcommit import counted, name_of, ranged

    table = plain_table()
    table.add_column("policy, action", no_wrap=True)
    for heading in ("guests that fit", "OOM kills", "tables", "added latency, p99"):
        table.add_column(heading)
    for one in found:
        tables = format_size(one.table_bytes_peak.typical)
        table.add_row(
            name_of(one), counted(one.fit), counted(one.killed), tables, ranged(one.added.p99, seconds)
        )
    return table


def _as_json(found: list[OvercommitResult], costs: CostTable) -> dict[str, Any]:
    return {
        "origin": "modelled",
        "answers": [one.figures() for one in found],
        "costs": costs.rows(),
    }


def costs_of(path: Path | None) -> CostTable:
    """The shipped costs, with those of the file in the place of what was not measured."""
    from orchestrator.model.cost import CostTable
    from orchestrator.store.costs_file import read_costs

    shipped = CostTable.shipped()
    if path is None:
        return shipped
    found = read_costs(path)
    return shipped.with_measured(found.as_costs()).with_instructions(found.as_instructions())


def _counted(name: str, results: Path, keeps: str | None, frees: str | None) -> dict[str, Counted]:
    from orchestrator.analysis.instruction_costs import FREES, KEEPS, instruction_costs
    from orchestrator.store import find_run

    return instruction_costs(find_run(name, results), keeps or KEEPS, frees or FREES)


def _print_instructions(found: CostsFile) -> None:
    from orchestrator.model.cost import NOT_COUNTED

    table = plain_table()
    for heading in ("cost", "instructions", "boots", "of"):
        table.add_column(heading)
    for name, why in NOT_COUNTED.items():
        one = found.instructions.get(name)
        if one is None:
            table.add_row(name, f"[dim]not measured: {escape(why)}[/]")
        else:
            counts = f"{one.typical:,.0f} ({one.low:,.0f} to {one.high:,.0f})"
            table.add_row(name, counts, str(one.boots), escape(one.of))
    print_table(table)
    if found.assumed_rate and found.instructions:
        out.print(f"free_seconds is computed of its instructions by {escape(found.assumed_rate.words)}")


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
@click.option("--codec", type=Choice(CODECS), default=CODECS[0], show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where the file goes; else it is printed."
)
@click.option(
    "--instructions",
    "counted",
    metavar="RUN",
    help="A run of scenarios/costs.yaml: its instructions stand beside the costs.",
)
@click.option("--keeps", metavar="ARM", help="Its arm whose kernel keeps emptied tables; else 6.12-sparse.")
@click.option("--frees", metavar="ARM", help="Its arm whose kernel frees them; else 7.x-sparse.")
@click.option(
    "--ipc",
    type=click.FloatRange(min=0, min_open=True),
    help="With --ghz: instructions per cycle to assume, by which instructions become seconds.",
)
@click.option("--ghz", type=click.FloatRange(min=0, min_open=True), help="With --ipc: the clock to assume.")
@results_option
@force_option
@json_option
def calibrate_command(
    *,
    snapshots: tuple[Path, ...],
    disk: Path | None,
    codec: str,
    counted: str | None,
    keeps: str | None,
    frees: str | None,
    ipc: float | None,
    ghz: float | None,
    results: Path,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure the costs that this machine can, for `--costs` of the other verbs.

    With --json, or without -o, the file is printed. A file of costs is replaced, any other is not.

    \b
    orchestrator model calibrate --snapshot SNAPSHOT.npz --disk /var/tmp -o costs.json
    orchestrator model overcommit overcommit/sparse --costs costs.json
    """
    from orchestrator.calibrate import calibrate
    from orchestrator.store.costs_file import AssumedRate, is_costs, write_costs
    from orchestrator.store.snapshot_file import read_snapshot

    if (ipc is None) != (ghz is None) or (ipc is not None and counted is None):
        raise click.UsageError("--ipc and --ghz say together how --instructions become seconds.")
    if counted is None and (keeps or frees):
        raise click.UsageError("--keeps and --frees name arms of the run of --instructions.")
    of_run = _counted(counted, results, keeps, frees) if counted else {}

    if output:
        may_write(output, is_costs, "a file of costs", force=force)
    read = [read_snapshot(path) for path in snapshots]
    found = calibrate(read, disk, codec=codec, progress=lambda text: err.print(f"[dim]{escape(text)}[/]"))
    rate = AssumedRate(instructions_per_cycle=ipc, hertz=ghz * 1e9) if ipc and ghz else None
    found = found.model_copy(update={"instructions": of_run, "assumed_rate": rate})
    if output:
        write_costs(output, found)
    if as_json or not output:
        print_json(found.model_dump())
        return
    table = plain_table()
    for heading in ("cost", "typical", "5 %", "95 %", "samples"):
        table.add_column(heading)
    for name, one in found.costs.items():
        values = (f"{value:.3g}" for value in (one.typical, one.low, one.high))
        table.add_row(f"{name} [{one.unit}]".replace("[", r"\["), *values, f"{one.samples:,}")
    for name, why in found.missing.items():
        table.add_row(name, f"[dim]not measured: {escape(why)}[/]")
    print_table(table)
    _print_instructions(found)
    out.print(f"written: {escape(str(output))}")
