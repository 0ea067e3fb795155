"""`baseline`: keep the figures of a run, for later ones to be compared with."""

from __future__ import annotations

from pathlib import Path

import click
from rich.markup import escape

from orchestrator.cli.complete import complete_runs
from orchestrator.cli.options import json_option, results_option
from orchestrator.cli.output import out, print_json, print_next
from orchestrator.errors import BadInputError


@click.command("baseline")
@click.argument("run_name", metavar="RUN", shell_complete=complete_runs)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    required=True,
    help="Where to write it. A baseline that is there is replaced; any other file stays.",
)
@results_option
@json_option
def baseline_command(*, run_name: str, output: Path, results: Path, as_json: bool) -> None:
    """Write the figures of RUN to a file that later runs are compared with.

    Take a run that is as it should be, of at least five boots of each arm: of fewer, no difference can be
    distinguished from chance, however many trials start from them. The file needs the run's folder no
    longer. To move a baseline on, write it again of a newer run.

    \b
    orchestrator baseline last -o baseline.json
    orchestrator run my.yaml --baseline baseline.json --fail-on regression
    """
    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.stats import FEWEST
    from orchestrator.store import Status, find_run
    from orchestrator.verdict import write_baseline

    run = find_run(run_name, results)
    if run.status not in {Status.COMPLETED, Status.FAILED}:
        raise BadInputError(
            f"{run.id} is {run.status}: a baseline is made of a run that came to its end",
            hint=f"orchestrator resume {run.directory}",
        )
    figures = RunAnalysis.of(run).verdicts.figures
    write_baseline(output, figures)
    trials = {arm.name: len(arm.trials) for arm in figures.arms}
    boots = {arm.name: len(set(arm.boots())) for arm in figures.arms}
    if as_json:
        print_json({"file": str(output), "run": figures.run, "trials": trials, "boots": boots})
        return
    arms = ", ".join(f"{arm.name} {arm.of_boots}" for arm in figures.arms)
    out.print(f"{escape(str(output))}: {escape(figures.run)}: {escape(arms)}")
    if min(boots.values()) < FEWEST:
        out.print(
            f"[yellow]fewer than {FEWEST} boots of an arm: no gate can decide about it, and none passes[/]"
        )
    scenario = run.plan.scenario_path or "SCENARIO"
    print_next(f"orchestrator run {scenario} --baseline {output} --fail-on regression")
