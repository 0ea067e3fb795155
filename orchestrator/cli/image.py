"""`image`: build, list or remove cached guest images, and the saved states of guests."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from rich.markup import escape

from orchestrator.cli.complete import complete_guests
from orchestrator.cli.group import Group
from orchestrator.cli.options import guests_dir_option, json_option
from orchestrator.cli.output import out, print_json, print_next
from orchestrator.cli.progress import watch
from orchestrator.cli.scenario import find_guests_dir
from orchestrator.cli.signals import stop_at_signals
from orchestrator.cli.tables import plain_table, print_table
from orchestrator.errors import BadInputError
from orchestrator.suggestion import suggest
from orchestrator.units import format_size

DEFAULT_GUEST = "debian-13"


@click.group("image", cls=Group)
def image_command() -> None:
    """Build, list or remove cached guest images.

    A run builds what it needs by itself; the cache is $ORCHESTRATOR_CACHE, else /var/cache/orchestrator
    for root and ~/.cache/orchestrator for others.
    """


@image_command.command("build")
@click.argument("guest", default=DEFAULT_GUEST, shell_complete=complete_guests)
@click.option("--refresh", is_flag=True, help="Build it again with today's packages.")
@guests_dir_option
@json_option
def build_command(guest: str, *, refresh: bool, guests_dir: Path | None, as_json: bool) -> None:
    """Build the image of GUEST (debian-13 if none is named) unless it is in the cache."""
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.definition import load_definition
    from orchestrator.guest.image import ensure_image, list_images
    from orchestrator.guest.keys import ensure_keys

    definition = load_definition(find_guests_dir(Path("guests"), guests_dir) / f"{guest}.yaml")
    cache = cache_dir()
    with stop_at_signals("no image was made"), watch() as progress:
        image = ensure_image(definition, ensure_keys(cache), cache, progress=progress.note, refresh=refresh)
    entry = next(entry for entry in list_images(cache) if entry["folder"] == str(image.folder))
    if as_json:
        print_json(entry)
    else:
        out.print(f"{_id(entry)}: {_kernels(entry)} in {escape(str(image.folder))}")


@image_command.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List the images in the cache, and the states of guests that were saved for warm starts."""
    from orchestrator.guest.cache import cache_dir
    from orchestrator.guest.image import list_images
    from orchestrator.guest.states import list_states

    found, states = list_images(cache_dir()), list_states(cache_dir())
    if as_json:
        print_json({"images": found, "states": states})
        return
    if not found:
        out.print(f"No images in {escape(str(cache_dir()))}.")
        print_next("orchestrator image build")
        return
    table = plain_table()
    table.add_column("image", no_wrap=True)  # it is typed again
    table.add_column("kernels", overflow="fold")
    table.add_column("on disk", justify="right", no_wrap=True)
    for entry in found:
        table.add_row(_id(entry), _kernels(entry), _size(entry))
    print_table(table)
    if states:
        table = plain_table()
        table.add_column("saved state", no_wrap=True)
        table.add_column("kernel", overflow="fold")
        table.add_column("on disk", justify="right", no_wrap=True)
        for entry in states:
            table.add_row(_id(entry), escape(str(entry["release"])), _size(entry))
        out.print()
        print_table(table)


@image_command.command("remove")
@click.argument("name", metavar="NAME-KEY")
@json_option
def remove_command(name: str, *, as_json: bool) -> None:
    """Remove an image or a saved state, named as `image list` names it.

    The next run that needs it makes it again.
    """
    from orchestrator.guest.cache import cache_dir, locked
    from orchestrator.guest.image import list_images
    from orchestrator.guest.states import list_states, remove_state
    from orchestrator.host.runtime import processes_of

    cache = cache_dir()
    # Only what is listed can be named, so no name leads out of the cache.
    there = {Path(str(entry["folder"])).name: entry for entry in list_images(cache)}
    states = {Path(str(entry["folder"])).name: entry for entry in list_states(cache)}
    if name in states:
        remove_state(cache, Path(str(states[name]["folder"])))
        if as_json:
            print_json({"removed": states[name]})
        else:
            out.print(f"removed {escape(name)}: {_size(states[name])}")
        return
    if name not in there:
        raise BadInputError(
            f"no image is called {name!r}",
            hint=f"{suggest(name, [*there, *states], 'there are none')}   (orchestrator image list)",
        )
    folder = cache / "images" / name
    if folder.is_symlink():
        raise BadInputError(f"{folder} is a link, not an image of this cache", hint=f"rm {folder}")
    users = [process.pid for process in processes_of(folder)]
    if users:
        raise BadInputError(
            f"{name} is in use by QEMU (pid {', '.join(map(str, users))})",
            hint="wait for the run, or if it was killed: orchestrator clean",
        )
    with locked(cache / "images"):
        # Without this file it is no image any more, should the rest be interrupted.
        (folder / "image.json").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    if as_json:
        print_json({"removed": there[name]})
    else:
        out.print(f"removed {escape(str(folder))}: {_size(there[name])} ({there[name]['bytes']} bytes)")


def _id(entry: dict[str, object]) -> str:
    return escape(Path(str(entry["folder"])).name)


def _kernels(entry: dict[str, object]) -> str:
    releases = entry["releases"]
    assert isinstance(releases, dict)  # noqa: S101  # as Image has it
    return escape(", ".join(f"{name} ({release})" for name, release in releases.items()))


def _size(entry: dict[str, object]) -> str:
    return format_size(int(str(entry["bytes"])))
