"""`model sweep`: many questions to the model at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.markup import escape

from orchestrator.cli.complete import ScenarioPath
from orchestrator.cli.model_costs import costs_of
from orchestrator.cli.options import force_option, json_option, may_write
from orchestrator.cli.output import err, out, print_json
from orchestrator.cli.signals import stop_at_signals
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, InfrastructureError

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.analysis.sweep import SweepView
    from orchestrator.model.cost import CostTable
    from orchestrator.scenario.sweep import Sweep
    from orchestrator.sweep import Engine, Row

_LINES: Final = 10  # of progress, where there is no terminal


@click.command("sweep")
@click.argument("file", type=ScenarioPath("sweep"))
@click.option(
    "--processes",
    type=click.IntRange(1, 1024),
    help="How many at once; else as many as there are cores.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the table goes. Default: FILE's name with .parquet, in the current folder.",
)
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the page goes. Default: beside the table.",
)
@click.option(
    "--fleet",
    "fleet_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Have the hosts of a fleet compute the points: its fleet.toml.",
)
@force_option
@json_option
def sweep_command(
    *,
    file: Path,
    processes: int | None,
    fleet_file: Path | None,
    output: Path | None,
    html: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Play `model overcommit` or `model compare` over a grid of their inputs, on all cores.

    FILE says which keys take which values; docs/sweep.md has every key. Every figure is modelled. Written are
    one table (Parquet) and a page with the trade-off front and heat maps: the same to the byte for the same
    FILE, however many processes or hosts there are.
    """
    from orchestrator.analysis.sweep import SweepView
    from orchestrator.report.sweep import is_page, write_page
    from orchestrator.scenario.sweep import load_sweep
    from orchestrator.store.sweep_file import SweepFacts, is_sweep, read_sweep, write_sweep

    if fleet_file and processes:
        raise BadInputError(
            "--fleet and --processes both say where points are computed", hint="leave one out"
        )
    _must_be_one(file)
    sweep = load_sweep(file)
    table = output or Path(f"{file.stem}.parquet")
    page = html or table.with_suffix(".html")
    may_write(table, is_sweep, "a table of `model sweep`", force=force)
    may_write(page, is_page, "a page of `model sweep`", force=force)
    costs = {name: _costs(sweep, name) for name in sweep.text.costs}
    rows = _played(sweep, costs, _on_fleet(fleet_file, sweep) if fleet_file else _engine(processes))
    facts = SweepFacts(
        name=sweep.text.name,
        description=sweep.text.description,
        question="compare" if sweep.text.compare else "overcommit",
        axes=_axes(sweep),
        inputs_sha256=sweep.sha256,
    )
    try:
        write_sweep(table, facts, rows)
        view = SweepView(*read_sweep(table))
        write_page(page, view)
    except OSError as error:
        named = error.filename or table
        raise InfrastructureError(
            f"{named} cannot be written: {error.strerror}", hint="say where: -o"
        ) from error
    if as_json:
        print_json(_as_json(view, table, page))
        return
    for sentence in view.sentences():
        out.print(escape(sentence))
    print_table(_table(view))
    out.print("modelled; the lowest and the highest over all points, of medians at typical costs")
    out.print(f"table: {escape(str(table))}", soft_wrap=True)
    out.print(f"page: {escape(str(page))}", soft_wrap=True)


def _must_be_one(file: Path) -> None:
    from orchestrator.scenario.kind import is_overcommit, is_scenario
    from orchestrator.yamlfile import read_yaml

    read = read_yaml(file)
    if is_scenario(read):
        raise BadInputError(f"{file} is a scenario, for real guests", hint=f"orchestrator run {file}")
    if is_overcommit(read):
        raise BadInputError(f"{file} is one question", hint=f"orchestrator model overcommit {file}")


def _costs(sweep: Sweep, name: str) -> CostTable:
    from orchestrator.scenario.sweep import SHIPPED

    return costs_of(None if name == SHIPPED else sweep.path(name))


def _engine(processes: int | None) -> Engine:
    from orchestrator.guest.cache import cache_dir
    from orchestrator.sweep import InProcess, Processes

    many = processes or len(os.sched_getaffinity(0))
    compiled = cache_dir() / "compiled"
    return Processes(compiled, many) if many > 1 else InProcess(compiled)


def _on_fleet(path: Path, sweep: Sweep) -> Engine:
    from orchestrator.fleet.config import load_fleet
    from orchestrator.fleet.extra import must_be_installed

    fleet = load_fleet(path)
    must_be_installed()
    from orchestrator.fleet.engine.points import OnFleet

    return OnFleet(fleet, sweep.text.name, lambda text: err.print(f"[dim]{escape(text)}[/]"))


def _played(sweep: Sweep, costs: dict[str, CostTable], engine: Engine) -> list[Row]:
    """The rows of all tasks, in the order of the tasks."""
    from orchestrator.sweep import tasks_of

    tasks = tasks_of(sweep, costs)
    found: dict[int, list[Row]] = {}
    with stop_at_signals("nothing is written"), _progress(len(tasks)) as done:
        for number, rows in engine.run(tasks):
            found[number] = rows
            done()
    return [row for number in range(len(tasks)) for row in found[number]]


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Call what it gives for each task that is done."""
    if err.is_terminal:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("points"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, transient=True) as progress:
            task = progress.add_task("points", total=total)
            yield lambda: progress.advance(task)
        return
    ended = 0

    def count() -> None:
        nonlocal ended
        ended += 1
        if ended * _LINES // total > (ended - 1) * _LINES // total:
            err.print(f"[dim]{ended} of {total} points[/]")

    yield count


def _axes(sweep: Sweep) -> tuple[str, ...]:
    text = sweep.text
    if text.overcommit:
        return (*text.overcommit.grid, "costs")
    return ("trace", "budget_bytes", "other_node_bytes", "seed", "costs")


def _table(view: SweepView) -> Table:
    table = plain_table()
    table.add_column("policy, action", no_wrap=True)
    table.add_column("on the front", justify="right")
    for measure in view.question.compared:
        table.add_column(measure.title, justify="right")
    for choice in view.choices:
        spans = (view.span(choice, measure) for measure in view.question.compared)
        table.add_row(escape(choice), f"{view.times_on_front[choice]} of {len(view.points)}", *spans)
    return table


def _as_json(view: SweepView, table: Path, page: Path) -> dict[str, object]:
    return {
        "origin": "modelled",
        "table": str(table),
        "page": str(page),
        "points": len(view.points),
        "rows": len(view.rows),
        "axes": {axis: view.values(axis) for axis in view.facts.axes},
        "front": [{"choice": choice, "points": view.times_on_front[choice]} for choice in view.choices],
    }
