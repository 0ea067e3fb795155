"""`trial` and `gather`: one trial of a plan by itself, and such trials as a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click
from rich.markup import escape

from orchestrator.cli.gate import GateOptions, gate_of, gate_options
from orchestrator.cli.options import connect_option, guests_dir_option, json_option, results_option
from orchestrator.cli.output import out, print_error, print_json, print_warnings
from orchestrator.cli.progress import watch
from orchestrator.cli.run import carry_out
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.cli.signals import stop_at_signals
from orchestrator.errors import BadInputError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.analysis.run import RunAnalysis
    from orchestrator.plan import Plan
    from orchestrator.run import Progress, RunResult


@click.command("trial")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.argument("trial_id", metavar="TRIAL")
@click.option(
    "--into",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where the folder of the trial goes: DIR/TRIAL.",
)
@click.option(
    "--host-name",
    metavar="NAME",
    help="What the trial says of where it ran: comparisons keep hosts apart by it. Default: the host's name.",
)
@guests_dir_option
@connect_option
@json_option
@click.pass_context
def trial_command(
    ctx: click.Context,
    *,
    plan_file: Path,
    trial_id: str,
    into: Path,
    host_name: str | None,
    guests_dir: Path | None,
    connect: str | None,
    as_json: bool,
) -> None:
    """Execute one trial of a plan; its folder appears whole or not at all.

    PLAN is what `plan -o` writes, or plan.json of a run folder. Files of the project that are not those of
    the plan are refused. A trial that ended is kept however it ended, with exit code 3 where it failed; one
    that was interrupted, or had no host, leaves nothing. `gather` makes a run of such folders.
    """
    from orchestrator.run import ProjectPaths
    from orchestrator.run.machinery import RealMachinery
    from orchestrator.run.unit import Unit, execute_alone

    plan = read_plan(plan_file)
    if not plan.files:
        raise BadInputError(
            f"{plan_file} does not say by hash what its trials read: it is of an older version",
            hint="plan the scenario again: orchestrator plan SCENARIO -o PLAN.json",
        )
    places = ProjectPaths.beside(find_guests_dir(Path(plan.scenario_path), guests_dir))
    with stop_at_signals("ending the guest; nothing of the trial is kept"), watch() as progress:
        unit = Unit.of(plan, places, progress, connect, RealMachinery())
        progress.trial(trial_id, 1, 1)
        made = execute_alone(unit, trial_id, into, host_name)
        progress.trial_done(trial_id, made.outcome, made.seconds)
    code = made.error.exit_code if made.error else ExitCode.COMPLETED
    if made.error:
        print_error(made.error)
    if as_json:
        print_json(
            {
                "trial": trial_id,
                "outcome": made.outcome,
                "directory": str(made.directory),
                "seconds": round(made.seconds, 3),
                "exit_code": int(code),
            }
        )
    else:
        out.print(f"trial: {escape(str(made.directory))}", soft_wrap=True)
    ctx.exit(int(code))


@click.command("gather")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.argument(
    "folders", metavar="DIR...", nargs=-1, required=True, type=click.Path(file_okay=False, path_type=Path)
)
@results_option
@gate_options
@json_option
@click.pass_context
def gather_command(
    ctx: click.Context,
    *,
    plan_file: Path,
    folders: tuple[Path, ...],
    results: Path,
    as_json: bool,
    **words: Unpack[GateOptions],
) -> None:
    """Make a run of trials that `trial` has put into folders, as `run` would have made it.

    DIR is what --into named; several are looked through in their order. A trial that is missing is named, the
    exit code is 3 then, and `resume` does it.
    """
    from orchestrator.run import new_run_id
    from orchestrator.run.gather import gather

    gate = gate_of(words)
    plan = read_plan(plan_file)
    results.mkdir(parents=True, exist_ok=True)
    run_dir = results / new_run_id(plan.scenario)

    def gathered(_: Progress) -> RunResult:
        result = gather(plan, folders, run_dir, gate=gate)
        print_warnings(_notes(result.analysis))
        return result

    carry_out(ctx, run_dir, None, gathered, as_json=as_json, timed=False)


def _notes(analysis: RunAnalysis) -> Iterator[str]:
    """That trials are of several hosts, and what these are."""
    comparison = analysis.verdicts.comparison
    yield from comparison.notes if comparison else ()


def read_plan(path: Path) -> Plan:
    """The plan in a file. Raises BadInputError."""
    from orchestrator.plan import Plan

    try:
        return Plan.from_json(path.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}", hint="orchestrator plan SCENARIO -o PLAN.json   writes one"
        ) from None
