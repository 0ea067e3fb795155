"""Options by which trials become tasks of a Slurm array."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import click

from orchestrator.cli.options import duration_of
from orchestrator.errors import BadInputError

if TYPE_CHECKING:
    from orchestrator.run import Progress
    from orchestrator.slurm import Following, Site

Command = TypeVar("Command", bound=Callable[..., Any])


class SlurmOptions(TypedDict):
    """The options as parsed."""

    slurm: bool
    slurm_partition: str | None
    slurm_at_once: int | None
    slurm_options: tuple[str, ...]
    slurm_command: Path | None
    slurm_wait: float


_OPTIONS = (
    click.option(
        "--slurm",
        is_flag=True,
        help="Submit the trials as an array to Slurm, and wait for it. The nodes have to share the "
        "run's folder, and have this program at the same path.",
    ),
    click.option("--slurm-partition", metavar="NAME", help="With --slurm: the partition."),
    click.option(
        "--slurm-at-once",
        type=click.IntRange(min=1),
        metavar="N",
        help="With --slurm: at most N trials at once.",
    ),
    click.option(
        "--slurm-option",
        "slurm_options",
        multiple=True,
        metavar="OPTION",
        help="With --slurm: an option of sbatch with its value, as --slurm-option=--time=90; repeatable.",
    ),
    click.option(
        "--slurm-command",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="With --slurm: the program on the nodes, where it is elsewhere.",
    ),
    click.option(
        "--slurm-wait",
        metavar="TIME",
        default="168h",
        show_default=True,
        callback=duration_of,
        help="With --slurm: cancel what has not ended after this.",
    ),
)


def slurm_options(command: Command) -> Command:
    """The options of `SlurmOptions`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def site_of(options: SlurmOptions, connect: str | None, guests_dir: Path | None) -> Site | None:
    """What is asked of Slurm; None without --slurm. Raises BadInputError."""
    from orchestrator.slurm import Site

    others = ("slurm_partition", "slurm_at_once", "slurm_options", "slurm_command")
    if not options["slurm"]:
        if any(options[name] for name in others):  # type: ignore[literal-required]
            raise click.UsageError("--slurm-... are for --slurm.")
        return None
    if connect is not None:
        raise BadInputError(
            "--connect names one host, and --slurm takes what is free", hint="leave out one of them"
        )
    command = options["slurm_command"]
    return Site(
        partition=options["slurm_partition"] or "",
        at_once=options["slurm_at_once"],
        options=options["slurm_options"],
        command=command and command.absolute(),
        guests=guests_dir and guests_dir.resolve(),
    )


def following(options: SlurmOptions, progress: Progress) -> Following:
    """How the array is followed."""
    from orchestrator.slurm import Commands, Following

    return Following(Commands(), progress, options["slurm_wait"])
