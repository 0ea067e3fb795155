"""`validate`, `plan`, `schema`: everything about a scenario that needs no hypervisor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

import orchestrator
from orchestrator.cli.output import out, print_json, print_warnings
from orchestrator.errors import BadInputError, ExitCode, FileProblemsError, Problem

if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.scenario import Scenario

_guests_dir_option = click.option(
    "--guests-dir",
    type=click.Path(path_type=Path),
    help="Folder of guest definitions. Default: the `guests` folder beside or above the scenario.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def find_guests_dir(scenario: Path, given: Path | None = None) -> Path:
    """The folder of guest definitions: as given, or above the scenario, or above the program itself.

    Raises BadInputError where there is none.
    """
    if given is not None:
        if not given.is_dir():
            raise BadInputError(
                f"--guests-dir {given} is not a folder", hint="give the folder of guests/*.yaml"
            )
        return given
    for start in (scenario.absolute(), Path(orchestrator.__file__).resolve().parent):
        for folder in start.parents:
            if (folder / "guests").is_dir():
                return folder / "guests"
    raise BadInputError("there is no folder of guest definitions", hint="say where with --guests-dir")


def open_scenario(path: Path, guests_dir: Path | None = None) -> Scenario:
    """Load a scenario with the guest definitions that belong to it. Raises FileProblemsError."""
    from orchestrator.guest.definition import load_definition
    from orchestrator.scenario import check_labels, check_workloads, load_scenario

    def kernels_of(guest: str) -> Collection[str]:
        return load_definition(find_guests_dir(path, guests_dir) / f"{guest}.yaml").kernels

    scenario = load_scenario(path, kernels_of=kernels_of)
    workloads = find_guests_dir(path, guests_dir).resolve().parent / "workloads"
    problems = [*check_labels(scenario), *check_workloads(scenario, workloads)]
    if problems:
        raise FileProblemsError(problems)
    return scenario


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@_guests_dir_option
@click.option("--any-host", is_flag=True, help="Do not ask whether this machine has enough free memory.")
@_json_option
@click.pass_context
def validate_command(
    ctx: click.Context, *, files: tuple[Path, ...], guests_dir: Path | None, any_host: bool, as_json: bool
) -> None:
    """Check scenario files; say file:line:column of every fault."""
    from orchestrator.scenario import kernel_warnings

    problems: list[Problem] = []
    sound: list[Scenario] = []
    for path in files:
        try:
            scenario = open_scenario(path, guests_dir)
        except FileProblemsError as error:
            problems += error.problems
        else:
            sound.append(scenario)
            problems += [] if any_host else _unfit(scenario)
    warnings = [warning for scenario in sound for warning in kernel_warnings(scenario)]
    if as_json:
        faults = [asdict(problem) for problem in problems]
        print_json({"valid": not problems, "problems": faults, "warnings": warnings})
        ctx.exit(ExitCode.BAD_INPUT if problems else ExitCode.COMPLETED)
    print_warnings(warnings)
    if problems:
        raise FileProblemsError(problems)
    for scenario in sound:
        arms, repeats, steps = len(scenario.arms), scenario.body.repeats, len(scenario.steps)
        counts = f"{_count(arms, 'arm')}, {_count(repeats, 'repeat')}, {_count(steps, 'step')}"
        out.print(f"{scenario.path}: ok ({counts})", markup=False)
        for number, step in enumerate(scenario.steps, start=1):
            if len(step.arms) < arms:
                out.print(
                    f"  step {number}, in {', '.join(step.arms)}: {step.action.describe()}", markup=False
                )


def _unfit(scenario: Scenario) -> list[Problem]:
    import psutil

    from orchestrator.scenario import check_fits

    return check_fits(scenario, psutil.virtual_memory().available)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command("plan")
@click.argument("file", type=click.Path(path_type=Path))
@_guests_dir_option
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed instead of the scenario's.")
@click.option("--repeats", type=click.IntRange(1, 1000), help="Trials of each arm instead of the scenario's.")
@_json_option
def plan_command(
    *, file: Path, guests_dir: Path | None, seed: int | None, repeats: int | None, as_json: bool
) -> None:
    """Show what a scenario would do, trial by trial, without doing it."""
    from orchestrator.plan import make_plan

    scenario = open_scenario(file, guests_dir)
    plan = make_plan(scenario, seed=seed, repeats=repeats)
    if as_json:
        out.out(plan.to_json(), highlight=False)
    else:
        _print_plan(plan, scenario)


def _print_plan(plan: Plan, scenario: Scenario) -> None:
    from rich.table import Table

    from orchestrator.units import format_duration, format_size

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left", show_edge=False, box=None, pad_edge=False)
        for column in columns:
            made.add_column(column, overflow="fold", no_wrap=False)
        return made

    def show(thing: Table | str) -> None:
        out.print(thing, soft_wrap=False, markup=False)

    show(f"{plan.scenario}: {plan.description}" if plan.description else plan.scenario)
    show(
        f"guest {plan.guest}, accel {plan.accel}, seed {plan.seed}, "
        f"a reading every {format_duration(plan.sample_every_seconds)}"
    )
    told = list(plan.arms[0].differs)
    if plan.arms[0].kernel_args and "kernel_args" not in told:
        show(f"kernel_args {plan.arms[0].kernel_args}")
    show("")
    machines = table("Arms", "arm", *told, "memory", "up to", "vCPUs")
    for arm in plan.arms:
        sizes = (format_size(arm.machine.memory), format_size(arm.machine.maximum_memory))
        machines.add_row(arm.name, *arm.differs.values(), *sizes, str(arm.machine.vcpus))
    show(machines)
    show("")
    everywhere = all(len(step.arms) == len(plan.arms) for step in scenario.steps)
    title, arms = ("Steps of each trial", ()) if everywhere else ("Steps", ("arms",))
    steps = table(title, "", "action", "what it does", *arms)
    for number, step in enumerate(scenario.steps, start=1):
        where = "all" if len(step.arms) == len(plan.arms) else ", ".join(step.arms)
        steps.add_row(str(number), step.name, step.action.describe(), *([where] if arms else []))
    show(steps)
    show("")
    trials = table(f"Trials ({len(plan.trials)})", "order", "trial", "arm", "repeat", "start", "seed")
    for trial in plan.trials:
        start = "cold" if plan.trial(trial.id).start == "cold" else f"boot {trial.boot}"
        trials.add_row(str(trial.order), trial.id, trial.arm, str(trial.repeat), start, str(trial.seed))
    show(trials)


@click.command("schema")
@click.option("--json", "as_json", is_flag=True, help="As without it: the schema is JSON.")
def schema_command(*, as_json: bool) -> None:  # noqa: ARG001  # every verb that prints a result has --json
    """Print the JSON schema of scenario files, for editors."""
    from orchestrator.scenario.schema import scenario_schema

    print_json(scenario_schema())
