"""Verbs that look at one run: show, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import out, print_json
from orchestrator.store import layout
from orchestrator.store.layout import Status
from orchestrator.units import format_duration

if TYPE_CHECKING:
    from orchestrator.report.data import RunView
    from orchestrator.verdict import Judgement

Command = TypeVar("Command", bound=Callable[..., Any])

_MOST_FINDINGS = 20  # lines of `show`; findings.csv has them all

_COLOURS = {
    Status.COMPLETED: "green",
    Status.RUNNING: "cyan",
    Status.FAILED: "red",
    Status.KILLED: "red",
    Status.INTERRUPTED: "yellow",
    Status.UNKNOWN: "yellow",
}


def results_option(command: Command) -> Command:
    """`--results`: where run folders are."""
    return click.option(
        "--results",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path("results"),
        show_default=True,
        help="Folder of run folders.",
    )(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(command)


@click.command("show")
@click.argument("run_name", metavar="RUN")
@results_option
@json_option
def show_command(run_name: str, results: Path, *, as_json: bool) -> None:
    """Show one run: its id, the beginning of its id, `last`, or a path.

    Works for runs that are unfinished or were killed, too.
    """
    from orchestrator.store import find_run

    directory = find_run(run_name, results).directory
    if as_json:
        print_json(run_as_json(directory))
    else:
        _show_text(_view(directory))


@click.command("report")
@click.argument("run_name", metavar="RUN")
@results_option
@json_option
def report_command(run_name: str, results: Path, *, as_json: bool) -> None:
    """Make report.html, junit.xml, metrics.prom and summary.csv of a run again from what is on disk."""
    from orchestrator import summary
    from orchestrator.report.junit import write_junit
    from orchestrator.report.page import build_report
    from orchestrator.report.prometheus import write_prometheus
    from orchestrator.store import find_run

    run = find_run(run_name, results)
    if run.trials:  # a folder of which only the small files were kept has nothing to compute them from
        summary.refresh(run.directory)
    report = build_report(run.directory)
    junit, metrics = write_junit(run.directory), write_prometheus(run.directory)
    if as_json:
        files = {"report": str(report), "junit": str(junit), "metrics": str(metrics)}
        print_json({"run": run.id, "status": run.status.value, **files})
    else:
        out.print(escape(str(report)))


def run_as_json(directory: Path) -> dict[str, Any]:
    """What `show --json` prints of the run folder `directory`."""
    from dataclasses import asdict

    from orchestrator.cli.listing import list_row
    from orchestrator.report.answer import answer
    from orchestrator.report.confusion import attributions, confusion, confusion_as_json
    from orchestrator.report.foretold import foretold
    from orchestrator.verdict import read_outcome

    view = _view(directory)
    gate = read_outcome(directory)
    trials = [
        {
            "trial": trial.summary.trial,
            "arm": trial.summary.arm,
            "repeat": trial.summary.repeat,
            "differs": dict(trial.summary.differs),
            "kernel_release": trial.summary.kernel_release,
            "kernel_build": trial.summary.kernel_build,
            "kernel_sha256": trial.summary.kernel_sha256,
            "outcome": trial.summary.outcome,
            "error": trial.error if trial.failed else "",
            "hint": trial.hint if trial.failed else "",
            "metrics": dict(trial.summary.metrics),
            "gaps": dict(trial.summary.gaps),
            "tables_snapshot": trial.summary.tables_snapshot,
            "blocks_snapshot": trial.summary.blocks_snapshot,
            "start": trial.summary.start,
            "state": trial.summary.state,
            "policies": [vars(result) for result in trial.summary.policies],
            "snapshots": [vars(result) for result in trial.summary.snapshots],
            "blame": [vars(row) for row in trial.summary.blame],
            "moments": [vars(moment) for moment in trial.summary.moments],
            "moment_gaps": [vars(gap) for gap in trial.summary.moment_gaps],
            "findings": [vars(row) for row in trial.summary.findings],
        }
        for trial in view.trials
    ]
    return {
        **list_row(view.run),
        "directory": str(view.run.directory),
        "answer": answer(view),
        "time": _time(view),
        "trials": trials,
        "expect": [vars(one) for one in judged(view)],
        "gate": {**asdict(gate), "passed": gate.passed} if gate else None,
        "confusion": confusion_as_json(view),
        "attribution": [asdict(one) for one in attributions(confusion(view))],
        "foretold": [asdict(pair) for pair in foretold(view)],
        "meta": view.run.meta.facts(),
    }


def _print_attribution(view: RunView) -> None:
    from orchestrator.report.confusion import attribution_rows, attributions, confusion, confusion_sentence

    injected = confusion(view)
    for row in injected:
        out.print(escape(confusion_sentence(row)))
    if not injected:
        return
    table = Table(title="Attribution check", title_justify="left", box=None, pad_edge=False)
    for head in ("class", "trials", "recall, named", "precision", "recall, contained", "precision"):
        table.add_column(head, justify="left" if head == "class" else "right")
    for each in attribution_rows(attributions(injected)):
        table.add_row(each.label, each.trials, *each.cells)
    out.print(table)


def _show_text(view: RunView) -> None:
    from orchestrator.cli.gate import print_gate
    from orchestrator.report.answer import answer
    from orchestrator.report.foretold import foretold

    run = view.run
    out.print(
        f"[bold]{escape(clean_text(run.id))}[/]  {escape(clean_text(run.scenario))}  {coloured(run.status)}"
    )
    out.print(f"[dim]{escape(str(run.directory))}[/]")
    if run.trials:
        out.print(f"{run.done} of {len(run.planned)} trials have ended, {len(view.trials)} have begun")
    else:
        out.print(f"{len(view.trials)} of {len(run.planned)} trials; only their summaries are kept here")
    for sentence in answer(view):
        out.print(escape(sentence))
    if view.arms:
        out.print(_comparison(view), soft_wrap=False)
    print_second_level(run.directory)
    print_judgements(run.directory)
    print_gate(run.directory)
    for pair in foretold(view):
        out.print(escape(pair.sentence))
    _print_attribution(view)
    time = _time(view)
    if time:
        all_of_it, steps, starting = (
            format_duration(time[f"{part}_seconds"]) for part in ("wall", "steps", "starting")
        )
        share = f"the orchestrator itself {time['overhead_share']:.1%}"
        out.print(f"[dim]{all_of_it} in all: steps {steps}, starting guests {starting}, {share}[/]")
    _print_findings(view)
    for trial in view.trials:
        if trial.failed:
            what = f"{clean_text(trial.summary.trial)}: {clean_text(trial.summary.outcome)}"
            out.print(f"[red]{escape(what)}[/]")
            out.print(f"  {escape(clean_text(trial.error, 400))}")
            if trial.hint:
                out.print(f"  [bold]next:[/] {escape(clean_text(trial.hint, 400))}")
    out.print(f"[bold]next:[/] {escape(_next(view))}")


def _print_findings(view: RunView) -> None:
    from orchestrator.report.findings import finding_rows

    for row in finding_rows(view)[:_MOST_FINDINGS]:
        colour = "red" if row.bad else "yellow"
        out.print(f"[{colour}]{escape(f'{row.trial}: {row.kind}')}[/] {escape(f'({row.by}) {row.text}')}")


def judged(view: RunView) -> list[Judgement]:
    """What the scenario expects, and whether it came so."""
    from orchestrator.verdict import judge

    return judge(view.run, [trial.summary for trial in view.trials])


def print_judgements(directory: Path) -> None:
    """A line for each expectation of a run."""
    for one in judged(_view(directory)):
        word = "[green]met:[/]" if one.met else "[red]not met:[/]"
        out.print(f"{word} {escape(clean_text(one.words, 200))}: {escape(clean_text(one.found, 200))}")


def print_second_level(directory: Path) -> None:
    """Second-level tables at each moment of each arm, where there are any."""
    from orchestrator.report.second_level import moment_rows

    rows = moment_rows(_view(directory))
    if not rows:
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("second-level tables")
    for column in ("measured", "needed (predicted)", "reclaimable (predicted)", "measured / needed"):
        table.add_column(column, justify="right")
    for row in rows:
        if row.first:
            table.add_row(f"[bold]{escape(row.arm)}[/]")
        cells = (row.measured, row.needed, row.reclaimable, row.ratio)
        table.add_row(
            f"  {escape(row.moment)}", *(escape(cell.text) if cell.text else "[dim]-[/]" for cell in cells)
        )
    out.print(table, soft_wrap=False)


def run_table(directory: Path) -> Table:
    """The comparison of a run's arms, metrics down and arms across."""
    return _comparison(_view(directory))


def _comparison(view: RunView) -> Table:
    from orchestrator.report.comparison import comparison

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for arm in view.arms:
        table.add_column(escape(clean_text(arm.name, 40)), justify="right")
    for group in comparison(view.arms):
        table.add_row(f"[dim]{escape(group.title)}[/]")
        for row in group.rows:
            label = f"  {row.label} (predicted)" if row.predicted else f"  {row.label}"
            cells = (escape(cell.text) if cell.text else "[dim]-[/]" for cell in row.cells)
            table.add_row(escape(label), *cells)
    return table


def _time(view: RunView) -> dict[str, float] | None:
    """Seconds of the run, and the share of them that was the orchestrator's own."""
    from dataclasses import asdict

    from orchestrator.summary import time_spent

    spent = time_spent(view.run)
    if spent is None:
        return None
    seconds = {f"{name}_seconds": value for name, value in asdict(spent).items()}
    return {**seconds, "overhead_seconds": spent.overhead, "overhead_share": spent.overhead / spent.wall}


def _view(directory: Path) -> RunView:
    from orchestrator import summary
    from orchestrator.report.data import view_run
    from orchestrator.store import open_run

    run = open_run(directory)
    return view_run(run, summary.load(run))


def _next(view: RunView) -> str:
    run = view.run
    report = f"orchestrator report {run.directory}"
    partial = f"{report}   shows what there is"
    page = run.directory / layout.REPORT
    return {
        Status.COMPLETED: f"open {page}" if page.exists() else report,
        Status.RUNNING: f"wait, then   orchestrator show {run.directory}",
        Status.KILLED: f"orchestrator clean   removes what the killed run left running; {partial}",
        Status.INTERRUPTED: partial,
        Status.FAILED: f"orchestrator doctor   says whether this machine is fit; {partial}",
        Status.UNKNOWN: f"it was begun on another machine and may go on there; {partial}",
    }[run.status]


def coloured(status: Status) -> str:
    """As rich has it."""
    return f"[{_COLOURS[status]}]{status.value}[/]"


def clean_text(text: object, limit: int = 80) -> str:
    """For a terminal: on one line, and printable."""
    from orchestrator.report.text import clean

    return clean(text, limit)
