"""`run` and `resume`: execute a scenario, or what is missing of a run."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from rich.markup import escape

from orchestrator.cli.complete import ScenarioPath, complete_runs
from orchestrator.cli.gate import GateOptions, gate_of, gate_options, print_gate
from orchestrator.cli.options import (
    arms_option,
    connect_option,
    fleet_option,
    guests_dir_option,
    json_option,
    results_option,
)
from orchestrator.cli.output import (
    err,
    flush_output,
    out,
    print_error,
    print_json,
    print_next,
    print_warnings,
)
from orchestrator.cli.progress import watch
from orchestrator.cli.scenario import find_guests_dir, open_scenario, own_playbook
from orchestrator.cli.signals import stop_at_signals
from orchestrator.cli.slurm import SlurmOptions, following, site_of, slurm_options
from orchestrator.errors import BadInputError, ExitCode, host_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.fleet.config import Fleet
    from orchestrator.run import Progress, RunResult
    from orchestrator.scenario.model import Start
    from orchestrator.slurm import Site


class _RunOptions(GateOptions, SlurmOptions):
    """Options of both verbs, as parsed."""


@click.command("run")
@click.argument("scenario_file", metavar="SCENARIO", type=ScenarioPath("scenario"))
@results_option
@guests_dir_option
@connect_option
@fleet_option
@arms_option
@click.option("--seed", type=click.IntRange(min=0), help="Seed, instead of the scenario's.")
@click.option("--repeats", type=click.IntRange(min=1), help="Trials of each arm, instead of the scenario's.")
@click.option("--boots", type=click.IntRange(min=1), help="Boots of each guest, instead of the scenario's.")
@click.option("--cold", is_flag=True, help="Boot every guest, as with `start: cold`.")
@slurm_options
@gate_options
@json_option
@click.pass_context
def run_command(
    ctx: click.Context,
    *,
    scenario_file: Path,
    results: Path,
    guests_dir: Path | None,
    connect: str | None,
    fleet_file: Path | None,
    arms: tuple[str, ...],
    seed: int | None,
    repeats: int | None,
    boots: int | None,
    cold: bool,
    as_json: bool,
    **words: Unpack[_RunOptions],
) -> None:
    """Run a scenario and write a run folder with a report."""
    import psutil

    from orchestrator.plan import make_plan
    from orchestrator.run import ProjectPaths, execute_plan, new_run_id
    from orchestrator.scenario import kernel_warnings

    gate, site = gate_of(words), site_of(words, connect, guests_dir)
    fleet = _fleet(fleet_file, connect, site)
    elsewhere = fleet is not None or site is not None
    # Where other hosts do it, it is their memory that counts.
    available = None if elsewhere else psutil.virtual_memory().available
    scenario = open_scenario(scenario_file, guests_dir, available_bytes=available, to_run=True)
    if arms:
        scenario = scenario.only(arms)
    print_warnings(kernel_warnings(scenario))
    start: Start | None = "cold" if cold else None
    # What the run was on is read from its plan: by reports, comparisons, and `resume`.
    plan = make_plan(scenario, seed=seed, repeats=repeats, boots=boots, start=start, host=connect)
    guests = find_guests_dir(scenario_file, guests_dir)
    print_warnings(own_playbook(guests))
    places = ProjectPaths.beside(guests)
    results.mkdir(parents=True, exist_ok=True)
    run_dir = results / new_run_id(plan.scenario)
    seconds = _typical_trial_seconds(results, plan.scenario_sha256)

    def execute(progress: Progress) -> RunResult:
        if fleet is not None:
            from orchestrator.fleet.execute import execute_on_fleet

            return execute_on_fleet(plan, places, run_dir, progress, fleet, gate=gate)
        if site is not None:
            from orchestrator.slurm import run_by_slurm

            return run_by_slurm(plan, places, run_dir, site, following(words, progress), gate=gate)
        return execute_plan(plan, places, run_dir, progress, connect=connect, gate=gate)

    carry_out(ctx, run_dir, seconds, execute, as_json=as_json, timed=not elsewhere, site=site)


@click.command("resume")
@click.argument("run_name", metavar="RUN", shell_complete=complete_runs)
@results_option
@guests_dir_option
@connect_option
@fleet_option
@slurm_options
@gate_options
@json_option
@click.pass_context
def resume_command(
    ctx: click.Context,
    *,
    run_name: str,
    results: Path,
    guests_dir: Path | None,
    connect: str | None,
    fleet_file: Path | None,
    as_json: bool,
    **words: Unpack[_RunOptions],
) -> None:
    """Run the trials of RUN that are missing or were lost, and make its report.

    Lost is a trial that did not end, was interrupted, or failed without its guest being at fault; what
    there is of it is kept in the run's folder `lost`. RUN is an id, the beginning of one, `last`, or a path.
    With --slurm, an array of the run that still goes on is waited for, and nothing is submitted.
    """
    from orchestrator.run import ProjectPaths, resume_run
    from orchestrator.store import find_run

    gate, site = gate_of(words), site_of(words, connect, guests_dir)
    fleet = _fleet(fleet_file, connect, site)
    run = find_run(run_name, results)
    places = ProjectPaths.beside(find_guests_dir(Path(run.plan.scenario_path), guests_dir))

    def execute(progress: Progress) -> RunResult:
        if fleet is not None:
            from orchestrator.fleet.execute import resume_on_fleet

            return resume_on_fleet(run.directory, places, progress, fleet, gate=gate)
        if site is not None:
            from orchestrator.slurm import resume_by_slurm

            return resume_by_slurm(run.directory, places, site, following(words, progress), gate=gate)
        return resume_run(run.directory, places, progress, connect=connect, gate=gate)

    timed = fleet is None and site is None
    carry_out(ctx, run.directory, None, execute, as_json=as_json, timed=timed, site=site)


def _fleet(path: Path | None, connect: str | None, site: Site | None) -> Fleet | None:
    """What --fleet names. Raises BadInputError."""
    if path is None:
        return None
    for other, given in (("--connect", connect), ("--slurm", site)):
        if given is not None:
            raise BadInputError(f"--fleet and {other} both say where trials run", hint="leave one out")
    from orchestrator.fleet.config import load_fleet

    return load_fleet(path)


def carry_out(
    ctx: click.Context,
    run_dir: Path,
    trial_seconds: float | None,
    execute: Callable[[Progress], RunResult],
    *,
    as_json: bool,
    timed: bool = True,
    site: Site | None = None,
) -> None:
    """Run trials into a folder and print what came of it. `timed`: this process has run them all.

    With a `site`, they are run by its Slurm.
    """
    from orchestrator.cli.runs import write_reports
    from orchestrator.summary import note_time

    result: RunResult | None = None
    try:
        ends = (
            "cancelling the array and keeping what ended"
            if site
            else "ending the guest and keeping what was read"
        )
        with stop_at_signals(ends), watch(trial_seconds) as progress:
            result = execute(progress)
            with _ends_with_its_code(run_dir):
                progress.note("writing the report")
                files = write_reports(result.analysis)
            if timed:
                note_time(result.analysis.run)
    except KeyboardInterrupt:
        if result is None:
            again = " --slurm" if site else ""
            print_next(f"orchestrator resume {run_dir}{again}   runs what is missing", err)
        else:
            print_next(f"orchestrator report {run_dir}   makes the report again", err)
        raise
    with _ends_with_its_code(run_dir):
        _tell(result, files, as_json=as_json)
    ctx.exit(int(result.exit_code))


@contextmanager
def _ends_with_its_code(run_dir: Path) -> Iterator[None]:
    """Have meta.json of a run that has ended say what the caller gets, should its result not be printed."""
    from orchestrator.store import note_exit

    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):
            note_exit(run_dir, ExitCode.INTERRUPTED, "interrupted when its trials had ended")
        raise
    except BrokenPipeError:
        raise  # whoever reads has seen enough
    except OSError as error:
        failure = host_failure(error)
        with suppress(OSError):  # a folder that takes nothing any more
            note_exit(run_dir, failure.exit_code, failure.brief)
        raise


def _tell(result: RunResult, files: dict[str, str], *, as_json: bool) -> None:
    for trial, error in result.errors:
        err.print(f"\n[bold]trial {trial}[/]")
        error.hint = error.hint or f"orchestrator show {result.directory}"
        print_error(error)
    _print_result(result, files, as_json=as_json)
    flush_output()


def _typical_trial_seconds(results: Path, scenario_sha256: str) -> float | None:
    """How long a trial took when this very scenario last ran to its end here; None if it never did."""
    from orchestrator.store import Status, list_runs

    for run in list_runs(results):
        if isinstance(run, BadInputError) or run.status is not Status.COMPLETED:
            continue
        if run.plan.scenario_sha256 == scenario_sha256:
            ends = [trial.ended.t_ns / 1e9 for trial in run.trials if trial.ended]
            return sum(ends) / len(ends) if ends else None
    return None


def _print_result(result: RunResult, files: dict[str, str], *, as_json: bool) -> None:
    from orchestrator.cli.compare import print_run_comparison, run_comparison_as_json
    from orchestrator.cli.runs import (
        print_arm_table,
        print_conditions,
        print_expectation_results,
        print_second_level,
    )

    analysis = result.analysis
    if as_json:
        from orchestrator.export.document import RunDocument

        shown = {**RunDocument.of_run(analysis).as_json(), "comparison": run_comparison_as_json(analysis)}
        print_json({**shown, "exit_code": int(result.exit_code), "files": files})
        return
    for sentence in analysis.kill_sentences:
        out.print(f"[red]{escape(sentence)}[/]")
    print_arm_table(analysis)
    print_conditions(analysis)
    print_second_level(analysis)
    print_run_comparison(analysis)
    print_expectation_results(analysis)
    print_gate(analysis)
    out.print(f"report: {files['report']}", soft_wrap=True)
