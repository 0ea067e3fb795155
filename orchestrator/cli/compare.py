"""`compare`: arms against each other, within a run or between runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from orchestrator.cli.complete import complete_arms_of_runs, complete_runs
from orchestrator.cli.options import Choice, Renamed, json_option, results_option
from orchestrator.cli.output import out, print_json, print_next
from orchestrator.cli.tables import plain_table, print_table

if TYPE_CHECKING:
    from orchestrator.analysis.differences import DifferenceGroup
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.verdict import Comparison, PairOfArms, RunFigures

# As orchestrator.verdict.comparison.VARIES, which a unit test compares: `--help` imports no pandas.
VARIES = (
    *("kernel", "guest", "machine", "setup", "kernel_args", "start", "host", "steps"),
    *("host_cpu", "host_kernel", "host_thp", "qemu", "libvirt", "image"),
)

_MOST_TABLES = 3  # below a run; more would hide what stands above them


@click.command("compare")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, shell_complete=complete_runs)
@click.option(
    "--base",
    "base_arm",
    metavar="ARM",
    shell_complete=complete_arms_of_runs,
    default="",
    help="With one RUN: the arm that the others are compared with; else the first.",
)
@click.option(
    "--varies",
    type=Choice(VARIES),
    multiple=True,
    help="What two runs are meant to differ in. Where they differ in anything else, they are not comparable.",
)
@click.option(
    "--alpha",
    "--level",
    "level",
    cls=Renamed,
    type=click.FloatRange(0, 0.5, min_open=True),
    default=0.05,
    show_default=True,
    help="Family-wise error rate over the metrics of two arms.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Seed of the bootstrap."
)
@click.option("--force", is_flag=True, help="Compare runs that are not comparable; the result says so.")
@results_option
@json_option
def compare_command(
    *,
    runs: tuple[str, ...],
    base_arm: str,
    varies: tuple[str, ...],
    level: float,
    seed: int,
    force: bool,
    results: Path,
    as_json: bool,
) -> None:
    """Compare the arms of a run, or the same arms of several runs.

    Of one RUN, each arm is compared with the first. Of several, each is compared with the first RUN, arm
    by arm. A RUN that ends in .json is a baseline file. What significant means, and which runs are
    comparable: docs/statistics.md.
    """
    from orchestrator.verdict import compare_arms, compare_runs

    if base_arm and len(runs) > 1:
        raise click.UsageError("--base names an arm of one run; of several, arms meet by name.")
    if varies and len(runs) == 1:
        raise click.UsageError("--varies is for several runs; the arms of one may differ in anything.")
    first, *others = (_figures(name, results) for name in runs)
    found = (
        [compare_runs(first, other, varies=varies, level=level, seed=seed, force=force) for other in others]
        if others
        else [compare_arms(first, base=base_arm, level=level, seed=seed, force=force)]
    )
    if as_json:
        from orchestrator.analysis.differences import comparison_as_json

        print_json({"comparisons": [comparison_as_json(one) for one in found]})
        return
    for comparison in found:
        print_comparison(comparison)


def print_run_comparison(analysis: RunAnalysis) -> None:
    """Each arm of a run against the first, as `compare` prints it; of many arms without their tables."""
    comparison = analysis.verdicts.comparison
    if not comparison or not comparison.pairs:
        return
    tables = len(comparison.pairs) <= _MOST_TABLES
    print_comparison(comparison, tables=tables, reasons=False)
    if not tables:
        print_next(f"orchestrator compare {analysis.run.directory}   has a table for each of them")


def run_comparison_as_json(analysis: RunAnalysis) -> dict[str, Any] | None:
    """The same for `--json`; None where there is one arm."""
    from orchestrator.analysis.differences import comparison_as_json

    comparison = analysis.verdicts.comparison
    return comparison_as_json(comparison) if comparison and comparison.pairs else None


def print_comparison(comparison: Comparison, *, tables: bool = True, reasons: bool = True) -> None:
    """Tables and sentences; with `reasons`, also why a metric is not compared."""
    from orchestrator.analysis.differences import excluded_sentences

    for reason in comparison.forced:
        out.print(f"[red]compared although not comparable (--force):[/] {escape(reason)}")
    for note in comparison.notes:
        out.print(f"[yellow]note:[/] {escape(note)}")
    if not comparison.pairs:
        out.print("The run has one arm: nothing to compare it with.")
    for pair in comparison.pairs:
        _print_pair(comparison, pair, tables=tables, reasons=reasons)
    for sentence in excluded_sentences(comparison.left_out):
        out.print(f"[yellow]{escape(sentence)}[/]")


def _print_pair(comparison: Comparison, pair: PairOfArms, *, tables: bool, reasons: bool) -> None:
    from orchestrator.analysis.differences import (
        difference_groups,
        heading,
        marked,
        missing_sentences,
        significance_sentences,
    )

    out.print(f"[bold]{escape(heading(comparison, pair))}[/]")
    groups = difference_groups(comparison, pair) if tables else []
    if groups:
        out.print(f"[dim]{', '.join(marked(groups))}[/]")
        print_table(_table(groups, pair))
        for line in _below(groups, pair, comparison.level):
            out.print(f"[dim]{escape(line)}[/]")
    for sentence in significance_sentences(comparison, pair):
        out.print(escape(sentence))
    if reasons or not pair.metrics:
        for sentence in missing_sentences(pair):
            out.print(f"[dim]{escape(sentence)}[/]")


def _below(groups: Sequence[DifferenceGroup], pair: PairOfArms, level: float) -> Iterator[str]:
    """Notes to the table."""
    from orchestrator.analysis.arm_table import footnotes
    from orchestrator.analysis.differences import STATISTIC, correction_note

    yield from footnotes(row.note for group in groups for row in group.rows)
    if _several(pair):
        yield STATISTIC
    note, needed = correction_note(pair, level)
    if needed:
        yield note


def _several(pair: PairOfArms) -> bool:
    """Whether the values of an arm are medians."""
    return max(len(pair.first.trials), len(pair.second.trials)) > 1


def _table(groups: Sequence[DifferenceGroup], pair: PairOfArms) -> Table:
    from orchestrator.analysis.arm_table import signs_of
    from orchestrator.analysis.text import clean

    table = plain_table(header_style="bold")
    table.add_column("")
    several = _several(pair)
    # Columns of different runs are distinguished by the heading.
    for name in (pair.first.name, pair.second.name):
        table.add_column(escape(clean(name, 16)) + "\nmedian" * several, justify="right")
    intervals = any(row.interval for group in groups for row in group.rows)
    difference = "difference, 95 %" if intervals else "difference"
    table.add_column(difference + "\nof means" * several)
    for group in groups:
        table.add_row(f"[dim]{escape(group.title)}[/]")
        for row in group.rows:
            label = f"  {row.label}{' (predicted)' * row.predicted}{signs_of(row.note)}"
            between = f" [{row.interval}]" if row.interval else ""
            table.add_row(
                escape(label), row.first, row.second, escape(f"{row.sign or ' '} {row.difference}{between}")
            )
    return table


def _figures(name: str, results: Path) -> RunFigures:
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.store import find_run
    from orchestrator.verdict import read_baseline

    if name.endswith(".json"):
        return read_baseline(Path(name))
    return RunAnalysis.of(find_run(name, results)).verdicts.figures
