"""`run` and `resume`: execute a scenario, or what is missing of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from rich.markup import escape

from orchestrator.cli.gate import GateWords, gate_of, gate_options, print_gate
from orchestrator.cli.output import err, out, print_error, print_json, print_warnings
from orchestrator.cli.progress import watch
from orchestrator.cli.scenario import find_guests_dir, open_scenario
from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import FileProblemsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.run import Progress, RunResult


@click.command("run")
@click.argument("scenario_file", metavar="SCENARIO", type=click.Path(path_type=Path))
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Where the run folder is made.",
)
@click.option("--guests-dir", type=click.Path(path_type=Path), help="Folder of guest definitions.")
@click.option("--connect", metavar="URI", help="Use this libvirt instead of the embedded one.")
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the scenario's.")
@click.option("--repeats", type=click.IntRange(min=1), help="Instead of the scenario's.")
@click.option("--boots", type=click.IntRange(min=1), help="Boots of each guest, instead of the scenario's.")
@click.option("--cold", is_flag=True, help="Boot every guest, as with `start: cold`.")
@gate_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.pass_context
def run_command(
    ctx: click.Context,
    *,
    scenario_file: Path,
    results: Path,
    guests_dir: Path | None,
    connect: str | None,
    seed: int | None,
    repeats: int | None,
    boots: int | None,
    cold: bool,
    as_json: bool,
    **words: Unpack[GateWords],
) -> None:
    """Run a scenario and write a run folder with a report."""
    import psutil

    from orchestrator.plan import make_plan
    from orchestrator.run import Places, execute_plan, new_run_id
    from orchestrator.scenario import check_fits, kernel_warnings

    gate = gate_of(words)
    scenario = open_scenario(scenario_file, guests_dir)
    problems = check_fits(scenario, psutil.virtual_memory().available)
    if problems:
        raise FileProblemsError(problems)
    print_warnings(kernel_warnings(scenario))
    plan = make_plan(scenario, seed=seed, repeats=repeats, boots=boots, start="cold" if cold else None)
    places = Places.beside(find_guests_dir(scenario_file, guests_dir))
    results.mkdir(parents=True, exist_ok=True)
    run_dir = results / new_run_id(plan.scenario)
    seconds = _typical_trial_seconds(results, plan.scenario_sha256)
    _carry_out(
        ctx,
        run_dir,
        seconds,
        lambda progress: execute_plan(plan, places, run_dir, progress, connect=connect, gate=gate),
        as_json=as_json,
    )


@click.command("resume")
@click.argument("run_name", metavar="RUN")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    help="Folder of run folders.",
)
@click.option("--guests-dir", type=click.Path(path_type=Path), help="Folder of guest definitions.")
@click.option("--connect", metavar="URI", help="Use this libvirt instead of the embedded one.")
@gate_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.pass_context
def resume_command(
    ctx: click.Context,
    *,
    run_name: str,
    results: Path,
    guests_dir: Path | None,
    connect: str | None,
    as_json: bool,
    **words: Unpack[GateWords],
) -> None:
    """Run the trials of RUN that are missing or were lost, and make its report.

    Lost is a trial that did not end, was interrupted, or failed without its guest being at fault; what
    there is of it is kept in the run's folder `lost`. RUN is an id, the beginning of one, `last`, or a path.
    """
    from orchestrator.run import Places, resume_run
    from orchestrator.store import find_run

    gate = gate_of(words)
    run = find_run(run_name, results)
    places = Places.beside(find_guests_dir(Path(run.plan.scenario_path), guests_dir))
    _carry_out(
        ctx,
        run.directory,
        None,
        lambda progress: resume_run(run.directory, places, progress, connect=connect, gate=gate),
        as_json=as_json,
    )


def _carry_out(
    ctx: click.Context,
    run_dir: Path,
    trial_seconds: float | None,
    execute: Callable[[Progress], RunResult],
    *,
    as_json: bool,
) -> None:
    """Run trials into a folder and tell what came of it."""
    from orchestrator.store import open_run
    from orchestrator.summary import note_time

    try:
        with stop_at_signals(), watch(trial_seconds) as progress:
            result = execute(progress)
            progress.note("writing the report")
            files = _write_reports(result.directory)
            note_time(open_run(result.directory))
    except KeyboardInterrupt:
        err.print(f"[bold]next:[/] orchestrator resume {escape(str(run_dir))}   runs what is missing")
        raise
    for trial, error in result.errors:
        err.print(f"\n[bold]trial {trial}[/]")
        error.hint = error.hint or f"orchestrator show {result.directory.name}"
        print_error(error)
    _print_result(result, files, as_json=as_json)
    ctx.exit(int(result.exit_code))


def _typical_trial_seconds(results: Path, scenario_sha256: str) -> float | None:
    """How long a trial took when this very scenario last ran to its end here; None if it never did."""
    from orchestrator.errors import BadInputError
    from orchestrator.store import Status, list_runs

    for run in list_runs(results):
        if isinstance(run, BadInputError) or run.status is not Status.COMPLETED:
            continue
        if run.plan.scenario_sha256 == scenario_sha256:
            ends = [trial.ended.t_ns / 1e9 for trial in run.trials if trial.ended]
            return sum(ends) / len(ends) if ends else None
    return None


def _write_reports(directory: Path) -> dict[str, str]:
    from orchestrator.report.junit import write_junit
    from orchestrator.report.page import build_report
    from orchestrator.report.prometheus import write_prometheus

    return {
        "report": str(build_report(directory)),
        "junit": str(write_junit(directory)),
        "metrics": str(write_prometheus(directory)),
    }


def _print_result(result: RunResult, files: dict[str, str], *, as_json: bool) -> None:
    from orchestrator.cli.compare import print_run_comparison, run_comparison_as_json
    from orchestrator.cli.runs import (
        print_judgements,
        print_second_level,
        run_as_json,
        run_table,
    )

    if as_json:
        shown = {**run_as_json(result.directory), "comparison": run_comparison_as_json(result.directory)}
        print_json({**shown, "exit_code": int(result.exit_code), "files": files})
        return
    out.print(run_table(result.directory))
    print_second_level(result.directory)
    print_run_comparison(result.directory)
    print_judgements(result.directory)
    print_gate(result.directory)
    out.print(f"report: {files['report']}", soft_wrap=True)
