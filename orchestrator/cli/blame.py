"""`blame`: what pins each block still plugged, or of a machine that runs, and what would free it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.blame_live import LIVE, show_live
from orchestrator.cli.blame_view import json_of, show
from orchestrator.cli.complete import complete_runs_or_files
from orchestrator.cli.model_input import no_such_trial
from orchestrator.cli.options import Renamed, json_option, results_option
from orchestrator.cli.output import print_json, print_next
from orchestrator.errors import BadInputError
from orchestrator.units import PAGE_BYTES, PMD_BYTES, format_size, parse_size

if TYPE_CHECKING:
    from orchestrator.model.snapshot import Snapshot
    from orchestrator.store import TrialFolder

_MOST_FRAMES = 1 << 40


def _block(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        size = parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    if size < PAGE_BYTES or size.bit_count() != 1:
        raise click.BadParameter(f"{text} is not a power of two of at least 4KiB")
    return size


def _frame(_ctx: click.Context, _parameter: click.Parameter, text: str) -> int:
    try:
        pfn = int(text, 0)
    except ValueError:
        pfn = -1
    if not 0 <= pfn <= _MOST_FRAMES:
        raise click.BadParameter(f"{text!r} is not a frame number, such as 1048576 or 0x100000")
    return pfn


@click.command("blame")
@click.argument("target", metavar="RUN|FILE|live", shell_complete=complete_runs_or_files)
@click.option("--trial", "trial_id", metavar="TRIAL", help="One trial of the run; else all of them.")
@click.option(
    "--snapshot", "label", metavar="LABEL", help="A snapshot of the run; else the last after an unplug."
)
@click.option(
    "--block-size",
    "--block",
    "block",
    cls=Renamed,
    metavar="SIZE",
    callback=_block,
    help="Size of a block; else the device's, or 2MiB; of `live`, a memory block's.",
)
@click.option(
    "--all-memory",
    "--memory",
    "all_memory",
    cls=Renamed,
    is_flag=True,
    help="Read all of the guest's memory as blocks, not only its devices.",
)
@click.option(
    "--base-pfn", metavar="N", callback=_frame, default="0", help="First frame of a partial dump; 0x is hex."
)
@click.option(
    "--kpagecount",
    "counts",
    type=click.Path(path_type=Path),
    help="Copy of /proc/kpagecount; else the file of that name beside a dump called kpageflags.",
)
@click.option(
    "--meminfo", type=click.Path(path_type=Path), help="Copy of /proc/meminfo; else as for --kpagecount."
)
@click.option("--blocks", "list_blocks", is_flag=True, help="List every plugged block (--json has them).")
@click.option(
    "--connect",
    metavar="URI",
    help="With `live`: another machine, such as qemu+ssh://root@HOST/system, or `lab`.",
)
@results_option
@json_option
def blame_command(
    *,
    target: str,
    trial_id: str | None,
    label: str | None,
    block: int | None,
    all_memory: bool,
    base_pfn: int,
    counts: Path | None,
    meminfo: Path | None,
    list_blocks: bool,
    connect: str | None,
    results: Path,
    as_json: bool,
) -> None:
    """Say what pins each block of memory still plugged, and what would free it.

    \b
    RUN    a run folder, the beginning of its name, or `last`
    FILE   a snapshot (.npz of a trial), or a plain copy of /proc/kpageflags
    live   this machine as it is now, as root, or the one of --connect: what could be
           taken offline, what pins the rest, and whose it is

    \b
    orchestrator blame last
    orchestrator blame results/RUN/trials/TRIAL/snapshots/08-unplugged.npz --json
    dd if=/proc/kpageflags of=flags bs=1M; orchestrator blame flags --block-size 2MiB
    orchestrator blame live
    orchestrator blame live --connect qemu+ssh://root@HOST/system --json
    """
    from orchestrator.model.policies import StateView

    of_dump = {"base-pfn": base_pfn, "kpagecount": counts, "meminfo": meminfo}
    of_run = {"trial": trial_id, "snapshot": label}
    if target == LIVE:
        _refuse({**of_run, **of_dump, "all-memory": all_memory}, f"for a run or a file, not for `{LIVE}`")
        show_live(connect, block, list_blocks=list_blocks, as_json=as_json)
        return
    _refuse({"connect": connect}, f"for `orchestrator blame {LIVE}`")
    path = Path(target)
    if path.is_file():
        _refuse(of_run, "to select from a run, and this is a file")
        if _is_snapshot(path):
            _refuse(of_dump, f"for a plain copy of /proc/kpageflags, which {target} is not")
        chosen = iter([(path.name, _of_file(path, block, base_pfn, counts, meminfo))])
    else:
        _refuse(of_dump, f"for a plain copy of /proc/kpageflags, which {target} is not")
        chosen = _of_run(target, results, trial_id, label)
    found = []
    for name, snapshot in chosen:
        state = StateView.of(_with_blocks(snapshot, block, all_memory=all_memory))
        if as_json:
            found.append(json_of(name, state, base_pfn))
        else:
            show(name, state, base_pfn, list_blocks=list_blocks)
    if as_json:
        print_json({"snapshots": found})
    elif path.is_relative_to("/proc"):
        print_next(f"orchestrator blame {LIVE}   # by memory blocks and zones, and whose it is")


def _refuse(options: Mapping[str, object], why: str) -> None:
    """Raise for the first of some options that is given."""
    for name, given in options.items():
        if given:
            raise BadInputError(f"--{name} is {why}")


def _of_file(
    path: Path, block: int | None, base_pfn: int, counts: Path | None, meminfo: Path | None
) -> Snapshot:
    from orchestrator.store.raw_flags import read_raw_flags
    from orchestrator.store.snapshot_file import read_snapshot

    if _is_snapshot(path):
        return read_snapshot(path)
    return read_raw_flags(
        path,
        base_pfn=base_pfn,
        block_bytes=block or PMD_BYTES,
        counts=counts or _beside(path, "kpagecount"),
        meminfo=meminfo or _beside(path, "meminfo"),
    )


def _is_snapshot(path: Path) -> bool:
    # A zip archive that lost its end is no longer one for zipfile, and no dump of flags either.
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except OSError as error:
        raise BadInputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return head == b"PK\x03\x04" or zipfile.is_zipfile(path)


def _beside(path: Path, name: str) -> Path | None:
    """Another file of /proc beside a dump that is still called as it is there."""
    other = path.with_name(name)
    return other if path.name == "kpageflags" and other.is_file() else None


def _of_run(
    target: str, results: Path, trial_id: str | None, label: str | None
) -> Iterator[tuple[str, Snapshot]]:
    from orchestrator.records.events import SnapshotTaken, of_kind
    from orchestrator.store import find_run
    from orchestrator.store.snapshot_file import read_snapshot

    if Path(target).suffix in {".npz", ".bin"} and not Path(target).exists():
        raise BadInputError(f"{target}: no such file")
    run = find_run(target, results)
    trials = [trial for trial in run.trials if trial_id in {None, trial.id}]
    if not trials:
        raise no_such_trial(run, trial_id)
    for trial in trials:
        path = _snapshot_path(trial, label)
        if path is None:
            taken = [event.label for event in of_kind(trial.events, SnapshotTaken)]
            hint = f"it took: {', '.join(taken) or 'none'}"
            if label or trial_id:
                raise BadInputError(f"trial {trial.id} has no snapshot {label or ''}".rstrip(), hint=hint)
            continue
        yield trial.id, read_snapshot(path)


def _snapshot_path(trial: TrialFolder, label: str | None) -> Path | None:
    """The snapshot with that label; else the last one after the last step that took memory, or the last."""
    from orchestrator.records.events import SnapshotTaken, of_kind

    taken = [event for event in of_kind(trial.events, SnapshotTaken) if trial.snapshot_path(event)]
    if label:
        taken = [event for event in taken if event.label == label]
    return trial.snapshot_path(taken[-1]) if taken else None


def _with_blocks(snapshot: Snapshot, block: int | None, *, all_memory: bool) -> Snapshot:
    """The snapshot with the requested regions and blocks."""
    from orchestrator.model.snapshot import Region

    pages = (block or PMD_BYTES) // PAGE_BYTES
    if all_memory or not snapshot.regions:
        whole = -(-len(snapshot.flags) // pages) * pages
        return replace(snapshot, regions=(Region("memory", 0, whole, pages, plugged_bytes=0),))
    if block is None:
        return snapshot

    def cut(region: Region) -> Region:
        if region.pages % pages or region.start_pfn % pages:
            raise BadInputError(
                f"{region.name} is not a whole number of blocks of {format_size(pages * PAGE_BYTES)}",
                hint=f"its own are {format_size(region.block_pages * PAGE_BYTES)}",
            )
        return replace(region, block_pages=pages)

    return replace(snapshot, regions=tuple(map(cut, snapshot.regions)))
