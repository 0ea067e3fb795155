"""Verbs that look at one run: show, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.complete import complete_runs
from orchestrator.cli.options import json_option, results_option
from orchestrator.cli.output import clean_text, coloured, out, print_json, print_next
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.store import layout
from orchestrator.store.layout import Status
from orchestrator.units import format_duration

if TYPE_CHECKING:
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.store import Run

_MOST_FINDINGS = 20  # lines of `show`; findings.csv has them all


@click.command("show")
@click.argument("run_name", metavar="RUN", shell_complete=complete_runs)
@results_option
@json_option
def show_command(run_name: str, results: Path, *, as_json: bool) -> None:
    """Show one run: its id, the beginning of its id, `last`, or a path.

    Works for runs that are unfinished or were killed, too.
    """
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.store import find_run

    analysis = RunAnalysis.of(find_run(run_name, results))
    if as_json:
        from orchestrator.export.document import RunDocument

        print_json(RunDocument.of_run(analysis).as_json())
    else:
        _show_text(analysis)


@click.command("report")
@click.argument("run_name", metavar="RUN", shell_complete=complete_runs)
@results_option
@json_option
def report_command(run_name: str, results: Path, *, as_json: bool) -> None:
    """Make report.html, junit.xml, metrics.prom and summary.csv of a run again from what is on disk."""
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.store import find_run
    from orchestrator.summary import refresh

    run = find_run(run_name, results)
    # A folder of which only the small files were kept has nothing to compute them from.
    analysis = RunAnalysis.of(run, refresh(run.directory) if run.trials else None)
    files = write_reports(analysis)
    if as_json:
        print_json({"run": run.id, "status": run.status.value, **files})
    else:
        out.print(escape(files["report"]))


def write_reports(analysis: RunAnalysis) -> dict[str, str]:
    """Write report.html, junit.xml and metrics.prom; their paths, by what they are."""
    from orchestrator.export.junit import write_junit
    from orchestrator.export.prometheus import write_prometheus
    from orchestrator.report.page import build_report

    return {
        "report": str(build_report(analysis)),
        "junit": str(write_junit(analysis)),
        "metrics": str(write_prometheus(analysis)),
    }


def _print_attribution(analysis: RunAnalysis) -> None:
    from orchestrator.analysis.attribution import attribution_check_sentence, attribution_rows

    for row in analysis.attribution_check:
        out.print(escape(attribution_check_sentence(row)))
    if not analysis.attribution_check:
        return
    table = plain_table(title="Attribution check", header_style="bold")
    for head in ("class", "trials", "recall, attributed", "precision", "recall, contained", "precision"):
        table.add_column(head, justify="left" if head == "class" else "right")
    rows = attribution_rows(analysis.attributions, analysis.attribution_check)
    for each in rows:
        table.add_row(each.label, each.trials, *each.cells)
    print_table(table)
    for reason in (reason for each in rows for reason in each.reasons):
        out.print(f"[dim]{escape(f'n/a of {reason}')}[/]")


def _show_text(analysis: RunAnalysis) -> None:
    from orchestrator.cli.gate import print_gate

    run = analysis.run
    out.print(
        f"[bold]{escape(clean_text(run.id))}[/]  {escape(clean_text(run.scenario))}  {coloured(run.status)}"
    )
    out.print(f"[dim]{escape(str(run.directory))}[/]")
    if run.trials:
        out.print(f"{run.done} of {len(run.planned)} trials have ended, {len(analysis.trials)} have begun")
    else:
        out.print(f"{len(analysis.trials)} of {len(run.planned)} trials; only summaries were kept")
    if run.meta.error:
        out.print(f"[red]error:[/] {escape(clean_text(run.meta.error, 400))}")
    for sentence in analysis.conclusions:
        out.print(escape(sentence))
    print_conditions(analysis)
    _print_notes(analysis)
    if analysis.arms:
        print_arm_table(analysis)
    print_second_level(analysis)
    print_expectation_results(analysis)
    print_gate(analysis)
    for pair in analysis.model_checks:
        out.print(escape(pair.sentence))
    _print_attribution(analysis)
    _print_time(analysis)
    _print_oom_kills(analysis)
    _print_findings(analysis)
    for trial in analysis.trials:
        if trial.failed:
            what = f"{clean_text(trial.summary.trial)}: {clean_text(trial.summary.outcome)}"
            out.print(f"[red]{escape(what)}[/]")
            out.print(f"  {escape(clean_text(trial.error, 400))}")
            if trial.hint:
                print_next(clean_text(trial.hint, 400))
    print_next(_next(run))


def print_conditions(analysis: RunAnalysis) -> None:
    """What guests are made of and what executed them, in a line."""
    conditions = " · ".join(f"{one.name} {one.value}" for one in analysis.conditions.rows)
    if conditions:
        out.print(f"[dim]conditions: {escape(conditions)}[/]")


def _print_notes(analysis: RunAnalysis) -> None:
    """What is to be known of a comparison of arms: of several hosts, in what these differ."""
    comparison = analysis.verdicts.comparison
    for note in comparison.notes if comparison else ():
        out.print(f"[yellow]note:[/] {escape(clean_text(note, 600))}")


def _print_time(analysis: RunAnalysis) -> None:
    spent = analysis.time_spent
    if spent is None:
        return
    all_of_it, steps, starting = map(format_duration, (spent.wall, spent.steps, spent.starting))
    share = f"overhead of the orchestrator {spent.overhead / spent.wall:.1%}"
    out.print(f"[dim]{all_of_it} in all: steps {steps}, starting guests {starting}, {share}[/]")


def _print_oom_kills(analysis: RunAnalysis) -> None:
    for row in analysis.oom_kills[:_MOST_FINDINGS]:
        had = f"{row.page_tables or 'unknown'} of page tables, {row.anonymous or 'unknown'} anonymous"
        out.print(f"[red]{escape(f'{row.trial}: OOM kill')}[/] {escape(f'({row.of}) {row.who}: {had}')}")


def _print_findings(analysis: RunAnalysis) -> None:
    for row in analysis.findings[:_MOST_FINDINGS]:
        colour = "red" if row.bad else "yellow"
        out.print(f"[{colour}]{escape(f'{row.trial}: {row.kind}')}[/] {escape(f'({row.by}) {row.text}')}")


def print_expectation_results(analysis: RunAnalysis) -> None:
    """A line for each expectation of a run."""
    for one in analysis.verdicts.expectation_results:
        word = "[green]met:[/]" if one.met else "[red]not met:[/]"
        out.print(f"{word} {escape(clean_text(one.expectation, 200))}: {escape(clean_text(one.found, 200))}")


def print_second_level(analysis: RunAnalysis) -> None:
    """Second-level tables at each moment of each arm, where there are any."""
    rows = analysis.second_level
    if not rows:
        return
    table = plain_table()
    table.add_column("second-level tables")
    for column in ("measured", "needed (predicted)", "reclaimable (predicted)", "measured / needed"):
        table.add_column(column, justify="right")
    for row in rows:
        if row.first:
            table.add_row(f"[bold]{escape(row.arm)}[/]")
        cells = (row.measured, row.needed, row.reclaimable, row.ratio)
        table.add_row(
            f"  {escape(row.moment)}",
            *(escape(cell.text) if cell.text else "[dim]-[/]" for cell in cells),
        )
    print_table(table)


def print_arm_table(analysis: RunAnalysis) -> None:
    """The comparison of a run's arms, metrics down and arms across."""
    from orchestrator.analysis.arm_table import footnotes, signs_of

    table = plain_table(header_style="bold")
    table.add_column("")
    for arm in analysis.arms:
        table.add_column(escape(clean_text(arm.name, 40)), justify="right")
    for group in analysis.groups:
        table.add_row(f"[dim]{escape(group.title)}[/]")
        for row in group.rows:
            label = f"  {row.label}{' (predicted)' * row.predicted}{signs_of(row.note)}"
            cells = (escape(cell.text) if cell.text else "[dim]-[/]" for cell in row.cells)
            table.add_row(escape(label), *cells)
    print_table(table)
    for line in (
        *analysis.statistic,
        *footnotes(row.note for group in analysis.groups for row in group.rows),
    ):
        out.print(f"[dim]{escape(line)}[/]")


def _next(run: Run) -> str:
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
