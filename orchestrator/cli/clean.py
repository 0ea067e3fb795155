"""`clean`: remove what a killed run left behind."""

from __future__ import annotations

import shutil
from dataclasses import asdict

import click
from rich.markup import escape

from orchestrator.cli.output import out, print_json


@click.command("clean")
@click.option("--dry-run", is_flag=True, help="List it and leave it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def clean_command(*, dry_run: bool, as_json: bool) -> None:
    """Find and remove what a killed run left behind, and nothing else.

    That is its runtime folder and the QEMU, passt and ssh processes that run from it, and an image
    that it had not finished building. Runs that are still going, run folders and the images in the
    cache are left alone.
    """
    from orchestrator.errors import InfrastructureError
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.image import unfinished_builds
    from orchestrator.host.runtime import leftovers, remove

    found = leftovers()
    builds = unfinished_builds(cache_dir())
    if not dry_run:
        for leftover in found:
            remove(leftover.folder)
        for build in builds:
            shutil.rmtree(build, ignore_errors=True)
            if build.exists():
                raise InfrastructureError(
                    f"{build} could not be removed", hint="who built it? clean has to run as that user"
                )
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "leftovers": [asdict(leftover) for leftover in found],
                "unfinished_builds": [str(build) for build in builds],
            }
        )
        return
    if not found and not builds:
        out.print("nothing was left behind")
    for leftover in found:
        run = escape(leftover.owner.run_dir) if leftover.owner else "an unknown run"
        out.print(f"{'would remove' if dry_run else 'removed'} {leftover.folder} of {run}")
        for process in leftover.processes:
            out.print(f"  {'would end' if dry_run else 'ended'} {escape(process.name)} (pid {process.pid})")
    for build in builds:
        out.print(f"{'would remove' if dry_run else 'removed'} {escape(str(build))}, an unfinished image")
