"""`baseline`: keep the figures of a run, for later ones to be held against."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from orchestrator.cli.output import out, print_json
from orchestrator.cli.runs import json_option, results_option


@click.command("baseline")
@click.argument("run_name", metavar="RUN")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The file."
)
@results_option
@json_option
def baseline_command(*, run_name: str, output: Path, results: Path, as_json: bool) -> None:
    """Write the figures of RUN to a file that later runs are held against.

    A run of at least five trials of each arm is wanted: fewer tell no difference from chance.

    \b
    orchestrator baseline last -o baseline.json
    orchestrator run my.yaml --baseline baseline.json --fail-on regression
    """
    from orchestrator import summary
    from orchestrator.store import find_run
    from orchestrator.verdict import figures_of, write_baseline

    run = find_run(run_name, results)
    figures = figures_of(run, summary.load(run))
    write_baseline(output, figures)
    trials = {arm.name: len(arm.trials) for arm in figures.arms}
    if as_json:
        print_json({"file": str(output), "run": figures.run, "trials": trials})
        return
    told = ", ".join(f"{count} of {name}" for name, count in trials.items())
    out.print(f"{escape(str(output))}: {escape(figures.run)}, trials: {escape(told)}")
    if min(trials.values()) < 5:
        out.print("[yellow]fewer than five trials of an arm: a gate will be undecided about it[/]")
