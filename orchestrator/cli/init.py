"""`init` and `completion`: what whoever has just installed the program begins with."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class
from rich.markup import escape

from orchestrator.cli.complete import complete_shipped_scenarios, complete_workloads, workload_names
from orchestrator.cli.options import Choice, json_option
from orchestrator.cli.output import out, print_json, print_next, print_text
from orchestrator.errors import BadInputError
from orchestrator.shipped import installed, scenario_names, shipped
from orchestrator.suggestion import suggest

PROGRAM = "orchestrator"


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--scenario",
    metavar="NAME",
    default="quickstart",
    show_default=True,
    shell_complete=complete_shipped_scenarios,
    help="The shipped scenario to copy.",
)
@click.option(
    "--workload",
    "workloads",
    metavar="NAME",
    multiple=True,
    shell_complete=complete_workloads,
    help="Also copy this workload, to change it; repeatable.",
)
@json_option
def init_command(*, folder: Path, scenario: str, workloads: tuple[str, ...], as_json: bool) -> None:
    """Copy a scenario to DIR, to start from. Nothing that is there is overwritten.

    What is in DIR then wins over what is shipped: `DIR/workloads/NAME` over the workload of that name,
    `DIR/guests/NAME.yaml` over the guest; all others are still found.

    \b
    orchestrator init mine
    orchestrator init mine --scenario my-kernel
    orchestrator init mine --scenario oom --workload sparse-map
    """
    copies = _copies(folder, scenario, workloads)
    made = next(iter(copies.values()))
    for target in copies.values():
        if target.exists() or target.is_symlink():
            raise BadInputError(f"{target} exists, and nothing is overwritten", hint="name another folder")
    if folder.exists() and not folder.is_dir():
        raise BadInputError(f"{folder} is not a folder", hint="name a folder, there already or not")
    for path, target in copies.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copyfile)(path, target)
    if as_json:
        print_json({"scenario": str(made), "files": [str(target) for target in copies.values()]})
        return
    for target in copies.values():
        out.print(f"{escape(str(target))}", soft_wrap=True)
    verb = _verb(made)
    print_next(f"orchestrator validate {shlex.quote(str(made))}   after each change of it")
    print_next(f"orchestrator {verb} {shlex.quote(str(made))}")


def _copies(folder: Path, scenario: str, workloads: tuple[str, ...]) -> dict[Path, Path]:
    """What is copied, and to where. Raises BadInputError for a name that nothing shipped has."""
    for name, known, kind in (
        (scenario, scenario_names(), "shipped scenario"),
        *((name, workload_names(), "workload") for name in workloads),
    ):
        if name not in known:
            raise BadInputError(f"no {kind} is called {name!r}", hint=suggest(name, known))
    if workloads and not installed():
        raise BadInputError(
            "in a clone of the project its own workloads are used, wherever the scenario is",
            hint=f"edit {shipped('workloads', workloads[0])}",
        )
    files = list(_with_varied(shipped("scenarios", f"{scenario}.yaml")))
    own = {shipped("workloads", name): folder / "workloads" / name for name in workloads}
    return {file: folder / file.relative_to(shipped("scenarios")) for file in files} | own


def _with_varied(scenario: Path) -> Iterator[Path]:
    """A shipped file; of a sweep also the one that it varies, which it names by its place."""
    from orchestrator.scenario.kind import is_sweep
    from orchestrator.yamlfile import read_yaml

    yield scenario
    file = read_yaml(scenario)
    if is_sweep(file):
        from orchestrator.scenario.sweep import SweepText

        varied = SweepText.model_validate(file.data).overcommit
        if varied is not None:
            yield Path(os.path.normpath(scenario.parent / varied.file))


def _verb(scenario: Path) -> str:
    """What plays a file of this kind."""
    from orchestrator.scenario.kind import is_overcommit, is_sweep
    from orchestrator.yamlfile import read_yaml

    file = read_yaml(scenario)
    if is_sweep(file):
        return "model sweep"
    return "model overcommit" if is_overcommit(file) else "run"


@click.command("completion")
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion_command(ctx: click.Context, *, shell: str) -> None:
    """Print the script by which SHELL completes verbs, options, runs, arms, scenarios, workloads, policies.

    \b
    orchestrator completion bash >~/.local/share/bash-completion/completions/orchestrator
    orchestrator completion zsh >"${fpath[1]}/_orchestrator"
    orchestrator completion fish >~/.config/fish/completions/orchestrator.fish
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101  # click has these three
    print_text(found(ctx.find_root().command, {}, PROGRAM, f"_{PROGRAM.upper()}_COMPLETE").source())
