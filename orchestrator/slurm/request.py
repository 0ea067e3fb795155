"""What is asked of Slurm for a plan: the words of sbatch, and the script of a task. Pure."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.errors import BadInputError
from orchestrator.plan import Plan
from orchestrator.run.budget import machine_here, memory_of
from orchestrator.store import layout

FOLDER: Final = "slurm"
"""In a run's folder: the script, the trials by their index, and what tasks print."""
SCRIPT: Final = "task.sh"
TRIALS: Final = "trials"

# What the program takes itself while a trial runs, at most, beside its guest: Python with what reads a
# snapshot, and Ansible while a guest is set up.
OWN_BYTES: Final = 1 << 30

_MIB: Final = 1 << 20
# A task is one trial: the line of `trials` that its index says. Nothing but quoted words is put in.
_TEMPLATE: Final = """\
#!/bin/sh
set -eu
trial=$(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {trials})
exec {command} trial {plan} "$trial" --into {into}{more}
"""
# What says which job this is, where its tasks write, and how many there are, is ours to say.
_OURS: Final = (
    "--array",
    "--chdir",
    "--error",
    "--help",
    "--input",
    "--job-name",
    "--output",
    "--parsable",
    "--test-only",
    "--usage",
    "--version",
    "--wait",
    "--wrap",
)
_OUR_LETTERS: Final = "aDehiJoVW"


@dataclass(frozen=True)
class Site:
    """What a site needs. `options` are passed to sbatch as they are; `command` is the program on the nodes,
    if it is not where this one is."""

    partition: str = ""
    at_once: int | None = None
    options: tuple[str, ...] = ()
    command: Path | None = None
    guests: Path | None = None

    def __post_init__(self) -> None:
        """Raises BadInputError for an option that would take another place than the run expects."""
        for option in self.options:
            name = option.partition("=")[0]
            short = option[:1] == "-" and option[1:2] != "-"
            # sbatch takes long options that are cut short, as getopt_long(3) does.
            if (
                len(name.strip("-")) == 0
                or not option.startswith("-")
                or (short and option[1] in _OUR_LETTERS)
                or (not short and any(ours.startswith(name) for ours in _OURS))
            ):
                raise BadInputError(
                    f"--slurm-option {option!r} cannot be given to sbatch",
                    hint="give one option with its value, as --slurm-option=--time=90; "
                    "array, name, folder and output of the job are the run's",
                )


def script(plan_file: Path, folder: Path, into: Path, site: Site) -> str:
    """The batch script of each task: text of a fixed shape, with each path quoted."""
    command = [str(site.command)] if site.command else [sys.executable, "-P", "-m", "orchestrator"]
    more = ["--guests-dir", str(site.guests)] if site.guests else []
    return _TEMPLATE.format(
        trials=shlex.quote(str(folder / TRIALS)),
        command=shlex.join(command),
        plan=shlex.quote(str(plan_file)),
        into=shlex.quote(str(into)),
        more="".join(f" {shlex.quote(word)}" for word in more),
    )


def words(plan: Plan, trials: Sequence[str], name: str, *, folder: Path, cwd: Path, site: Site) -> list[str]:
    """What sbatch is given for an array of these trials, whose indices count from 1.

    Memory and cores are those of the largest trial: one array has one size. Where times are measured, a node
    has one trial and nothing else.
    """
    for trial in trials:
        layout.checked_id("trial", trial)
    machines = [machine_here(plan.trial(trial)) for trial in trials]
    memory = max(map(memory_of, machines)) + OWN_BYTES
    most = f"%{site.at_once}" if site.at_once else ""
    return [
        f"--job-name={name}",
        f"--array=1-{len(trials)}{most}",
        f"--chdir={cwd}",
        f"--output={output(folder)}",
        "--nodes=1",
        "--ntasks=1",
        f"--cpus-per-task={max(machine.vcpus for machine in machines)}",
        f"--mem={-(-memory // _MIB)}M",
        *(["--exclusive"] if plan.times == "measured" else []),
        *([f"--partition={site.partition}"] if site.partition else []),
        *site.options,
        str(folder / SCRIPT),
    ]


def output(folder: Path, job: int | None = None, index: int | None = None) -> str:
    """Where a task's output goes, as sbatch takes it, or of one task. Raises BadInputError for a folder that
    sbatch would take for a pattern: a backslash in it switches patterns off (sbatch(1), FILENAME PATTERN)."""
    if job is not None:
        return f"{folder}/{job}_{index}.log"
    if "\\" in str(folder):
        raise BadInputError(f"{folder}: sbatch takes no folder with a backslash in its name")
    return f"{str(folder).replace('%', '%%')}/%A_%a.log"
