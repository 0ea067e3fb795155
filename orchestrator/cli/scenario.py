"""`validate`, `plan`, `schema`: everything about a scenario that needs no hypervisor."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.complete import ScenarioPath
from orchestrator.cli.options import (
    arms_option,
    connect_option,
    force_option,
    guests_dir_option,
    json_option,
    may_write,
)
from orchestrator.cli.output import out, print_json, print_text, print_warnings
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError, ExitCode, FileProblemsError, InfrastructureError, Problem
from orchestrator.jsontext import parse_json
from orchestrator.shipped import installed, is_shipped, shipped

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.plan import Plan
    from orchestrator.scenario import Scenario
    from orchestrator.scenario.model import Start


def find_guests_dir(scenario: Path, given: Path | None = None) -> Path:
    """The folder of guest definitions: as given, or above the scenario, or the shipped one.

    A scenario that came with an installed program has none of the user's above it: theirs are looked for
    above the current folder. What a folder lacks is taken from the shipped one (`own_or_shipped`).

    Raises BadInputError where there is none.
    """
    if given is not None:
        if not given.is_dir():
            raise BadInputError(
                f"--guests-dir {given} is not a folder", hint="give the folder of guests/*.yaml"
            )
        return given
    start = Path.cwd() / scenario.name if is_shipped(scenario) else scenario.absolute()
    for folder in start.parents:
        if _is_a_place_of_ours(folder):
            return folder / "guests"
    if shipped("guests").is_dir():
        return shipped("guests")
    raise BadInputError("there is no folder of guest definitions", hint="say where with --guests-dir")


def _is_a_place_of_ours(folder: Path) -> bool:
    """Whether what a run reads lies there.

    Where the rest comes from what is shipped, workloads or a playbook alone mark the place as well, if they
    are what a run would read: others have folders of such names, too.
    """
    from orchestrator.launch.paths import PLAYBOOK

    if (folder / "guests").is_dir():
        return True
    return installed() and (
        (folder / "playbooks" / PLAYBOOK).is_file() or any((folder / "workloads").glob("*/workload.yaml"))
    )


def own_playbook(guests_dir: Path) -> Iterator[str]:
    """That guests are set up by a playbook of the user's, where the program has one of its own."""
    from orchestrator.launch.paths import PLAYBOOK

    own = guests_dir.resolve().parent / "playbooks" / PLAYBOOK
    if installed() and own.is_file() and not own.samefile(shipped("playbooks", PLAYBOOK)):
        yield f"guests are set up by {own}, and not by the playbook that came with the program"


def open_scenario(
    path: Path,
    guests_dir: Path | None = None,
    *,
    available_bytes: int | None = None,
    to_run: bool = False,
) -> Scenario:
    """Load a scenario with the guest definitions that belong to it. Raises FileProblemsError.

    `available_bytes` and `to_run` are those of `load_scenario`.
    """
    from orchestrator.guest.definition import load_definition
    from orchestrator.scenario import load_scenario
    from orchestrator.scenario.kind import is_overcommit, is_sweep
    from orchestrator.yamlfile import read_yaml

    if is_sweep(read_yaml(path)):
        raise BadInputError(
            f"{path} is no scenario: it is a grid of questions to the model",
            hint=f"orchestrator model sweep {path}",
        )
    if is_overcommit(read_yaml(path)):
        raise BadInputError(
            f"{path} is no scenario: it describes a host and its guests for the model",
            hint=f"orchestrator model overcommit {path}",
        )

    def kernels_of(guest: str) -> Collection[str]:
        return load_definition(find_guests_dir(path, guests_dir) / f"{guest}.yaml").kernels

    return load_scenario(
        path,
        kernels_of=kernels_of,
        workloads=find_guests_dir(path, guests_dir).resolve().parent / "workloads",
        available_bytes=available_bytes,
        to_run=to_run,
    )


@click.command("validate")
@click.argument("files", nargs=-1, required=True, type=ScenarioPath())
@guests_dir_option
@click.option("--any-host", is_flag=True, help="Skip the check of this machine's free memory.")
@json_option
@click.pass_context
def validate_command(
    ctx: click.Context, *, files: tuple[Path, ...], guests_dir: Path | None, any_host: bool, as_json: bool
) -> None:
    """Check files of scenarios, `model overcommit` and `model sweep`; say file:line:column of every fault.

    A kernel that is a file and not there yet is a warning here; `run` needs it.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    sound: list[Sound] = []
    for path in files:
        try:
            sound.append(_checked(path, guests_dir, any_host=any_host))
        except FileProblemsError as error:
            problems += error.problems
        else:
            warnings += sound[-1].warnings
    if as_json:
        faults = [asdict(problem) for problem in problems]
        print_json({"valid": not problems, "problems": faults, "warnings": warnings})
        ctx.exit(ExitCode.BAD_INPUT if problems else ExitCode.COMPLETED)
    print_warnings(warnings)
    if problems:
        raise FileProblemsError(problems)
    for one in sound:
        for line in one.lines:
            out.print(line, markup=False)


@dataclass(frozen=True)
class Sound:
    """What is said of a file without faults."""

    lines: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def _checked(path: Path, guests_dir: Path | None, *, any_host: bool) -> Sound:
    import psutil

    from orchestrator.scenario.kind import is_overcommit, is_sweep
    from orchestrator.yamlfile import read_yaml

    if is_sweep(read_yaml(path)):
        from orchestrator.scenario.sweep import load_sweep

        return Sound((f"{path}: ok ({_count(load_sweep(path).points_in_all, 'point')})",))
    if not is_overcommit(read_yaml(path)):
        room = None if any_host else psutil.virtual_memory().available
        return _sound(open_scenario(path, guests_dir, available_bytes=room))
    from orchestrator.scenario.overcommit import load_overcommit

    asked = load_overcommit(path)
    guests = sum(guest.at_most for guest in asked.guests.values())
    choices = len(list(asked.choices))
    counts = f"{_count(guests, 'guest')}, {_count(choices, 'choice')}, {_count(asked.seeds, 'seed')}"
    return Sound((f"{path}: ok ({counts})",))


def _sound(scenario: Scenario) -> Sound:
    from orchestrator.scenario import kernel_warnings

    arms, repeats, steps = len(scenario.arms), scenario.body.repeats, len(scenario.steps)
    counts = f"{_count(arms, 'arm')}, {_count(repeats, 'repeat')}, {_count(steps, 'step')}"
    lines = [f"{scenario.path}: ok ({counts})"]
    for number, step in enumerate(scenario.steps, start=1):
        if len(step.arms) < arms:
            lines.append(f"  step {number}, in {', '.join(step.arms)}: {step.action.describe()}")
    absent = (f"{problem}; `run` needs it" for problem in scenario.absent)
    return Sound(tuple(lines), (*absent, *kernel_warnings(scenario)))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@click.command("plan")
@click.argument("file", type=ScenarioPath("scenario"))
@guests_dir_option
@arms_option
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Seed instead of the scenario's.")
@click.option("--repeats", type=click.IntRange(1, 1000), help="Trials of each arm instead of the scenario's.")
@click.option("--boots", type=click.IntRange(min=1), help="Boots of each guest, instead of the scenario's.")
@click.option("--cold", is_flag=True, help="Boot every guest, as with `start: cold`.")
@connect_option
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the plan for `trial`, with the hashes of all files that its trials read.",
)
@force_option
@json_option
def plan_command(
    *,
    file: Path,
    guests_dir: Path | None,
    arms: tuple[str, ...],
    seed: int | None,
    repeats: int | None,
    boots: int | None,
    cold: bool,
    connect: str | None,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Show what a scenario would do, trial by trial, without doing it."""
    from orchestrator.plan import make_plan

    if output:
        may_write(output, _is_plan, "a plan", force=force)
    scenario = open_scenario(file, guests_dir)
    if arms:
        scenario = scenario.only(arms)
    start: Start | None = "cold" if cold else None
    plan = make_plan(scenario, seed=seed, repeats=repeats, boots=boots, start=start, host=connect)
    if output:
        plan = _write_plan(plan, output, find_guests_dir(file, guests_dir))
    if as_json:
        print_json(plan.model_dump(mode="json"))
    else:
        _print_plan(plan, scenario)


def _write_plan(plan: Plan, output: Path, guests_dir: Path) -> Plan:
    """Write it with the hashes of the files that it needs."""
    from orchestrator.launch.paths import ProjectPaths
    from orchestrator.run.inputs import with_inputs
    from orchestrator.store.atomic import replace_text

    planned = with_inputs(plan, ProjectPaths.beside(guests_dir))
    try:
        replace_text(output, planned.to_json() + "\n")
    except OSError as error:
        raise InfrastructureError(
            f"the plan {output} cannot be written: {error.strerror}", hint="say where else: -o FILE"
        ) from error
    return planned


def _is_plan(path: Path) -> bool:
    try:
        return "scenario_sha256" in parse_json(path.read_bytes())
    except (ValueError, TypeError):
        return False


def _print_plan(plan: Plan, scenario: Scenario) -> None:
    from orchestrator.units import format_duration, format_size

    def table(title: str, *columns: str) -> Table:
        made = plain_table(title=title, header_style="bold")
        for column in columns:
            made.add_column(column)
        return made

    def show(text: str) -> None:
        out.print(text, markup=False)

    show(f"{plan.scenario}: {plan.description}" if plan.description else plan.scenario)
    counted = " with a clock that counts instructions (no times)" if plan.clock == "instructions" else ""
    show(
        f"guest {plan.guest}, accel {plan.accel}{counted}, seed {plan.seed}, "
        f"a reading every {format_duration(plan.sample_every_seconds)}"
    )
    columns = list(plan.arms[0].differs)
    if plan.arms[0].kernel_args and "kernel_args" not in columns:
        show(f"kernel_args {plan.arms[0].kernel_args}")
    show("")
    machines = table("Arms", "arm", *columns, "memory", "up to", "vCPUs")
    for arm in plan.arms:
        sizes = (format_size(arm.machine.memory), format_size(arm.machine.maximum_memory))
        machines.add_row(*map(escape, (arm.name, *arm.differs.values(), *sizes, str(arm.machine.vcpus))))
    print_table(machines)
    show("")
    everywhere = all(len(step.arms) == len(plan.arms) for step in scenario.steps)
    title, arms = ("Steps of each trial", ()) if everywhere else ("Steps", ("arms",))
    steps = table(title, "", "action", "what it does", *arms)
    for number, step in enumerate(scenario.steps, start=1):
        where = "all" if len(step.arms) == len(plan.arms) else ", ".join(step.arms)
        row = (str(number), step.name, step.action.describe(), *([where] if arms else []))
        steps.add_row(*map(escape, row))
    print_table(steps)
    show("")
    trials = table(f"Trials ({len(plan.trials)})", "order", "trial", "arm", "repeat", "start", "seed")
    for trial in plan.trials:
        start = "cold" if plan.trial(trial.id).start == "cold" else f"boot {trial.boot}"
        trials.add_row(str(trial.order), trial.id, trial.arm, str(trial.repeat), start, str(trial.seed))
    print_table(trials)


@click.command("schema")
@json_option
def schema_command(*, as_json: bool) -> None:  # noqa: ARG001  # every verb that prints a result has --json
    """Print the JSON schema of scenario files, for editors; with and without --json."""
    from orchestrator.scenario.schema import scenario_schema

    print_text(json.dumps(scenario_schema(), indent=2))
