"""Verbs that look at runs: list, show, report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.output import out, print_json
from orchestrator.errors import BadInputError
from orchestrator.store import layout
from orchestrator.store.layout import Status
from orchestrator.units import format_duration

if TYPE_CHECKING:
    from orchestrator.report.data import RunView
    from orchestrator.store import Run
    from orchestrator.verdict import Judgement

_WIDE = 110  # columns of a terminal from which `list` says how runs came out

Command = TypeVar("Command", bound=Callable[..., Any])

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


@click.command("list")
@click.option("--scenario", metavar="NAME", help="Only runs of this scenario.")
@click.option("--status", type=click.Choice([one.value for one in Status]), multiple=True, help="Only these.")
@click.option("--arm", metavar="NAME", help="Only runs that have this arm.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), help="Only runs that began on that day or later.")
@click.option(
    "--sort",
    type=click.Choice(["started", "scenario", "status"]),
    default="started",
    show_default=True,
    help="By what; runs of the same come newest first.",
)
@click.option("--limit", type=click.IntRange(min=1), help="No more than so many.")
@results_option
@json_option
def list_command(
    *,
    results: Path,
    scenario: str | None,
    status: tuple[str, ...],
    arm: str | None,
    since: datetime | None,
    sort: str,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the runs in the results folder, the newest first."""
    from orchestrator.store import list_runs

    wanted = _Wanted(scenario, status, arm, since)
    found = [run for run in list_runs(results) if isinstance(run, BadInputError) or wanted.has(run)]
    if sort != "started":
        found.sort(key=lambda run: "" if isinstance(run, BadInputError) else str(getattr(run, sort)))
    found = found[:limit]
    rows, unreadable = [], []
    for run in found:
        try:
            if isinstance(run, BadInputError):
                raise run
            rows.append(_list_row(run))
        except BadInputError as error:  # one damaged folder does not hide the others
            unreadable.append(error.brief)
    if as_json:
        print_json({"runs": rows, "unreadable": unreadable})
        return
    if not found:
        out.print(f"No {wanted.word}runs in {escape(str(results))}.")
        out.print("[bold]next:[/] orchestrator run scenarios/quickstart.yaml")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    wide = out.width >= _WIDE
    for column in ("run", "scenario", "started", "status", "trials", *(["came out"] if wide else [])):
        table.add_column(column, no_wrap=column != "came out")
    for row in rows:
        table.add_row(
            escape(_clean(row["run"])),
            escape(_clean(row["scenario"])),
            escape(_clean(row["started_at"])[:16].replace("T", " ")),
            _coloured(Status(row["status"])),
            f"{row['trials_done']}/{row['trials_planned']}",
            *([escape(row["headline"])] if wide else []),
        )
    out.print(table, soft_wrap=False)
    for brief in unreadable:
        out.print(f"[yellow]unreadable:[/] {escape(_clean(brief))}")


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


@dataclass(frozen=True)
class _Wanted:
    """Which runs are listed; what is not given keeps none out."""

    scenario: str | None
    status: tuple[str, ...]
    arm: str | None
    since: datetime | None

    @property
    def word(self) -> str:
        return "such " if self != _Wanted(None, (), None, None) else ""

    def has(self, run: Run) -> bool:
        began = str(run.meta.get("started_at") or "")
        return (
            self.scenario in {None, run.scenario}
            and (not self.status or run.status.value in self.status)
            and (self.arm is None or self.arm in run.arm_names)
            and (self.since is None or began[:10] >= f"{self.since:%Y-%m-%d}")
        )


def _list_row(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "scenario": run.scenario,
        "started_at": str(run.meta.get("started_at", "")),
        "status": run.status.value,
        "exit_code": run.meta.get("exit_code"),
        "trials_done": run.done,
        "trials_planned": len(run.planned),
        "headline": _headline(run),
    }


def _headline(run: Run) -> str:
    """What unplug gave back, from summary.csv alone: a list must not compute."""
    from orchestrator.report.text import percent
    from orchestrator.summary import saved

    given: dict[str, tuple[float, float]] = {}
    for one in saved(run):
        asked, got = one.number("unplug_requested_bytes"), one.number("unplug_achieved_bytes")
        if asked and got is not None:
            before = given.get(one.arm, (0.0, 0.0))
            given[one.arm] = before[0] + got, before[1] + asked
    parts = [f"{_clean(arm)} {percent(got, asked)}" for arm, (got, asked) in given.items()]
    return f"unplugged: {', '.join(parts)}" if parts else ""


def run_as_json(directory: Path) -> dict[str, Any]:
    """What `show --json` prints of the run folder `directory`."""
    from dataclasses import asdict

    from orchestrator.report.answer import answer
    from orchestrator.report.confusion import confusion_as_json
    from orchestrator.report.foretold import foretold

    view = _view(directory)
    trials = [
        {
            "trial": trial.summary.trial,
            "arm": trial.summary.arm,
            "repeat": trial.summary.repeat,
            "differs": dict(trial.summary.differs),
            "kernel_release": trial.summary.kernel_release,
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
        }
        for trial in view.trials
    ]
    return {
        **_list_row(view.run),
        "directory": str(view.run.directory),
        "answer": answer(view),
        "time": _time(view),
        "trials": trials,
        "expect": [vars(one) for one in judged(view)],
        "confusion": confusion_as_json(view),
        "foretold": [asdict(pair) for pair in foretold(view)],
        "meta": dict(view.run.meta),
    }


def _show_text(view: RunView) -> None:
    from orchestrator.report.answer import answer
    from orchestrator.report.confusion import confusion, confusion_sentence
    from orchestrator.report.foretold import foretold

    run = view.run
    out.print(f"[bold]{escape(_clean(run.id))}[/]  {escape(_clean(run.scenario))}  {_coloured(run.status)}")
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
    for row in confusion(view):
        out.print(escape(confusion_sentence(row)))
    time = _time(view)
    if time:
        all_of_it, steps, starting = (
            format_duration(time[f"{part}_seconds"]) for part in ("wall", "steps", "starting")
        )
        share = f"the orchestrator itself {time['overhead_share']:.1%}"
        out.print(f"[dim]{all_of_it} in all: steps {steps}, starting guests {starting}, {share}[/]")
    for trial in view.trials:
        if trial.failed:
            out.print(
                f"[red]{escape(_clean(trial.summary.trial))}: {escape(_clean(trial.summary.outcome))}[/]"
            )
            out.print(f"  {escape(_clean(trial.error, 400))}")
            if trial.hint:
                out.print(f"  [bold]next:[/] {escape(_clean(trial.hint, 400))}")
    out.print(f"[bold]next:[/] {escape(_next(view))}")


def judged(view: RunView) -> list[Judgement]:
    """What the scenario expects, and whether it came so."""
    from orchestrator.verdict import judge

    return judge(view.run, [trial.summary for trial in view.trials])


def print_judgements(directory: Path) -> None:
    """A line for each expectation of a run."""
    for one in judged(_view(directory)):
        word = "[green]met:[/]" if one.met else "[red]not met:[/]"
        out.print(f"{word} {escape(_clean(one.words, 200))}: {escape(_clean(one.found, 200))}")


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


def print_gate(directory: Path) -> None:
    """What the baseline says of a run, if it was held against one."""
    from orchestrator.report.gate import outcome_sentences
    from orchestrator.verdict import read_outcome

    outcome = read_outcome(directory)
    if outcome is None:
        return
    for sentence in outcome_sentences(outcome):
        out.print(escape(sentence))
    out.print("[green]baseline: kept[/]" if outcome.passed else "[red]baseline: not kept[/]")
    if not outcome.passed:
        out.print(
            f"[bold]next:[/] orchestrator show {escape(directory.name)}   and, if that is how it shall be: "
            f"orchestrator baseline {escape(directory.name)} -o FILE"
        )


def run_table(directory: Path) -> Table:
    """The comparison of a run's arms, metrics down and arms across."""
    return _comparison(_view(directory))


def _comparison(view: RunView) -> Table:
    from orchestrator.report.comparison import comparison

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for arm in view.arms:
        table.add_column(escape(_clean(arm.name, 40)), justify="right")
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


def _coloured(status: Status) -> str:
    return f"[{_COLOURS[status]}]{status.value}[/]"


def _clean(text: object, limit: int = 80) -> str:
    from orchestrator.report.text import clean

    return clean(text, limit)
