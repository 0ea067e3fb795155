"""`clean`: remove what a killed run left behind."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.output import out, print_error, print_json
from orchestrator.errors import ExitCode, InfrastructureError

if TYPE_CHECKING:
    from orchestrator.host.runtime import Leftover


@click.command("clean")
@click.option("--dry-run", is_flag=True, help="List it and leave it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def clean_command(ctx: click.Context, *, dry_run: bool, as_json: bool) -> None:
    """Find and remove what a killed run left behind, and nothing else.

    That is its runtime folder and the QEMU, passt and ssh processes that run from it, and an image or
    a guest's state that it had not finished. Runs that are still going, run folders and what is whole
    in the cache are left alone. Exit code 3 if something could not be removed.
    """
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.image import unfinished_builds
    from orchestrator.guest.states import unfinished_states
    from orchestrator.host.runtime import leftovers, remove

    found = leftovers()
    builds = [*unfinished_builds(cache_dir()), *unfinished_states(cache_dir())]
    errors: list[InfrastructureError] = []
    if not dry_run:
        # One that stays does not keep the others.
        for leftover in tuple(found):
            try:
                remove(leftover.folder)
            except InfrastructureError as error:
                errors.append(error)
                found.remove(leftover)
        for build in tuple(builds):
            shutil.rmtree(build, ignore_errors=True)
            if build.exists():
                hint = "who built it? clean has to run as that user"
                errors.append(InfrastructureError(f"{build} could not be removed", hint=hint))
                builds.remove(build)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "leftovers": [asdict(leftover) for leftover in found],
                "unfinished_builds": [str(build) for build in builds],
                "errors": [error.brief for error in errors],
            }
        )
    elif found or builds or errors:
        _print(found, builds, dry_run=dry_run)
    else:
        out.print("nothing was left behind")
    for failure in errors:
        print_error(failure)
    ctx.exit(ExitCode.INFRASTRUCTURE if errors else ExitCode.COMPLETED)


def _print(found: list[Leftover], builds: list[Path], *, dry_run: bool) -> None:
    for leftover in found:
        run = escape(leftover.owner.run_dir) if leftover.owner else "an unknown run"
        out.print(f"{'would remove' if dry_run else 'removed'} {leftover.folder} of {run}")
        for process in leftover.processes:
            out.print(f"  {'would end' if dry_run else 'ended'} {escape(process.name)} (pid {process.pid})")
    for build in builds:
        out.print(f"{'would remove' if dry_run else 'removed'} {escape(str(build))}, left unfinished")
