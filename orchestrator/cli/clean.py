"""`clean`: remove what a killed run left behind, and run folders that are old."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from orchestrator.cli.options import json_option, results_option
from orchestrator.cli.output import out, print_error, print_json
from orchestrator.errors import ExitCode, InfrastructureError

if TYPE_CHECKING:
    from orchestrator.host.noted_dimms import DimmNote
    from orchestrator.host.remote_leftovers import RemoteGuest
    from orchestrator.host.runtime import Leftover
    from orchestrator.host.settings import SettingNote


class _Days(click.ParamType[timedelta]):
    name = "DAYS"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        found = re.fullmatch(r"([0-9]{1,5})d", value)
        if found is None:
            self.fail(f"{value!r} is not a number of days, such as `30d`", param, ctx)
        return timedelta(days=int(found[1]))


@click.command("clean")
@click.option("--dry-run", is_flag=True, help="List what would be removed.")
@click.option("--older-than", type=_Days(), help="Remove run folders older than this, too: `30d`.")
@results_option
@json_option
@click.pass_context
def clean_command(
    ctx: click.Context, *, dry_run: bool, older_than: timedelta | None, results: Path, as_json: bool
) -> None:
    """Remove what a killed run left behind.

    That is its runtime folder and the QEMU, passt and ssh processes that run from it, its guests on other
    hosts, and an image, a guest's state or the folder of a `trial` that it had not finished. A setting of a
    host that it had changed is put back, and a DIMM that it had plugged into a VM is unplugged. Runs that are
    still going and what is complete in the cache stay; so do run folders, unless --older-than names an age.
    Exit code 3 if something could not be removed.
    """
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.image import unfinished_builds
    from orchestrator.guest.states import unfinished_states
    from orchestrator.host.noted_dimms import left_dimms
    from orchestrator.host.remote_leftovers import remote_leftovers
    from orchestrator.host.runtime import leftovers
    from orchestrator.host.settings import left_settings
    from orchestrator.run.cleanup import remove_all, remove_left
    from orchestrator.run.unit import unfinished_unit

    found = leftovers()
    elsewhere = {leftover.folder: remote_leftovers(leftover.folder) for leftover in found}
    settings = {leftover.folder: left_settings(leftover.folder) for leftover in found}
    dimms = {leftover.folder: left_dimms(leftover.folder) for leftover in found}
    builds = [*unfinished_builds(cache_dir()), *unfinished_states(cache_dir())]
    named = [unfinished_unit(leftover.owner.run_dir) for leftover in found if leftover.owner]
    trials = [folder for folder in named if folder is not None]
    runs = old_runs(results, older_than) if older_than is not None else []
    errors: list[InfrastructureError] = []
    if not dry_run:
        errors += remove_left(found, trials) + remove_all(builds) + remove_all(runs)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "leftovers": [asdict(leftover) for leftover in found],
                "guests_elsewhere": [
                    {"host": guest.target.name, "domain": guest.domain, "folder": guest.folder}
                    for guests in elsewhere.values()
                    for guest in guests
                ],
                "settings": [
                    {"host": note.host, "setting": note.setting, "former": note.former}
                    for notes in settings.values()
                    for note in notes
                ],
                "dimms": [
                    {"host": note.host, "domain": note.vm, "alias": note.alias}
                    for notes in dimms.values()
                    for note in notes
                ],
                "unfinished_trials": [str(trial) for trial in trials],
                "unfinished_builds": [str(build) for build in builds],
                "old_runs": [str(run) for run in runs],
                "errors": [error.brief for error in errors],
            }
        )
    elif found or trials or builds or runs or errors:
        _print(
            found,
            elsewhere=elsewhere,
            settings=settings,
            dimms=dimms,
            unfinished=[*trials, *builds],
            runs=runs,
            dry_run=dry_run,
        )
    else:
        out.print("nothing to clean")
    for failure in errors:
        print_error(failure)
    ctx.exit(ExitCode.INFRASTRUCTURE if errors else ExitCode.COMPLETED)


def old_runs(results: Path, age: timedelta) -> list[Path]:
    """Folders of runs that began longer ago than `age` and have ended, the oldest last.

    A folder that cannot be read is none of them: nothing is known of its age.
    """
    from orchestrator.store import Run, Status, list_runs

    ended = (Status.COMPLETED, Status.FAILED, Status.INTERRUPTED, Status.KILLED)
    before = datetime.now(UTC) - age
    found = []
    for run in list_runs(results):
        if isinstance(run, Run) and run.status in ended and not run.directory.is_symlink():
            try:
                began = datetime.fromisoformat(run.meta.started_at)
                old = began < before
            except (ValueError, TypeError):
                continue
            if old:
                found.append(run.directory)
    return found


def _print(
    found: list[Leftover],
    *,
    elsewhere: Mapping[Path, list[RemoteGuest]],
    settings: Mapping[Path, list[SettingNote]],
    dimms: Mapping[Path, list[DimmNote]],
    unfinished: list[Path],
    runs: list[Path],
    dry_run: bool,
) -> None:
    for leftover in found:
        run = escape(leftover.owner.run_dir) if leftover.owner else "an unknown run"
        out.print(f"{'would remove' if dry_run else 'removed'} {leftover.folder} of {run}")
        for process in leftover.processes:
            out.print(f"  {'would end' if dry_run else 'ended'} {escape(process.name)} (pid {process.pid})")
        for guest in elsewhere[leftover.folder]:
            # What could not be ended there is reported as an error.
            what = f"{guest.domain} on {guest.target.name}, and {guest.folder} there"
            out.print(f"  {'would end' if dry_run else 'asked for the end of'} the guest {escape(what)}")
        for note in settings[leftover.folder]:
            # As above; and after a reboot, or a change by somebody else, there is nothing to put back.
            what = f"{note.setting} of {note.host} to {note.former}"
            out.print(
                f"  {'would put' if dry_run else 'put'} back {escape(what)}, unless it has changed since"
            )
        for dimm in dimms[leftover.folder]:
            # As above; and it may have gone by itself.
            what = f"the DIMM {dimm.alias} of {dimm.vm} on {dimm.host}"
            out.print(f"  {'would ask' if dry_run else 'asked'} for the removal of {escape(what)}")
    for path in unfinished:
        out.print(f"{'would remove' if dry_run else 'removed'} {escape(str(path))}, left unfinished")
    for run_dir in runs:
        out.print(f"{'would remove' if dry_run else 'removed'} {escape(str(run_dir))}, an old run")
