"""Removes what runs and trials have left that were killed: for `clean`, and for workers as they start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import InfrastructureError
from orchestrator.guest.cache import cache_dir
from orchestrator.guest.image import unfinished_builds
from orchestrator.guest.states import unfinished_states
from orchestrator.host.noted_dimms import left_dimms, unplug
from orchestrator.host.remote_leftovers import end_remote, remote_leftovers
from orchestrator.host.runtime import Leftover, leftovers, remove
from orchestrator.host.settings import left_settings, put_back
from orchestrator.run.unit import unfinished_unit


def clean_up() -> Iterator[str]:
    """Remove all that was left on this machine, of this user; what it was, and what could not be removed."""
    found = leftovers()
    named = [unfinished_unit(leftover.owner.run_dir) for leftover in found if leftover.owner]
    folders = [folder for folder in named if folder is not None]
    builds = [*unfinished_builds(cache_dir()), *unfinished_states(cache_dir())]
    yield from map(str, (*folders, *(leftover.folder for leftover in found), *builds))
    errors = remove_left(found, folders) + remove_all(builds)
    yield from (error.brief for error in errors)


def remove_left(found: list[Leftover], trials: list[Path]) -> list[InfrastructureError]:
    """Remove trials, and the runtime folders that name them; what stays is taken off the lists.

    One that stays does not keep the others. A trial that stays keeps its runtime folder, for the next time
    to know it by.
    """
    staying = {*trials}
    errors = remove_all(trials)
    staying -= {*trials}
    for leftover in tuple(found):
        if leftover.owner and unfinished_unit(leftover.owner.run_dir) in staying:
            found.remove(leftover)
            continue
        errors += _remove_leftover(leftover.folder)
        if leftover.folder.exists():
            found.remove(leftover)
    return errors


def remove_all(folders: list[Path]) -> list[InfrastructureError]:
    """Remove folders; those that could not be are taken off the list."""
    errors = []
    for folder in tuple(folders):
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            hint = "who made it? clean has to run as that user"
            errors.append(InfrastructureError(f"{folder} could not be removed", hint=hint))
            folders.remove(folder)
    return errors


def _remove_leftover(folder: Path) -> list[InfrastructureError]:
    """Remove what a runtime folder stands for, here and elsewhere; what could not be."""
    errors = []
    # First, as it is of all that the host's other guests have.
    for note in left_settings(folder):
        try:
            put_back(note)
        except InfrastructureError as error:
            errors.append(error)
    for dimm in left_dimms(folder):
        try:
            unplug(dimm)
        except InfrastructureError as error:
            errors.append(error)
    # A host elsewhere may be gone for good, which shall not keep this folder forever: it is reported, once.
    for guest in remote_leftovers(folder):
        try:
            end_remote(guest)
        except InfrastructureError as error:
            errors.append(error)
    try:
        remove(folder)
    except InfrastructureError as error:
        errors.append(error)
    return errors
